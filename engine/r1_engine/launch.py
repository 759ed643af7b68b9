"""The command line and environment of one node's `sglang serve`. Pure."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from r1_engine import cpu, fabric_ports, kernels
from r1_engine.config import Settings
from r1_engine.deadlines import LONGEST_SECONDS
from r1_engine.fabric import Fabric
from r1_engine.fabric_ports import choose
from r1_engine.loading import LOADING_VARIABLE
from r1_engine.node_paths import GATE_FILE
from r1_engine.proxies import without_proxy
from r1_engine.ray_group import THREADS_VARIABLE, bracketed

# What Ray puts into a worker's environment and an engine must not inherit: OMP_NUM_THREADS is set to the actor's CPUs.
_FROM_RAY = ("RAY_", "OMP_NUM_THREADS")

# SGLang's own is 300 s, and ends a gang that compiles a kernel inside a step. We watch each rank and know of compilers.
WATCHDOG = ("--watchdog-timeout", "3600")
GATE_VARIABLE = "R1_GATE_FILE"
PROBE_KEY_VARIABLE = "R1_PROBE_KEY"
KEY_FILE_VARIABLE = "R1_ENGINE_KEY_PATH"
"""The file, never the key: a process's environment is read by whoever debugs it."""


def command(settings: Settings, head_ip: str, more: Sequence[str] = ()) -> list[str]:
    """`python -m r1_engine.serve` with SGLang's arguments: `sglang serve` with our request gate in the same process.

    `more`: what was found out about the node, before what is planned and what the user says."""
    config, pod = settings.config, settings.pod
    argv = [sys.executable, "-m", "r1_engine.serve"]
    argv += ["--model-path", str(config.model_path), "--served-model-name", config.served_name]
    argv += ["--host", pod.listen, "--port", str(config.ports.http), "--enable-metrics"]
    argv += ["--nnodes", str(config.nodes), "--node-rank", str(pod.index)]
    argv += ["--dist-init-addr", f"{bracketed(head_ip)}:{config.ports.dist}"]
    argv += [*WATCHDOG, *more]
    # What asks every few seconds would bury what users ask.
    argv += ["--uvicorn-access-log-exclude-prefixes", "/metrics", "/v1/loads", "/model_info", "/health"]
    if config.device == "cpu":
        argv += cpu.arguments(config.engine_args)
    return [*argv, *config.engine_args]


def environment(
    base: Mapping[str, str],
    settings: Settings,
    cores: Sequence[int],
    interface: str | None,
    fabric: Fabric | None = None,
) -> dict[str, str]:
    """The child's environment. `base` is the Ray worker's, `cores` are the CPUs this pod may use, `interface` is the
    network interface that carries the pod's address, over which gloo, NCCL and NVSHMEM find each other; `fabric` is
    what the pod has for the traffic itself; only a gang of several nodes needs it."""
    config, run_dir = settings.config, settings.pod.run_dir
    kept = {name: value for name, value in base.items() if not name.startswith(_FROM_RAY)}
    if (threads := kept.pop(THREADS_VARIABLE, None)) is not None:
        kept["OMP_NUM_THREADS"] = threads
    # Otherwise SGLang asks the network which address it has, and waits for minutes where there is no default route.
    defaults = {"SGLANG_HOST_IP": settings.pod.ip}
    if interface is not None:
        defaults |= {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface}
    if config.device == "cuda":
        defaults |= kernels.FAST_WARM_UP
    if config.nodes > 1 and config.device == "cuda":
        tcp = config.fabric is not None and config.fabric.transport == "Tcp"
        defaults |= fabric_ports.defaults(
            choose(fabric or Fabric()), {**kept, **config.env}, tcp=tcp, interface=interface
        )
    own = {
        # A dead server's gauges must not be served again: each start has a directory of its own.
        "PROMETHEUS_MULTIPROC_DIR": str(run_dir / "prometheus"),
        # Where SGLang runs several HTTP workers, each imports its application from here.
        "SGLANG_HTTP_SERVER_APP_PATH": "r1_engine.serve_app:app",
        "PYTHONUNBUFFERED": "1",
        LOADING_VARIABLE: f"{LONGEST_SECONDS:g}",  # how long a start may take is node 0's to say, and may change
    }
    if settings.is_head:  # the others serve no requests
        own[GATE_VARIABLE] = str(run_dir / GATE_FILE)
        own[KEY_FILE_VARIABLE] = str(settings.key_file or "")
    if config.device == "cpu":
        defaults |= cpu.environment(config.nodes * config.gpus_per_node, cores, settings.pod.index)
    # What the user set in the pod or in engine.json wins over what we would choose, not over what we rely on.
    return without_proxy({**defaults, **kept, **config.env, **own}, settings)
