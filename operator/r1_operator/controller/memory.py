"""What carrying rounds out has taught about each R1Deployment. In memory only: after a restart it is learned anew."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..cluster import ApiError
from ..lifecycle.observed import Refusal
from ..placement.quantity import parse_quantity
from ..rounds.facts import Child
from .gateway import GatewayRound
from .queue import Key

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 2.0, 30.0
"""Between tries of a create that is refused. A quota is raised by somebody who looks on, so never long."""
SECRET_SECONDS = 300.0
"""How often a Secret that we may not read is made again, if it is not there any more."""
TAKEN_SECONDS = 15.0
"""How long a name counts as taken before we look again."""


@dataclass(frozen=True, slots=True)
class Lessons:
    """`refusal`: the last create of a pod was refused, so many times in a row, for the spec of that generation.
    `taken`: names that belong to others, and until when that is believed. `gateway`: what the last feed said."""

    refusal: Refusal | None = None
    refusals: int = 0
    generation: int = 0
    taken: Mapping[Child, tuple[str, float]] | None = None
    gateway: GatewayRound | None = None


class Memory:
    """Lessons by R1Deployment."""

    def __init__(self) -> None:
        self._lessons: dict[Key, Lessons] = {}
        self._secrets: dict[Key, tuple[str, float]] = {}
        self._outdated: set[Key] = set()

    def of(self, key: Key) -> Lessons:
        return self._lessons.get(key, Lessons())

    def forget(self, key: Key) -> None:
        self._lessons.pop(key, None)
        self._secrets.pop(key, None)
        self._outdated.discard(key)

    def outdated(self, key: Key, is_so: bool) -> None:
        """Whether this operator would make something else of its spec than what is wanted of it."""
        (self._outdated.add if is_so else self._outdated.discard)(key)

    def is_first(self, key: Key) -> bool:
        """Whether it is the first, by name, of those that are outdated."""
        return key == min(self._outdated, default=None)

    def secret_due(self, key: Key, name: str, now: float) -> bool:
        """Whether the Secret of this name may not be there: never made by us, another's name, or made long ago."""
        made, at = self._secrets.get(key, ("", now))
        return made != name or not 0 <= now - at < SECRET_SECONDS

    def secret_made(self, key: Key, name: str, now: float) -> None:
        """It is there now."""
        self._secrets[key] = (name, now)

    def fed(self, key: Key, gateway: GatewayRound) -> None:
        self._lessons[key] = replace(self.of(key), gateway=gateway)

    def taken(self, key: Key, child: Child, whose: str, now: float) -> None:
        known = dict(self.of(key).taken or {})
        known[child] = (whose, now + TAKEN_SECONDS)
        self._lessons[key] = replace(self.of(key), taken=known)

    def taken_by_others(self, key: Key, now: float) -> dict[Child, str]:
        return {child: whose for child, (whose, until) in (self.of(key).taken or {}).items() if now < until}

    def refused(self, key: Key, generation: int, error: ApiError, now: float) -> None:
        """A pod was refused. What the API server itself asks for counts where it is longer than our own wait."""
        before = self.of(key)
        count = before.refusals + 1 if before.generation == generation else 1
        wait = min(FIRST_WAIT_SECONDS * 2.0 ** min(count - 1, 10), LONGEST_WAIT_SECONDS)
        until, quota = now + max(wait, error.retry_after or 0.0), is_quota(error)
        refusal = Refusal(error.message, until, quota, quota and overdrawn(error.message))
        self._lessons[key] = replace(before, refusal=refusal, refusals=count, generation=generation)

    def created(self, key: Key) -> None:
        """A whole gang was created: nothing is refused any more."""
        before = self.of(key)
        if before.refusal is not None:
            self._lessons[key] = replace(before, refusal=None, refusals=0)

    def refusal(self, key: Key, generation: int) -> Refusal | None:
        """What was refused of the spec of this generation: another spec may be taken."""
        known = self.of(key)
        return known.refusal if known.generation == generation else None


def is_quota(error: ApiError) -> bool:
    """Whether a ResourceQuota refused it. The API server says so in words alone (plugin/resourcequota/admission)."""
    return error.status == 403 and "exceeded quota" in error.message


def overdrawn(message: str) -> bool:
    """Whether more of the quota is in use than it allows (somebody has lowered it), by the API server's own words:
    `… requested: pods=1, used: pods=3, limited: pods=2`. What cannot be read counts as overdrawn."""
    found = re.search(r"used: (.*), limited: (.*)$", message)
    if found is None:
        return True
    try:
        used, limited = ({k: parse_quantity(v) for k, v in map(_pair, part.split(","))} for part in found.groups())
        return any(amount > limited[resource] for resource, amount in used.items())
    except (KeyError, ValueError):
        return True


def _pair(text: str) -> tuple[str, str]:
    resource, _, amount = text.strip().partition("=")
    return resource, amount
