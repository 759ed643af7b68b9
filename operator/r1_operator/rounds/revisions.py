"""Which revision is wanted, which one has served before it, and whether the wanted one has proven itself.

A revision is kept as it was rendered. As long as the spec asks for the same, the kept one is wanted: another default
image, another planner or another hardware profile of a later operator restarts nobody. To take them over is a decision:
`spec.strategy.restartedAt`, or the operator's `--adopt-defaults=Staggered`, one R1Deployment after the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..api.types import to_wire
from ..lifecycle.gangs import GangState
from ..lifecycle.judging import Evidence, Verdict
from ..manifests.template import Template, template_of
from ..status.plan import plan_status
from .asked import asked_hash
from .facts import Facts
from .reading import Subject


@dataclass(frozen=True, slots=True)
class Revisions:
    """`wanted`: what the replicas are to become; None: nothing can be planned. `asked`: what the spec asks for, which
    an aborted trial keeps from being wanted. `stable`: what has served; empty: nothing has. `newer`: what the present
    operator would make of the same spec, if that is something else."""

    wanted: Template | None = None
    asked: Template | None = None
    stable: str = ""
    proven: bool = True
    newer: Template | None = None

    @property
    def aborted(self) -> bool:
        """The trial of what the spec asks for has failed."""
        return self.wanted is not self.asked

    def taken_back(self, kept: Mapping[str, Template]) -> Revisions:
        """After a trial that has failed: what served before is wanted, where it is known."""
        if self.asked is None or self.stable not in kept or self.stable == self.asked.revision:
            return self
        return replace(self, wanted=kept[self.stable], proven=True)


def revisions(facts: Facts, verdicts: Mapping[str, Verdict], evidence: Evidence, now: float) -> Revisions:
    """What is wanted in this round. Deterministic."""
    fresh = _rendered(facts.subject)
    if fresh is None:
        return Revisions(stable=_stable(facts, verdicts, None))
    kept = _pinned(facts, fresh)
    asked = kept if kept is not None and not (facts.may_adopt and facts.settings.adopts) else fresh
    newer = fresh if kept is not None and asked is kept and fresh.revision != kept.revision else None
    stable = _stable(facts, verdicts, asked)
    rollout = facts.subject.status.rollout
    tried = rollout.canary if rollout is not None and rollout.revision == asked.revision else "None"
    if tried == "Aborted":
        return Revisions(asked, asked, stable, False, newer).taken_back(facts.templates)
    proven = stable in {"", asked.revision} or _proven(facts, verdicts, evidence, asked, tried, now)
    return Revisions(asked, asked, stable, proven, newer)


def _rendered(subject: Subject) -> Template | None:
    if subject.context is None or subject.spec is None:
        return None
    plan = to_wire(plan_status(subject.context.plan))
    template = template_of(subject.context)
    return replace(template, asked=subject.asked, asked_hash=asked_hash(subject.spec), plan=plan)


def _pinned(facts: Facts, fresh: Template) -> Template | None:
    """The kept revision that was made of the same wish. A wish that holds fields we do not know is compared as it is
    written."""
    same = {
        t.revision: t
        for t in facts.templates.values()
        if (t.asked_hash and t.asked_hash == fresh.asked_hash and not facts.subject.unknown)
        or (t.asked and t.asked == fresh.asked)
    }
    status = facts.subject.status
    for revision in (
        status.update_revision,
        status.rollout.revision if status.rollout else "",
        status.current_revision,
    ):
        if revision in same:
            return same[revision]
    return max(same.values(), key=lambda t: (t.made_at, t.revision), default=None)


def _stable(facts: Facts, verdicts: Mapping[str, Verdict], asked: Template | None) -> str:
    """What has served, if anything is left to protect."""
    status = facts.subject.status
    if status.current_revision and facts.remembers:
        # Somebody had stopped everything: what comes next is what is asked for.
        stopped = status.desired_replicas == 0 and not facts.gangs
        return "" if stopped else status.current_revision
    ready = [g.revision for g in facts.gangs if verdicts[g.name].state in {GangState.READY, GangState.UNREADY}]
    if asked is not None and asked.revision in ready:
        return asked.revision
    return max(sorted(set(ready)), key=Counter(ready).__getitem__, default="")


def _proven(
    facts: Facts, verdicts: Mapping[str, Verdict], evidence: Evidence, asked: Template, tried: str, now: float
) -> bool:
    """A gang of it has been ready for long enough, and its trial, where it has one, has passed."""
    spec = facts.subject.spec
    if spec is None:
        return False
    if spec.strategy.canary is not None:
        return tried == "Passed"
    return ready_for(facts, verdicts, evidence, asked.revision, now) >= spec.strategy.min_ready_seconds


def ready_for(facts: Facts, verdicts: Mapping[str, Verdict], evidence: Evidence, revision: str, now: float) -> float:
    """Seconds for which some gang of a revision has been ready without a break; -1: none is."""
    since = [
        now - record.since
        for gang in facts.gangs
        if gang.revision == revision
        and verdicts[gang.name].state is GangState.READY
        and (record := evidence.records.get(gang.replica)) is not None
        and (record.attempt, record.stage) == (gang.attempt, GangState.READY)
    ]
    return max(since, default=-1.0)
