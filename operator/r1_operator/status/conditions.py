"""The conditions of an R1Deployment. Each message says what, where, and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from ..api.reasons import ConditionType, Reason
from ..api.timestamps import rfc3339
from ..api.types import Condition, ConditionStatus
from ..lifecycle.actions import ReplicaView
from ..lifecycle.gangs import GangState
from .observation import Finding, Observation

_ABOUT_WEIGHTS = ("Weights", "Tokenizer", "Model", "Checkpoint")
"""Beginnings of the engine's configuration errors (exit 78) that concern the model's folder."""


def conditions(previous: Sequence[Condition], observed: Observation, now: float) -> tuple[Condition, ...]:
    """All conditions of this round, each with the time its status last changed."""
    findings = {
        ConditionType.READY: _ready(observed),
        ConditionType.SPEC_VALID: observed.spec_valid,
        ConditionType.WEIGHTS_READY: _weights(observed),
        ConditionType.GANGS_PLACED: _placed(observed),
        ConditionType.GATEWAY_READY: observed.gateway,
    }
    if observed.scaling is not None:
        scaling = observed.scaling
        active: ConditionStatus = "True" if scaling.has_data else "False"
        reason = Reason.AUTOSCALING_ACTIVE if scaling.has_data else scaling.reason
        message = "the load is measured; see status.autoscaling" if scaling.has_data else scaling.message
        findings[ConditionType.AUTOSCALING] = Finding(active, reason, message)
    before = {c.type: c for c in previous}
    return tuple(_condition(before.get(t), t, f, observed.generation, now) for t, f in findings.items())


def _condition(
    before: Condition | None, type_: ConditionType, finding: Finding, generation: int, now: float
) -> Condition:
    same = before is not None and before.status == finding.status
    return Condition(
        type=type_,
        status=finding.status,
        reason=finding.reason,
        message=finding.message[:4096],
        last_transition_time=before.last_transition_time if same and before is not None else rfc3339(now),
        observed_generation=generation,
    )


def _weights(observed: Observation) -> Finding:
    """The volume's own state, then what the newest failure says of its content, then what a running engine proves."""
    if observed.weights.status == "False":
        return observed.weights
    replicas = observed.decision.replicas if observed.decision else ()
    for view in replicas:
        failure = view.failure
        if failure is not None and failure.configuration and failure.reason.startswith(_ABOUT_WEIGHTS):
            return Finding("False", Reason.WEIGHTS_INVALID, f"{failure.reason}: {failure.message}")
    if any(view.state is GangState.READY for view in replicas):
        return Finding("True", Reason.WEIGHTS_FOUND, "a replica serves from them")
    return observed.weights


def _placed(observed: Observation) -> Finding:
    if observed.decision is None:
        return Finding("Unknown", Reason.RECONCILE_FAILED, "not looked at in this round; see Ready")
    if observed.unplaceable:
        first = observed.unplaceable[0]
        more = f" (and {len(observed.unplaceable) - 1} more)" if len(observed.unplaceable) > 1 else ""
        remedy = "add or free nodes, or lower spec.replicas"
        return Finding("False", Reason.INSUFFICIENT_NODES, f"{first.gang} {first.message}; {remedy}{more}")
    if not observed.decision.replicas:
        return Finding("True" if observed.desired == 0 else "Unknown", Reason.NO_REPLICAS, "there is no gang to place")
    gated = [v.name for v in observed.decision.replicas if v.state is GangState.GATED]
    if gated:
        return Finding("Unknown", Reason.STARTING, f"{', '.join(gated)}: being placed")
    return Finding("True", Reason.PLACED, "every gang has its nodes")


def _ready(observed: Observation) -> Finding:
    for finding in (observed.spec_valid, observed.weights):
        if finding.status == "False":
            return Finding("False", finding.reason, finding.message)
    if observed.decision is None:
        return Finding("Unknown", Reason.RECONCILE_FAILED, _errors(observed))
    replicas = observed.decision.replicas
    ready = sum(1 for v in replicas if v.state is GangState.READY)
    if observed.desired == 0:
        return Finding("False", Reason.SCALED_TO_ZERO, "spec.replicas is 0; raise it to serve")
    count = f"{ready} of {observed.desired} replicas are ready"
    outdated = [v.name for v in replicas if v.gang and observed.revision and v.gang.revision != observed.revision]
    if ready >= observed.desired and observed.gateway.status != "True":
        return Finding("False", observed.gateway.reason, f"{count}, but the gateway is not: {observed.gateway.message}")
    if ready >= observed.desired and observed.routed is not None and observed.routed < observed.desired:
        words = (
            f"the gateway reaches {observed.routed} of them; if that stays, see what keeps it from the engines' ports"
        )
        return Finding("False", Reason.NOT_ROUTED, f"{count}, but {words}")
    if ready >= observed.desired:
        if outdated:
            return Finding("True", Reason.UPDATING, f"{count}; being replaced one by one: {', '.join(outdated)}")
        return Finding("True", Reason.READY, count)
    return _not_ready(observed, replicas, ready, count, outdated)


def _not_ready(
    observed: Observation, replicas: Sequence[ReplicaView], ready: int, count: str, outdated: Sequence[str]
) -> Finding:
    failed = next((v for v in replicas if v.state is GangState.FAILED), None)
    if failed is not None:
        reason = Reason.DEGRADED if ready else Reason.START_FAILED
        why = f", {failed.failure.reason}: {failed.failure.message}" if failed.failure else "; see replicaStatuses"
        return Finding("False", reason, f"{count}; {failed.name} failed{why}")
    if observed.unplaceable:
        first = observed.unplaceable[0]
        return Finding("False", Reason.INSUFFICIENT_NODES, f"{count}; {first.gang} {first.message}")
    if observed.errors:
        return Finding("False", Reason.RECONCILE_FAILED, f"{count}; {_errors(observed)}")
    if outdated:
        return Finding("False", Reason.UPDATING, f"{count}; being replaced one by one: {', '.join(outdated)}")
    return Finding("False", Reason.SCALING if ready else Reason.STARTING, count)


def _errors(observed: Observation) -> str:
    return "; ".join(observed.errors) or "this round did not get that far"
