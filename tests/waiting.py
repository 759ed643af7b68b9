"""Waiting for conditions: a deadline, a probe, and an error that says what was seen last."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")


class NeverCame(AssertionError):
    """A condition did not come true in time."""


def wait_for(
    what: str,
    probe: Callable[[], Seen],
    seconds: float,
    *,
    until: Callable[[Seen], object] = bool,
    interval: float = 0.5,
    describe: Callable[[Seen], object] = lambda seen: seen,
) -> Seen:
    """Calls `probe` every `interval` s until `until` accepts what it returns.

    Raises NeverCame after `seconds`, with `describe` of what was seen last.
    """
    deadline = time.monotonic() + seconds
    while True:
        seen = probe()
        if until(seen):
            return seen
        if time.monotonic() > deadline:
            raise NeverCame(f"{what}: not within {seconds:.0f} s; last seen: {describe(seen)}")
        time.sleep(interval)
