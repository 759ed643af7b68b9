"""Has a start failed? Decided from when its nodes last went forward, without clock or network.

A load of R1 takes minutes or hours, depending on the disk, and all of it is lost when a start is ended. So a start
fails when it stands still: no node joins, reads weights, compiles, gets on in its output or gives a rank's first token.
One node that goes forward is enough: the others may well be waiting for it. A second, generous limit on the whole start
is for what goes forward and never arrives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from r1_engine.gang import Gang
from r1_engine.health import Moment, Patience
from r1_engine.outcome import Cause, Exit
from r1_engine.stages import Stage, order

_LOOK = {
    Stage.RAY: "See whether that node reads from the volume of spec.model.weights, and reaches the others.",
    Stage.WEIGHTS: "Look at the volume of spec.model.weights, and at that node and its GPUs.",
}


@dataclass(frozen=True)
class Limits:
    """Seconds a start may stand still (`stall`) and may take in all (`total`)."""

    stall: float
    total: float


@dataclass(frozen=True)
class Course:
    """How a start has gone so far. `last`, by node index: when the node last went forward; `steps`: how many steps it
    has counted by then, in its own count, which never falls."""

    began: Moment
    last: Mapping[int, Moment] = field(default_factory=dict)
    steps: Mapping[int, int] = field(default_factory=dict)

    def heard(self, index: int, steps: int, now: Moment) -> Course:
        """What a node says of itself; the same value when it has not moved. Its first word is a step, too."""
        if self.steps.get(index, -1) >= steps:
            return self
        return replace(self, last={**self.last, index: now}, steps={**self.steps, index: steps})

    def excused(self, seconds: float, now: float) -> Course:
        """Node 0's agent did not run for `seconds` and could hear of no progress."""
        later = {index: replace(moment, at=min(now, moment.at + seconds)) for index, moment in self.last.items()}
        return replace(self, last=later)

    @property
    def latest(self) -> Moment:
        """The last progress of all."""
        return max(self.last.values(), key=lambda moment: moment.at, default=self.began)


def verdict(course: Course, gang: Gang, silent_ranks: Sequence[int], now: Moment, limits: Limits) -> Cause | None:
    """Why the start has failed, or None while it may go on.

    Time in which the engine's processes waited for a CPU does not count as standing still, up to `stall` again: they
    are counted together, and a machine so busy that nothing moves in twice the time does not start an engine.
    """
    if now.at - course.began.at >= limits.total:
        limit = f"The gang was not ready after spec.startup.seconds = {limits.total:g}"
        return _failed("StartTimedOut", limit, "Raise the field if it was only slow.", course, gang, silent_ranks, now)
    latest = course.latest
    if Patience(limits.stall, starved=limits.stall).exhausted(latest, now):
        stood = f"The start stood still for {now.at - latest.at:.0f} s (spec.startup.stallSeconds = {limits.stall:g})"
        remedy = "Raise the field if this step only takes long here."
        return _failed("StartStoodStill", stood, remedy, course, gang, silent_ranks, now)
    return None


def _failed(
    reason: str, limit: str, remedy: str, course: Course, gang: Gang, silent_ranks: Sequence[int], now: Moment
) -> Cause:
    """Who kept the gang from becoming ready: a node that never came, the one furthest behind, ranks without a token."""
    if missing := [index for index in range(gang.nodes) if index not in gang.members]:
        who = ", ".join(gang.describe(index) for index in missing)
        message = f"{limit}: {who} never came. See whether its pod runs and reaches node 0's agent. {remedy}"
        return Cause(Exit.NEVER_READY, "NodeNeverCame", message, who)

    def behind_by(index: int) -> tuple[int, float]:
        return order(gang.members[index].stage), course.last.get(index, course.began).at

    last = gang.members[min(gang.members, key=behind_by)]
    if last.stage in _LOOK:
        where = f"{gang.describe(last.index)} is still in stage {last.stage}: {last.message}"
        signs = ", ".join(
            f"node {index} {now.at - course.last.get(index, course.began).at:.0f} s ago"
            for index in sorted(gang.members)
        )
        message = f"{limit}: {where} Last progress: {signs}. {_LOOK[last.stage]} {remedy}"
        return Cause(Exit.NEVER_READY, reason, message, last.name)
    ranks = ", ".join(str(rank) for rank in silent_ranks) or "none"
    message = f"{limit}: the server answers, but no token came out of DP rank(s) {ranks}. {remedy}"
    return Cause(Exit.NEVER_READY, reason, message, gang.members[0].name)
