"""What the runtime keeps → CRI messages, and the filters of list calls. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping

from tests.cluster.cri import api_pb2 as pb
from tests.cluster.cri.container import Container
from tests.cluster.cri.images import Image
from tests.cluster.cri.sandbox import Sandbox
from tests.cluster.cri.stats import Usage


def _labels_match(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())


def sandbox_state(sandbox: Sandbox) -> pb.PodSandboxState:
    """READY while its namespaces exist."""
    return pb.SANDBOX_READY if sandbox.ready else pb.SANDBOX_NOTREADY


def sandbox_matches(sandbox: Sandbox, wanted: pb.PodSandboxFilter) -> bool:
    """True if every part of the filter that is set fits."""
    return (
        (not wanted.id or sandbox.id.startswith(wanted.id))
        and (not wanted.HasField("state") or wanted.state.state == sandbox_state(sandbox))
        and _labels_match(wanted.label_selector, sandbox.config.labels)
    )


def container_matches(container: Container, wanted: pb.ContainerFilter) -> bool:
    """True if every part of the filter that is set fits."""
    return (
        (not wanted.id or container.id.startswith(wanted.id))
        and (not wanted.pod_sandbox_id or container.sandbox.id.startswith(wanted.pod_sandbox_id))
        and (not wanted.HasField("state") or wanted.state.state == container.state)
        and _labels_match(wanted.label_selector, container.config.labels)
    )


def sandbox_item(sandbox: Sandbox) -> pb.PodSandbox:
    """Its line in a list."""
    return pb.PodSandbox(
        id=sandbox.id,
        metadata=sandbox.config.metadata,
        state=sandbox_state(sandbox),
        created_at=sandbox.created_at,
        labels=sandbox.config.labels,
        annotations=sandbox.config.annotations,
        runtime_handler=sandbox.runtime_handler,
    )


def sandbox_status(sandbox: Sandbox, node_ip: str) -> pb.PodSandboxStatus:
    """Its status; a pod on the node's network has the node's address."""
    options = sandbox.config.linux.security_context.namespace_options
    return pb.PodSandboxStatus(
        id=sandbox.id,
        metadata=sandbox.config.metadata,
        state=sandbox_state(sandbox),
        created_at=sandbox.created_at,
        network=pb.PodSandboxNetworkStatus(ip=node_ip if sandbox.on_host_network else sandbox.address),
        linux=pb.LinuxPodSandboxStatus(namespaces=pb.Namespace(options=options)),
        labels=sandbox.config.labels,
        annotations=sandbox.config.annotations,
        runtime_handler=sandbox.runtime_handler,
    )


def container_item(container: Container) -> pb.Container:
    """Its line in a list."""
    return pb.Container(
        id=container.id,
        pod_sandbox_id=container.sandbox.id,
        metadata=container.config.metadata,
        image=container.config.image,
        image_ref=container.image.id,
        image_id=container.image.id,
        state=container.state,
        created_at=container.created_at,
        labels=container.config.labels,
        annotations=container.config.annotations,
    )


def container_status(container: Container) -> pb.ContainerStatus:
    """Its status, with the resources it was given."""
    credentials = container.credentials
    user = pb.LinuxContainerUser(uid=credentials.uid, gid=credentials.gid, supplemental_groups=credentials.groups)
    return pb.ContainerStatus(
        id=container.id,
        metadata=container.config.metadata,
        state=container.state,
        created_at=container.created_at,
        started_at=container.started_at,
        finished_at=container.finished_at,
        exit_code=container.exit_code,
        image=pb.ImageSpec(
            image=container.image.name, user_specified_image=container.config.image.user_specified_image
        ),
        image_ref=container.image.id,
        image_id=container.image.id,
        reason=container.reason,
        message=container.message,
        labels=container.config.labels,
        annotations=container.config.annotations,
        mounts=container.config.mounts,
        log_path=str(container.log_path or ""),
        resources=pb.ContainerResources(linux=container.config.linux.resources),
        user=pb.ContainerUser(linux=user),
        stop_signal=container.config.stop_signal,
    )


def container_attributes(container: Container) -> pb.ContainerAttributes:
    """What statistics carry to say whose they are."""
    return pb.ContainerAttributes(
        id=container.id,
        metadata=container.config.metadata,
        labels=container.config.labels,
        annotations=container.config.annotations,
    )


def cpu_and_memory(usage: Usage) -> tuple[pb.CpuUsage, pb.MemoryUsage]:
    """CPU and memory messages of a usage."""
    now = time.time_ns()
    memory = pb.UInt64Value(value=usage.memory_bytes)
    return (
        pb.CpuUsage(
            timestamp=now,
            usage_core_nano_seconds=pb.UInt64Value(value=usage.cpu_nanoseconds),
            usage_nano_cores=pb.UInt64Value(value=usage.nano_cores),
        ),
        pb.MemoryUsage(timestamp=now, working_set_bytes=memory, rss_bytes=memory, usage_bytes=memory),
    )


def filesystem_usage(mountpoint: str, used_bytes: int, inodes: int) -> pb.FilesystemUsage:
    """Usage of the file system that `mountpoint` lies on."""
    return pb.FilesystemUsage(
        timestamp=time.time_ns(),
        fs_id=pb.FilesystemIdentifier(mountpoint=mountpoint),
        used_bytes=pb.UInt64Value(value=used_bytes),
        inodes_used=pb.UInt64Value(value=inodes),
    )


def image_message(image: Image) -> pb.Image:
    """An image as the kubelet lists it. It takes no room: its files are the host's (a size of 0 is refused)."""
    message = pb.Image(
        id=image.id,
        repo_tags=[image.name],
        repo_digests=[f"{image.repository}@{image.id}"],
        size=1,
        spec=pb.ImageSpec(image=image.id),
        pinned=True,
    )
    message.uid.value = image.user
    return message
