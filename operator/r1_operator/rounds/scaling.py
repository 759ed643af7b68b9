"""How many replicas are wanted: the user's number, or the autoscaler's last word that stands in the status."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..api.timestamps import unix_time
from ..api.types import AutoscalingHistory
from ..autoscaling.capacity import Prior
from ..autoscaling.decide import Decision, ScalingState, decide, start_seconds
from ..autoscaling.memory import Memory
from ..autoscaling.schedule import bounds
from ..lifecycle.gangs import Gang, GangState
from ..lifecycle.judging import Verdict
from .facts import Facts

RETRY_SECONDS = 10
"""Nobody is told to ask sooner."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """What the autoscaler says now, and what is in force: its last word that stands in the status, so that it survives
    this process. `by_user`: what is in force is somebody's own number."""

    in_force: int
    by_user: bool = True
    decision: Decision | None = None
    last_up: float | None = None
    last_down: float | None = None
    spares: int = 0
    retry_after: int | None = None
    """Where there may be none: in how many seconds who asks in vain is to ask again."""

    @property
    def total(self) -> int:
        """Replicas that there are to be."""
        return self.in_force + self.spares


def scale(facts: Facts, verdicts: Mapping[str, Verdict], now: float) -> Scaling:
    """Decide on the number of replicas, and how many spares there are beside them: none where none is wanted."""
    found = _scale(facts, verdicts, now)
    return replace(found, spares=_spares(facts) if found.in_force else 0)


def _spares(facts: Facts) -> int:
    """What is asked for; while the spec cannot be read, what was."""
    spec = facts.subject.spec
    return spec.spare_replicas if spec is not None else facts.subject.status.spare_replicas


def _scale(facts: Facts, verdicts: Mapping[str, Verdict], now: float) -> Scaling:
    """A status that was not read back counts as what runs, not as the first value."""
    spec, status = facts.subject.spec, facts.subject.status
    if spec is None:
        running = len([g for g in facts.gangs if verdicts[g.name].state is not GangState.LEAVING])
        known = facts.written and "status.desiredReplicas" not in facts.subject.unread
        return Scaling(status.desired_replicas if known else _without_spares(facts, running), by_user=False)
    config = spec.autoscaling
    if config is None or spec.replicas == 0:
        return Scaling(spec.replicas)
    before = status.autoscaling
    decided = before if before is not None and before.mode == config.mode == "Automatic" else None
    last_up = _past(decided.last_scale_up if decided else None, now)
    last_down = _past(decided.last_scale_down if decided else None, now)
    if decided is not None:
        current = decided.desired_replicas
    else:
        current = spec.replicas if config.mode == "Recommend" else _what_runs(facts, spec.replicas)
    starting = [g for g in facts.gangs if verdicts[g.name].state is GangState.STARTING]
    state = ScalingState(
        desired=current,
        ready=sum(1 for v in verdicts.values() if v.state is GangState.READY),
        # What waits for nodes, hangs or fails carries nothing soon: it must not hold up a step down.
        starting=len(starting),
        starting_since=min((_started(g) for g in starting), default=None),
        start_seconds=facts.engines.start_seconds,
        last_up=last_up,
        last_down=last_down,
        spares=spec.spare_replicas,
        running_capacity=facts.subject.plan.limits.max_running_requests if facts.subject.plan else None,
        prior=_prior(facts),
        memory=_memory(before.history if before is not None else None),
        revision=status.current_revision,
        target=spec.slo.tpot_milliseconds / 1000 if spec.slo is not None and spec.slo.tpot_milliseconds else None,
        asked=facts.gateways.asked,
    )
    decision = decide(config, facts.engines.minutes, facts.engines.window, state, now)
    if config.mode == "Recommend":
        return Scaling(spec.replicas, True, decision)
    limits = bounds(config, now, start_seconds(config, state))
    in_force = min(max(current, limits.minimum), limits.maximum)
    if decision.desired > in_force:
        last_up = now
    elif decision.desired < in_force:
        last_down = now
    waits = _retry_after(start_seconds(config, state), state, now) if limits.minimum == 0 else None
    return Scaling(in_force, False, decision, last_up, last_down, retry_after=waits)


def _retry_after(took: float, state: ScalingState, now: float) -> int:
    """Until the first replica is ready; of one that takes longer than they did nobody knows."""
    since = now - state.starting_since if state.starting_since is not None else 0.0
    return max(RETRY_SECONDS, math.ceil(took - since))


def _memory(history: AutoscalingHistory | None) -> Memory | None:
    until = unix_time(history.until) if history is not None else None
    if history is None or until is None:
        return None
    alone, line = history.alone_millitokens, None
    if alone:
        line = (alone / 1000, history.request_millitokens / 1000, history.token_microtokens / 1_000_000)
    return Memory(until, tuple(p / 100 for p in history.needed_percents), line, history.revision)


def _prior(facts: Facts) -> Prior | None:
    """What the planner expects of one replica at its fullest."""
    estimate = facts.subject.plan.estimate if facts.subject.plan is not None else None
    if estimate is None or estimate.tokens_per_second <= 0:
        return None
    seconds = estimate.concurrency / estimate.tokens_per_second
    return Prior(estimate.concurrency, seconds, estimate.output_tokens)


def _past(text: str | None, now: float) -> float | None:
    """A time of the status; one that lies ahead was written by a leader with another clock, and counts as now."""
    moment = unix_time(text)
    return None if moment is None else min(moment, now)


def _what_runs(facts: Facts, first: int) -> int:
    replicas = {gang.replica for gang in facts.gangs if not any(m.deleting for m in gang.members)}
    known = replicas and facts.subject.status.autoscaling is None
    return _without_spares(facts, len(replicas)) if known else first


def _without_spares(facts: Facts, running: int) -> int:
    return max(min(running, 1), running - _spares(facts))


def _started(gang: Gang) -> float:
    return max(m.scheduled_at or m.created_at for m in gang.members)
