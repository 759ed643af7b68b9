"""An operator with nothing to do: its memory, and what it writes in reconciles that change nothing."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.cluster.audit import audit_writes
from tests.cluster.cluster import Cluster
from tests.e2e.site import OPERATOR_NAMESPACE

MEMORY_GOAL_MB = 200
POKES = 10
PAUSE_SECONDS = 2.0
SETTLE_SECONDS = 35.0
"""The load's first figures are written up to 30 s after the first requests."""


@dataclass(frozen=True, slots=True)
class Idle:
    """`writes`: all requests of the operator that change objects, by the API server's own audit log (leases and events
    are not in it), during so many `reconciles`, each caused by a changed label of a node. Memory is resident, in MB."""

    memory_mb: float
    peak_memory_mb: float
    reconciles: int
    writes: tuple[str, ...]


def measure_idle(cluster: Cluster) -> Idle:
    """Pokes an operator whose deployments are ready and without load."""
    time.sleep(SETTLE_SECONDS)
    before, known = _reconciles(cluster), len(list(_writes(cluster)))
    for number in range(POKES):
        cluster.kubectl("label", "node", "n1", f"measure/poke={number}", "--overwrite")
        time.sleep(PAUSE_SECONDS)
    memory, peak = _memory(cluster)
    return Idle(memory, peak, _reconciles(cluster) - before, tuple(list(_writes(cluster))[known:]))


def _pod(cluster: Cluster) -> tuple[str, str]:
    """Name and address of the operator's pod."""
    pods = json.loads(cluster.kubectl("--namespace", OPERATOR_NAMESPACE, "get", "pods", "--output", "json"))["items"]
    pod = next(p for p in pods if p["status"].get("phase") == "Running")
    return pod["metadata"]["name"], pod["status"]["podIP"]


def _reconciles(cluster: Cluster) -> int:
    _, address = _pod(cluster)
    text = cluster.exec_inside(["curl", "-sf", f"http://{address}:8080/metrics"], capture_output=True).stdout
    lines = [line for line in text.splitlines() if line.startswith("r1_operator_reconcile_seconds_count")]
    return round(sum(float(line.rsplit(" ", 1)[1]) for line in lines))


def _writes(cluster: Cluster) -> Iterator[str]:
    """`verb resource namespace/name` of every write of the operator so far, but for its lease."""
    for write in audit_writes(cluster):
        if write.user.startswith(f"system:serviceaccount:{OPERATOR_NAMESPACE}:") and write.resource != "leases":
            yield f"{write.verb} {write.resource} {write.namespace}/{write.name}"


def _memory(cluster: Cluster) -> tuple[float, float]:
    """Resident memory of the operator's process now and at its peak, in MB."""
    name, _ = _pod(cluster)
    script = (
        "import os\n"
        "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
        "    line = open(f'/proc/{pid}/cmdline').read().split(chr(0))\n"
        "    if line[1:3] == ['-m', 'r1_operator']: print(open(f'/proc/{pid}/status').read())\n"
    )
    text = cluster.kubectl("--namespace", OPERATOR_NAMESPACE, "exec", name, "--", "python", "-c", script)
    found = {key: int(kb) / 1000 for key, kb in re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", text, re.MULTILINE)}
    return found["VmRSS"], found["VmHWM"]
