"""The whole resource, and every type of the API under one import: `from r1_operator.api.types import ...`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, JsonValue

from .autoscaling import Autoscaling, ScalingSchedule
from .engine import Engine, EngineResources
from .fabric import EngineFabric
from .fields import ApiModel, ReadModel
from .gateway import Gateway, SecretKey
from .hardware import Device, HardwareProfile
from .names import API_VERSION, KIND
from .pod_template import EnvVar
from .spec import (
    Drain,
    HostPathWeights,
    Limits,
    Model,
    MoeA2aBackend,
    Objective,
    PersistentVolumeClaimWeights,
    R1DeploymentSpec,
    Slo,
    Startup,
    Topology,
    Weights,
)
from .status import (
    AutoscalingHistory,
    AutoscalingOutlook,
    AutoscalingStatus,
    Condition,
    ConditionStatus,
    LoadStatus,
    PlanStatus,
    R1DeploymentStatus,
    ReplicaStatus,
    RolloutStatus,
    Stage,
)
from .strategy import Canary, CanaryQuestion, Strategy

__all__ = [
    "Autoscaling",
    "AutoscalingHistory",
    "AutoscalingOutlook",
    "AutoscalingStatus",
    "Canary",
    "CanaryQuestion",
    "Condition",
    "ConditionStatus",
    "Device",
    "Drain",
    "Engine",
    "EngineFabric",
    "EngineResources",
    "EnvVar",
    "Gateway",
    "HardwareProfile",
    "HostPathWeights",
    "Limits",
    "LoadStatus",
    "Metadata",
    "Model",
    "MoeA2aBackend",
    "Objective",
    "PersistentVolumeClaimWeights",
    "PlanStatus",
    "R1Deployment",
    "R1DeploymentSpec",
    "R1DeploymentStatus",
    "ReplicaStatus",
    "RolloutStatus",
    "ScalingSchedule",
    "SecretKey",
    "Slo",
    "Stage",
    "Startup",
    "Strategy",
    "Topology",
    "Weights",
]


class Metadata(ReadModel):
    """The part of metav1.ObjectMeta that we read."""

    name: str = ""
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None


class R1Deployment(ApiModel):
    """DeepSeek-R1 served over whole multi-GPU nodes: the operator plans, places, starts, scales and heals it."""

    api_version: Literal["r1operator.dev/v1alpha1"] = API_VERSION
    kind: Literal["R1Deployment"] = KIND
    metadata: Metadata
    spec: R1DeploymentSpec
    status: R1DeploymentStatus = Field(default_factory=R1DeploymentStatus)

    @property
    def name(self) -> str:
        """metadata.name"""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """metadata.namespace"""
        return self.metadata.namespace

    @property
    def deleting(self) -> bool:
        """Whether somebody has deleted it and a finalizer still holds it."""
        return self.metadata.deletion_timestamp is not None

    def owner_reference(self) -> dict[str, JsonValue]:
        """ownerReferences entry for the objects we make: they go when this resource goes."""
        return {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "name": self.name,
            "uid": self.metadata.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }


def to_wire(model: ApiModel) -> dict[str, Any]:
    """A model as the JSON object the API server takes: camelCase keys, absent fields left out."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)
