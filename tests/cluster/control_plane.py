"""Command lines and configuration files of the control plane's programs. Pure but for `write_files`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.cluster import network
from tests.cluster.config import ClusterConfig, ClusterPaths
from tests.cluster.network import Addresses

ETCD: Final = "http://127.0.0.1:2379"
"""Only the control plane's own network namespace can reach it: nodes and pods have other ones."""

AUDIT_POLICY: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        # Nodes' leases and events would drown what one looks for: who wrote what.
        {
            "level": "None",
            "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}],
            "namespaces": ["kube-node-lease", "kube-system"],
        },
        {
            "level": "None",
            "resources": [{"resources": ["events"]}, {"group": "events.k8s.io", "resources": ["events"]}],
        },
        # Whose a lease is, and which life of a pod is deleted, is in the body.
        {
            "level": "Request",
            "verbs": ["create", "update", "patch"],
            "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}],
        },
        {"level": "Request", "verbs": ["delete"]},
        {"level": "Metadata", "verbs": ["create", "update", "patch", "deletecollection"]},
        {"level": "None"},
    ],
}

COREFILE: Final = """.:53 {
  bind {address}
  errors
  ready 127.0.0.1:8181
  kubernetes {domain} {zone} {
    kubeconfig {kubeconfig}
    pods insecure
    ttl 5
  }
  cache 5 {
    denial 1000 1
  }
}
"""
"""Short caching of what is not there: a test that makes a Service looks it up in the next second."""


def _flags(options: Mapping[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]


def _gates(config: ClusterConfig) -> dict[str, object]:
    return {"feature-gates": ",".join(config.feature_gates)} if config.feature_gates else {}


def etcd(binaries: Path, paths: ClusterPaths) -> list[str]:
    # fsync protects against a power cut, which this cluster does not outlive anyway; without it the start is faster.
    return [
        str(binaries / "etcd"),
        f"--data-dir={paths.component('etcd')}",
        "--unsafe-no-fsync=true",
        "--logger=zap",
        "--log-level=warn",
    ]


def apiserver(binaries: Path, paths: ClusterPaths, config: ClusterConfig) -> list[str]:
    pki = paths.pki
    options: dict[str, object] = {
        "etcd-servers": ETCD,
        "bind-address": "::" if config.family == 6 else "0.0.0.0",
        "advertise-address": config.addresses.control_plane,
        "secure-port": network.APISERVER_PORT,
        "service-cluster-ip-range": config.addresses.service_network,
        "tls-cert-file": pki / "apiserver.crt",
        "tls-private-key-file": pki / "apiserver.key",
        "client-ca-file": pki / "ca.crt",
        "kubelet-client-certificate": pki / "apiserver-kubelet-client.crt",
        "kubelet-client-key": pki / "apiserver-kubelet-client.key",
        "kubelet-certificate-authority": pki / "ca.crt",
        "kubelet-preferred-address-types": "InternalIP",
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "service-account-issuer": f"https://kubernetes.default.svc.{network.DOMAIN}",
        "service-account-key-file": pki / "service-accounts.pub",
        "service-account-signing-key-file": pki / "service-accounts.key",
        "default-not-ready-toleration-seconds": config.toleration_seconds,
        "default-unreachable-toleration-seconds": config.toleration_seconds,
        "audit-policy-file": paths.component("audit-policy.json"),
        "audit-log-path": paths.logs / "audit.log",
        "audit-log-maxsize": 100,
        **_gates(config),
    }
    if "GenericWorkload=true" in config.feature_gates:
        options["runtime-config"] = "scheduling.k8s.io/v1beta1=true"
    return [str(binaries / "kube-apiserver"), *_flags(options)]


def controller_manager(binaries: Path, paths: ClusterPaths, config: ClusterConfig) -> list[str]:
    kubeconfig = paths.inner_kubeconfig("controller-manager")
    return [
        str(binaries / "kube-controller-manager"),
        *_flags(
            {
                "kubeconfig": kubeconfig,
                "authentication-kubeconfig": kubeconfig,
                "authorization-kubeconfig": kubeconfig,
                "bind-address": "127.0.0.1",
                "service-account-private-key-file": paths.pki / "service-accounts.key",
                "root-ca-file": paths.pki / "ca.crt",
                "cluster-signing-cert-file": paths.pki / "ca.crt",
                "cluster-signing-key-file": paths.pki / "ca.key",
                "use-service-account-credentials": "true",
                "leader-elect": "false",
                # 20 calls a second are the default, and its own start, a token for each controller, takes 100 of them.
                "kube-api-qps": "300",
                "kube-api-burst": "600",
                "node-monitor-period": "1s",
                # A HorizontalPodAutoscaler looks every 15 s by default; tests wait for several looks.
                "horizontal-pod-autoscaler-sync-period": "2s",
                "node-monitor-grace-period": f"{config.node_grace_seconds}s",
                **_gates(config),
            }
        ),
    ]


def scheduler(binaries: Path, paths: ClusterPaths, config: ClusterConfig) -> list[str]:
    kubeconfig = paths.inner_kubeconfig("scheduler")
    return [
        str(binaries / "kube-scheduler"),
        *_flags(
            {
                "kubeconfig": kubeconfig,
                "authentication-kubeconfig": kubeconfig,
                "authorization-kubeconfig": kubeconfig,
                "bind-address": "127.0.0.1",
                "leader-elect": "false",
                **_gates(config),
            }
        ),
    ]


def proxy(binaries: Path, paths: ClusterPaths) -> list[str]:
    return [str(binaries / "kube-proxy"), f"--config={paths.component('proxy.json')}"]


def proxy_configuration(paths: ClusterPaths, addresses: Addresses, node: str) -> dict[str, Any]:
    """kube-proxy of the switch. It waits 30 s for the node it is on, so it is told the name of one that exists."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "bindAddress": addresses.control_plane,
        "hostnameOverride": node,
        "clusterCIDR": addresses.pod_network,
        "clientConnection": {"kubeconfig": str(paths.inner_kubeconfig("proxy"))},
        # Pods sit on one flat network with the switch, so an answer would go straight to the asking pod, past the
        # address translation, and be thrown away. Masquerading brings every answer back through the switch.
        "nftables": {"masqueradeAll": True, "minSyncPeriod": "100ms"},
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
    }


def coredns(binaries: Path, paths: ClusterPaths) -> list[str]:
    return [str(binaries / "coredns"), "-conf", str(paths.component("Corefile"))]


def corefile(paths: ClusterPaths, addresses: Addresses) -> str:
    values = {
        "address": addresses.control_plane,
        "domain": network.DOMAIN,
        "zone": addresses.reverse_zone,
        "kubeconfig": str(paths.inner_kubeconfig("coredns")),
    }
    text = COREFILE
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def write_files(paths: ClusterPaths, addresses: Addresses) -> None:
    paths.component("").mkdir(parents=True, exist_ok=True)
    paths.component("audit-policy.json").write_text(json.dumps(AUDIT_POLICY))
    paths.component("Corefile").write_text(corefile(paths, addresses))
    write_proxy_configuration(paths, addresses, network.node_name(1))


def write_proxy_configuration(paths: ClusterPaths, addresses: Addresses, node: str) -> None:
    paths.component("proxy.json").write_text(json.dumps(proxy_configuration(paths, addresses, node), indent=1))
