"""The resource, parsed and planned: what a round starts from. Pure on what the cache returned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..api.parse import parse_lenient, parse_status
from ..api.reasons import Reason
from ..api.types import Metadata, R1Deployment, R1DeploymentSpec, R1DeploymentStatus
from ..manifests.context import Context, ImagePull
from ..manifests.keys import Keys
from ..manifests.network_policy import Reach
from ..planning import Plan, Refusal, make_plan, settle
from ..planning.hardware import Hardware
from ..planning.profiles import Profile
from ..status.observation import Finding
from .asked import asked_of
from .host_paths import refused_host_path
from .pod_fields import refused_pod


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator was started with."""

    engine_image: str
    gateway_image: str
    profiles: Mapping[str, Hardware]
    fabric_label: str
    node_lost_seconds: float = 10.0
    """Since the node's Ready condition turned: the node controller has waited its own grace period before that."""
    keys: Keys = field(default_factory=Keys.random)
    reach: Reach | None = None
    """Who else may reach the pods; None: no NetworkPolicy is made."""
    host_path_prefixes: tuple[str, ...] = ("/",)
    images: ImagePull = field(default_factory=ImagePull)
    adopts: bool = False
    """Whether revisions that an older operator made are replaced by what this one makes of the same spec."""
    node_conditions: frozenset[str] = frozenset()
    """Types of node conditions which, while True, say that a node is better not used."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One R1Deployment. `spec` is None when it does not fit our types (the API server holds an older or newer CRD).

    `asked`: what of the spec says what an engine is, as the API server holds it. `unknown`: fields of the spec that
    this version does not know and does without. `unread`: fields of the status that could not be read back; what stood
    there is unknown, not zero.
    """

    metadata: Metadata
    status: R1DeploymentStatus
    spec: R1DeploymentSpec | None
    plan: Plan | None
    context: Context | None
    valid: Finding
    unknown: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    asked: Mapping[str, Any] = field(default_factory=dict)


def read_subject(obj: Mapping[str, Any], settings: Settings) -> Subject:
    """Parse and plan one R1Deployment as the API server holds it. Never raises for bad content."""
    metadata = Metadata.model_validate(obj["metadata"])
    status, unread = parse_status(obj.get("status"))
    deployment, unknown = parse_lenient(obj)
    if isinstance(deployment, list):
        text = "; ".join(str(problem) for problem in deployment[:5])
        finding = Finding("False", Reason.INVALID_SPEC, text)
        return Subject(metadata, status, None, None, None, finding, unknown, unread)
    spec = deployment.spec
    context = _planned(deployment, settings)
    if isinstance(context, Refusal):
        finding = Finding("False", Reason.PLAN_REFUSED, str(context))
        return Subject(metadata, status, spec, None, None, finding, unknown, unread)
    plan = context.plan
    valid = Finding("True", Reason.PLANNED, _told(plan))
    return Subject(metadata, status, spec, plan, context, valid, unknown, unread, asked_of(obj.get("spec") or {}))


def _told(plan: Plan) -> str:
    told = f"planned: {plan.nodes_per_replica} nodes and {plan.gpus_per_replica} GPUs a replica"
    if not plan.cuts_context:
        return told
    return (
        f"{told}; the context is cut from {plan.own_context} to {plan.limits.context_length} tokens, the most that fit "
        "a rank: set spec.limits.contextLength to what you need, or more nodes in spec.topology.nodesPerReplica"
    )


def _planned(deployment: R1Deployment, settings: Settings) -> Context | Refusal:
    spec = deployment.spec
    settled = refused_host_path(spec, settings.host_path_prefixes) or settle(spec, settings.profiles)
    if isinstance(settled, Refusal):
        return settled
    whole, profile = settled
    plan = refused_pod(spec, whole, profile.resource_name) or make_plan(whole, settings.profiles)
    if isinstance(plan, Refusal):
        return plan
    return Context(
        name=deployment.name,
        namespace=deployment.namespace,
        owner=deployment.owner_reference(),
        spec=whole,
        plan=plan,
        engine_image=spec.engine.image or settings.engine_image,
        gateway_image=spec.gateway.image or settings.gateway_image,
        node_labels=profile.node_labels if isinstance(profile, Profile) else (),
        images=settings.images,
        keys=settings.keys,
    )
