"""What happened between two statuses: the events of a round. Told once, because a status is written once.

Each kind says its own words, made of facts (nodes, revision, restarts, the failure, why it has to go): the message of a
stage may speak of something else by the time it is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ..api import names
from ..api.reasons import ConditionType, EventReason, Reason
from ..api.types import R1DeploymentStatus, ReplicaStatus
from ..lifecycle.actions import EndPods, ReplicaView
from ..lifecycle.gangs import Gang
from ..lifecycle.records import NEXT_ATTEMPT
from .fabric import FABRIC_FAULTS
from .faults import unready_words
from .observation import Observation
from .replicas import SICK_GPUS, UNDECIDED, nodes_of
from .wording import same_words


@dataclass(frozen=True, slots=True)
class Event:
    """An event on the R1Deployment."""

    reason: EventReason
    message: str
    type: Literal["Normal", "Warning"] = "Normal"


def events(
    before: R1DeploymentStatus, after: R1DeploymentStatus, observed: Observation | None = None
) -> tuple[Event, ...]:
    """Events that `after` tells compared with `before`, in a sensible order. `observed`: the round that `after` was
    derived from, which knows what does not fit into a status: the whole of a failure, and why a gang is ended."""
    return (*_conditions(before, after), *_scaling(before, after), *_replicas(before, after, _Facts(observed)))


_REFUSED_WEIGHTS = (
    *(Reason.CLAIM_NOT_FOUND, Reason.CLAIM_NOT_BOUND, Reason.CLAIM_ACCESS_MODE),
    *(Reason.WEIGHTS_INVALID, Reason.MODEL_MISMATCH),
)
_WAITING = (
    Reason.IMAGE_PULL_BACK_OFF,
    Reason.INVALID_IMAGE_NAME,
    Reason.CREATE_CONTAINER_CONFIG_ERROR,
    Reason.CREATE_CONTAINER_ERROR,
    Reason.FAILED_MOUNT,
    Reason.FAILED_ATTACH_VOLUME,
    Reason.CONTAINER_WAITING,
)
_CONDITION_EVENTS: dict[tuple[str, str], EventReason] = {
    (ConditionType.SPEC_VALID, Reason.INVALID_SPEC): EventReason.INVALID_SPEC,
    (ConditionType.SPEC_VALID, Reason.PLAN_REFUSED): EventReason.PLAN_REFUSED,
    **{(ConditionType.WEIGHTS_READY, reason): EventReason.WEIGHTS_UNAVAILABLE for reason in _REFUSED_WEIGHTS},
    (ConditionType.GANGS_PLACED, Reason.INSUFFICIENT_NODES): EventReason.GANG_UNPLACEABLE,
    **{(ConditionType.FABRIC_READY, reason): EventReason.FABRIC_NOT_READY for reason in FABRIC_FAULTS},
    (ConditionType.GATEWAY_READY, Reason.GATEWAY_SYNC_FAILED): EventReason.GATEWAY_SYNC_FAILED,
    **{(ConditionType.DEGRADED, reason): EventReason.CONTAINER_WAITING for reason in _WAITING},
    (ConditionType.DEGRADED, Reason.RECONCILE_FAILED): EventReason.RECONCILE_FAILED,
    (ConditionType.DEGRADED, Reason.QUOTA_EXCEEDED): EventReason.QUOTA_EXCEEDED,
    (ConditionType.DEGRADED, Reason.CREATE_REFUSED): EventReason.CREATE_REFUSED,
    (ConditionType.DEGRADED, Reason.NAME_TAKEN): EventReason.NAME_TAKEN,
    (ConditionType.DEGRADED, Reason.NO_NODE_FOR_NEW_REVISION): EventReason.NO_NODE_FOR_NEW_REVISION,
    (ConditionType.DEGRADED, Reason.NO_NODE_FOR_MOVE): EventReason.NO_NODE_FOR_MOVE,
    (ConditionType.DEGRADED, Reason.PROGRESS_DEADLINE_EXCEEDED): EventReason.PROGRESS_DEADLINE_EXCEEDED,
    (ConditionType.DEGRADED, Reason.CANARY_ABORTED): EventReason.CANARY_ABORTED,
    (ConditionType.DEGRADED, Reason.NODE_LOSS_SUSPENDED): EventReason.NODE_LOSS_SUSPENDED,
    (ConditionType.DEGRADED, Reason.NODES_SILENT): EventReason.NODES_SILENT,
    (ConditionType.DEGRADED, Reason.STALE_WATCH): EventReason.STALE_WATCH,
    (ConditionType.DEGRADED, Reason.STATUS_NOT_READ): EventReason.STATUS_NOT_READ,
    (ConditionType.DEGRADED, Reason.UNKNOWN_FIELDS): EventReason.UNKNOWN_FIELDS,
    (ConditionType.DEGRADED, Reason.FOREIGN_PODS): EventReason.FOREIGN_PODS,
    (ConditionType.DEGRADED, Reason.CHANGED_IN_ADMISSION): EventReason.CHANGED_IN_ADMISSION,
}
"""What conditions tell; what replicas tell (a failed one, an unready one) is not told twice."""
_BAD = {ConditionType.DEGRADED: "True"}


def _conditions(before: R1DeploymentStatus, after: R1DeploymentStatus) -> Iterator[Event]:
    for condition in after.conditions:
        old = before.condition(condition.type)
        if old is not None and old.reason == condition.reason and same_words(old.message, condition.message):
            continue
        event = _CONDITION_EVENTS.get((condition.type, condition.reason))
        if event is not None and condition.status == _BAD.get(ConditionType(condition.type), "False"):
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
        if after.autoscaling.mode == "Recommend":
            reason = EventReason.SCALING_RECOMMENDED
        yield Event(reason, f"{after.autoscaling.reason}: {after.autoscaling.message}")


class _Facts:
    """What the round knows of a gang, by its name; without a round, what the status has room for."""

    def __init__(self, observed: Observation | None) -> None:
        decision = observed.decision if observed else None
        self._observed = observed
        self._views: dict[str, ReplicaView] = {v.name: v for v in decision.replicas} if decision else {}
        self._leaving: dict[str, Gang] = {g.name: g for g in decision.leaving} if decision else {}
        ends = [a for a in decision.actions if isinstance(a, EndPods)] if decision else []
        self._why = {end.gang: end.message for end in ends}

    def where(self, replica: ReplicaStatus) -> str:
        """` on n1, n2`, or nothing where it has no node."""
        view = self._views.get(replica.name)
        gang = view.gang if view is not None and view.gang is not None else self._leaving.get(replica.name)
        nodes = nodes_of(gang) if gang is not None else replica.nodes
        return f" on {', '.join(nodes)}" if nodes else ""

    def failure(self, replica: ReplicaStatus) -> str:
        view = self._views.get(replica.name)
        if view is not None and view.failure is not None:
            return f"{view.failure.reason}: {view.failure.message}"
        return replica.message.partition(NEXT_ATTEMPT)[0]

    def unready(self, replica: ReplicaStatus) -> str:
        view = self._views.get(replica.name)
        return unready_words(view, self._observed) if view is not None and self._observed is not None else ""

    def why_ended(self, replica: ReplicaStatus) -> str:
        why = self._why.get(replica.name)
        return f": {why}" if why else ""


_UP = frozenset({"Pending", "Ray", "Weights", "WarmUp", "Ready", "Unready"})
_SERVED = frozenset({"Ready", "Unready"})


def _replicas(before: R1DeploymentStatus, after: R1DeploymentStatus, facts: _Facts) -> Iterator[Event]:
    known = {r.name: r for r in before.replica_statuses}
    newest = {names.replica_of(r.name): r for r in before.replica_statuses}
    present = {names.replica_of(r.name) for r in after.replica_statuses}
    for replica in after.replica_statuses:
        old = known.pop(replica.name, None)
        if old is None and replica.stage != "Draining":  # one that leaves at first sight was made before this operator
            yield _created(replica, newest.get(names.replica_of(replica.name)))
        if (old is None or old.stage == "Gated") and replica.stage in _UP:
            yield Event(EventReason.GANG_PLACED, f"{replica.name}{facts.where(replica)}")
        if replica.message.startswith(SICK_GPUS) and (old is None or old.message != replica.message):
            yield Event(EventReason.GPU_UNHEALTHY, f"{replica.name} {replica.message}", "Warning")
        if old is None or old.stage != replica.stage or _another_cause(old, replica):
            yield from _entered(replica, old.stage if old else None, facts)
    for gone in known.values():
        # A failed gang that the next attempt has taken over from is no replica less.
        if gone.stage != "Failed" or names.replica_of(gone.name) not in present:
            yield Event(EventReason.REPLICA_REMOVED, f"{gone.name} is gone")


def _entered(replica: ReplicaStatus, old: str | None, facts: _Facts) -> Iterator[Event]:
    """The event of the stage that a gang has entered; starting stages have none of their own."""
    name = f"{replica.name}{facts.where(replica)}"
    if replica.stage == "Ready":
        yield Event(EventReason.REPLICA_READY, f"{name} is ready{' again' if old == 'Unready' else ''}")
    elif replica.stage == "Unready":
        words = facts.unready(replica) or replica.message
        yield Event(EventReason.REPLICA_UNREADY, f"{name} was ready and is not: {words}", "Warning")
    elif replica.stage == "Failed" and replica.message != UNDECIDED:
        yield Event(EventReason.GANG_FAILED, f"{replica.name}: {facts.failure(replica)}", "Warning")  # says where
    elif replica.stage == "Draining":
        leaves = "leaves; its running requests may finish" if old in _SERVED else "leaves"
        yield Event(EventReason.REPLICA_DRAINING, f"{name} {leaves}{facts.why_ended(replica)}")


def _another_cause(old: ReplicaStatus, new: ReplicaStatus) -> bool:
    """A failed gang whose cause has become known, or turns out to be another than its pods had said so far."""
    return new.stage == "Failed" and old.message.partition(":")[0] != new.message.partition(":")[0]


def _created(replica: ReplicaStatus, before: ReplicaStatus | None) -> Event:
    what = f"{replica.name}{f' of revision {replica.revision}' if replica.revision else ''}"
    if before is None:
        return Event(EventReason.GANG_CREATED, what)
    if replica.restarts:
        text = f"{what} in place of {before.name}, restart {replica.restarts} in a row"
        return Event(EventReason.GANG_RESTARTING, text)
    return Event(EventReason.GANG_CREATED, f"{what} in place of {before.name}")
