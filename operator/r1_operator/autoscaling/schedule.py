"""Within which limits the number of replicas stays at an hour of the day: the spec's own, or its schedules'. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..api.cron import last_time
from ..api.types import Autoscaling, ScalingSchedule


@dataclass(frozen=True, slots=True)
class Bounds:
    """`by`: the schedules that set them; empty: none."""

    minimum: int
    maximum: int
    by: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """As messages say where they come from."""
        return f" (schedule {', '.join(self.by)})" if self.by else ""


def bounds(config: Autoscaling, now: float, ahead: float) -> Bounds:
    """What holds now, or `ahead` s later, whichever is more: what a schedule wants at its start has to start before."""
    here, there = _at(config, now), _at(config, now + ahead)
    if there.minimum <= here.minimum:
        return here
    return Bounds(there.minimum, max(here.maximum, there.maximum), there.by)


def bounded_by(config: Autoscaling, found: Bounds) -> Autoscaling:
    """The configuration with these limits."""
    return config.model_copy(update={"min_replicas": found.minimum, "max_replicas": found.maximum})


def _at(config: Autoscaling, moment: float) -> Bounds:
    found = [s for s in config.schedules if _in_force(s, moment)]
    if not found:
        return Bounds(config.min_replicas, config.max_replicas)
    return Bounds(
        max(s.min_replicas for s in found),
        max(s.max_replicas or config.max_replicas for s in found),
        tuple(s.name for s in found),
    )


def _in_force(schedule: ScalingSchedule, moment: float) -> bool:
    start, end = (last_time(each, schedule.time_zone, moment) for each in (schedule.start, schedule.end))
    return start > end
