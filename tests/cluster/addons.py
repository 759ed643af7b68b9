"""Objects that a cluster holds from the start: DNS as a Service, and the roles of two identities of ours."""

from __future__ import annotations

from typing import Any, Final

from tests.cluster.network import Addresses


def _binding(name: str, role: str, user: str) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }


_DNS_PORTS: Final = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
_RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"


def objects(addresses: Addresses) -> tuple[tuple[str, dict[str, Any]], ...]:
    """(collection's path, object), in the order they are made."""
    return (
        # The API server may speak to kubelets (logs, exec), and that is all: it is not in system:masters.
        (
            f"{_RBAC}/clusterrolebindings",
            _binding("local:apiserver-kubelet-client", "system:kubelet-api-admin", "kube-apiserver-kubelet-client"),
        ),
        (
            f"{_RBAC}/clusterroles",
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRole",
                "metadata": {"name": "system:coredns"},
                "rules": [
                    {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
                    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
                ],
            },
        ),
        (f"{_RBAC}/clusterrolebindings", _binding("system:coredns", "system:coredns", "system:coredns")),
        (
            "/api/v1/namespaces/kube-system/services",
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
                "spec": {"clusterIP": addresses.dns_service, "ports": _DNS_PORTS},
            },
        ),
        # CoreDNS runs beside the control plane, not in a pod: the Service has no selector, its endpoint stands here.
        (
            "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices",
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": "kube-dns",
                    "namespace": "kube-system",
                    "labels": {"kubernetes.io/service-name": "kube-dns"},
                },
                "addressType": addresses.kind,
                "endpoints": [{"addresses": [addresses.control_plane], "conditions": {"ready": True}}],
                "ports": _DNS_PORTS,
            },
        ),
    )
