"""What every child of one R1Deployment is rendered from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..api import names
from ..api.hardware import NodeLabel
from ..api.types import R1DeploymentSpec
from ..planning.plan import Plan
from .keys import Keys


@dataclass(frozen=True, slots=True)
class ImagePull:
    """How images are pulled where a resource does not say it: the chart's `images.pullPolicy` and `pullSecrets`."""

    policy: str | None = None
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """One R1Deployment with its plan and what the operator adds to it. `spec.engine` carries what the hardware profile
    says of the engine's pods already (`planning.settle`)."""

    name: str
    namespace: str
    owner: Mapping[str, Any]
    spec: R1DeploymentSpec
    plan: Plan
    engine_image: str
    gateway_image: str
    node_labels: tuple[NodeLabel, ...] = ()
    images: ImagePull = field(default_factory=ImagePull)
    keys: Keys = field(default_factory=Keys.random, kw_only=True)

    @property
    def uid(self) -> str:
        """Of the R1Deployment."""
        return str(self.owner["uid"])

    def metadata(self, name: str, component: str, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
        """ObjectMeta of a child: it goes when its R1Deployment goes."""
        return {
            "name": name,
            "namespace": self.namespace,
            "labels": names.base_labels(self.name, component) | dict(labels or {}),
            "ownerReferences": [dict(self.owner)],
        }
