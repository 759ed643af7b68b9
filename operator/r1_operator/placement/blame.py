"""What is held against a node: failures that name it, for a time that grows with each of them and fades. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..api.timestamps import rfc3339, unix_time

FIRST_SECONDS, LONGEST_SECONDS = 3600.0, 86_400.0
"""How long a node is avoided after one failure; twice as long after each further one."""
FADES_SECONDS = 86_400.0
"""For each day without another one, one failure is forgotten."""
REMEMBERED = 16
"""Failures that are told apart, so that none counts twice."""
_TELLING = frozenset({"GpuUnhealthy"})
"""What a machine says of itself explains the failures that follow, and stays the reason."""
NEVER_UNLESS_ALONE = 1_000
"""Level of a node that says itself, by a condition of the site's choice, that something is wrong with it."""


@dataclass(frozen=True, slots=True)
class Blame:
    """One failure that speaks against a node. `key`: what it is told apart by. `at`: unix seconds."""

    node: str
    key: str
    reason: str
    message: str
    at: float


@dataclass(frozen=True, slots=True)
class Held:
    """What is held against one node. `count` failures, the last one `at`; `keys`: the latest ones'."""

    count: int
    at: float
    reason: str
    message: str
    keys: tuple[str, ...] = ()

    @property
    def until(self) -> float:
        """When it may be taken like any other again, in unix seconds."""
        return self.at + min(FIRST_SECONDS * 2.0 ** min(self.count - 1, 16), LONGEST_SECONDS)


def held_against(before: Held | None, blame: Blame, now: float) -> Held:
    """After one more failure. One that is known already changes nothing."""
    if before is not None and blame.key in before.keys:
        return before
    count = _left(before, now) if before is not None else 0
    keys = (*(before.keys if before is not None else ()), blame.key)[-REMEMBERED:]
    reason, message = blame.reason, blame.message
    if before is not None and before.reason in _TELLING and reason not in _TELLING and now < before.until:
        reason, message = before.reason, before.message
    return Held(count + 1, min(blame.at, now), reason, message, keys)


def _left(held: Held, now: float) -> int:
    return max(0, held.count - int(max(0.0, now - held.at) // FADES_SECONDS))


def faded(held: Mapping[str, Held], now: float) -> dict[str, Held]:
    """What is still held against nodes at a later time; the clock of another leader may have been ahead."""
    kept = {node: replace(each, at=min(each.at, now)) for node, each in held.items()}
    return {node: each for node, each in kept.items() if _left(each, now) > 0 or now < each.until}


def levels(held: Mapping[str, Held], now: float) -> dict[str, int]:
    """By node: how much it is to be avoided; those that may be taken like any other are left out."""
    return {node: max(1, _left(each, now)) for node, each in held.items() if now < each.until}


# --- as it is kept ---------------------------------------------------------------------------------------------------
def to_text(held: Held) -> str:
    """One entry of the ConfigMap: JSON that a person can read."""
    times = {"at": rfc3339(held.at), "avoidedUntil": rfc3339(held.until)}
    words = {"failures": held.count, "reason": held.reason, "message": held.message}
    return json.dumps(words | times | {"keys": list(held.keys)})


def from_texts(data: Mapping[str, str]) -> dict[str, Held]:
    """All entries. One that cannot be read, or that somebody has edited away, is as good as none."""
    return dict(_readable(data.items()))


def _readable(entries: Iterable[tuple[str, str]]) -> Iterable[tuple[str, Held]]:
    for node, text in entries:
        try:
            said: Any = json.loads(text)
            at = unix_time(said["at"])
            if at is not None:
                keys = tuple(str(key) for key in said.get("keys") or ())
                yield node, Held(int(said["failures"]), at, str(said["reason"]), str(said["message"]), keys)
        except (KeyError, TypeError, ValueError):
            continue
