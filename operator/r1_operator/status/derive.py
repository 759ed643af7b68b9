"""The whole status of one round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..api.timestamps import rfc3339, unix_time
from ..api.types import (
    AutoscalingHistory,
    AutoscalingOutlook,
    AutoscalingStatus,
    LoadStatus,
    R1DeploymentStatus,
    ReplicaStatus,
    RolloutStatus,
)
from ..autoscaling.decide import Decision as ScalingDecision
from ..lifecycle.gangs import GangState
from ..lifecycle.records import gangs_in
from .conditions import conditions
from .health import ready_count, replicas, updated
from .observation import Observation
from .plan import plan_status
from .replicas import replica_statuses
from .wording import same_words, shorten

LOAD_PERIOD_SECONDS = 30.0
"""Load numbers change all the time; they are written at most this often."""
PROGRESS_SECONDS = 30.0
"""So are the figures in what a replica says of itself ("42 of 163 shards")."""
FIGURES_SECONDS = 300.0
"""Figures in conditions and in the autoscaler's words by themselves are worth a write only this often."""

_SCALING_BYTES = 1024


def derive(previous: R1DeploymentStatus, observed: Observation, now: float) -> R1DeploymentStatus:
    """Status of this round: `previous` itself when nothing worth a write has changed."""
    fresh = _fresh(previous, observed, now)
    if _with_old_figures(previous, fresh, now) == previous:
        return previous
    return fresh.model_copy(update={"last_update_time": rfc3339(now)})


def _fresh(previous: R1DeploymentStatus, observed: Observation, now: float) -> R1DeploymentStatus:
    known = {r.name: r for r in previous.replica_statuses}
    entries = replica_statuses(known, observed, now)
    return R1DeploymentStatus(
        observed_generation=observed.generation,
        **_counts(previous, observed),
        attempt_floor=_attempt_floor(previous, entries),
        gpus=_gpus(previous, observed),
        selector=observed.selector,
        last_update_time=previous.last_update_time,
        plan=observed.layout or (plan_status(observed.plan) if observed.plan is not None else previous.plan),
        rollout=_rollout(previous, observed, now),
        load=_load(previous.load, observed, now),
        autoscaling=_autoscaling(previous.autoscaling, observed, now),
        replica_statuses=entries,
        conditions=conditions(previous.conditions, observed, now, known),
    )


def _counts(previous: R1DeploymentStatus, observed: Observation) -> dict[str, Any]:
    """How many replicas there are, in which states, and of which revisions. What was not looked at stays as it was."""
    if observed.decision is None:
        kept = {"replicas", "ready_replicas", "updated_replicas", "current_revision", "update_revision"}
        counts: dict[str, Any] = {name: getattr(previous, name) for name in kept}
    else:
        counts = {
            "replicas": len(observed.decision.replicas),
            "ready_replicas": ready_count(observed),
            "updated_replicas": updated(observed) if observed.revision else previous.updated_replicas,
            "current_revision": _current_revision(previous, observed),
            "update_revision": observed.revision or previous.update_revision,
        }
    missing = max(0, observed.total - counts["ready_replicas"])
    wanted = {"desired_replicas": observed.desired, "spare_replicas": observed.spares}
    return counts | wanted | {"unavailable_replicas": missing}


def _attempt_floor(previous: R1DeploymentStatus, entries: Sequence[ReplicaStatus]) -> int:
    """Above every attempt that is gone and was its replica's last, whatever index comes next."""
    left = dict(sorted(gangs_in(entries)))
    before = gangs_in(previous.replica_statuses)
    gone = [attempt for replica, attempt in before if left.get(replica, -1) < attempt]
    return max([previous.attempt_floor, *(attempt + 1 for attempt in gone)])


def _current_revision(previous: R1DeploymentStatus, observed: Observation) -> str:
    """The one that served before, while any replica is of it, be it down; then the one that serves most."""
    views = replicas(observed)
    serving = Counter(v.revision for v in views if v.revision and v.state in {GangState.READY, GangState.UNREADY})
    if not serving or any(v.revision == previous.current_revision for v in views):
        return previous.current_revision or max(sorted(serving), key=lambda r: serving[r], default="")
    return max(sorted(serving), key=lambda revision: serving[revision])


def _rollout(previous: R1DeploymentStatus, observed: Observation, now: float) -> RolloutStatus | None:
    """Its clock starts anew with each replica that becomes ready."""
    before, trial = previous.rollout, observed.trial
    if trial is None:
        return before
    same = before is not None and before.revision == trial.revision
    moved = before is None or not same or updated(observed) > previous.updated_replicas
    at = rfc3339(now) if before is None or moved else before.progressed_at
    return RolloutStatus(revision=trial.revision, progressed_at=at, canary=trial.state, message=trial.message)


