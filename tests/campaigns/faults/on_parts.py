"""Faults of the real engine's parts: Ray, SGLang and our agent, and GPUs as nvidia-ml-py sees them."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

from tests.behaviour.world import wait_for
from tests.campaigns.faults.fleet import Fleet, Hit
from tests.campaigns.faults.kinds import kind
from tests.campaigns.faults.on_pods import ENGINE
from tests.campaigns.faults.preload import GPUS_FILE

PARTS: tuple[tuple[str, str, int], ...] = (
    ("a rank", r"^sglang::scheduler", 1),
    ("SGLang's server", r"-m r1_engine\.serve ", 0),
    ("the detokenizer", r"^sglang::detokenizer", 0),
    ("the raylet of node 1", r"/raylet ", 1),
    ("Ray's GCS", r"/gcs_server ", 0),
    ("the agent of node 0", ENGINE, 0),
    ("the agent of node 1", ENGINE, 1),
)
"""What, its command line, and the index of the node where it is hit."""


def _hit(pattern: str, index: int, number: int) -> Callable[[Fleet], Iterator[Hit]]:
    def act(fleet: Fleet) -> Iterator[Hit]:
        victim = fleet.victim()
        fleet.on_node(victim.nodes[index], pattern, number)
        yield victim.replaced

    return act


for _what, _pattern, _index in PARTS:
    kind("real engine", f"{_what} killed", cuts=True, engine="real")(_hit(_pattern, _index, signal.SIGKILL))
for _what, _pattern, _index in (PARTS[0], PARTS[1], PARTS[5]):
    kind("real engine", f"{_what} stands still", cuts=True, engine="real")(_hit(_pattern, _index, signal.SIGSTOP))


@kind("real engine", "its node: power cut", cuts=True, engine="real")
def power_cut(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    fleet.cluster.kill_node(victim.nodes[0])
    yield victim.replaced
    fleet.heal(victim.nodes[0])


@kind("GPU by NVML", "Xid 79 (off the bus), then a rank dies: blamed and avoided", cuts=True, engine="real")
def xid(fleet: Fleet) -> Iterator[Hit]:
    yield from _gpu_fault(fleet, f"echo '0 79' >> {GPUS_FILE}.xids", "Xid 79")


@kind(
    "GPU by NVML",
    "uncorrected ECC errors, a row to be remapped, then a rank dies: blamed and avoided",
    cuts=True,
    engine="real",
)
def ecc(fleet: Fleet) -> Iterator[Hit]:
    lines = "0 ecc.volatile.uncorrected 2\\n0 rows.pending 1\\n"
    yield from _gpu_fault(fleet, f"printf '{lines}' > {GPUS_FILE}", "GPU 0")


@kind("GPU by NVML", "lost, then a rank dies: blamed and avoided", cuts=True, engine="real")
def gpu_lost(fleet: Fleet) -> Iterator[Hit]:
    yield from _gpu_fault(fleet, f"printf '0 error 15\\n' > {GPUS_FILE}", "GPU 0")


@kind("GPU by NVML", "all NVLinks down, then a rank dies: blamed and avoided", cuts=True, engine="real")
def nvlink(fleet: Fleet) -> Iterator[Hit]:
    yield from _gpu_fault(fleet, f"printf '0 nvlink.state 0\\n' > {GPUS_FILE}", "GPU 0")


def _gpu_fault(fleet: Fleet, command: str, words: str) -> Iterator[Hit]:
    """The fault is told; what dies then starts elsewhere; the node is listed with the reason, and cleared."""
    victim = fleet.victim()
    node = victim.nodes[1]
    fleet.r1.kubectl("exec", victim.pods[1], "--", "sh", "-c", command)
    wait_for("the fault is told", lambda: str(fleet.r1.status()), until=lambda told: words in told)
    fleet.at = time.time()
    fleet.on_node(node, PARTS[0][1], signal.SIGKILL)
    yield victim.replaced
    assert node not in fleet.r1.nodes().values(), f"{node} was taken again"
    listed = [line for line in fleet.r1.r1("nodes").splitlines() if line.startswith(f"{node} ")]
    assert words in "".join(listed), f"`r1 nodes` says nothing of it: {listed}"
    fleet.r1.r1("nodes", "clear", node)
