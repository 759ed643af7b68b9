"""The kinds of Kubernetes objects the operator touches, and the URL of each.

A static table instead of API discovery: the operator's RBAC names the same kinds, and a start needs no extra calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from r1_operator.api import names

JsonObject = Mapping[str, Any]
"""A Kubernetes object as parsed JSON. Cached objects are shared: never change one in place."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind: `Resource("apps", "v1", "Deployment", "deployments")`. The core group is the empty string."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of a collection, an object or a subresource.

        Raises ValueError when a namespaced object is addressed without its namespace.
        """
        if self.namespaced and name is not None and not namespace:
            raise ValueError(f"{self.kind} {name}: a namespaced object needs its namespace")
        parts = ["", "apis", self.group, self.version] if self.group else ["", "api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name is not None:
            parts.append(name)
        if subresource is not None:
            parts.append(subresource)
        return "/".join(quote(part, safe="") for part in parts)


PODS = Resource("", "v1", "Pod", "pods")
SERVICES = Resource("", "v1", "Service", "services")
CONFIG_MAPS = Resource("", "v1", "ConfigMap", "configmaps")
SECRETS = Resource("", "v1", "Secret", "secrets")
NODES = Resource("", "v1", "Node", "nodes", namespaced=False)
NAMESPACES = Resource("", "v1", "Namespace", "namespaces", namespaced=False)
PERSISTENT_VOLUME_CLAIMS = Resource("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
RESOURCE_QUOTAS = Resource("", "v1", "ResourceQuota", "resourcequotas")
EVENTS = Resource("", "v1", "Event", "events")
DEPLOYMENTS = Resource("apps", "v1", "Deployment", "deployments")
NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
POD_DISRUPTION_BUDGETS = Resource("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
LEASES = Resource("coordination.k8s.io", "v1", "Lease", "leases")
POD_GROUPS = Resource("scheduling.k8s.io", "v1beta1", "PodGroup", "podgroups")
CUSTOM_RESOURCE_DEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False
)
R1_DEPLOYMENTS = Resource(names.GROUP, names.VERSION, names.KIND, names.PLURAL)

KNOWN = (
    PODS,
    SERVICES,
    CONFIG_MAPS,
    SECRETS,
    NODES,
    NAMESPACES,
    PERSISTENT_VOLUME_CLAIMS,
    RESOURCE_QUOTAS,
    EVENTS,
    DEPLOYMENTS,
    NETWORK_POLICIES,
    POD_DISRUPTION_BUDGETS,
    LEASES,
    POD_GROUPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    R1_DEPLOYMENTS,
)
_BY_KIND = {(resource.api_version, resource.kind): resource for resource in KNOWN}


def resource_of(obj: JsonObject) -> Resource:
    """The resource of an object by its apiVersion and kind. Raises ValueError when it is not in the table."""
    key = (str(obj.get("apiVersion")), str(obj.get("kind")))
    if key not in _BY_KIND:
        raise ValueError(f"apiVersion {key[0]}, kind {key[1]}: not a kind this operator handles; add it to {__name__}")
    return _BY_KIND[key]


def key_of(obj: JsonObject) -> tuple[str, str]:
    """(namespace, name) of an object; the namespace is empty for cluster-wide ones."""
    metadata = obj.get("metadata") or {}
    return str(metadata.get("namespace") or ""), str(metadata["name"])


def version_of(obj: JsonObject) -> int:
    """The resourceVersion as a number: those of one kind may be compared for age (official since Kubernetes 1.35)."""
    return int((obj.get("metadata") or {}).get("resourceVersion") or 0)
