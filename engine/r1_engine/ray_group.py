"""This pod's part of the gang's Ray cluster: `ray start` as a child, and the environment every Ray process needs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from r1_engine import processes
from r1_engine.config import Settings
from r1_engine.proxies import without_proxy

# The least Ray accepts. Only a few control messages pass through it, and /dev/shm belongs to NCCL and DeepEP.
OBJECT_STORE_BYTES = 78_643_200
# The custom resource that makes a bundle take a whole node, GPUs or not.
NODE_RESOURCE = "r1_node"

ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    # Ray starts workers at niceness 15 and lets the OOM killer take them first; ours carry the engine.
    "RAY_worker_niceness": "0",
    "RAY_worker_oom_score_adjustment": "0",
    # Ray's memory monitor kills the actor, not the culprit, when the node's memory runs low.
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    # One actor runs here; workers kept warm for more would be Python processes for nothing.
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_DEDUP_LOGS": "0",
    # Ray's patience (30, 60, 60 s and 5 × 10 s without an answer) is less than an overloaded machine needs. What
    # stands still is ours to end (`startup.seconds`), so is a node that no longer answers (the lease).
    "RAY_raylet_start_wait_time_s": "600",
    "RAY_gcs_server_request_timeout_seconds": "600",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_health_check_timeout_ms": "60000",
}


THREADS_VARIABLE = "R1_OMP_NUM_THREADS"
"""The pod's own OMP_NUM_THREADS, where it has one: in a worker one cannot tell it from what Ray sets."""


class RayStartError(Exception):
    """`ray start` ended, or never brought its processes up."""


def environment(base: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """For `ray start`, the driver and through them every worker."""
    threads = {THREADS_VARIABLE: base["OMP_NUM_THREADS"]} if "OMP_NUM_THREADS" in base else {}
    return {**without_proxy(base, settings), **threads, **ENVIRONMENT, "RAY_AUTH_TOKEN": settings.token}


def address(settings: Settings, head_ip: str) -> str:
    """Where the gang's Ray cluster is."""
    return f"{bracketed(head_ip)}:{settings.config.ports.ray}"


def bracketed(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip


def command(settings: Settings) -> list[str]:
    """`ray start` for this node. `--block` ties gcs_server and raylet to it by the parent-death signal."""
    config, pod = settings.config, settings.pod
    argv = [sys.executable, "-m", "r1_engine.ray_start", "--block", "--disable-usage-stats"]
    argv += ["--node-ip-address", pod.ip, "--object-store-memory", str(OBJECT_STORE_BYTES), "--num-cpus", "1"]
    argv += ["--num-gpus", str(config.gpus_per_node if config.device == "cuda" else 0)]
    argv += ["--resources", f'{{"{NODE_RESOURCE}": 1}}']
    # Ray's autoscaler and its log forwarding are not ours: four Python processes less in a gang of two nodes.
    argv += ["--no-monitor", "--include-log-monitor", "false"]
    if settings.is_head:
        argv += ["--head", "--port", str(config.ports.ray), "--include-dashboard", "false"]
        argv += ["--temp-dir", str(pod.run_dir / "ray")]
    return argv


@dataclass
class RayGroup:
    """A running `ray start` with the processes whose death ends the gang."""

    process: subprocess.Popen[bytes]
    log: Path
    parts: dict[int, str]

    def join(self, address: str) -> None:
        """Tells the waiting `ray start` the cluster's address; on node 0 it is the address to make."""
        assert self.process.stdin is not None
        with suppress(OSError), self.process.stdin as line:  # an error means that it ended: `wait_up` says how
            line.write(f"{address}\n".encode())

    def end(self) -> None:
        """Kills a start that failed, with all that it had started: the next one needs the same ports."""
        below = {*self.parts, *processes.descendants(self.process.pid)} - {self.process.pid}
        self.process.kill()
        self.process.wait()
        processes.kill(below, 10.0)


def launch(settings: Settings, base: Mapping[str, str]) -> RayGroup:
    """Starts `ray start`, which imports Ray and waits for `join`."""
    log = settings.pod.run_dir / "ray-start.log"
    with log.open("wb") as out:
        process = processes.start(
            command(settings), environment(base, settings), stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT
        )
    return RayGroup(process, log, {process.pid: "ray start"})


async def wait_up(group: RayGroup, settings: Settings, seconds: float) -> None:
    """Until this node's raylet (and on node 0 the GCS) runs. Raises RayStartError with Ray's words."""
    wanted = {"raylet", "gcs_server"} if settings.is_head else {"raylet"}
    deadline = time.monotonic() + seconds
    while True:
        if (status := group.process.poll()) is not None:
            raise RayStartError(f"`ray start` ended with status {status}: {tail(group.log)}")
        if ended := [part for pid, part in group.parts.items() if not processes.is_running(pid)]:
            raise RayStartError(f"{ended[0]} ended: {tail(group.log)}")
        for pid, title in processes.titles_below(group.process.pid).items():
            if (program := processes.program(title)) in wanted:
                group.parts[pid] = program
        if wanted <= set(group.parts.values()) and "Ray runtime started" in group.log.read_text(errors="replace"):
            return
        if time.monotonic() > deadline:
            raise RayStartError(f"no {', '.join(sorted(wanted))} after {seconds:.0f} s: {tail(group.log)}")
        await asyncio.sleep(0.3)


def tail(log: Path, lines: int = 6) -> str:
    try:
        words = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return "(no log)"
    return " | ".join(words[-lines:]) or "(no output)"
