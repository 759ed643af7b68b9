"""What a cluster's owner puts between an operator and its pods: quotas, and injectors of sidecars."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from tests.cluster.cluster import Cluster
from tests.cluster.workloads import IMAGE, pod
from tests.waiting import PATIENCE_SECONDS, wait_for

SIDECAR: Final = "mesh-proxy"
_POLICY_KINDS: Final = "mutatingadmissionpolicybinding,mutatingadmissionpolicy"
_CONTAINER: Final = f'Object.spec.containers{{name: "{SIDECAR}", image: "{IMAGE}", command: ["sleep", "infinity"]}}'


@contextmanager
def inject_sidecar(cluster: Cluster, namespace: str, labels: Mapping[str, str]) -> Iterator[None]:
    """Inside, every pod with these labels that is made in the namespace gets a second container, which only sleeps.

    An ordinary container, not a "native" sidecar: the pod runs on when its own container has ended.
    """
    name = f"{SIDECAR}-{namespace}"
    cluster.apply(*_injector(name, namespace, labels))
    try:
        asks = pod("probe", "true")
        asks["metadata"] |= {"namespace": namespace, "labels": dict(labels)}
        wait_for("the injector works", lambda: len(_admitted(cluster, asks)), PATIENCE_SECONDS, until=lambda n: n == 2)
        yield
    finally:
        cluster.kubectl("delete", _POLICY_KINDS, name, "--ignore-not-found")


def _injector(name: str, namespace: str, labels: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    version = "admissionregistration.k8s.io/v1"
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    # No ApplyConfiguration: it may not set lists that are atomic, such as a container's command.
    expression = f'[JSONPatch{{op: "add", path: "/spec/containers/-", value: {_CONTAINER}}}]'
    policy = {
        "apiVersion": version,
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "matchConstraints": {"resourceRules": [pods], "objectSelector": {"matchLabels": dict(labels)}},
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
        },
    }
    here = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    binding = {
        "apiVersion": version,
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "matchResources": {"namespaceSelector": here}},
    }
    return policy, binding


def _admitted(cluster: Cluster, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The containers that the pod would have."""
    answer = cluster.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(manifest))
    containers: list[dict[str, Any]] = json.loads(answer)["spec"]["containers"]
    return containers


def limit(cluster: Cluster, namespace: str, hard: Mapping[str, str], name: str = "quota") -> None:
    """A ResourceQuota, such as {"requests.nvidia.com/gpu": "3", "pods": "4"}, that is enforced when this returns."""
    metadata = {"name": name, "namespace": namespace}
    cluster.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": dict(hard)}})

    def counted() -> Any:
        return cluster.kubectl_json("-n", namespace, "get", "resourcequota", name).get("status", {}).get("hard")

    wait_for("the quota counts", counted, PATIENCE_SECONDS, until=lambda told: told == dict(hard))
