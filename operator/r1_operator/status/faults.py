"""What is broken, worst first. One list, from which `Ready`, `Progressing` and `Degraded` each take their words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from ..api.reasons import ConditionType, Reason
from ..api.timestamps import rfc3339, unix_time
from ..api.types import Condition, ReplicaStatus
from ..lifecycle.actions import ReplicaView
from ..lifecycle.gangs import GangState, Member
from ..planning.plan import Size
from .admission import harm
from .fabric import FABRIC_FAULTS, fabric_ready
from .observation import Observation

HOPELESS_RESTARTS = 3
"""So many restarts in a row did not help: the next ones will not either, though they are tried."""
WAITING_SECONDS = 120.0
"""A container that has not been started for so long will not be without help: an image of 30 GB is "pulling" and not
waiting in this sense."""
GATEWAY_SECONDS = 180.0
"""A gateway pod pulls its image and starts within this time."""
ROUTE_SECONDS = 60.0
"""The router takes a new replica into its rotation within seconds."""
ERROR_SECONDS = 300.0
"""Errors of the API server that have lasted for so long do not pass by themselves."""


class Weight(IntEnum):
    """How bad a fault is."""

    BLOCKS = 0
    """What is wanted cannot come true before somebody acts."""
    HURTS = 1
    """Something does not work; it may pass, or is being mended."""
    NOTABLE = 2
    """Somebody should know."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is broken, and the remedy in its message."""

    weight: Weight
    reason: Reason
    message: str


_TROUBLES = {
    Reason.REPLICAS_UNREADY: Weight.HURTS,
    Reason.UNKNOWN_FIELDS: Weight.NOTABLE,
    Reason.STATUS_NOT_READ: Weight.NOTABLE,
    Reason.FOREIGN_PODS: Weight.NOTABLE,
    Reason.NODES_SILENT: Weight.NOTABLE,
    Reason.NO_NODE_FOR_MOVE: Weight.NOTABLE,
    Reason.GPU_UNHEALTHY: Weight.NOTABLE,
}
"""Of what the mind found itself; whatever else it names stands between the wish and its coming true."""

_KUBELET_REMEDIES: Mapping[Reason, str] = {
    Reason.IMAGE_PULL_BACK_OFF: "see that spec.engine.image exists and that the node may pull it",
    Reason.INVALID_IMAGE_NAME: "correct spec.engine.image",
    Reason.CREATE_CONTAINER_CONFIG_ERROR: "create the Secret or ConfigMap that it names, or correct spec.engine",
    Reason.CREATE_CONTAINER_ERROR: "see `kubectl describe pod`",
    Reason.FAILED_MOUNT: "see the weights' volume and the pod's events",
    Reason.FAILED_ATTACH_VOLUME: "a volume of one node is asked for by several; use one with ReadOnlyMany",
}
_FOUND_OTHERWISE = frozenset(
    {
        *(Reason.HARDWARE_MISMATCH, Reason.GPU_NOT_FREE, Reason.GPU_UNHEALTHY, Reason.DRIVER_TOO_OLD),
        *(Reason.DRIVER_UNUSABLE, Reason.MODEL_MISMATCH),
        *FABRIC_FAULTS,
    }
)
"""The engine's own words; its message names node and remedy."""
_BACK_OFF = re.compile(r'^Back-off pulling image "[^"]*"(: ErrImagePull: )?')
"""The kubelet goes back and forth between the failed pull and the wait for the next one, with other words for each."""


def faults(
    before: Mapping[str, Condition], known: Mapping[str, ReplicaStatus], observed: Observation, now: float
) -> tuple[Fault, ...]:
    """All faults of this round, worst first, one a reason. `before` and `known`: of the last status, by type and name;
    they say since when."""
    found = [
        *_refusals(observed),
        *_troubles(observed),
        *_failed(observed),
        *_unplaceable(observed),
        *_waiting(observed, now),
        *_unready(observed),
        *_gateway(before, known, observed, now),
        *_sick(observed),
        *_fabric(before, observed),
        *_changed(observed),
        *_errors(before, observed, now),
    ]
    first: dict[Reason, Fault] = {}
    for fault in sorted(found, key=lambda f: f.weight):
        first.setdefault(fault.reason, fault)
    return tuple(first.values())


