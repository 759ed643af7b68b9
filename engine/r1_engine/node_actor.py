"""The Ray actor of one node: Ray decides where it runs and tells the driver when it dies; it runs the node's server."""

from __future__ import annotations

import os

import psutil  # type: ignore[import-untyped]
import ray

from r1_engine import launch, volume
from r1_engine.config import load_settings
from r1_engine.cpu import models
from r1_engine.fabric import read_fabric
from r1_engine.node_paths import AGENT_SOCKET
from r1_engine.supervise import Ended, supervise


class NodeActor:
    """One a node. Its settings come from the environment `ray start` was given on its node."""

    def where(self) -> tuple[str, int]:
        """This node's address and its index in the gang."""
        return ray.util.get_node_ip_address(), load_settings(os.environ).pod.index

    def run(self, head_ip: str) -> Ended:
        """Runs the node's server until it ends; see `supervise`."""
        settings = load_settings(os.environ)
        cores = sorted(os.sched_getaffinity(0))
        interface = _interface(settings.pod.ip)
        environment = launch.environment(os.environ, settings, cores, interface, read_fabric())
        if settings.config.device == "cpu":
            environment.setdefault(models.SKIP_VARIABLE, models.skip_list(settings.config.model_path))
        return supervise(
            launch.command(
                settings, head_ip, volume.arguments(settings.config.model_path, settings.config.engine_args)
            ),
            environment,
            str(settings.pod.run_dir / AGENT_SOCKET),
        )


def _interface(ip: str) -> str | None:
    """The network interface with this address; None when no interface names it (one of the many loopback addresses)."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address.split("%")[0] == ip for address in addresses):
            return str(name)
    return None
