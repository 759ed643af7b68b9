"""Is the network between the nodes what the plan counts on? Per node, and joined over a gang. Pure.

Each word (`reason`) is the operator's reason of the condition FabricReady. The first that holds is told: a pod without
devices has no rate. What would never come up is fatal; what would only crawl is started, and told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from r1_engine.config import FabricPlan
from r1_engine.fabric import ETHERNET, Fabric, Port
from r1_engine.fabric_ports import Choice, choose
from r1_engine.nccl import Heard

MEMLOCK_BYTES = 1 << 30
"""Host memory that a rank pins for RDMA: NCCL's buffers of a gang are some hundred MB, NVSHMEM's proxy adds its own."""

_REQUEST = 'request the node\'s RDMA resource in spec.engine.resources.limits, e.g. rdma/ib: "1"'
_ON_PURPOSE = "if TCP is meant, set spec.engine.fabric.transport: Tcp"


@dataclass(frozen=True)
class Verdict:
    """`ready` None: not known. `fatal`: the engine cannot come up so."""

    ready: bool | None
    reason: str
    message: str
    fatal: bool = False


@dataclass(frozen=True)
class NodeFabric:
    """What a node reports: its verdict, and what must be alike on all nodes of a gang."""

    verdict: Verdict
    link: str = ""
    ports: int = 0
    gbits: float = 0.0
    gpu_direct: bool | None = None
    nccl: Heard = field(default_factory=Heard)

    def to_json(self) -> dict[str, Any]:
        """As it stands in `/status` and in a member's report (docs/design/contracts.md)."""
        return {
            "ready": self.verdict.ready,
            "reason": self.verdict.reason,
            "message": self.verdict.message,
            "linkLayer": self.link,
            "ports": self.ports,
            "gbitsPerSecond": self.gbits,
            "gpuDirect": self.gpu_direct,
            "ncclNetwork": self.nccl.network,
            "ncclGpuDirect": self.nccl.gpu_direct,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> NodeFabric:
        """Raises KeyError, TypeError or ValueError for what is none."""
        return NodeFabric(
            Verdict(value["ready"], str(value["reason"]), str(value["message"])),
            str(value["linkLayer"]),
            int(value["ports"]),
            float(value["gbitsPerSecond"]),
            value["gpuDirect"],
            Heard(value["ncclNetwork"], value["ncclGpuDirect"]),
        )


def judge(fabric: Fabric, plan: FabricPlan) -> NodeFabric:
    """One node's, before anything is started."""
    choice = choose(fabric)
    verdict = _verdict(fabric, choice, plan)
    return NodeFabric(verdict, choice.link, len(choice.ports), choice.gbits, fabric.gpu_direct)


def _verdict(fabric: Fabric, choice: Choice, plan: FabricPlan) -> Verdict:
    if plan.transport == "Tcp":
        if not plan.needs_rdma:
            return Verdict(True, "TcpOnPurpose", "TCP between the nodes, as spec.engine.fabric.transport says")
        message = "spec.engine.fabric.transport is Tcp, and the plan's all-to-all (DeepEP) needs RDMA between nodes"
        return Verdict(False, "PlanNeedsRdma", f"{message}; set spec.topology.moeA2aBackend: None", fatal=True)
    if not fabric.readable:
        return Verdict(None, "FabricUnknown", "/sys/class/infiniband cannot be read")
    if not choice.ports:
        if plan.transport is None and not plan.gbits_per_node and not plan.needs_rdma:
            return Verdict(True, "TcpOnPurpose", "TCP between the nodes: the hardware profile has no fabric")
        return replace(_without_ports(fabric, choice, plan), fatal=plan.requires_rdma)
    return _pinning(fabric, plan) or _gpu_direct(fabric, plan) or _width(fabric, choice, plan) or _good(fabric, choice)


def _without_ports(fabric: Fabric, choice: Choice, plan: FabricPlan) -> Verdict:
    if plan.needs_rdma:
        end = "the plan's all-to-all (DeepEP) cannot run without RDMA; "
    elif plan.requires_rdma:
        end = "spec.engine.fabric.transport is Rdma; "
    else:
        end = f"the gang runs over TCP, several to tens of times slower; {_ON_PURPOSE}; "
    if choice.unreached:
        what = f"no interface of this pod has an address of the RoCE port(s) {_names(choice.unreached)}"
        remedy = (
            "put the pod on that network: spec.engine.podTemplate.spec.hostNetwork: true, or a second network by "
            "spec.engine.podTemplate.metadata.annotations"
        )
        return Verdict(False, "NoRoceAddress", f"{what}: {end}{remedy}")
    if choice.down:
        what = f"no RDMA port of this pod has a link: {_states(choice.down)}"
        return Verdict(False, "PortsDown", f"{what}: {end}see the node's cables, switch and subnet manager")
    if fabric.ports:
        what = f"the node has RDMA device(s) {_names(fabric.ports)}, and this pod was given none of /dev/infiniband"
    else:
        what = "no RDMA device (/sys/class/infiniband) is on this node"
    return Verdict(False, "NoRdmaDevices", f"{what}: {end}{_REQUEST}")


def _pinning(fabric: Fabric, plan: FabricPlan) -> Verdict | None:
    limit = fabric.memlock
    if fabric.ipc_lock or limit is None or limit < 0 or limit >= MEMLOCK_BYTES:
        return None
    message = (
        f"only {limit // 1024} KiB of memory may be pinned for RDMA (ulimit -l): registering buffers fails; add "
        "IPC_LOCK to spec.engine.securityContext.capabilities.add, or raise the container runtime's LimitMEMLOCK"
    )
    return Verdict(False, "MemlockTooLow", message, fatal=plan.requires_rdma)


def _gpu_direct(fabric: Fabric, plan: FabricPlan) -> Verdict | None:
    if fabric.gpu_direct is False:
        message = (
            "neither nvidia_peermem nor DMA-BUF (the driver's open kernel modules) is there: the network cannot reach "
            "the GPUs' memory, and all traffic goes through the host's; load nvidia_peermem on the node"
        )
        return Verdict(False, "GpuDirectMissing", message, fatal=plan.needs_rdma)
    if plan.needs_rdma and fabric.gpu_initiated is False:
        message = (
            "DeepEP's low latency needs GPU-initiated RDMA (IBGDA), and this node has neither gdrdrv nor the driver "
            'options NVreg_EnableStreamMemOPs=1 NVreg_RegistryDwords="PeerMappingOverride=1;"; set them on the node'
        )
        return Verdict(False, "GpuInitiatedMissing", message)  # what the parameters say of it is not all: not fatal
    return None


def _width(fabric: Fabric, choice: Choice, plan: FabricPlan) -> Verdict | None:
    if choice.gbits >= plan.gbits_per_node:
        return None
    has = f"{choice.gbits:g} Gb/s of the {plan.gbits_per_node:g} that the plan reckons with"
    lost = [port for port in choice.down if port.link == choice.link]
    if lost:
        what = f"port(s) {_states(lost)} have no link, which leaves {has}"
        return Verdict(False, "PortsDown", f"{what}; see the node's cables and switch")
    given = {port.device for port in choice.ports}
    kept = {port.device for port in fabric.ports if port.opened is False and port.link == choice.link} - given
    if kept:
        what = f"this pod was given {len(given)} of the node's {len(given | kept)} RDMA devices, {has}"
        return Verdict(False, "RateBelowProfile", f"{what}; request more of them in spec.engine.resources.limits")
    what = f"{len(choice.ports)} port(s) ({_names(choice.ports)}) have {has}"
    remedy = "correct networkGbitsPerSecond in a hardware profile of your own, or use nodes that have it"
    return Verdict(False, "RateBelowProfile", f"{what}; {remedy}")


def _good(fabric: Fabric, choice: Choice) -> Verdict:
    kind = "RoCE" if choice.link == ETHERNET else choice.link or "RDMA"
    how = "with GPUDirect" if fabric.gpu_direct else "whether with GPUDirect is not known"
    return Verdict(True, "RdmaFound", f"{len(choice.ports)} {kind} port(s), {choice.gbits:g} Gb/s a node, {how}")


def _names(ports: Sequence[Port], shown: int = 4) -> str:
    more = f" and {len(ports) - shown} more" if len(ports) > shown else ""
    return ", ".join(port.name for port in ports[:shown]) + more


def _states(ports: Sequence[Port], shown: int = 4) -> str:
    more = f" and {len(ports) - shown} more" if len(ports) > shown else ""
    states = (f"{port.name} {port.state or 'unknown'}/{port.physical or 'unknown'}" for port in ports[:shown])
    return ", ".join(states) + more


@dataclass(frozen=True)
class GangFabric:
    """All that has been reported. `nodes`: name and report by node index; `size`: how many nodes there are."""

    nodes: Mapping[int, tuple[str, NodeFabric]]
    size: int

    @property
    def verdict(self) -> Verdict:
        """The gang's. A bad word of one node is told before the others have spoken."""
        for index, (name, node) in sorted(self.nodes.items()):
            if (verdict := heard(node)).ready is False:
                return replace(verdict, message=f"node {index} ({name}): {verdict.message}")
        if missing := [str(index) for index in range(self.size) if index not in self.nodes]:
            return Verdict(None, "FabricUnknown", f"node(s) {', '.join(missing)} have not reported their fabric yet")
        if uneven := _uneven(self.nodes):
            return uneven
        unknown = next((node.verdict for _, node in self.nodes.values() if node.verdict.ready is None), None)
        return unknown or heard(self.nodes[0][1])

    @property
    def as_planned(self) -> bool:
        """Whether steps take as long as the plan reckons."""
        return self.verdict.ready is True and self.verdict.reason != "TcpOnPurpose"

    def to_json(self) -> dict[str, Any]:
        """`fabric` in node 0's `/status`: the verdict, and each node's report."""
        verdict = self.verdict
        networks = {node.nccl.network for _, node in self.nodes.values()}
        return {
            "ready": verdict.ready,
            "reason": verdict.reason,
            "message": verdict.message,
            "ncclNetwork": networks.pop() if len(networks) == 1 else None,
            "nodes": [{"index": at, "name": name, **node.to_json()} for at, (name, node) in sorted(self.nodes.items())],
        }


def _uneven(nodes: Mapping[int, tuple[str, NodeFabric]]) -> Verdict | None:
    first_name, first = nodes[0]
    for index, (name, node) in sorted(nodes.items()):
        if (node.link, node.ports, node.gbits) != (first.link, first.ports, first.gbits):
            message = (
                f"node 0 ({first_name}) has {_described(first)}, node {index} ({name}) has {_described(node)}: the gang"
                " is as fast as the slower one; use like nodes, or request like devices"
            )
            return Verdict(False, "NotUniform", message)
    return None


def _described(node: NodeFabric) -> str:
    return f"{node.ports} {node.link or 'RDMA'} port(s), {node.gbits:g} Gb/s"


def heard(node: NodeFabric) -> Verdict:
    """The node's verdict after what NCCL said there: it uses what it finds, and falls back without an error."""
    verdict, nccl = node.verdict, node.nccl
    if not verdict.ready or verdict.reason == "TcpOnPurpose":
        return verdict
    if nccl.network == "Socket":
        message = (
            f"{verdict.message}, but NCCL says 'Using network Socket': see that the image has libibverbs and the NICs' "
            "provider library, and NCCL_IB_HCA and NCCL_IB_DISABLE in spec.engine.env"
        )
        return Verdict(False, "NcclUsesSockets", message)
    if nccl.gpu_direct is False:
        message = (
            f"{verdict.message}, but NCCL sends without GPUDirect ('via NET/{nccl.network or 'IB'}/…' without GDRDMA):"
            " see nvidia_peermem on the node, and NCCL_NET_GDR_LEVEL in spec.engine.env"
        )
        return Verdict(False, "GpuDirectMissing", message)
    return verdict if nccl.network is None else replace(verdict, message=f"{verdict.message}; NCCL: {nccl.network}")
