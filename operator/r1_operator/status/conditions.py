"""The conditions of an R1Deployment. Each message says what, where, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from ..api.reasons import ConditionType, Reason
from ..api.timestamps import rfc3339
from ..api.types import Condition, ConditionStatus, ReplicaStatus
from ..lifecycle.gangs import GangState
from .admission import pods_as_asked
from .fabric import fabric_ready
from .faults import faults, shortage
from .health import available, degraded, for_kstatus, progressing, ready, replicas
from .observation import Finding, Observation
from .wording import shorten

MESSAGE_BYTES = 4096
"""Of one condition: room for a refused plan with its arithmetic."""

_ABOUT_WEIGHTS = ("Weights", "Tokenizer", "Model", "Checkpoint")
"""Beginnings of the engine's configuration errors (exit 78) that concern the model's folder."""
_NONE: Mapping[str, ReplicaStatus] = MappingProxyType({})


def conditions(
    previous: Sequence[Condition], observed: Observation, now: float, known: Mapping[str, ReplicaStatus] = _NONE
) -> tuple[Condition, ...]:
    """All conditions of this round, each with the time its status last changed. `known`: the last replicaStatuses."""
    before = {c.type: c for c in previous}
    broken = faults(before, known, observed, now)
    progress = progressing(observed, broken)
    findings = {
        ConditionType.READY: ready(observed, broken),
        ConditionType.AVAILABLE: available(before.get(ConditionType.AVAILABLE), observed),
        ConditionType.PROGRESSING: progress,
        ConditionType.DEGRADED: degraded(broken),
        ConditionType.SPEC_VALID: observed.spec_valid,
        ConditionType.WEIGHTS_READY: _weights(observed),
        ConditionType.GANGS_PLACED: _placed(observed),
        ConditionType.GATEWAY_READY: observed.gateway,
    }
    if (fabric := fabric_ready(before.get(ConditionType.FABRIC_READY), observed)) is not None:
        findings[ConditionType.FABRIC_READY] = fabric
    if (changed := pods_as_asked(observed)) is not None:
        findings[ConditionType.PODS_AS_ASKED] = changed
    if observed.scaling is not None:
        scaling = observed.scaling
        active: ConditionStatus = "True" if scaling.has_data else "False"
        reason = Reason.AUTOSCALING_ACTIVE if scaling.has_data else scaling.reason
        message = "the load is measured; see status.autoscaling" if scaling.has_data else scaling.message
        findings[ConditionType.AUTOSCALING] = Finding(active, reason, message)
    findings |= dict(for_kstatus(before, progress, now))
    return tuple(_condition(before.get(t), t, f, observed.generation, now) for t, f in findings.items())


def _condition(
    before: Condition | None, type_: ConditionType, finding: Finding, generation: int, now: float
) -> Condition:
    same = before is not None and before.status == finding.status
    return Condition(
        type=type_,
        status=finding.status,
        reason=finding.reason,
        message=shorten(finding.message, MESSAGE_BYTES),
        last_transition_time=before.last_transition_time if same and before is not None else rfc3339(now),
        observed_generation=generation,
    )


def _weights(observed: Observation) -> Finding:
    """The volume's own state, then what the newest failure says of its content, then what a running engine proves."""
    if observed.weights.status == "False":
        return observed.weights
    for view in replicas(observed):
        failure = view.failure
        if failure is not None and failure.configuration and failure.reason.startswith(_ABOUT_WEIGHTS):
            # Another model than the planned one may be whole: which of the two is wrong is the user's to say.
            other = failure.reason == Reason.MODEL_MISMATCH
            reason = Reason.MODEL_MISMATCH if other else Reason.WEIGHTS_INVALID
            return Finding("False", reason, f"{failure.reason}: {failure.message}")
    if any(view.state is GangState.READY for view in replicas(observed)):
        return Finding("True", Reason.WEIGHTS_FOUND, "a replica serves from them")
    return observed.weights


def _placed(observed: Observation) -> Finding:
    if observed.decision is None:
        return Finding("Unknown", Reason.RECONCILE_FAILED, "not looked at in this round; see Ready")
    if observed.unplaceable:
        return Finding("False", Reason.INSUFFICIENT_NODES, shortage(observed))
    if not observed.decision.replicas:
        return Finding("True" if observed.desired == 0 else "Unknown", Reason.NO_REPLICAS, "there is no gang to place")
    gated = [v.name for v in observed.decision.replicas if v.state is GangState.GATED]
    if gated:
        return Finding("Unknown", Reason.STARTING, f"{', '.join(gated)}: being placed")
    return Finding("True", Reason.PLACED, "every gang has its nodes")
