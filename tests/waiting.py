"""Waiting for conditions: a deadline, a probe, and an error that says what was seen last."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

Seen = TypeVar("Seen")


PATIENCE_SECONDS: Final = 180.0
"""For what takes 2 s on a quiet machine: it took more than 60 with seven busy processes for each core. A limit that is
too long costs nothing but the time until a failure is told."""


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


def freeze(pid: int) -> None:
    """SIGSTOP, until every thread of the process stands still: on a busy machine one may first end what it is at."""
    os.kill(pid, signal.SIGSTOP)
    wait_for(f"process {pid} stands still", lambda: _states(pid), PATIENCE_SECONDS, until={"T"}.__eq__, interval=0.01)


def _states(pid: int) -> set[str]:
    """States of a process's threads, as in /proc/PID/stat."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return {(thread / "stat").read_text().rpartition(")")[2].split()[0] for thread in threads}


def listens(path: Path) -> bool:
    """Whether somebody listens on a Unix socket. Its file proves nothing: it is there before anybody listens (and after
    a kill), and a client that comes in between is refused, or backs off as gRPC does and refuses all calls meanwhile.
    """
    with socket.socket(socket.AF_UNIX) as client, contextlib.ExitStack() as opened:
        try:
            # Through its folder, because an address holds 107 bytes.
            folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
            opened.callback(os.close, folder)
            client.connect(f"/proc/self/fd/{folder}/{path.name}")
        except OSError:
            return False
        return True
