"""What one reconcile starts from, read from the cache. Pure on what the cache returned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ..api import names
from ..api.hardware import HardwareProfile
from ..api.reasons import Reason
from ..api.types import Metadata, R1DeploymentSpec, R1DeploymentStatus
from ..manifests.context import Context
from ..planning import Plan, Refusal, make_plan
from ..status.observation import Finding


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator was started with."""

    engine_image: str
    gateway_image: str
    profiles: Mapping[str, HardwareProfile]
    fabric_label: str
    node_lost_seconds: float = 10.0
    """Since the node's Ready condition turned: the node controller has waited its own grace period before that."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One R1Deployment, parsed. `spec` is None when it does not fit our types (another version's CRD, no CEL)."""

    metadata: Metadata
    owner: Mapping[str, Any]
    status: R1DeploymentStatus
    spec: R1DeploymentSpec | None
    plan: Plan | None
    context: Context | None
    valid: Finding


def read_subject(obj: Mapping[str, Any], settings: Settings) -> Subject:
    """Parse and plan one R1Deployment as the API server holds it."""
    metadata = Metadata.model_validate(obj["metadata"])
    owner = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": metadata.name,
        "uid": metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    status = _status(obj.get("status") or {})
    try:
        spec = R1DeploymentSpec.model_validate(obj.get("spec") or {})
    except ValidationError as error:
        finding = Finding("False", Reason.INVALID_SPEC, _explain(error))
        return Subject(metadata, owner, status, None, None, None, finding)
    plan = make_plan(spec, settings.profiles)
    if isinstance(plan, Refusal):
        finding = Finding("False", Reason.PLAN_REFUSED, str(plan))
        return Subject(metadata, owner, status, spec, None, None, finding)
    profile = spec.hardware_profile or settings.profiles.get(spec.hardware)
    context = Context(
        name=metadata.name,
        namespace=metadata.namespace,
        owner=owner,
        spec=spec,
        plan=plan,
        engine_image=spec.engine.image or settings.engine_image,
        gateway_image=spec.gateway.image or settings.gateway_image,
        node_selector=profile.node_selector if profile else {},
    )
    message = f"planned: {plan.nodes_per_replica} nodes and {plan.gpus_per_replica} GPUs a replica"
    return Subject(metadata, owner, status, spec, plan, context, Finding("True", Reason.PLANNED, message))


def _status(raw: Mapping[str, Any]) -> R1DeploymentStatus:
    try:
        return R1DeploymentStatus.model_validate(raw)
    except ValidationError:
        return R1DeploymentStatus()  # written by another version: everything in it can be found out again


def _explain(error: ValidationError) -> str:
    parts = []
    for problem in error.errors()[:5]:
        path = ".".join(["spec", *(str(step) for step in problem["loc"])])
        parts.append(f"{path}: {problem['msg']}")
    return "; ".join(parts) + "; change the resource (kubectl explain r1d.spec shows what is allowed)"
