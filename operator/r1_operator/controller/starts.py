"""What starts cost here, by stage: from the gang's pods until its engine begins, then by its own account."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ..lifecycle.gangs import Gang

PLACEMENT, CONTAINERS = "Placement", "Containers"
"""From the gang's creation to its nodes, and on to the container of node 0: images, mounts, init containers."""
KEPT: Final = 5
"""Starts that say how long the next one takes."""


def stages_of(gang: Gang, timings: Mapping[str, float]) -> Mapping[str, float]:
    """Seconds of each stage of a gang that is ready, in order; only the engine's where the pods do not tell."""
    own = {f"{stage[0].upper()}{stage[1:]}": seconds for stage, seconds in timings.items()}
    head, bound = gang.head, [m.scheduled_at for m in gang.members if m.scheduled_at is not None]
    if head is None or head.running_since is None or len(bound) < len(gang.members):
        return own
    placed = max(bound)
    before = {PLACEMENT: placed - min(m.created_at for m in gang.members), CONTAINERS: head.running_since - placed}
    return {stage: max(0.0, seconds) for stage, seconds in before.items()} | own


@dataclass(slots=True)
class Starts:
    """The last starts of one R1Deployment, by gang, oldest first."""

    seen: dict[str, Mapping[str, float]] = field(default_factory=dict)

    def add(self, gang: Gang, timings: Mapping[str, float]) -> None:
        """Of a gang that is ready; each counts once."""
        if gang.name not in self.seen:
            self.seen[gang.name] = stages_of(gang, timings)
            for old in list(self.seen)[:-KEPT]:
                del self.seen[old]

    @property
    def last(self) -> Mapping[str, float]:
        """Seconds by stage; empty: none was seen."""
        return next(reversed(self.seen.values()), {})

    @property
    def seconds(self) -> float | None:
        """What the next one takes, once it has nodes: of the last ones the longest but for one, which is chance."""
        took = sorted(sum(s for stage, s in each.items() if stage != PLACEMENT) for each in self.seen.values())
        return (took[-2] if len(took) > 2 else took[-1]) if took else None
