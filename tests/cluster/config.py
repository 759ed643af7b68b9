"""What a local cluster is made of, and where its files lie. Plain frozen values."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.cluster.network import ADDRESSES, Addresses

CHECKOUT: Final = Path(__file__).resolve().parents[2]

MAX_NODES: Final = 250
"""Node i owns 10.244.i.0/24 (see network.py), so the third octet is the limit."""
FAMILIES: Final = tuple(ADDRESSES)

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


class ConfigError(ValueError):
    """A setting that cannot work: names the setting, the reason and the remedy."""


@dataclasses.dataclass(frozen=True)
class ClusterConfig:
    """One cluster.

    Nodes are called n1, n2, …. Seconds are those of the components' own settings: the kubelet renews its lease every
    quarter of `lease_seconds`, and the node controller calls a node NotReady `node_grace_seconds` after the last
    renewal. The defaults notice a lost node three times sooner than a stock cluster, and still bear a machine with all
    cores busy.
    """

    name: str = "local"
    nodes: int = 2
    family: int = 4
    """Of all addresses but loopback: 4, or 6 for a cluster with IPv6 alone."""
    gpus_per_node: int = 8
    gpu_resource: str = "nvidia.com/gpu"
    more_devices: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Further resources of each node with GPUs, by device plugins beside that of the GPUs: `{"rdma/ib": 1}`."""
    feature_gates: tuple[str, ...] = ()
    node_labels: Mapping[str, str] = dataclasses.field(
        default_factory=lambda: {
            "nvidia.com/gpu.present": "true",
            "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
            "nvidia.com/gpu.memory": "81559",
            "topology.kubernetes.io/region": "local",
            "topology.kubernetes.io/zone": "local-a",
        }
    )
    lease_seconds: int = 10
    node_grace_seconds: int = 16
    toleration_seconds: int = 300
    node_disk_gib: int = 8
    apiserver_port: int = 0
    """Port on the host's 127.0.0.1 that kubectl uses; 0 takes a free one."""
    user_namespace: bool = dataclasses.field(default_factory=lambda: os.geteuid() != 0)
    """Whether the cluster lives in a user namespace of one id. An ordinary user cannot do without, and a root user may
    ask for it to see what they see."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"name: {self.name!r} is not 1 to 40 characters of a-z, 0-9 and -; choose another name")
        if not 0 <= self.nodes <= MAX_NODES:
            raise ConfigError(f"nodes: {self.nodes} is not between 0 and {MAX_NODES}; choose fewer nodes")
        if self.family not in FAMILIES:
            raise ConfigError(f"family: {self.family} is no family of addresses; choose 4 or 6")
        if not 0 <= self.gpus_per_node <= 64:
            raise ConfigError(f"gpus-per-node: {self.gpus_per_node} is not between 0 and 64")
        if self.node_grace_seconds <= self.lease_seconds:
            raise ConfigError(
                f"node_grace_seconds: {self.node_grace_seconds} must exceed lease_seconds ({self.lease_seconds}), "
                "or nodes that are alive are called NotReady"
            )
        for gate in self.feature_gates:
            if not re.fullmatch(r"[A-Za-z0-9]+=(true|false)", gate):
                raise ConfigError(f"feature-gates: {gate!r} is not of the form Name=true or Name=false")

    @property
    def addresses(self) -> Addresses:
        return ADDRESSES[self.family]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> ClusterConfig:
        fields: dict[str, Any] = json.loads(text)
        return cls(**{**fields, "feature_gates": tuple(fields["feature_gates"])})


@dataclasses.dataclass(frozen=True)
class ClusterPaths:
    """Where one cluster keeps its files. All of them go with `down`."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "cluster.json"

    @property
    def lock(self) -> Path:
        """Locked for as long as the cluster lives: how anyone tells a running cluster from a dead one."""
        return self.root / "alive.lock"

    @property
    def control(self) -> Path:
        return self.root / "control.sock"

    @property
    def binaries(self) -> Path:
        """Link to the programs this cluster was started with: a newer checkout may have built others since."""
        return self.root / "bin"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def images(self) -> Path:
        return self.root / "images.json"

    @property
    def kubeconfig(self) -> Path:
        """For the host: reaches the API server through the relay."""
        return self.root / "kubeconfig"

    def inner_kubeconfig(self, identity: str) -> Path:
        """For a component inside the cluster's namespaces."""
        return self.root / "identities" / f"{identity}.kubeconfig"

    def component(self, name: str) -> Path:
        return self.root / "components" / name

    def node(self, node: str) -> Path:
        return self.root / "nodes" / node


def cache_root() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "r1-operator"


def clusters_root() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "r1-operator" / "clusters"


def paths_of(name: str) -> ClusterPaths:
    return ClusterPaths(clusters_root() / name)
