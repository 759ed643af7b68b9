"""The device plugin's service and its registration with the kubelet (device-plugin API v1beta1)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from tests.cluster.cri.rpc import Client, service_handler
from tests.cluster.gpu import deviceplugin_pb2 as pb

API_VERSION = "v1beta1"
HEALTHY, UNHEALTHY = "Healthy", "Unhealthy"
# The kubelet's socket and the list of unhealthy devices are looked at this often.
_LOOK_SECONDS = 0.3
_REGISTER_SECONDS = 10.0


def device_names(count: int, kind: str = "GPU") -> tuple[str, ...]:
    """Names of `count` devices: GPU-0, GPU-1, …"""
    return tuple(f"{kind}-{index}" for index in range(count))


def unhealthy_devices(text: str, devices: tuple[str, ...]) -> frozenset[str]:
    """The devices a control file names, one a line, by name or index, or `all`; `#` begins a comment.

    Raises:
        ValueError: a line names no device; the message has the line and what there is.
    """
    found: set[str] = set()
    for line in text.splitlines():
        word = line.split("#", 1)[0].strip()
        if not word:
            continue
        name = f"GPU-{word}" if word.isdigit() else word
        if name != "all" and name not in devices:
            raise ValueError(f"{word!r} is no device of this node; it has {', '.join(devices) or 'none'}")
        found.update(devices if name == "all" else [name])
    return frozenset(found)


@dataclass
class DevicePlugin:
    """The service that the kubelet calls. A change of health reaches every open ListAndWatch."""

    devices: tuple[str, ...]
    are_gpus: bool = True
    """Whether containers are told their devices in NVIDIA's variable."""
    unhealthy: frozenset[str] = frozenset()
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def set_unhealthy(self, devices: frozenset[str]) -> None:
        """Say which devices are broken; the others are well."""
        async with self._changed:
            self.unhealthy = devices
            self._changed.notify_all()

    def listing(self) -> pb.ListAndWatchResponse:
        """All devices with their health."""
        return pb.ListAndWatchResponse(
            devices=[pb.Device(ID=id, health=UNHEALTHY if id in self.unhealthy else HEALTHY) for id in self.devices]
        )

    async def GetDevicePluginOptions(self, request: pb.Empty, context: Any) -> pb.DevicePluginOptions:
        return pb.DevicePluginOptions()

    async def ListAndWatch(self, request: pb.Empty, context: Any) -> AsyncIterator[pb.ListAndWatchResponse]:
        told: frozenset[str] | None = None
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda told=told: told != self.unhealthy)  # type: ignore[misc]
                told = self.unhealthy
            yield self.listing()

    async def Allocate(self, request: pb.AllocateRequest, context: Any) -> pb.AllocateResponse:
        responses = []
        for container in request.container_requests:
            ids = list(container.devices_ids)
            if strangers := set(ids) - set(self.devices):
                await context.abort(grpc.StatusCode.NOT_FOUND, f"no such devices: {', '.join(sorted(strangers))}")
            # NVIDIA's variable, and one that says that there is nothing behind it.
            envs = {"NVIDIA_VISIBLE_DEVICES": ",".join(ids), "PRETENDED_GPUS": str(len(ids))}
            responses.append(pb.ContainerAllocateResponse(envs=envs if self.are_gpus else {}))
        return pb.AllocateResponse(container_responses=responses)


@dataclass
class Endpoint:
    """One plugin at one kubelet: serves its socket and registers again whenever the kubelet has restarted."""

    plugin: DevicePlugin
    kubelet_directory: Path
    resource: str
    control: Path

    @property
    def _socket(self) -> Path:
        return self.kubelet_directory / (self.resource.replace("/", "-") + ".sock")

    async def run(self) -> None:
        """Serve until cancelled. A restarting kubelet deletes all sockets in its directory and makes its own anew."""
        server: Any = None
        kubelet: int | None = None
        try:
            while True:
                await self._read_control()
                now = _inode(self.kubelet_directory / "kubelet.sock")
                if now is not None and (now != kubelet or _inode(self._socket) is None):
                    if server is not None:
                        await server.stop(grace=None)
                    server = await self._serve()
                    kubelet = now if await self._register() else None
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            if server is not None:
                await server.stop(grace=None)

    async def _read_control(self) -> None:
        try:
            wanted = unhealthy_devices(_text(self.control), self.plugin.devices)
        except ValueError as error:
            print(f"error: {self.control}: {error}; nothing changes", flush=True)
            return
        if wanted != self.plugin.unhealthy:
            print(f"unhealthy devices: {', '.join(sorted(wanted)) or 'none'}", flush=True)
            await self.plugin.set_unhealthy(wanted)

    async def _serve(self) -> Any:
        self._socket.unlink(missing_ok=True)
        server = grpc.aio.server()
        service = pb.DESCRIPTOR.services_by_name["DevicePlugin"]
        server.add_generic_rpc_handlers((service_handler(service, self.plugin),))
        server.add_insecure_port(f"unix://{self._socket}")
        await server.start()
        return server

    async def _register(self) -> bool:
        """True if the kubelet took the registration; it may not listen yet."""
        request = pb.RegisterRequest(
            version=API_VERSION,
            endpoint=self._socket.name,
            resource_name=self.resource,
            options=pb.DevicePluginOptions(),
        )
        async with grpc.aio.insecure_channel(f"unix://{self.kubelet_directory / 'kubelet.sock'}") as channel:
            try:
                registration = Client(channel, pb.DESCRIPTOR.services_by_name["Registration"])
                await registration.Register(request, timeout=_REGISTER_SECONDS)
            except grpc.aio.AioRpcError as error:
                print(f"the kubelet refused: {error.code().name} {error.details()}", flush=True)
                return False
        print(f"registered {len(self.plugin.devices)} of {self.resource}", flush=True)
        return True


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
