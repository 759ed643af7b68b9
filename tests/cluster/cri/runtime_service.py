"""The CRI runtime service: gRPC on one side, the node's pods and containers on the other. Thin.

Methods that are missing here (events, checkpoints, metrics) answer UNIMPLEMENTED; the kubelet then polls.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path
from typing import Any, NoReturn

import grpc

from tests.cluster.cri import api_pb2 as pb
from tests.cluster.cri import container as containers
from tests.cluster.cri import messages
from tests.cluster.cri import sandbox as sandboxes
from tests.cluster.cri.container import Container
from tests.cluster.cri.images import UnknownImage
from tests.cluster.cri.network import NoAddressLeft
from tests.cluster.cri.node import Node, NotFound
from tests.cluster.cri.processes import CommandFailed
from tests.cluster.cri.sandbox import Sandbox
from tests.cluster.cri.stats import Usage, directory_usage
from tests.cluster.cri.streaming import NoStreaming

_CODES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (UnknownImage, grpc.StatusCode.NOT_FOUND),
    (NoAddressLeft, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (NoStreaming, grpc.StatusCode.UNIMPLEMENTED),
    (TimeoutError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (CommandFailed, grpc.StatusCode.INTERNAL),
    (containers.StartFailed, grpc.StatusCode.UNKNOWN),
    (RuntimeError, grpc.StatusCode.FAILED_PRECONDITION),
)


async def _abort(context: Any, error: Exception) -> NoReturn:
    code = next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)
    await context.abort(code, str(error) or type(error).__name__)
    raise error


def _streams(request: pb.ExecRequest | pb.AttachRequest) -> dict[str, bool]:
    return {name: getattr(request, name) for name in ("tty", "stdin", "stdout", "stderr")}


class RuntimeService:
    """Answers for one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    # --- the runtime itself

    async def Version(self, request: pb.VersionRequest, context: Any) -> pb.VersionResponse:
        return pb.VersionResponse(
            version="0.1.0", runtime_name="bubblewrap-cri", runtime_version="0.1.0", runtime_api_version="v1"
        )

    async def Status(self, request: pb.StatusRequest, context: Any) -> pb.StatusResponse:
        conditions = [pb.RuntimeCondition(type=name, status=True) for name in ("RuntimeReady", "NetworkReady")]
        features = pb.RuntimeFeatures(supplemental_groups_policy=True)
        return pb.StatusResponse(status=pb.RuntimeStatus(conditions=conditions), features=features)

    async def RuntimeConfig(self, request: pb.RuntimeConfigRequest, context: Any) -> pb.RuntimeConfigResponse:
        return pb.RuntimeConfigResponse(linux=pb.LinuxRuntimeConfiguration(cgroup_driver=pb.CGROUPFS))

    async def UpdateRuntimeConfig(self, request: Any, context: Any) -> pb.UpdateRuntimeConfigResponse:
        return pb.UpdateRuntimeConfigResponse()

    # --- pods

    async def RunPodSandbox(self, request: pb.RunPodSandboxRequest, context: Any) -> pb.RunPodSandboxResponse:
        sandbox = Sandbox(request.config, Path(), request.runtime_handler)
        sandbox.directory = self._node.state / "pods" / sandbox.id
        try:
            await sandboxes.start(sandbox, self._node.network, self._node.addresses)
        except Exception as error:
            await _abort(context, error)
        self._node.sandboxes[sandbox.id] = sandbox
        return pb.RunPodSandboxResponse(pod_sandbox_id=sandbox.id)

    async def StopPodSandbox(self, request: pb.StopPodSandboxRequest, context: Any) -> pb.StopPodSandboxResponse:
        with contextlib.suppress(NotFound):
            await self._stop_sandbox(self._node.sandbox(request.pod_sandbox_id))
        return pb.StopPodSandboxResponse()

    async def _stop_sandbox(self, sandbox: Sandbox) -> None:
        async with sandbox.lock:
            await asyncio.gather(*(self._stop(container, 0) for container in self._node.containers_of(sandbox)))
            await sandboxes.stop(sandbox, self._node.addresses)

    async def RemovePodSandbox(self, request: pb.RemovePodSandboxRequest, context: Any) -> pb.RemovePodSandboxResponse:
        try:
            sandbox = self._node.sandbox(request.pod_sandbox_id)
        except NotFound:
            return pb.RemovePodSandboxResponse()
        await self._stop_sandbox(sandbox)
        for container in self._node.containers_of(sandbox):
            self._forget(container)
        self._node.sandboxes.pop(sandbox.id, None)
        shutil.rmtree(sandbox.directory, ignore_errors=True)
        return pb.RemovePodSandboxResponse()

    async def PodSandboxStatus(self, request: pb.PodSandboxStatusRequest, context: Any) -> pb.PodSandboxStatusResponse:
        try:
            sandbox = self._node.sandbox(request.pod_sandbox_id)
        except NotFound as error:
            await _abort(context, error)
        return pb.PodSandboxStatusResponse(status=messages.sandbox_status(sandbox, self._node.network.node_ip))

    async def ListPodSandbox(self, request: pb.ListPodSandboxRequest, context: Any) -> pb.ListPodSandboxResponse:
        found = [s for s in self._node.sandboxes.values() if messages.sandbox_matches(s, request.filter)]
        return pb.ListPodSandboxResponse(items=[messages.sandbox_item(sandbox) for sandbox in found])

    async def UpdatePodSandboxResources(self, request: Any, context: Any) -> pb.UpdatePodSandboxResourcesResponse:
        return pb.UpdatePodSandboxResourcesResponse()

    # --- containers

    async def CreateContainer(self, request: pb.CreateContainerRequest, context: Any) -> pb.CreateContainerResponse:
        config = request.config
        try:
            sandbox = self._node.sandbox(request.pod_sandbox_id)
            image = self._node.catalogue.find(config.image.image)
        except (NotFound, UnknownImage) as error:
            await _abort(context, error)
        directory = request.sandbox_config.log_directory or sandbox.config.log_directory
        log_path = Path(directory) / config.log_path if directory and config.log_path else None
        container = Container(config, sandbox, image, Path(), log_path)
        container.directory = self._node.state / "containers" / container.id
        self._node.containers[container.id] = container
        return pb.CreateContainerResponse(container_id=container.id)

    async def StartContainer(self, request: pb.StartContainerRequest, context: Any) -> pb.StartContainerResponse:
        try:
            container = self._node.container(request.container_id)
            async with container.lock:
                if container.state != pb.CONTAINER_CREATED:
                    raise RuntimeError(f"container {container.id} has been started before")
                await containers.start(container, self._node.host)
        except containers.StartFailed as error:
            containers.fail(container, str(error))
            await _abort(context, error)
        except Exception as error:
            await _abort(context, error)
        return pb.StartContainerResponse()

    async def StopContainer(self, request: pb.StopContainerRequest, context: Any) -> pb.StopContainerResponse:
        with contextlib.suppress(NotFound):
            await self._stop(self._node.container(request.container_id), request.timeout)
        return pb.StopContainerResponse()

    async def _stop(self, container: Container, grace_seconds: float) -> None:
        async with container.lock:  # a start that is under way comes to its end first
            pass
        await containers.stop(container, grace_seconds)

    async def RemoveContainer(self, request: pb.RemoveContainerRequest, context: Any) -> pb.RemoveContainerResponse:
        try:
            container = self._node.container(request.container_id)
        except NotFound:
            return pb.RemoveContainerResponse()
        await self._stop(container, 0)
        self._forget(container)
        return pb.RemoveContainerResponse()

    def _forget(self, container: Container) -> None:
        self._node.containers.pop(container.id, None)
        self._node.meter.forget([container.id])
        containers.remove_files(container)

    async def ListContainers(self, request: pb.ListContainersRequest, context: Any) -> pb.ListContainersResponse:
        found = [c for c in self._node.containers.values() if messages.container_matches(c, request.filter)]
        return pb.ListContainersResponse(containers=[messages.container_item(container) for container in found])

    async def ContainerStatus(self, request: pb.ContainerStatusRequest, context: Any) -> pb.ContainerStatusResponse:
        try:
            return pb.ContainerStatusResponse(
                status=messages.container_status(self._node.container(request.container_id))
            )
        except NotFound as error:
            await _abort(context, error)

    async def UpdateContainerResources(
        self, request: pb.UpdateContainerResourcesRequest, context: Any
    ) -> pb.UpdateContainerResourcesResponse:
        try:
            self._node.container(request.container_id).config.linux.resources.MergeFrom(request.linux)
        except NotFound as error:
            await _abort(context, error)
        return pb.UpdateContainerResourcesResponse()

    async def ReopenContainerLog(self, request: Any, context: Any) -> pb.ReopenContainerLogResponse:
        try:
            container = self._node.container(request.container_id)
            if container.log is None or not container.running:
                raise RuntimeError(f"container {container.id} is not running")
            container.log.reopen()
        except Exception as error:
            await _abort(context, error)
        return pb.ReopenContainerLogResponse()

    # --- commands and streams

    async def ExecSync(self, request: pb.ExecSyncRequest, context: Any) -> pb.ExecSyncResponse:
        try:
            container = self._node.container(request.container_id)
            return await containers.exec_sync(container, list(request.cmd), self._node.host, request.timeout)
        except TimeoutError:
            text = f"command {' '.join(request.cmd)!r} timed out after {request.timeout} s"
            await _abort(context, TimeoutError(text))
        except Exception as error:
            await _abort(context, error)

    async def Exec(self, request: pb.ExecRequest, context: Any) -> pb.ExecResponse:
        try:
            container = self._node.container(request.container_id)
            argv = containers.exec_arguments(container, list(request.cmd), self._node.host, tty=request.tty)
            wanted = {
                "kind": "exec",
                "argv": argv,
                "ptmx": f"/proc/{container.pid}/root/dev/pts/ptmx",
                **_streams(request),
            }
            return pb.ExecResponse(url=await self._node.streaming.url(wanted))
        except Exception as error:
            await _abort(context, error)

    async def Attach(self, request: pb.AttachRequest, context: Any) -> pb.AttachResponse:
        try:
            socket = await self._node.container(request.container_id).attach_socket()
            wanted = {"kind": "attach", "socket": str(socket), **_streams(request)}
            return pb.AttachResponse(url=await self._node.streaming.url(wanted))
        except Exception as error:
            await _abort(context, error)

    async def PortForward(self, request: pb.PortForwardRequest, context: Any) -> pb.PortForwardResponse:
        try:
            sandbox = self._node.sandbox(request.pod_sandbox_id)
            if sandbox.holder is None:
                raise RuntimeError(f"pod sandbox {sandbox.id} has been stopped")
            wanted = {"kind": "portforward", "netns": f"/proc/{sandbox.holder.pid}/ns/net", "ports": list(request.port)}
            return pb.PortForwardResponse(url=await self._node.streaming.url(wanted))
        except Exception as error:
            await _abort(context, error)

    # --- statistics

    async def ContainerStats(self, request: pb.ContainerStatsRequest, context: Any) -> pb.ContainerStatsResponse:
        try:
            return pb.ContainerStatsResponse(stats=self._stats(self._node.container(request.container_id)))
        except NotFound as error:
            await _abort(context, error)

    async def ListContainerStats(
        self, request: pb.ListContainerStatsRequest, context: Any
    ) -> pb.ListContainerStatsResponse:
        wanted = pb.ContainerFilter(
            id=request.filter.id,
            pod_sandbox_id=request.filter.pod_sandbox_id,
            label_selector=request.filter.label_selector,
        )
        found = [c for c in self._node.containers.values() if c.running and messages.container_matches(c, wanted)]
        return pb.ListContainerStatsResponse(stats=[self._stats(container) for container in found])

    def _stats(self, container: Container) -> pb.ContainerStats:
        cpu, memory = messages.cpu_and_memory(self._node.meter.usage(container.id, container.pid))
        used, files = directory_usage(container.directory)
        layer = messages.filesystem_usage(str(self._node.state), used, files)
        attributes = messages.container_attributes(container)
        return pb.ContainerStats(attributes=attributes, cpu=cpu, memory=memory, writable_layer=layer)

    async def PodSandboxStats(self, request: pb.PodSandboxStatsRequest, context: Any) -> pb.PodSandboxStatsResponse:
        try:
            return pb.PodSandboxStatsResponse(stats=self._pod_stats(self._node.sandbox(request.pod_sandbox_id)))
        except NotFound as error:
            await _abort(context, error)

    async def ListPodSandboxStats(
        self, request: pb.ListPodSandboxStatsRequest, context: Any
    ) -> pb.ListPodSandboxStatsResponse:
        wanted = pb.PodSandboxFilter(id=request.filter.id, label_selector=request.filter.label_selector)
        found = [s for s in self._node.sandboxes.values() if s.ready and messages.sandbox_matches(s, wanted)]
        return pb.ListPodSandboxStatsResponse(stats=[self._pod_stats(sandbox) for sandbox in found])

    def _pod_stats(self, sandbox: Sandbox) -> pb.PodSandboxStats:
        running = [container for container in self._node.containers_of(sandbox) if container.running]
        total = sum((self._node.meter.usage(c.id, c.pid) for c in running), Usage())
        cpu, memory = messages.cpu_and_memory(total)
        attributes = pb.PodSandboxAttributes(
            id=sandbox.id,
            metadata=sandbox.config.metadata,
            labels=sandbox.config.labels,
            annotations=sandbox.config.annotations,
        )
        linux = pb.LinuxPodSandboxStats(
            cpu=cpu,
            memory=memory,
            process=pb.ProcessUsage(process_count=pb.UInt64Value(value=total.processes)),
            containers=[self._stats(container) for container in running],
        )
        return pb.PodSandboxStats(attributes=attributes, linux=linux)
