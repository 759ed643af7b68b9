"""Faults of nodes, one and several, and their maintenance."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from tests.behaviour.world import wait_for
from tests.campaigns.faults.fleet import ENGINE_NODES, FOR_GATEWAYS, NOBODY, SETTLE_SECONDS, Fleet, Hit, Victim
from tests.campaigns.faults.kinds import kind
from tests.campaigns.faults.preload import CLOCK_FILE
from tests.cluster.kubelets import silence_kubelets

KUBELET = r"^\S*/kubelet "


@kind("node", "power cut", cuts=True)
def power_cut(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    fleet.cluster.kill_node(victim.nodes[1])
    yield victim.replaced
    fleet.heal(victim.nodes[1])


@kind("node", "power cut of node 0", cuts=True)
def power_cut_of_head(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    fleet.cluster.kill_node(victim.nodes[0])
    yield victim.replaced
    fleet.heal(victim.nodes[0])


@kind("node", "network cut", cuts=True)
def network_cut(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    fleet.cluster.cut_node(victim.nodes[0])
    yield victim.replaced
    fleet.heal(victim.nodes[0])


@kind("node", "every process stands still", cuts=True)
def frozen(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    fleet.cluster.freeze_node(victim.nodes[1])
    yield victim.replaced
    fleet.heal(victim.nodes[1])


@kind("node", "kubelet silent for a minute")
def kubelet_silent(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    with silence_kubelets(fleet.cluster, victim.nodes[1]):
        fleet.stays(60)
    yield victim.kept


@kind("node", "kubelets of all GPU nodes silent for a minute")
def kubelets_silent(fleet: Fleet) -> Iterator[Hit]:
    with silence_kubelets(fleet.cluster, *ENGINE_NODES):
        fleet.stays(60)
    yield NOBODY


@kind("node", "kubelet restarted")
def kubelet_restarted(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    fleet.on_node(victim.nodes[0], KUBELET, signal.SIGKILL)
    yield victim.kept


@kind("node", "disk full", cuts=True)
def disk_full(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    fleet.cluster.fill_disk(victim.nodes[1])
    fleet.await_node(victim.nodes[1], "DiskPressure", "True")
    yield victim.replaced
    fleet.heal(victim.nodes[1])


@kind("node", "memory full", cuts=True)
def memory_full(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    fleet.cluster.fill_memory(victim.nodes[1])
    fleet.await_node(victim.nodes[1], "MemoryPressure", "True")
    yield victim.replaced
    fleet.heal(victim.nodes[1])


@kind("node", "GPU unhealthy to the device plugin, then the engine dies", cuts=True)
def gpu_unhealthy(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    fleet.cluster.fail_gpus(victim.nodes[1], "all")
    fleet.r1.fault(victim.pods[1], "exit70")
    yield victim.replaced
    fleet.heal(victim.nodes[1])


@kind("node", "deleted from the cluster", cuts=True)
def node_deleted(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    fleet.cluster.kubectl("delete", "node", victim.nodes[1], "--wait=false")
    yield victim.replaced
    fleet.cluster.kill_node(victim.nodes[1])
    fleet.heal(victim.nodes[1])
    fleet.cluster.kubectl("taint", "node", victim.nodes[1], "nvidia.com/gpu=present:NoSchedule", "--overwrite")


@kind("node", "its clock jumps two hours ahead, and back")
def clock_of_a_node(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    fleet.r1.kubectl("exec", victim.pods[0], "--", "sh", "-c", f"echo 7200 > {CLOCK_FILE}")
    fleet.stays(20)
    fleet.r1.kubectl("exec", victim.pods[0], "--", "rm", CLOCK_FILE)
    yield victim.kept


@kind("node", "power cut of a gateway's node", cuts=True, refuses=True)
def gateway_node(fleet: Fleet) -> Iterator[Hit]:
    node = fleet.gateway_node()
    fleet.cluster.kill_node(node)
    wait_for("Kubernetes knows", fleet.r1.serving_gateways, until=lambda names: len(names) < FOR_GATEWAYS)
    fleet.heal(node)
    yield NOBODY


@kind("maintenance", "kubectl drain")
def drained(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    yield from _drain(fleet, (victim,), victim.nodes[1:])


@kind("maintenance", "two nodes of two replicas drained at once")
def two_drained(fleet: Fleet) -> Iterator[Hit]:
    first, second = fleet.victim(), fleet.victim()
    yield from _drain(fleet, (first, second), (first.nodes[0], second.nodes[1]))


@kind("maintenance", "Karpenter's taint")
def karpenter(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    fleet.cluster.kubectl("taint", "node", victim.nodes[0], "karpenter.sh/disrupted:NoSchedule")
    wait_for("it has moved", fleet.r1.nodes, until=lambda nodes: victim.nodes[0] not in nodes.values(), seconds=300)
    yield victim.replaced
    fleet.cluster.kubectl("taint", "node", victim.nodes[0], "karpenter.sh/disrupted-")


@kind("maintenance", "a NoExecute taint that nobody tolerates")
def no_execute(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    fleet.cluster.kubectl("taint", "node", victim.nodes[1], "example.com/leave:NoExecute")
    wait_for("it has moved", fleet.r1.nodes, until=lambda nodes: victim.nodes[1] not in nodes.values(), seconds=300)
    yield victim.replaced
    fleet.cluster.kubectl("taint", "node", victim.nodes[1], "example.com/leave-")


def _drain(fleet: Fleet, victims: tuple[Victim, ...], nodes: tuple[str, ...]) -> Iterator[Hit]:
    options = ("--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={SETTLE_SECONDS:.0f}s")
    try:
        with ThreadPoolExecutor(len(nodes)) as pool:

            def drain(node: str) -> str:
                return fleet.cluster.kubectl("drain", node, *options, timeout=SETTLE_SECONDS)

            list(pool.map(drain, nodes))
        yield Hit(victims[0].url, tuple(victim.gang for victim in victims))
    finally:
        fleet.cluster.kubectl("uncordon", *nodes)
