"""The device plugin against a kubelet's side of the device-plugin API."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.cluster.cri.rpc import Client, service_handler
from tests.cluster.gpu import deviceplugin_pb2 as pb
from tests.cluster.gpu.plugin import DevicePlugin, Endpoint, device_names, unhealthy_devices
from tests.waiting import PATIENCE_SECONDS

SERVICES = pb.DESCRIPTOR.services_by_name


class Kubelet:
    """Takes registrations, as the kubelet's device manager does."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "kubelet.sock"
        self.requests: asyncio.Queue[pb.RegisterRequest] = asyncio.Queue()

    async def Register(self, request: pb.RegisterRequest, context: Any) -> pb.Empty:
        await self.requests.put(request)
        return pb.Empty()

    async def start(self) -> Any:
        """A starting kubelet empties its directory and makes its socket anew."""
        for leftover in self.socket.parent.glob("*.sock"):
            leftover.unlink()
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((service_handler(SERVICES["Registration"], self),))
        server.add_insecure_port(f"unix://{self.socket}")
        await server.start()
        return server


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[Endpoint]:
    directory = tmp_path / "device-plugins"
    directory.mkdir()
    endpoint = Endpoint(DevicePlugin(device_names(3)), directory, "nvidia.com/gpu", tmp_path / "unhealthy")
    task = asyncio.create_task(endpoint.run())
    yield endpoint
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_registers_again_with_every_kubelet(endpoint: Endpoint) -> None:
    kubelet = Kubelet(endpoint.kubelet_directory)
    for _ in range(2):
        server = await kubelet.start()
        request = await asyncio.wait_for(kubelet.requests.get(), PATIENCE_SECONDS)
        assert (request.version, request.resource_name) == ("v1beta1", "nvidia.com/gpu")
        assert (endpoint.kubelet_directory / request.endpoint).is_socket()
        await server.stop(grace=None)


async def test_lists_health_and_allocates(endpoint: Endpoint) -> None:
    kubelet = Kubelet(endpoint.kubelet_directory)
    server = await kubelet.start()
    request = await asyncio.wait_for(kubelet.requests.get(), PATIENCE_SECONDS)
    async with grpc.aio.insecure_channel(f"unix://{endpoint.kubelet_directory / request.endpoint}") as channel:
        plugin = Client(channel, SERVICES["DevicePlugin"])
        stream = plugin.ListAndWatch(pb.Empty())

        async def listing() -> dict[str, str]:
            answer = await asyncio.wait_for(stream.read(), PATIENCE_SECONDS)
            return {device.ID: device.health for device in answer.devices}

        assert await listing() == dict.fromkeys(("GPU-0", "GPU-1", "GPU-2"), "Healthy")
        endpoint.control.write_text("1  # fell off the bus\n")
        assert await listing() == {"GPU-0": "Healthy", "GPU-1": "Unhealthy", "GPU-2": "Healthy"}
        endpoint.control.unlink()
        assert set((await listing()).values()) == {"Healthy"}

        wanted = pb.ContainerAllocateRequest(devices_ids=["GPU-2", "GPU-0"])
        answer = await plugin.Allocate(pb.AllocateRequest(container_requests=[wanted]))
        assert dict(answer.container_responses[0].envs) == {
            "NVIDIA_VISIBLE_DEVICES": "GPU-2,GPU-0",
            "PRETENDED_GPUS": "2",
        }
        stranger = pb.ContainerAllocateRequest(devices_ids=["GPU-7"])
        with pytest.raises(grpc.RpcError, match="GPU-7"):
            await plugin.Allocate(pb.AllocateRequest(container_requests=[stranger]))
    await server.stop(grace=None)


def test_a_control_file_names_devices_of_the_node() -> None:
    devices = device_names(2)
    assert unhealthy_devices("all\n", devices) == set(devices)
    assert unhealthy_devices("# none\n\n", devices) == set()
    with pytest.raises(ValueError, match=r"'GPU-2' is no device of this node; it has GPU-0, GPU-1"):
        unhealthy_devices("GPU-2", devices)