def _with_old_figures(previous: R1DeploymentStatus, fresh: R1DeploymentStatus, now: float) -> R1DeploymentStatus:
    """`fresh` with the old message wherever only its figures are new and the old ones are not old yet: a pod of
    somebody else that comes or goes must not cost every waiting resource a write."""
    known = {r.name: r for r in previous.replica_statuses}
    replicas = tuple(
        r.model_copy(update={"message": known[r.name].message})
        if r.name in known and same_words(known[r.name].message, r.message)
        else r
        for r in fresh.replica_statuses
    )
    told = {c.type: c for c in previous.conditions}
    conditions = tuple(
        c.model_copy(update={"message": told[c.type].message})
        if c.type in told and same_words(told[c.type].message, c.message)
        else c
        for c in fresh.conditions
    )
    kept: dict[str, Any] = {}
    if _younger(previous.last_update_time, PROGRESS_SECONDS, now):
        kept["replica_statuses"] = replicas
    if _younger(previous.last_update_time, FIGURES_SECONDS, now):
        kept["conditions"] = conditions
    return fresh.model_copy(update=kept)


def _younger(written: str | None, seconds: float, now: float) -> bool:
    """Whether it was written less than so long ago; not what a clock that went wrong has dated into the future."""
    at = unix_time(written)
    return at is not None and -1.0 < now - at < seconds


def _gpus(previous: R1DeploymentStatus, observed: Observation) -> int:
    if observed.decision is None or observed.plan is None:
        return previous.gpus
    gangs = [*(v.gang for v in observed.decision.replicas if v.gang), *observed.decision.leaving]
    pods = {m.name for g in gangs for m in g.members if m.holds is not None}
    return len(pods) * observed.plan.gpus_per_node


def _load(previous: LoadStatus | None, observed: Observation, now: float) -> LoadStatus | None:
    if previous is not None and _younger(previous.at, LOAD_PERIOD_SECONDS, now):
        return previous
    sample = observed.load
    if sample is None or not sample.complete:
        # Old numbers must not stand for the present: without a ready replica there is no load.
        return previous if sample is not None and sample.missing else None
    fresh = LoadStatus(
        tokens_per_second=_two_digits(sample.tokens_per_second),
        kv_usage_percent=min(100, round(100 * sample.kv_replicas / len(sample.replicas))),
        running_requests=_two_digits(sample.running),
        waiting_requests=_two_digits(sample.waiting),
        at=rfc3339(sample.at),
    )
    if previous is not None and fresh.model_copy(update={"at": previous.at}) == previous:
        return previous  # an idle replica costs no writes
    return fresh


def _two_digits(value: float) -> int:
    """Rounded to two significant digits: what a person reads off, without a write for every token."""
    return int(float(f"{value:.1e}"))


def _outlook(scaling: ScalingDecision) -> AutoscalingOutlook | None:
    coming, size = scaling.forecast, scaling.capacity
    if coming is None or size is None or scaling.need is None:
        return None
    return AutoscalingOutlook(
        needed_percent=round(100 * scaling.need),
        ahead_seconds=60 * coming.ahead,
        expected_percent=round(100 * coming.mean),
        bound_percent=round(100 * coming.upper),
        way=coming.way.title().replace(" ", ""),
        error_percent=round(100 * coming.error) if coming.error is not None else None,
        running_requests_per_replica=round(size.running),
        limit=size.limit,
    )


def _history(previous: AutoscalingHistory | None, scaling: ScalingDecision) -> AutoscalingHistory | None:
    """The same until another block is whole."""
    memory = scaling.memory
    if memory is None or (previous is not None and previous.until == rfc3339(memory.until)):
        return previous
    alone, request, token = memory.line or (None, 0.0, 0.0)
    return AutoscalingHistory(
        until=rfc3339(memory.until),
        needed_percents=tuple(round(100 * need) for need in memory.needs),
        alone_millitokens=round(1000 * alone) if alone is not None else None,
        request_millitokens=round(1000 * request),
        token_microtokens=round(1_000_000 * token),
        revision=memory.revision,
    )


def _autoscaling(previous: AutoscalingStatus | None, observed: Observation, now: float) -> AutoscalingStatus | None:
    scaling = observed.scaling
    if scaling is None:
        return None
    up, down = observed.last_scale_up, observed.last_scale_down
    config = observed.spec.autoscaling if observed.spec is not None else None
    fresh = AutoscalingStatus(
        mode=config.mode if config is not None else "Automatic",
        desired_replicas=scaling.desired,
        reason=scaling.reason,
        message=shorten(scaling.message, _SCALING_BYTES),
        at=rfc3339(now),
        last_scale_up=rfc3339(up) if up is not None else None,
        last_scale_down=rfc3339(down) if down is not None else None,
        outlook=_outlook(scaling),
        history=_history(previous.history if previous is not None else None, scaling),
    )
    if previous is None:
        return fresh
    # What is remembered changes with every block, which is worth a write, and otherwise goes with one.
    figures = {"at": previous.at, "message": previous.message, "outlook": previous.outlook}
    same = fresh.model_copy(update=figures) == previous
    # The message carries numbers of the moment, and the reason says which kind of message it is.
    if same and (fresh.message == previous.message or _younger(previous.at, FIGURES_SECONDS, now)):
        return previous
    return fresh
