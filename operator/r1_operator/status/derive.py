"""The whole status of one round."""

from __future__ import annotations

from ..api.timestamps import rfc3339, unix_time
from ..api.types import AutoscalingStatus, LoadStatus, PlanStatus, R1DeploymentStatus
from ..lifecycle.gangs import GangState
from .conditions import conditions
from .observation import Observation
from .replicas import replica_statuses

LOAD_PERIOD_SECONDS = 30.0
"""Load numbers change all the time; they are written at most this often."""


def derive(previous: R1DeploymentStatus, observed: Observation, now: float) -> R1DeploymentStatus:
    """Status of this round. Equal to `previous` when nothing worth a write has changed."""
    replicas = observed.decision.replicas if observed.decision else None
    known = {r.name: r for r in previous.replica_statuses}
    return R1DeploymentStatus(
        observed_generation=observed.generation,
        replicas=previous.replicas if replicas is None else len(replicas),
        ready_replicas=(
            previous.ready_replicas if replicas is None else sum(1 for v in replicas if v.state is GangState.READY)
        ),
        desired_replicas=observed.desired,
        gpus=_gpus(previous, observed),
        selector=observed.selector,
        plan=_plan(observed) or previous.plan,
        load=_load(previous.load, observed, now),
        autoscaling=_autoscaling(previous.autoscaling, observed, now),
        replica_statuses=replica_statuses(known, observed, now),
        conditions=conditions(previous.conditions, observed, now),
    )


def _gpus(previous: R1DeploymentStatus, observed: Observation) -> int:
    if observed.decision is None or observed.plan is None:
        return previous.gpus
    gangs = [*(v.gang for v in observed.decision.replicas if v.gang), *observed.decision.leaving]
    pods = {m.name for g in gangs for m in g.members if m.holds is not None}
    return len(pods) * observed.plan.gpus_per_node


def _plan(observed: Observation) -> PlanStatus | None:
    plan = observed.plan
    if plan is None:
        return None
    return PlanStatus(
        nodes_per_replica=plan.nodes_per_replica,
        gpus_per_replica=plan.gpus_per_replica,
        tensor_parallel=plan.tensor_parallel,
        attention_data_parallel=plan.attention_data_parallel,
        expert_parallel=plan.expert_parallel,
        kv_tokens_per_replica=plan.kv_tokens_per_replica,
        engine_args=plan.engine_args,
        reasons=tuple(str(reason)[:4096] for reason in plan.reasons),
    )


def _load(previous: LoadStatus | None, observed: Observation, now: float) -> LoadStatus | None:
    written = unix_time(previous.at) if previous else None
    if written is not None and now - written < LOAD_PERIOD_SECONDS:
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


def _autoscaling(previous: AutoscalingStatus | None, observed: Observation, now: float) -> AutoscalingStatus | None:
    scaling = observed.scaling
    if scaling is None:
        return None
    up, down = observed.last_scale_up, observed.last_scale_down
    fresh = AutoscalingStatus(
        desired_replicas=scaling.desired,
        reason=scaling.reason,
        message=scaling.message[:4096],
        at=rfc3339(now),
        last_scale_up=rfc3339(up) if up is not None else None,
        last_scale_down=rfc3339(down) if down is not None else None,
    )
    if previous is None or previous.desired_replicas != fresh.desired_replicas:
        return fresh
    written = unix_time(previous.at) or 0.0
    if previous.reason == fresh.reason and now - written < LOAD_PERIOD_SECONDS:
        return previous  # the message carries numbers of the moment
    # An unchanged reason whose message is unchanged as well has nothing new to tell.
    if fresh.model_copy(update={"at": previous.at}) == previous:
        return previous
    return fresh
