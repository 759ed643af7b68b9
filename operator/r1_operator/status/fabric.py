"""The condition `FabricReady`: the network between the nodes of each gang, by the engines' own account."""

from __future__ import annotations

from ..api.reasons import Reason
from ..api.types import Condition, ConditionStatus
from ..lifecycle.actions import ReplicaView
from ..lifecycle.gangs import GangState
from .observation import FabricReport, Finding, Observation

FABRIC_FAULTS = frozenset(
    {
        *(Reason.NO_RDMA_DEVICES, Reason.NO_ROCE_ADDRESS, Reason.PORTS_DOWN, Reason.RATE_BELOW_PROFILE),
        *(Reason.NOT_UNIFORM, Reason.MEMLOCK_TOO_LOW, Reason.GPU_DIRECT_MISSING, Reason.GPU_INITIATED_MISSING),
        *(Reason.NCCL_USES_SOCKETS, Reason.PLAN_NEEDS_RDMA, Reason.FABRIC_NOT_READY),
    }
)
_SERVED = frozenset({GangState.READY, GangState.UNREADY})


def fabric_ready(before: Condition | None, observed: Observation) -> Finding | None:
    """None where no gang has anything between its nodes. `before`: the condition as it was last told."""
    views = observed.decision.replicas if observed.decision is not None else ()
    reports = {view.name: observed.fabrics[view.name] for view in views if view.name in observed.fabrics}
    if refused := next((view for view in views if _refused(view)), None):
        assert refused.failure is not None
        return Finding("False", Reason(refused.failure.reason), f"{refused.name}: {refused.failure.message}")
    bad = {name: report for name, report in reports.items() if report.ready is False}
    if bad:
        name, report = min(bad.items())
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        return Finding("False", _reason(report), f"{name}: {_words(report)}{more}")
    plan = observed.plan
    between = plan is not None and plan.nodes_per_replica > 1 and plan.device == "cuda"
    if not reports and not between:
        return None
    served = [view.name for view in views if view.state in _SERVED]
    # One that has failed spoke while it ran: what it lacked, it lacks until its next attempt says otherwise.
    silent = [v.name for v in views if v.state in {*_SERVED, GangState.FAILED} and v.name not in reports]
    if before is not None and (silent or observed.decision is None):
        return Finding(before.status, _known(before.reason), before.message)  # nobody else has heard anything new
    unsure = [name for name in served if name not in reports or reports[name].ready is None]
    if unsure:
        told = reports.get(unsure[0])
        return _unknown(f"{unsure[0]}: {told.message if told is not None else 'its engine does not tell'}")
    good = {name: report for name, report in reports.items() if report.ready}
    if not good:
        return _unknown("no engine has looked at it yet")
    name, report = min(good.items())
    return Finding("True", _reason(report), f"{name}: {report.message}")


def _refused(view: ReplicaView) -> bool:
    """Its engine did not start for it."""
    return view.failure is not None and view.failure.configuration and view.failure.reason in FABRIC_FAULTS


def _unknown(message: str) -> Finding:
    status: ConditionStatus = "Unknown"
    return Finding(status, Reason.FABRIC_UNKNOWN, message)


def _reason(report: FabricReport) -> Reason:
    known = _known(report.reason)
    return Reason.RDMA_FOUND if report.ready and known is Reason.FABRIC_NOT_READY else known


def _known(word: str) -> Reason:
    """A reason of this version; an engine, or a status, of another one may have others."""
    return next((reason for reason in Reason if reason == word), Reason.FABRIC_NOT_READY)


def _words(report: FabricReport) -> str:
    told = _known(report.reason) == report.reason
    return report.message if told else f"{report.reason}: {report.message}"