def _refusals(observed: Observation) -> Iterator[Fault]:
    if observed.spec_valid.status == "False":
        yield Fault(Weight.BLOCKS, observed.spec_valid.reason, observed.spec_valid.message)
    if observed.weights.status == "False":
        yield Fault(Weight.BLOCKS, observed.weights.reason, observed.weights.message)


def _troubles(observed: Observation) -> Iterator[Fault]:
    for trouble in observed.troubles:
        yield Fault(_TROUBLES.get(trouble.reason, Weight.BLOCKS), trouble.reason, trouble.message)


def _failed(observed: Observation) -> Iterator[Fault]:
    """The one that keeps failing says more than the one that failed first."""
    failed = [v for v in _replicas(observed) if v.state is GangState.FAILED]
    if not failed:
        return
    worst = max(failed, key=lambda v: (_hopeless(v), v.failure is not None))
    failure = worst.failure
    why = f", {failure.reason}: {failure.message}" if failure else "; see replicaStatuses"
    reason = _reason_of(failure.reason, Reason.START_FAILED) if failure else Reason.START_FAILED
    again = f"; {worst.restarts} restarts in a row did not help" if worst.restarts >= HOPELESS_RESTARTS else ""
    weight = Weight.BLOCKS if _hopeless(worst) else Weight.HURTS
    yield Fault(weight, reason, f"{worst.name} failed{why}{again}{_more(len(failed))}")


def _hopeless(view: ReplicaView) -> bool:
    return view.restarts >= HOPELESS_RESTARTS or (view.failure is not None and view.failure.configuration)


def _unplaceable(observed: Observation) -> Iterator[Fault]:
    if observed.unplaceable:
        yield Fault(Weight.BLOCKS, Reason.INSUFFICIENT_NODES, shortage(observed))


def shortage(observed: Observation) -> str:
    """Why gangs wait for nodes; at least one does."""
    first, plan = observed.unplaceable[0], observed.plan
    smaller = "" if plan is None or plan.smallest is None else _or_smaller(plan.smallest)
    remedy = f"add or free nodes, or lower spec.replicas{smaller}"
    return f"{first.gang} {first.message}; {remedy}{_more(len(observed.unplaceable))}"


def _or_smaller(size: Size) -> str:
    return f", or set spec.topology.nodesPerReplica {size.nodes}, which holds the model as well ({size})"


def _waiting(observed: Observation, now: float) -> Iterator[Fault]:
    for view in _replicas(observed):
        for member in view.gang.members if view.gang and view.state is GangState.STARTING else ():
            since = max(member.changed_at, member.created_at)
            # In an attempt after others, what was waited for in vain is told at once.
            if member.waiting is not None and (now - since > WAITING_SECONDS or view.restarts > 0):
                word, message = waiting_of(member)
                reason = _reason_of(word, Reason.CONTAINER_WAITING)
                remedy = _KUBELET_REMEDIES.get(reason, "see `kubectl describe pod`")
                where = f"pod {member.name} on node {member.node or member.pinned}"
                yield Fault(Weight.BLOCKS, reason, f"{where}: {word}: {message}; {remedy}")


def waiting_of(member: Member) -> tuple[str, str]:
    """Why the kubelet does not start a container: its word and its message, the same from pull to pull."""
    word, _, message = (member.waiting or "").partition(": ")
    if word == "ErrImagePull":
        word = str(Reason.IMAGE_PULL_BACK_OFF)
    return word, _BACK_OFF.sub("", message) or message


def _unready(observed: Observation) -> Iterator[Fault]:
    unready = [v for v in _replicas(observed) if v.state is GangState.UNREADY]
    if unready:
        text = f"{unready[0].name} was ready and is not: {unready_words(unready[0], observed)}{_more(len(unready))}"
        yield Fault(Weight.HURTS, Reason.REPLICAS_UNREADY, text)


