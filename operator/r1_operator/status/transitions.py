"""What happened between two statuses: the events of a round. Told once, because a status is written once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ..api import names
from ..api.reasons import ConditionType, EventReason, Reason
from ..api.types import R1DeploymentStatus, ReplicaStatus
from .replicas import SICK_GPUS, UNDECIDED


@dataclass(frozen=True, slots=True)
class Event:
    """An event on the R1Deployment."""

    reason: EventReason
    message: str
    type: Literal["Normal", "Warning"] = "Normal"


def events(before: R1DeploymentStatus, after: R1DeploymentStatus) -> tuple[Event, ...]:
    """Events that `after` tells compared with `before`, in a sensible order."""
    return (*_conditions(before, after), *_scaling(before, after), *_replicas(before, after))


_CONDITION_EVENTS = {
    (ConditionType.SPEC_VALID, Reason.INVALID_SPEC): EventReason.INVALID_SPEC,
    (ConditionType.SPEC_VALID, Reason.PLAN_REFUSED): EventReason.PLAN_REFUSED,
    (ConditionType.WEIGHTS_READY, Reason.CLAIM_NOT_FOUND): EventReason.WEIGHTS_UNAVAILABLE,
    (ConditionType.WEIGHTS_READY, Reason.CLAIM_NOT_BOUND): EventReason.WEIGHTS_UNAVAILABLE,
    (ConditionType.WEIGHTS_READY, Reason.CLAIM_ACCESS_MODE): EventReason.WEIGHTS_UNAVAILABLE,
    (ConditionType.WEIGHTS_READY, Reason.WEIGHTS_INVALID): EventReason.WEIGHTS_UNAVAILABLE,
    (ConditionType.GANGS_PLACED, Reason.INSUFFICIENT_NODES): EventReason.GANG_UNPLACEABLE,
    (ConditionType.GATEWAY_READY, Reason.GATEWAY_SYNC_FAILED): EventReason.GATEWAY_SYNC_FAILED,
    (ConditionType.READY, Reason.RECONCILE_FAILED): EventReason.RECONCILE_FAILED,
}


def _conditions(before: R1DeploymentStatus, after: R1DeploymentStatus) -> Iterator[Event]:
    for condition in after.conditions:
        old = before.condition(condition.type)
        if old is not None and (old.reason, old.message) == (condition.reason, condition.message):
            continue
        event = next(
            (e for (t, r), e in _CONDITION_EVENTS.items() if (t, r) == (condition.type, condition.reason)), None
        )
        if event is not None and condition.status == "False":
            yield Event(event, condition.message, "Warning")
    if after.plan is not None and after.plan != before.plan:
        plan = after.plan
        yield Event(
            EventReason.PLANNED,
            f"{plan.nodes_per_replica} nodes and {plan.gpus_per_replica} GPUs a replica, tensor parallel "
            f"{plan.tensor_parallel}, attention DP {plan.attention_data_parallel}, expert parallel "
            f"{plan.expert_parallel}, {plan.kv_tokens_per_replica:,} KV tokens a replica",
        )


def _scaling(before: R1DeploymentStatus, after: R1DeploymentStatus) -> Iterator[Event]:
    if after.autoscaling is None or before.autoscaling is None:
        return
    old, new = before.autoscaling.desired_replicas, after.autoscaling.desired_replicas
    if new != old:
        reason = EventReason.SCALED_UP if new > old else EventReason.SCALED_DOWN
        yield Event(reason, f"{after.autoscaling.reason}: {after.autoscaling.message}")


def _replicas(before: R1DeploymentStatus, after: R1DeploymentStatus) -> Iterator[Event]:
    known = {r.name: r for r in before.replica_statuses}
    replicas = {names.replica_of(r.name): r for r in before.replica_statuses}
    for replica in after.replica_statuses:
        old = known.pop(replica.name, None)
        if old is None:
            yield _created(replica, replicas.get(names.replica_of(replica.name)))
        elif old.stage == "Gated" and replica.stage not in {"Gated", "Failed", "Draining"}:
            yield Event(EventReason.GANG_PLACED, f"{replica.name} on {', '.join(replica.nodes)}")
        if replica.message.startswith(SICK_GPUS) and (old is None or old.message != replica.message):
            yield Event(EventReason.GPU_UNHEALTHY, f"{replica.name} {replica.message}", "Warning")
        if old is not None and old.stage == replica.stage and not _another_cause(old, replica):
            continue
        if replica.message == UNDECIDED:
            continue
        if replica.stage == "Ready":
            yield Event(EventReason.REPLICA_READY, f"{replica.name} on {', '.join(replica.nodes)} serves")
        elif replica.stage == "Failed":
            yield Event(EventReason.GANG_FAILED, f"{replica.name}: {replica.message}", "Warning")
        elif replica.stage == "Draining":
            yield Event(EventReason.REPLICA_DRAINING, f"{replica.name}: {replica.message}")
    for gone in known.values():
        if gone.stage == "Draining":
            yield Event(EventReason.REPLICA_REMOVED, f"{gone.name} is gone")


def _another_cause(old: ReplicaStatus, new: ReplicaStatus) -> bool:
    """A failed gang whose cause has become known, or turns out to be another than its pods had said so far."""
    return new.stage == "Failed" and old.message.partition(":")[0] != new.message.partition(":")[0]


def _created(replica: ReplicaStatus, before: ReplicaStatus | None) -> Event:
    if replica.restarts and before is not None:
        return Event(EventReason.GANG_RESTARTING, f"{replica.name}, restart {replica.restarts} of this replica")
    return Event(EventReason.GANG_CREATED, f"{replica.name}: {replica.message or replica.stage}")
