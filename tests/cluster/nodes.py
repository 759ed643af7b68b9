"""A node's programs: kubelet, container runtime and GPU device plugin. Values only; node.py runs them."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, Final

from tests.cluster import network
from tests.cluster.config import ClusterConfig, ClusterPaths

RUNTIME_SOCKET: Final = "/run/cri.sock"
"""/run and /var/lib are each node's own (tmpfs in its mount namespace), so every node uses the same short paths."""

KUBELET_FOLDER: Final = "/var/lib/kubelet"

RUNTIME_FOLDER: Final = "/var/lib/cri"
"""On the node's own file system, so that the kubelet finds one disk, measures it, and minds when it is full."""

HEALTHY_DISK: Final = {
    "nodefs.available": "5%",
    "imagefs.available": "5%",
    "nodefs.inodesFree": "1%",
    "imagefs.inodesFree": "1%",
}


@dataclasses.dataclass(frozen=True)
class Program:
    """One program of a node. `ready` is the Unix socket it listens on once the next program may start."""

    name: str
    argv: tuple[str, ...]
    log: str
    ready: str | None = None


@dataclasses.dataclass(frozen=True)
class NodeSpec:
    """What node.py needs to know."""

    name: str
    disk_gib: int
    programs: tuple[Program, ...]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> NodeSpec:
        fields = json.loads(text)
        return cls(
            fields["name"],
            fields["disk_gib"],
            tuple(Program(**{**p, "argv": tuple(p["argv"])}) for p in fields["programs"]),
        )


def kubelet_configuration(
    paths: ClusterPaths, config: ClusterConfig, index: int, memory_is_full: bool = False
) -> dict[str, Any]:
    """The kubelet's configuration file.

    memory_is_full: make the node believe so, by a soft eviction threshold that its free memory cannot reach. (A
    hard one would be taken off what the node offers.)
    """
    node = network.node_name(index)
    soft = {"memory.available": "99.9%"}
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": config.addresses.node(index),
        "healthzPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(paths.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(paths.pki / f"{node}-serving.crt"),
        "tlsPrivateKeyFile": str(paths.pki / f"{node}-serving.key"),
        "containerRuntimeEndpoint": f"unix://{RUNTIME_SOCKET}",
        "clusterDNS": [config.addresses.dns_service],
        "clusterDomain": network.DOMAIN,
        "resolvConf": "",
        "podLogsDir": str(paths.node(node) / "pods"),
        "volumePluginDir": "/var/lib/kubelet-plugins",
        "nodeStatusUpdateFrequency": "5s",
        "nodeLeaseDurationSeconds": config.lease_seconds,
        "evictionHard": {"memory.available": "16Mi", **HEALTHY_DISK},
        **({"evictionSoft": soft, "evictionSoftGracePeriod": dict.fromkeys(soft, "1s")} if memory_is_full else {}),
        "evictionPressureTransitionPeriod": "5s",
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        # The machine belongs to its user: no cgroups are made, no system settings changed, no swap demanded.
        "featureGates": {"KubeletInUserNamespace": True},
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "failCgroupV1": False,
        "makeIPTablesUtilChains": False,
    }


def kubelet_labels(config: ClusterConfig, index: int) -> dict[str, str]:
    labels = dict(config.node_labels)
    if config.gpus_per_node:
        labels["nvidia.com/gpu.count"] = str(config.gpus_per_node)
    return labels


def node_spec(binaries: Path, paths: ClusterPaths, config: ClusterConfig, index: int) -> NodeSpec:
    """Runtime first: the kubelet ends without it. The device plugin waits for the kubelet by itself."""
    name = network.node_name(index)
    folder = paths.node(name)
    labels = ",".join(f"{key}={value}" for key, value in kubelet_labels(config, index).items())
    runtime = (
        *(sys.executable, "-m", "tests.cluster.cri"),
        *("--socket", RUNTIME_SOCKET),
        *("--state", RUNTIME_FOLDER),
        *("--pod-cidr", config.addresses.pods_of(index)),
        *("--prefix-length", str(config.addresses.prefix_length)),
        *("--bridge", network.SWITCH),
        *("--gateway", config.addresses.control_plane),
        *("--node-ip", config.addresses.node(index)),
        *("--images", str(paths.images)),
        *("--streaming-server", str(binaries / "cri-streaming")),
    )
    kubelet = (
        *((sys.executable, "-m", "tests.cluster.one_id") if config.user_namespace else ()),
        str(binaries / "kubelet"),
        f"--config={folder / 'kubelet.json'}",
        f"--kubeconfig={paths.inner_kubeconfig(name)}",
        f"--root-dir={KUBELET_FOLDER}",
        f"--cert-dir={KUBELET_FOLDER}/pki",
        f"--hostname-override={name}",
        f"--node-ip={config.addresses.node(index)}",
        f"--node-labels={labels}",
    )
    plugin = (
        *(sys.executable, "-m", "tests.cluster.gpu"),
        *("--kubelet-dir", f"{KUBELET_FOLDER}/device-plugins"),
        *("--count", str(config.gpus_per_node)),
        *("--resource", config.gpu_resource),
        *(word for name, count in config.more_devices.items() for word in ("--more", name, str(count))),
    )
    logs = paths.logs
    programs = [
        Program("runtime", runtime, str(logs / f"{name}-runtime.log"), ready=RUNTIME_SOCKET),
        Program("kubelet", kubelet, str(logs / f"{name}-kubelet.log")),
    ]
    if config.gpus_per_node:
        programs.append(Program("gpu", plugin, str(logs / f"{name}-gpu.log")))
    return NodeSpec(name, config.node_disk_gib, tuple(programs))