def unready_words(view: ReplicaView, observed: Observation) -> str:
    """Since when, where, and what its own agent says of it."""
    late = [m for m in view.gang.members if not m.ready] if view.gang else []
    reading = observed.readings.get(view.name)
    says = " ".join(filter(None, (reading.stage, reading.message))) if reading else ""
    agent = f"its agent says {says}" if says else "its agent does not answer"
    if not late:
        return agent
    nodes = ", ".join(m.node or m.pinned or m.name for m in late)
    return f"since {rfc3339(min(m.changed_at for m in late))} on {nodes}; {agent}"


def _gateway(
    before: Mapping[str, Condition], known: Mapping[str, ReplicaStatus], observed: Observation, now: float
) -> Iterator[Fault]:
    gateway = observed.gateway
    if gateway.status == "False" and observed.desired > 0:
        old = before.get(ConditionType.GATEWAY_READY)
        lasts = old is not None and old.status == "False" and _age(old.last_transition_time, now) >= GATEWAY_SECONDS
        if lasts or gateway.reason is not Reason.GATEWAY_STARTING:
            blocks = lasts or gateway.reason is not Reason.GATEWAY_SYNC_FAILED
            yield Fault(Weight.BLOCKS if blocks else Weight.HURTS, gateway.reason, gateway.message)
    ready = [v.name for v in _replicas(observed) if v.state is GangState.READY]
    settled = [
        n for n in ready if n in known and known[n].stage == "Ready" and _age(known[n].since, now) > ROUTE_SECONDS
    ]
    if observed.routed is not None and observed.routed < min(len(settled), observed.total):
        yield Fault(Weight.BLOCKS, Reason.NOT_ROUTED, not_routed(observed))


def not_routed(observed: Observation) -> str:
    """What to look at when ready replicas get no requests."""
    return (
        f"the gateway reaches {observed.routed} of {observed.total} replicas; "
        "if that stays, see what keeps it from the engines' ports"
    )


def _sick(observed: Observation) -> Iterator[Fault]:
    sick = {name: gpus for name, gpus in observed.sick_gpus.items() if gpus}
    if sick:
        name, gpus = min(sick.items())
        text = f"NVML calls GPUs of {name} unhealthy: {'; '.join(gpus)}{_more(len(sick))}"
        yield Fault(Weight.NOTABLE, Reason.GPU_UNHEALTHY, text)


def _fabric(before: Mapping[str, Condition], observed: Observation) -> Iterator[Fault]:
    finding = fabric_ready(before.get(ConditionType.FABRIC_READY), observed)
    if finding is not None and finding.status == "False":
        yield Fault(Weight.NOTABLE, finding.reason, finding.message)


def _changed(observed: Observation) -> Iterator[Fault]:
    if told := harm(observed):
        yield Fault(Weight.NOTABLE, Reason.CHANGED_IN_ADMISSION, told)


def _errors(before: Mapping[str, Condition], observed: Observation, now: float) -> Iterator[Fault]:
    if observed.decision is None:
        text = "; ".join(observed.errors) or "this round did not get that far"
        yield Fault(Weight.BLOCKS, Reason.RECONCILE_FAILED, text)
    elif observed.errors:
        old = before.get(ConditionType.DEGRADED)
        lasts = old is not None and old.status == "True" and _age(old.last_transition_time, now) >= ERROR_SECONDS
        yield Fault(Weight.BLOCKS if lasts else Weight.HURTS, Reason.RECONCILE_FAILED, "; ".join(observed.errors))


def _reason_of(word: str, otherwise: Reason) -> Reason:
    """A kubelet's or an engine's word as the reason of a condition, where programs may know it; else `otherwise`."""
    return next((reason for reason in (*_KUBELET_REMEDIES, *_FOUND_OTHERWISE) if reason == word), otherwise)


def _replicas(observed: Observation) -> tuple[ReplicaView, ...]:
    return observed.decision.replicas if observed.decision else ()


def _age(since: str | None, now: float) -> float:
    return now - (unix_time(since) or now)


def _more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""
