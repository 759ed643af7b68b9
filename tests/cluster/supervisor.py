"""Runs one cluster from inside its namespaces: network, control plane, nodes, and the control socket."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

from tests.cluster import addons, control, control_plane, identities, network, relay
from tests.cluster.api import Api, ApiError
from tests.cluster.config import ClusterConfig, ClusterPaths
from tests.cluster.machines import FaultError, Machines, ip_batch
from tests.cluster.processes import Component

_POLL_SECONDS = 0.1

_LAST_OBJECT = "/api/v1/namespaces/default/serviceaccounts/default"
"""The controller manager makes it at its leisure, and without it the API server refuses every pod."""

_HOST_SETTINGS = (
    "mount --bind /proc/sys /proc/sys && mount --bind /proc/sys/net /proc/sys/net && mount -o remount,bind,ro /proc/sys"
)
"""Settings under /proc/sys are the host's, but for the network's, which are the namespace's own. The kubelet of a root
user would change some (kernel.panic, vm.overcommit_memory)."""


class Supervisor:
    """One running cluster."""

    def __init__(self, paths: ClusterPaths, config: ClusterConfig, binaries: Path) -> None:
        self._paths = paths
        self._config = config
        self._binaries = binaries
        self._machines = Machines(binaries, paths, config)
        self._components: dict[str, Component] = {}
        self._relays: list[asyncio.Server] = []
        self._started = time.monotonic()
        self._timings: dict[str, float] = {}
        self._stage = "network"
        self._error: str | None = None
        self._stop = asyncio.Event()
        self._api: Api | None = None

    async def run(self) -> None:
        control.serve(self._paths.control, self._handle, asyncio.get_running_loop())
        start = asyncio.create_task(self._start())
        await self._stop.wait()
        start.cancel()

    async def _start(self) -> None:
        try:
            with self._timed("network"):
                _set_up_network(self._config.addresses)
            await self._start_control_plane()
            await self._start_nodes()
            self._stage = "ready"
        except Exception as error:  # told to whoever waits for the cluster, with the stage it happened in
            self._error = f"{self._stage}: {error}"
            print(f"failed: {self._error}", flush=True)

    async def _start_control_plane(self) -> None:
        await self._run_component("etcd", control_plane.etcd(self._binaries, self._paths))
        with self._timed("certificates"):
            await asyncio.to_thread(self._make_identities)
        control_plane.write_files(self._paths, self._config.addresses)
        self._api = Api(self._paths, self._config.addresses)
        with self._timed("api-server"):
            await self._run_component(
                "kube-apiserver", control_plane.apiserver(self._binaries, self._paths, self._config)
            )
            while not await asyncio.to_thread(self._api.is_ready):
                self._components["kube-apiserver"].require_running()
                self._components["etcd"].require_running()
                await asyncio.sleep(_POLL_SECONDS)
        with self._timed("add-ons"):
            for path, body in addons.objects(self._config.addresses):
                await asyncio.to_thread(self._api.create, path, body)

    async def _start_nodes(self) -> None:
        assert self._api is not None
        with self._timed("nodes"):
            for index in range(1, self._config.nodes + 1):
                await asyncio.to_thread(self._machines.add, index)
                await self._machines.boot(network.node_name(index))
            await self._run_component(
                "kube-controller-manager", control_plane.controller_manager(self._binaries, self._paths, self._config)
            )
            await self._run_component(
                "kube-scheduler", control_plane.scheduler(self._binaries, self._paths, self._config)
            )
            await self._run_component("coredns", control_plane.coredns(self._binaries, self._paths))
            await self._run_component(
                "kube-proxy", control_plane.proxy(self._binaries, self._paths), self._retarget_proxy
            )
            await self._await_nodes(self._machines.names())
        with self._timed("service accounts"):
            while not await asyncio.to_thread(self._api.exists, _LAST_OBJECT):
                await asyncio.sleep(_POLL_SECONDS)

    async def _run_component(self, name: str, argv: list[str], before_restart: Any = None) -> None:
        component = Component(name, argv, self._paths.logs / f"{name}.log", before_restart)
        self._components[name] = component
        await component.start()

    def _retarget_proxy(self) -> None:
        """kube-proxy ends when the node it was told to be on is deleted: tell it another one."""
        assert self._api is not None
        try:
            present = sorted(self._api.ready_nodes())
        except (OSError, ApiError, HTTPException):
            return  # the API server is away: keep the name, kube-proxy will ask again
        node = present[0] if present else network.node_name(1)
        control_plane.write_proxy_configuration(self._paths, self._config.addresses, node)

    def _make_identities(self) -> None:
        identities.make_certificates(
            self._binaries, self._paths, identities.certificate_request(self._config.addresses)
        )
        for identity in identities.COMPONENT_USERS:
            target = self._paths.inner_kubeconfig(identity)
            identities.write_kubeconfig(self._paths, identity, target, self._config.addresses.inner_server)

    async def _await_nodes(self, names: list[str]) -> None:
        """Waits until these nodes are Ready and offer their GPUs."""
        assert self._api is not None
        wanted = str(self._config.gpus_per_node)
        while True:
            ready = await asyncio.to_thread(self._api.ready_nodes)
            if all(
                name in ready and ready[name]["status"]["allocatable"].get(self._config.gpu_resource, "0") == wanted
                for name in names
            ):
                return
            await asyncio.sleep(_POLL_SECONDS)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        self._stage = stage
        begun = time.monotonic()
        yield
        self._timings[stage] = round(time.monotonic() - begun, 2)

    async def _handle(self, request: dict[str, Any], descriptor: int | None) -> dict[str, Any]:
        match request:
            case {"do": "status"}:
                return self._status()
            case {"do": "shutdown"}:
                self._stop.set()
            case {"do": "break", "node": str(node), "fault": str(fault)}:
                await self._machines.break_node(node, fault)
            case {"do": "fail-gpus", "node": str(node), "gpus": list(gpus)}:
                self._machines.fail_gpus(node, gpus)
            case {"do": "signal", "component": str(name), "number": int(number)}:
                self._signal(name, number)
            case {"do": "heal", "node": str(node)}:
                await self._machines.heal(node)
            case {"do": "add-node"}:
                return {"node": await self._add_node()}
            case {"do": "await-nodes", "nodes": list(names)}:
                await self._await_nodes(names)
            case {"do": "node-init", "node": str(node)}:
                return {"pid": self._machines.init_of(node)}
            case {"do": "expose", "target": dict(target)}:
                await self._expose(target, descriptor)
            case _:
                raise ValueError(f"unknown request {request.get('do')!r}")
        return {}

    def _signal(self, name: str, number: int) -> None:
        """To a program of the control plane. One that ends by it is started again a second later."""
        pid = self._components[name].pid if name in self._components else None
        if pid is None:
            raise FaultError(f"component {name!r} does not run; there are {', '.join(self._components)}")
        os.kill(pid, number)

    def _status(self) -> dict[str, Any]:
        return {
            "stage": self._stage,
            "error": self._error,
            "timings": self._timings,
            "seconds": round(time.monotonic() - self._started, 2),
            "faults": self._machines.faults(),
            "restarts": {
                name: component.restarts for name, component in self._components.items() if component.restarts
            },
        }

    async def _add_node(self) -> str:
        if self._stage != "ready":
            raise FaultError("the cluster is still starting; nodes can be added once it is ready")
        index = max((network.node_index(name) for name in self._machines.names()), default=0) + 1
        await asyncio.to_thread(self._machines.add, index)
        await self._machines.boot(network.node_name(index))
        return network.node_name(index)

    async def _expose(self, target: dict[str, Any], descriptor: int | None) -> None:
        """`target`: {"address", "port"}, or {"namespace", "service", "port"}, looked up for each connection."""
        if descriptor is None:
            raise ValueError("expose needs a listening socket beside the request")

        async def dial() -> tuple[str, int]:
            if "service" in target:
                assert self._api is not None
                return await asyncio.to_thread(
                    self._api.service_address, target["namespace"], target["service"], target["port"]
                )
            return target["address"], target["port"]

        self._relays.append(await relay.serve(socket.socket(fileno=descriptor), dial))


def _set_up_network(addresses: network.Addresses) -> None:
    subprocess.run(
        ["sh", "-ec", f"mount -t tmpfs -o mode=755,size=64m run /run && mkdir /run/netns && {_HOST_SETTINGS}"],
        check=True,
    )
    for name, value in network.SWITCH_SYSCTLS.items():
        setting = Path("/proc/sys/net", name)
        if setting.exists():
            setting.write_text(value)
    ip_batch(network.switch_script(addresses))


def main(folder: str) -> int:
    paths = ClusterPaths(Path(folder))
    config = ClusterConfig.from_json(paths.config.read_text())
    # Programs of ours by name for everything inside: kubelet and kube-proxy look for mount, ip and nft as well.
    binaries = paths.binaries.resolve()
    os.environ["PATH"] = f"{binaries}:{os.environ['PATH']}"

    async def run() -> None:
        await Supervisor(paths, config, binaries).run()

    asyncio.run(run())
    return 0
