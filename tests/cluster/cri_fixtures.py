"""The container runtime alone, in namespaces of its own: as root, and in a user namespace that maps one id."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.cluster.cri import api_pb2 as pb
from tests.cluster.cri.rpc import Client
from tests.cluster.preflight import namespace_flags
from tests.waiting import PATIENCE_SECONDS, listens, wait_for

ROOT = Path(__file__).parents[2]
SERVICES = pb.DESCRIPTOR.services_by_name
NETWORK = (
    "mount -t tmpfs none /var/lib; ip link set lo up; ip link add br0 type bridge; "
    "ip addr add 10.244.0.1/16 dev br0; ip link set br0 up"
)

STAY = '"$@"; exit $?'
"""The shell remains the namespace's first process and reaps orphans, as a node's does. A command that was killed in a
container would else stay a zombie, and the kernel ends no process namespace that still holds one."""

IMAGES = {
    "entry:dev": {"entrypoint": ["printf", "%s\\n", "entry point"], "command": ["and command"]},
    "r1-operator:dev": {
        "root": {"/opt/r1": str(ROOT), "/opt/venv": sys.prefix},
        "path": ["/opt/venv/bin"],
        "env": {"FROM_IMAGE": "yes"},
        "user": 65532,
    },
}


def unshare(mode: str) -> list[str]:
    """The command that puts the runtime into namespaces of its own, which end with it."""
    return ["unshare", *namespace_flags(user_namespace=mode == "user-namespace")]


def works(mode: str) -> bool:
    if mode == "root" and os.geteuid() != 0:
        return False
    return (
        shutil.which("bwrap") is not None
        and subprocess.run([*unshare(mode), "true"], capture_output=True).returncode == 0
    )


def eventually(condition: Callable[[], Any]) -> Any:
    """Wait until `condition` is true and return it."""
    return wait_for("the condition", condition, PATIENCE_SECONDS, interval=0.01)


@dataclass
class Runtime:
    """A running runtime with shorthands for what the kubelet calls."""

    directory: Path
    mode: str
    process: subprocess.Popen[bytes]
    runtime: Any
    images: Any
    _pods: list[str] = field(default_factory=list)

    def pod(self, **options: Any) -> str:
        name = uuid.uuid4().hex[:8]
        config = pb.PodSandboxConfig(
            metadata=pb.PodSandboxMetadata(name=name, uid=name, namespace="default"),
            hostname=f"pod-{name}",
            log_directory=str(self.directory / "logs" / name),
            dns_config=pb.DNSConfig(servers=["10.244.0.1"], searches=["svc.cluster.local"], options=["ndots:5"]),
            labels={"name": name},
            **options,
        )
        self.config = config
        self._pods.append(self.runtime.RunPodSandbox(pb.RunPodSandboxRequest(config=config)).pod_sandbox_id)
        return self._pods[-1]

    def address(self, pod: str) -> str:
        status = self.runtime.PodSandboxStatus(pb.PodSandboxStatusRequest(pod_sandbox_id=pod)).status
        return str(status.network.ip)

    def create(self, pod: str, *command: str, image: str = "busybox:dev", security: Any = None, **options: Any) -> str:
        name = uuid.uuid4().hex[:8]
        config = pb.ContainerConfig(
            metadata=pb.ContainerMetadata(name=name),
            image=pb.ImageSpec(image=image),
            command=command,
            log_path=f"{name}/0.log",
            linux=pb.LinuxContainerConfig(security_context=security or pb.LinuxContainerSecurityContext()),
            labels={"container": name},
            **options,
        )
        request = pb.CreateContainerRequest(pod_sandbox_id=pod, config=config, sandbox_config=self.config)
        return str(self.runtime.CreateContainer(request).container_id)

    def start(self, pod: str, *command: str, **options: Any) -> str:
        id = self.create(pod, *command, **options)
        self.runtime.StartContainer(pb.StartContainerRequest(container_id=id))
        return id

    def status(self, id: str) -> Any:
        return self.runtime.ContainerStatus(pb.ContainerStatusRequest(container_id=id)).status

    def wait(self, id: str) -> Any:
        return eventually(lambda: (s := self.status(id)).state == pb.CONTAINER_EXITED and s)

    def log(self, id: str) -> list[tuple[str, str, str]]:
        lines = Path(self.status(id).log_path).read_text().splitlines()
        for line in lines:
            assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ", line)
        return [tuple(line.split(" ", 3)[1:]) for line in lines]  # type: ignore[misc]

    def output(self, pod: str, *command: str, **options: Any) -> list[str]:
        """Run to the end and return the lines printed."""
        id = self.start(pod, *command, **options)
        self.wait(id)
        return [text for _, _, text in self.log(id)]

    def execute(self, id: str, *command: str, timeout: int = 60) -> Any:
        return self.runtime.ExecSync(pb.ExecSyncRequest(container_id=id, cmd=command, timeout=timeout))

    def stop(self, id: str, timeout: int) -> None:
        self.runtime.StopContainer(pb.StopContainerRequest(container_id=id, timeout=timeout))

    def remove_pods(self) -> None:
        for pod in self._pods:
            self.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pod))
            self.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pod))
        self._pods.clear()


MODES = ("root", "user-namespace")


@contextmanager
def running(mode: str, directory: Path) -> Iterator[Runtime]:
    """A runtime with its files in `directory`; skips the test where this machine allows no such namespaces."""
    if not works(mode):
        pytest.skip(f"{mode}: needs {'root' if mode == 'root' else 'user namespaces'} and bubblewrap")
    socket, catalogue = directory / "cri.sock", directory / "images.json"
    catalogue.write_text(json.dumps(IMAGES))
    command = [
        *(sys.executable, "-m", "tests.cluster.cri"),
        *("--socket", str(socket)),
        *("--state", str(directory / "cri")),
        *("--pod-cidr", "10.244.1.0/24"),
        *("--gateway", "10.244.0.1"),
        *("--node-ip", "10.244.1.1"),
        *("--images", str(catalogue)),
    ]
    output = directory / "runtime.log"
    with output.open("wb") as log:
        process = subprocess.Popen(
            [*unshare(mode), "sh", "-ec", f"{NETWORK}; {STAY}", "sh", *command], cwd=ROOT, stdout=log, stderr=log
        )
    try:
        _await_answer(process, socket, output)
        with grpc.insecure_channel(f"unix://{socket}") as channel:
            services = [Client(channel, SERVICES[name]) for name in ("RuntimeService", "ImageService")]
            services[0].Version(pb.VersionRequest(), timeout=PATIENCE_SECONDS, wait_for_ready=True)
            yield Runtime(directory, mode, process, runtime=services[0], images=services[1])
    finally:
        process.kill()
        process.wait()


def _await_answer(process: subprocess.Popen[bytes], socket: Path, output: Path) -> None:
    """No channel before somebody listens: one that is refused backs off, and its calls fail for as long."""

    def look() -> bool:
        assert process.poll() is None, f"the runtime ended with {process.returncode}:\n{output.read_text()}"
        return listens(socket)

    wait_for("the runtime listens", look, PATIENCE_SECONDS, interval=0.01, describe=lambda _: output.read_text())


@pytest.fixture(scope="session", params=MODES)
def runtime(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    with running(request.param, tmp_path_factory.mktemp("cri")) as shared:
        yield shared


@pytest.fixture
def cri(runtime: Runtime) -> Iterator[Runtime]:
    """The session's runtime; pods that the test makes go with it."""
    yield runtime
    runtime.remove_pods()
