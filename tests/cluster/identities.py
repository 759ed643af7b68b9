"""Who is who in the cluster: certificates and kubeconfigs, one identity for each component."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any, Final

from tests.cluster import network
from tests.cluster.config import ClusterPaths
from tests.cluster.network import Addresses

COMPONENT_USERS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "admin": ("cluster-admin", ("system:masters",)),
    "controller-manager": ("system:kube-controller-manager", ()),
    "coredns": ("system:coredns", ()),
    "proxy": ("system:kube-proxy", ()),
    "scheduler": ("system:kube-scheduler", ()),
    "apiserver-kubelet-client": ("kube-apiserver-kubelet-client", ()),
}
"""Certificate name → common name and organizations. Kubernetes knows the system: users by its built-in roles; CoreDNS
and the API server's kubelet client get theirs from addons.py. Only the person's own identity is in system:masters."""


def certificate_request(addresses: Addresses) -> dict[str, Any]:
    """What the program `pki` is asked for when a cluster starts."""
    server = {
        "name": "apiserver",
        "commonName": "kube-apiserver",
        "addresses": ["127.0.0.1", addresses.control_plane, addresses.kubernetes_service],
        "dnsNames": [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            f"kubernetes.default.svc.{network.DOMAIN}",
        ],
        "server": True,
    }
    clients = [
        {"name": name, "commonName": user, "organizations": list(organizations)}
        for name, (user, organizations) in COMPONENT_USERS.items()
    ]
    return {"signingKeys": ["service-accounts"], "leaves": [server, *clients]}


def node_certificate_request(addresses: Addresses, index: int) -> dict[str, Any]:
    """A node's two certificates: as the API server's client (the Node authorizer knows this user) and as a server."""
    node = network.node_name(index)
    return {
        "leaves": [
            {"name": node, "commonName": f"system:node:{node}", "organizations": ["system:nodes"]},
            {
                "name": f"{node}-serving",
                "commonName": node,
                "addresses": [addresses.node(index)],
                "dnsNames": [node],
                "server": True,
            },
        ]
    }


def make_certificates(binaries: Path, paths: ClusterPaths, request: dict[str, Any]) -> None:
    subprocess.run([str(binaries / "pki"), str(paths.pki)], input=json.dumps(request), text=True, check=True)


def write_kubeconfig(paths: ClusterPaths, identity: str, target: Path, server: str) -> None:
    """Writes a self-contained kubeconfig that only its owner can read. JSON is YAML."""
    target.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "local",
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": identity}}],
        "clusters": [
            {
                "name": "local",
                "cluster": {"server": server, "certificate-authority-data": _encoded(paths.pki / "ca.crt")},
            }
        ],
        "users": [
            {
                "name": identity,
                "user": {
                    "client-certificate-data": _encoded(paths.pki / f"{identity}.crt"),
                    "client-key-data": _encoded(paths.pki / f"{identity}.key"),
                },
            }
        ],
    }
    target.touch(mode=0o600)
    target.write_text(json.dumps(content, indent=1))


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
