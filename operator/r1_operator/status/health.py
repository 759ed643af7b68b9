"""`Ready`, `Available`, `Progressing`, `Degraded`: how a resource is to who waits for it, who uses it, who mends it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ..api.reasons import ConditionType, Reason
from ..api.timestamps import unix_time
from ..api.types import Condition
from ..lifecycle.actions import ReplicaView
from ..lifecycle.gangs import GangState
from .faults import Fault, Weight, not_routed
from .observation import Finding, Observation

STALLED_SECONDS = 60.0
"""kstatus ends its wait at `Stalled`: what passes by itself (nodes that are just being freed) must not end it."""
_REFUSALS = frozenset({Reason.INVALID_SPEC, Reason.PLAN_REFUSED})
"""What no time mends."""
_THERE = frozenset({Reason.NEW_REPLICAS_AVAILABLE, Reason.SCALED_TO_ZERO})


def ready(observed: Observation, faults: Sequence[Fault]) -> Finding:
    """Every wanted replica answers through the gateway. What is broken beside them is in the message."""
    worst = faults[0] if faults else None
    if observed.spec_valid.status == "False":
        return Finding("False", observed.spec_valid.reason, observed.spec_valid.message)
    if observed.decision is None:
        return Finding("Unknown", Reason.RECONCILE_FAILED, worst.message if worst else "")
    if observed.desired == 0:
        return Finding("True", Reason.SCALED_TO_ZERO, _nobody(observed))
    count, old = _ready_words(observed), outdated(observed)
    paused = observed.spec is not None and observed.spec.paused
    what = "kept while spec.paused" if paused else "being replaced one by one"
    roll = f"{what}: {', '.join(old)}"
    if ready_count(observed) < observed.desired:
        return _not_ready(observed, worst, count, roll if old else "")
    if observed.gateway.status != "True":
        return Finding("False", observed.gateway.reason, f"{count}, but the gateway is not: {observed.gateway.message}")
    if observed.routed is not None and observed.routed < observed.desired:
        return Finding("False", Reason.NOT_ROUTED, f"{count}, but {not_routed(observed)}")
    words = [count, *([f"{worst.reason}: {worst.message}"] if worst else []), *([roll] if old else [])]
    broken = worst is not None and worst.weight is not Weight.NOTABLE
    reason = Reason.DEGRADED if broken else Reason.UPDATING if old else Reason.READY
    return Finding("True", reason, "; ".join(words))


def _nobody(observed: Observation) -> str:
    """Why there is no replica."""
    if observed.scaling is not None:
        return "no replica runs while nobody asks; the next request wakes one"
    return "no replica is wanted; raise spec.replicas to serve"


def _not_ready(observed: Observation, worst: Fault | None, count: str, roll: str) -> Finding:
    some = ready_count(observed) > 0
    if worst is not None and worst.weight is not Weight.NOTABLE:
        reason = Reason.DEGRADED if some and worst.reason is Reason.START_FAILED else worst.reason
        return Finding("False", reason, f"{count}; {worst.message}")
    if roll:
        return Finding("False", Reason.UPDATING, f"{count}; {roll}")
    return Finding("False", Reason.SCALING if some else Reason.STARTING, count)


def available(before: Condition | None, observed: Observation) -> Finding:
    """At least one replica answers through the gateway."""
    if observed.decision is None:
        return Finding("Unknown", Reason.RECONCILE_FAILED, "not looked at in this round; see Ready")
    if observed.desired == 0:
        # As a Deployment of 0 replicas: nothing that is wanted is missing, and whoever waits for it may go on.
        return Finding("True", Reason.SCALED_TO_ZERO, _nobody(observed))
    serving = len(observed.decision.serving)
    if observed.routed is not None:
        if observed.routed > 0:
            count = f"{observed.routed} of {observed.total} replicas answer through the gateway"
            return Finding("True", Reason.REPLICAS_SERVE, count)
        why = not_routed(observed) if serving else "no replica is ready"
        return Finding("False", Reason.NOT_ROUTED if serving else Reason.NO_REPLICA_SERVES, why)
    if serving == 0:
        return Finding("False", Reason.NO_REPLICA_SERVES, "no replica is ready")
    if observed.gateway.status == "True":
        return Finding(
            "True", Reason.REPLICAS_SERVE, f"{serving} of {observed.total} replicas are ready, and so is the gateway"
        )
    if observed.gateway.reason is Reason.GATEWAY_STARTING:
        return Finding("False", Reason.GATEWAY_STARTING, observed.gateway.message)
    # A gateway that we cannot reach goes on serving what it knows.
    if before is not None and before.status == "True":
        return Finding("True", Reason.REPLICAS_SERVE, f"as last seen; {observed.gateway.message}")
    return Finding("Unknown", observed.gateway.reason, observed.gateway.message)


def progressing(observed: Observation, faults: Sequence[Fault]) -> Finding:
    """What runs is what is wanted, or on its way there."""
    if _complete(observed):
        if observed.desired == 0:
            return Finding("True", Reason.SCALED_TO_ZERO, "no replica is left")
        text = f"{observed.total} of {observed.total} replicas run revision {observed.revision} and are ready"
        return Finding("True", Reason.NEW_REPLICAS_AVAILABLE, text)
    if faults and faults[0].weight is Weight.BLOCKS:
        return Finding("False", faults[0].reason, faults[0].message)
    reason, text = _under_way(observed)
    return Finding("True", reason, text)


def _complete(observed: Observation) -> bool:
    decision = observed.decision
    if decision is None or decision.leaving or observed.spec_valid.status == "False":
        return False
    trial = observed.trial
    if trial is not None and trial.state == "Aborted" and trial.revision != observed.revision:
        return False  # what the spec asks for does not run, however well its predecessor does
    if len(decision.replicas) != observed.total or updated(observed) < observed.total:
        return False
    if observed.desired == 0:
        return True
    return observed.gateway.status == "True" and (observed.routed is None or observed.routed >= observed.total)


def _under_way(observed: Observation) -> tuple[Reason, str]:
    states = {view.state for view in replicas(observed)}
    count = _ready_words(observed)
    leaving = len(observed.decision.leaving) if observed.decision else 0
    if outdated(observed) and observed.spec is not None and observed.spec.paused:
        text = f"{count}, {updated(observed)} of them of revision {observed.revision}; spec.paused keeps the others"
        return Reason.PAUSED, f"{text} as they are: `r1 rollout resume` goes on"
    if outdated(observed):
        return Reason.UPDATING, f"{count}, {updated(observed)} of them of revision {observed.revision}"
    if GangState.FAILED in states:
        return Reason.RESTARTING, count
    if ready_count(observed) < observed.total:
        if GangState.UNREADY in states:
            return Reason.REPLICAS_UNREADY, f"{count}; the others were"
        return (Reason.SCALING if ready_count(observed) else Reason.STARTING), count
    if len(replicas(observed)) > observed.total or leaving:
        return Reason.SCALING, f"{count}, {leaving} more are leaving"
    if observed.gateway.status != "True":
        return observed.gateway.reason, observed.gateway.message
    return Reason.NOT_ROUTED, not_routed(observed)


def degraded(faults: Sequence[Fault]) -> Finding:
    """Something is broken that needs somebody, whether or not replicas serve."""
    if not faults:
        return Finding("False", Reason.AS_EXPECTED, "nothing is known to be broken")
    first, *others = faults
    return Finding("True", first.reason, "; ".join([first.message, *(f"{f.reason}: {f.message}" for f in others)]))


def for_kstatus(
    before: Mapping[str, Condition], progress: Finding, now: float
) -> Iterator[tuple[ConditionType, Finding]]:
    """`Reconciling` and `Stalled`, each only while it is True, which is kstatus's convention."""
    if progress.status == "True":
        if progress.reason not in _THERE:
            yield ConditionType.RECONCILING, progress
        return
    old = before.get(ConditionType.PROGRESSING)
    since = unix_time(old.last_transition_time) if old is not None and old.status == "False" else None
    if progress.reason in _REFUSALS or (since is not None and now - since >= STALLED_SECONDS):
        yield ConditionType.STALLED, replace(progress, status="True")
    else:
        yield ConditionType.RECONCILING, replace(progress, status="True")


def replicas(observed: Observation) -> tuple[ReplicaView, ...]:
    """The replicas of this round; none where it did not get that far."""
    return observed.decision.replicas if observed.decision else ()


def _ready_words(observed: Observation) -> str:
    spares = f", {observed.spares} of them to spare" if observed.spares else ""
    return f"{ready_count(observed)} of {observed.total} replicas are ready{spares}"


def ready_count(observed: Observation) -> int:
    """Replicas whose pods are all ready."""
    return sum(view.state is GangState.READY for view in replicas(observed))


def outdated(observed: Observation) -> list[str]:
    """Gangs of another revision than the one wanted."""
    wanted = observed.revision
    return [v.name for v in replicas(observed) if wanted and v.revision not in {"", wanted}]


def updated(observed: Observation) -> int:
    """Ready gangs of the wanted revision."""
    views = (v for v in replicas(observed) if v.state is GangState.READY and v.gang is not None)
    return sum(v.gang is not None and v.gang.revision == observed.revision for v in views)
