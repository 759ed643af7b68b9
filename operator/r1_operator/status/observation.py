"""Everything of one round that the status tells about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..api.reasons import Reason
from ..api.types import ConditionStatus, PlanStatus, R1DeploymentSpec
from ..autoscaling.decide import Decision as ScalingDecision
from ..autoscaling.window import Sample
from ..lifecycle.actions import Decision
from ..placement.place import Unplaceable
from ..planning.plan import Plan


@dataclass(frozen=True, slots=True)
class Finding:
    """One question answered: the body of a condition."""

    status: ConditionStatus
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What the agent of a gang's node 0 last said of its gang."""

    stage: str
    message: str


@dataclass(frozen=True, slots=True)
class FabricReport:
    """What the agent of node 0 says of the network between its gang's nodes. `ready` None: it does not know."""

    ready: bool | None
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that admission made otherwise than asked. `harms`: the engine is slowed, cut or cannot work by it."""

    harms: bool
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Trial:
    """How the change to a revision stands. `state`: of the first replica's trial, as in `status.rollout.canary`."""

    revision: str
    state: Literal["None", "Running", "Passed", "Aborted"] = "None"
    message: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """One round. What could not be found out is None or Unknown; a failed step leaves its part at that."""

    generation: int
    spec: R1DeploymentSpec | None
    selector: str
    desired: int
    spec_valid: Finding
    weights: Finding
    gateway: Finding
    spares: int = 0
    """Replicas wanted beside the `desired` ones, without which nothing is missing yet."""
    routed: int | None = None
    """Replicas that every gateway pod sends requests to; None if that is not known."""
    plan: Plan | None = None
    layout: PlanStatus | None = None
    """Of the revision that is wanted, as it was planned when that came up."""
    trial: Trial | None = None
    decision: Decision | None = None
    revision: str | None = None
    unplaceable: tuple[Unplaceable, ...] = ()
    readings: Mapping[str, Reading] = field(default_factory=dict)
    """By gang name."""
    sick_gpus: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By gang name: GPUs of any of its nodes that NVML calls unhealthy, in words."""
    fabrics: Mapping[str, FabricReport] = field(default_factory=dict)
    last_start: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage."""
    """By gang name; of one node, and without GPUs, there is none."""
    changed: Mapping[str, tuple[Change, ...]] = field(default_factory=dict)
    """By pod: what admission made of it, where that is not what was asked."""
    load: Sample | None = None
    scaling: ScalingDecision | None = None
    last_scale_up: float | None = None
    last_scale_down: float | None = None
    errors: tuple[str, ...] = ()
    troubles: tuple[Finding, ...] = ()
    """What stands between the wish and its coming true, or is broken beside replicas that serve: worst first."""

    @property
    def total(self) -> int:
        """Replicas that there are to be."""
        return self.desired + self.spares
