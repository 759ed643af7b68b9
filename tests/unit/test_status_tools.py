"""What tools make of our status: kstatus (Flux, Helm), Argo CD's health, `kubectl wait`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from r1_operator.api.reasons import Reason
from r1_operator.api.types import R1DeploymentStatus, to_wire
from r1_operator.lifecycle.gangs import Failure, GangState
from r1_operator.placement.place import Unplaceable
from r1_operator.status.derive import derive
from r1_operator.status.health import STALLED_SECONDS
from r1_operator.status.observation import Finding, Observation

from tests.unit.status_rounds import NOW, gang, observed, view

READY = view(GangState.READY)
OLD = view(GangState.READY, revision="old")
BROKEN = view(GangState.FAILED, Failure("RankDied", "pod r1-1-0-0: died", NOW), name="r1-1-0")
SHORT = (Unplaceable("r1-0-0", "needs 1 node"),)
NO_PLAN = Finding("False", Reason.PLAN_REFUSED, "spec.hardware: …")
NO_NODE = Finding("True", Reason.NO_NODE_FOR_NEW_REVISION, "no node takes revision a; …")


def kstatus(resource: dict[str, Any]) -> str:
    """sigs.k8s.io/cli-utils, pkg/kstatus/status: checkGenericProperties, then checkReadyCondition."""
    metadata, status = resource["metadata"], resource.get("status", {})
    if metadata.get("deletionTimestamp"):
        return "Terminating"
    if status.get("observedGeneration", metadata["generation"]) != metadata["generation"]:
        return "InProgress"
    conditions = {c["type"]: c["status"] for c in status.get("conditions", ())}
    for kind, result in (("Reconciling", "InProgress"), ("Stalled", "Failed")):
        if conditions.get(kind) == "True":
            return result
    return "Current" if conditions.get("Ready", "True") == "True" else "InProgress"


def argo(resource: dict[str, Any]) -> str:
    """The health check of docs/status.md."""
    status = resource.get("status", {})
    conditions = {c["type"]: c["status"] for c in status.get("conditions", ())}
    if not conditions or status.get("observedGeneration") != resource["metadata"]["generation"]:
        return "Progressing"
    if conditions.get("Stalled") == "True":
        return "Degraded"
    if conditions.get("Ready") == "True" and "Reconciling" not in conditions:
        return "Degraded" if conditions.get("Degraded") == "True" else "Healthy"
    return "Progressing"


def resource(status: R1DeploymentStatus, generation: int = 3) -> dict[str, Any]:
    return {"metadata": {"generation": generation}, "status": to_wire(status)}


def after(rounds: Iterable[Observation], seconds: float = 0.0) -> R1DeploymentStatus:
    """The status of the last round, and `seconds` later."""
    status = R1DeploymentStatus()
    for one in rounds:
        status = derive(status, one, NOW)
    return derive(status, one, NOW + seconds)


CASES: dict[str, tuple[Observation, float, str, str, str]] = {
    "starting": (observed(view(GangState.STARTING)), 0, "InProgress", "Progressing", ""),
    "waits for nodes": (observed(view(GangState.GATED), unplaceable=SHORT), 0, "InProgress", "Progressing", ""),
    "no nodes": (observed(view(GangState.GATED), unplaceable=SHORT), STALLED_SECONDS, "Failed", "Degraded", ""),
    "ready": (observed(READY, routed=1), 0, "Current", "Healthy", "Ready Available"),
    "rolling": (
        observed(OLD, view(GangState.STARTING, name="r1-1-0")),
        0,
        "InProgress",
        "Progressing",
        "Ready Available",
    ),
    "leaving": (
        observed(READY, leaving=(gang("r1-1-0", "old"),)),
        0,
        "InProgress",
        "Progressing",
        "Ready Available",
    ),
    "stuck roll": (observed(OLD, troubles=(NO_NODE,)), STALLED_SECONDS, "Failed", "Degraded", "Ready Available"),
    "one died": (observed(READY, BROKEN, desired=2), 0, "InProgress", "Progressing", "Available"),
    "sick GPU": (observed(READY, sick_gpus={"r1-0-0": ("n1: 3",)}), 0, "Current", "Degraded", "Ready Available"),
    "scaled to zero": (observed(desired=0), 0, "Current", "Healthy", "Ready Available"),
    "refused": (observed(READY, spec_valid=NO_PLAN, revision=None), 0, "Failed", "Degraded", "Available"),
}
"""What is observed, for how long, kstatus's verdict, Argo CD's, and the conditions that `kubectl wait` finds True."""


@pytest.mark.parametrize(("one", "seconds", "flux", "health", "waits"), CASES.values(), ids=CASES.keys())
def test_what_tools_make_of_it(one: Observation, seconds: float, flux: str, health: str, waits: str) -> None:
    status = after([one], seconds)
    assert (kstatus(resource(status)), argo(resource(status))) == (flux, health)
    holding = {c.type for c in status.conditions if c.status == "True"}
    assert [kind for kind in ("Ready", "Available") if kind in holding] == waits.split()


def test_a_spec_that_the_operator_has_not_seen_is_in_progress() -> None:
    seen = after([observed(READY)])
    assert kstatus(resource(seen, generation=4)) == "InProgress"
    assert argo(resource(seen, generation=4)) == "Progressing"
    assert {c.observed_generation for c in seen.conditions} == {3}


def test_what_has_passed_leaves_no_mark() -> None:
    stuck = after([observed(view(GangState.GATED), unplaceable=SHORT)], STALLED_SECONDS)
    assert stuck.condition("Stalled") is not None
    well = derive(stuck, observed(READY), NOW + 100)
    assert {c.type for c in well.conditions} & {"Stalled", "Reconciling"} == set()
