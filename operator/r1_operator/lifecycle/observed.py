"""What the lifecycle decides on: the wish, what there is, and how much may be ended."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from .gangs import Gang
from .judging import Evidence


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the spec and the autoscaler ask for.

    `revision`: what is wanted. `stable`: what has served before it and still does; empty: none. `proven`: a gang of
    `revision` has served for long enough, so that the others may follow; until then one gang tries it, and whatever
    else is made is made as `stable`. `may_try`: not paused. `hold`: nothing is rolled (invalid spec, missing weights).
    """

    name: str
    replicas: int
    revision: str
    size: int
    hold: bool = False
    alone: bool = False
    """Two gangs cannot run at once: their volume lets one node in. A roll drains before it creates."""
    stable: str = ""
    proven: bool = True
    may_try: bool = True
    max_surge: int = 1
    """Gangs beyond `replicas` that a change may have: they wait gated, and cost nobody a node before they have one."""
    max_unavailable: int = 1
    """Replicas that a change may take away before others have taken their place, where there is no other way."""

    @property
    def on_trial(self) -> frozenset[str]:
        """The revision of which nobody knows yet whether it serves; none where it is proven, or nothing has served."""
        return frozenset({self.revision} if self.stable and not self.proven else ())

    @property
    def settled(self) -> bool:
        """Everything that is made is made as `revision`."""
        if self.hold or self.revision == self.stable:
            return not self.hold
        return self.may_try and (self.proven or not self.stable)


class Room(Protocol):
    """Placement as a question about gangs of the wanted revision. Never asked without need: it looks at every node."""

    def spare(self) -> int:
        """How many of them the free nodes could take now, those that wait already included."""

    def after(self, gone: Collection[str], count: int) -> bool:
        """Whether `count` of them would have nodes if these gangs had gone."""

    def quota_after(self, victim: str) -> bool:
        """Whether one of them asks the quotas for no more than the gang `victim` would give back."""

    def shortage(self) -> str:
        """What one of them lacks, in words that do not change with every pod of the cluster."""


class Nowhere:
    """No gang of the wanted revision can be asked about: there is no plan."""

    def spare(self) -> int:
        return 0

    def after(self, gone: Collection[str], count: int) -> bool:
        return False

    def quota_after(self, victim: str) -> bool:
        return False

    def shortage(self) -> str:
        return ""


NO_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much this round may end without a human's word. `rounds/guard.py` says; the lifecycle keeps to it.

    `nothing`: why nothing at all may be ended; empty when something may. `scale_down`: serving gangs that may go in
    this round because fewer are wanted. `rotation`: gangs that every gateway pod sends requests to; None: unknown.
    """

    nothing: str = ""
    scale_down: int = NO_LIMIT
    rotation: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """The last create was refused, and is not tried again before `until` (unix seconds).

    `quota`: by a ResourceQuota. `overdrawn`: more of it is used than it allows, or that is not known: what one gang
    gives back, another one would not get.
    """

    message: str
    until: float
    quota: bool = False
    overdrawn: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """What there is. By gang name: `loads` (requests running or waiting; a gang that is missing there is unknown, not
    idle) and `broken`: why its pins cannot come true any more; `moving`: why it is to leave its nodes. `templates`:
    revisions of which pods can be made, and how many a gang of each has."""

    gangs: tuple[Gang, ...]
    evidence: Evidence
    loads: Mapping[str, int] = field(default_factory=dict)
    room: Room = field(default_factory=Nowhere)
    allowance: Allowance = Allowance()
    refusal: Refusal | None = None
    broken: Mapping[str, str] = field(default_factory=dict)
    moving: Mapping[str, str] = field(default_factory=dict)
    templates: Mapping[str, int] = field(default_factory=dict)
    attempt_floor: int = 0
    """First attempt of a replica of which nothing is left."""
