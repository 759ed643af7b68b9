"""The container runtime, driven over its own gRPC socket, as root and inside a user namespace that maps one id."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.cluster.cri import api_pb2 as pb
from tests.cluster.cri.rpc import Client

ROOT = Path(__file__).parents[2]
SERVICES = pb.DESCRIPTOR.services_by_name
NETWORK = (
    "mount -t tmpfs none /var/lib; ip link set lo up; ip link add br0 type bridge; "
    "ip addr add 10.244.0.1/16 dev br0; ip link set br0 up"
)


def unshare(mode: str) -> list[str]:
    """The command that puts the runtime into namespaces of its own, which end with it."""
    return ["unshare", *(["-Ur"] if mode == "user-namespace" else []), "-nmp", "--fork", "--kill-child", "--mount-proc"]


def works(mode: str) -> bool:
    if mode == "root" and os.geteuid() != 0:
        return False
    return (
        shutil.which("bwrap") is not None
        and subprocess.run([*unshare(mode), "true"], capture_output=True).returncode == 0
    )


def eventually(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Wait until `condition` is true and return it."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not true within {seconds} s"
        time.sleep(0.01)
    return value


@dataclass
class Runtime:
    """A running runtime with shorthands for what the kubelet calls."""

    directory: Path
    mode: str
    runtime: Any = None
    images: Any = None
    process: subprocess.Popen[bytes] | None = None
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
        return self.runtime.PodSandboxStatus(pb.PodSandboxStatusRequest(pod_sandbox_id=pod)).status.network.ip

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
        return self.runtime.CreateContainer(request).container_id

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


@pytest.fixture(scope="module", params=["root", "user-namespace"])
def runtime(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    if not works(request.param):
        pytest.skip(f"this machine does not allow {request.param} namespaces, or bubblewrap is not installed")
    directory = tmp_path_factory.mktemp("cri")
    catalogue = directory / "images.json"
    environment = {
        "root": {"/opt/r1": str(ROOT), "/opt/venv": sys.prefix},
        "path": ["/opt/venv/bin"],
        "env": {"FROM_IMAGE": "yes"},
        "user": 65532,
    }
    entry = {"entrypoint": ["printf", "%s\\n", "entry point"], "command": ["and command"]}
    catalogue.write_text(json.dumps({"entry:dev": entry, "r1-operator:dev": environment}))
    command = [
        sys.executable,
        "-m",
        "tests.cluster.cri",
        "--socket",
        str(directory / "cri.sock"),
        "--state",
        str(directory / "cri"),
    ]
    command += [
        "--pod-cidr",
        "10.244.1.0/24",
        "--gateway",
        "10.244.0.1",
        "--node-ip",
        "10.244.1.1",
        "--images",
        str(catalogue),
    ]
    with (directory / "runtime.log").open("wb") as log:
        process = subprocess.Popen(
            [*unshare(request.param), "sh", "-ec", f'{NETWORK}; exec "$@"', "sh", *command],
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
        try:
            eventually((directory / "cri.sock").exists, 30)
            with grpc.insecure_channel(f"unix://{directory / 'cri.sock'}") as channel:
                runtime = Runtime(
                    directory,
                    request.param,
                    Client(channel, SERVICES["RuntimeService"]),
                    Client(channel, SERVICES["ImageService"]),
                )
                runtime.process = process
                yield runtime
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def cri(runtime: Runtime) -> Iterator[Runtime]:
    yield runtime
    runtime.remove_pods()


def test_a_container_runs_with_its_command_environment_and_log(cri: Runtime) -> None:
    id = cri.start(
        cri.pod(),
        "sh",
        "-c",
        'echo "$A in $PWD on $(hostname)"; echo no >&2; printf half; exit 3',
        envs=[pb.KeyValue(key="A", value=b"a b")],
        working_dir="/var/tmp/work",
    )
    status = cri.wait(id)
    assert (status.exit_code, status.reason) == (3, "Error")
    assert status.finished_at >= status.started_at >= status.created_at > 0
    assert sorted(cri.log(id)) == sorted(
        [
            ("stdout", "F", f"a b in /var/tmp/work on {cri.config.hostname}"),
            ("stderr", "F", "no"),
            ("stdout", "P", "half"),
        ]
    )


def test_command_and_arguments_come_from_pod_or_image(cri: Runtime) -> None:
    pod = cri.pod()
    assert cri.output(pod, args=["echo", "arguments replace the image's"]) == ["arguments replace the image's"]
    assert cri.output(pod, image="entry:dev") == ["entry point", "and command"]
    assert cri.output(pod, image="entry:dev", args=["and arguments"]) == ["entry point", "and arguments"]
    assert cri.output(pod, "echo", "all the pod's", image="entry:dev") == ["all the pod's"]
    id = cri.create(pod, image="r1-operator:dev")
    with pytest.raises(grpc.RpcError, match="no command"):
        cri.runtime.StartContainer(pb.StartContainerRequest(container_id=id))
    assert cri.status(id).reason == "StartError"


def test_what_cannot_be_started_says_why(cri: Runtime, tmp_path: Path) -> None:
    pod = cri.pod()
    (tmp_path / "plain-file").touch()
    beneath_a_file = pb.Mount(container_path="/f/below", host_path=str(tmp_path))
    a_file = pb.Mount(container_path="/f", host_path=str(tmp_path / "plain-file"))
    for command, mounts, message in (
        ("no-such-program", [], "no-such-program: No such file or directory"),
        ("/etc/passwd", [], "/etc/passwd: Permission denied"),
        ("true", [a_file, beneath_a_file], "/f"),
    ):
        id = cri.create(pod, command, mounts=mounts)
        with pytest.raises(grpc.RpcError, match=message):
            cri.runtime.StartContainer(pb.StartContainerRequest(container_id=id))
        status = cri.wait(id)
        assert (status.exit_code, status.reason) == (128, "StartError")
        assert message in status.message


def test_long_lines_are_cut_into_parts(cri: Runtime) -> None:
    id = cri.start(cri.pod(), "sh", "-c", "head -c 40000 /dev/zero | tr '\\0' x; echo; echo next")
    cri.wait(id)
    parts = cri.log(id)
    assert [tag for _, tag, _ in parts] == ["P", "P", "F", "F"]
    assert "".join(text for _, _, text in parts[:3]) == "x" * 40000


def test_log_rotation(cri: Runtime) -> None:
    id = cri.start(cri.pod(), "sh", "-c", "trap 'echo after' USR1; echo before; while :; do sleep 0.05; done")
    path = Path(cri.status(id).log_path)
    eventually(lambda: "before" in path.read_text())
    path.rename(path.with_suffix(".old"))
    cri.runtime.ReopenContainerLog(pb.ReopenContainerLogRequest(container_id=id))
    cri.execute(id, "sh", "-c", "kill -USR1 1")
    eventually(lambda: path.exists() and "after" in path.read_text())
    assert "after" not in path.with_suffix(".old").read_text()


def test_the_view_is_the_containers_own(cri: Runtime, tmp_path: Path) -> None:
    pod = cri.pod()
    script = """ps -e -o pid=,comm= | head -1
        touch /usr/x 2>/dev/null || echo usr read-only
        ls -A /tmp; ls /home 2>/dev/null; touch /tmp/mine
        cat /etc/resolv.conf; stat -f -c %S:%b /dev/shm"""
    lines = cri.output(pod, "sh", "-c", script)
    assert lines[0].split() == ["1", "sh"]
    block, blocks = map(int, lines[-1].split(":"))
    assert block * blocks == 64 << 20
    assert lines[1:-1] == ["usr read-only", "nameserver 10.244.0.1", "search svc.cluster.local", "options ndots:5"]
    assert not Path("/tmp/mine").exists()


def test_mounts_honour_read_only_files_and_depth(cri: Runtime, tmp_path: Path) -> None:
    for name in ("data", "inner", "shm"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
    (tmp_path / "termination").touch()
    (tmp_path / "hosts").write_text("10.1.2.3 elsewhere\n")
    mounts = [
        pb.Mount(container_path="/data/inner", host_path=str(tmp_path / "inner")),
        pb.Mount(container_path="/data", host_path=str(tmp_path / "data")),
        pb.Mount(container_path="/readonly", host_path=str(tmp_path / "data"), readonly=True),
        pb.Mount(container_path="/dev/shm", host_path=str(tmp_path / "shm")),
        pb.Mount(container_path="/dev/termination-log", host_path=str(tmp_path / "termination")),
        pb.Mount(container_path="/etc/hosts", host_path=str(tmp_path / "hosts"), readonly=True),
        pb.Mount(container_path="/var/run/secrets/x", host_path=str(tmp_path / "made"), readonly=True),
    ]
    script = """echo 1 >/data/a; echo 2 >/data/inner/b; echo 3 >/dev/shm/c; echo bye >/dev/termination-log
        cat /readonly/a; getent hosts elsewhere; touch /readonly/x || echo refused; ls -d /run/secrets/x"""
    lines = cri.output(cri.pod(), "sh", "-c", script, mounts=mounts)
    assert [line.split()[0] for line in lines if "touch:" not in line] == ["1", "10.1.2.3", "refused", "/run/secrets/x"]
    assert [(tmp_path / name).read_text() for name in ("data/a", "inner/b", "shm/c", "termination")] == [
        "1\n",
        "2\n",
        "3\n",
        "bye\n",
    ]


def test_a_read_only_root_leaves_only_volumes_writable(cri: Runtime, tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    lines = cri.output(
        cri.pod(),
        "sh",
        "-c",
        "for d in / /tmp /v /root; do touch $d/x 2>/dev/null && echo $d; done",
        security=pb.LinuxContainerSecurityContext(readonly_rootfs=True),
        mounts=[pb.Mount(container_path="/v", host_path=str(tmp_path / "v"))],
    )
    assert lines == ["/v"]


def test_user_and_capabilities(cri: Runtime) -> None:
    pod = cri.pod()
    script = "id -u; id -g; grep -E 'CapEff|NoNewPrivs' /proc/self/status | cut -f2"
    security = pb.LinuxContainerSecurityContext(
        run_as_user=pb.Int64Value(value=1234),
        run_as_group=pb.Int64Value(value=99),
        supplemental_groups=[99, 777],
        capabilities=pb.Capability(drop_capabilities=["ALL"]),
    )
    assert cri.output(pod, "sh", "-c", script, security=security) == ["1234", "99", "0" * 16, "1"]
    uid, gid, effective, _ = cri.output(pod, "sh", "-c", script)
    assert (uid, gid) == ("0", "0")
    assert int(effective, 16) & (1 | 1 << 21) == 1, "CAP_CHOWN (0) yes, CAP_SYS_ADMIN (21) no"
    groups = cri.output(pod, "id", "-G", security=security)
    assert "777" in groups[0].split() or cri.mode == "user-namespace"


def test_an_environment_works_for_its_user(cri: Runtime) -> None:
    """The image's interpreter is a link into a prefix elsewhere, possibly under a home nobody else may enter."""
    code = (
        "import os, sys, pydantic;"
        "print(os.getuid(), sys.prefix, os.environ['FROM_IMAGE'], os.path.isdir('/opt/r1/tests'))"
    )
    assert cri.output(cri.pod(), "python", "-c", code, image="registry.example:5000/team/r1-operator:dev") == [
        "65532 /opt/venv yes True"
    ]
    # A script of the environment starts its interpreter by an absolute host path.
    assert cri.output(cri.pod(), "pytest", "--version", image="r1-operator:dev")[0].startswith("pytest ")


def test_pods_have_addresses_and_reach_each_other(cri: Runtime) -> None:
    server = cri.pod()
    serve = """import http.server
http.server.ThreadingHTTPServer(("", 80), http.server.SimpleHTTPRequestHandler).serve_forever()"""
    cri.start(server, "python3", "-c", serve, image="r1-operator:dev", working_dir="/opt/r1/tests")
    address = cri.address(server)
    assert address.startswith("10.244.1.")
    fetch = f"""import urllib.request, time, sys
for _ in range(100):
    try: print(urllib.request.urlopen("http://{address}/").status); sys.exit()
    except OSError: time.sleep(0.05)"""
    other = cri.pod()
    assert cri.address(other) != address
    assert cri.output(other, "python3", "-c", fetch, image="r1-operator:dev") == ["200"]
    local = fetch.replace(address, "127.0.0.1")
    assert cri.output(server, "python3", "-c", local, image="r1-operator:dev") == ["200"], (
        "containers of a pod share its network"
    )


def test_a_pod_on_the_host_network(cri: Runtime) -> None:
    options = pb.NamespaceOption(network=pb.NODE)
    pod = cri.pod(
        linux=pb.LinuxPodSandboxConfig(security_context=pb.LinuxSandboxSecurityContext(namespace_options=options))
    )
    assert cri.address(pod) == "10.244.1.1"
    assert "br0" in " ".join(cri.output(pod, "ls", "/proc/sys/net/ipv4/conf"))


def test_exec_runs_inside_with_a_limit(cri: Runtime) -> None:
    security = pb.LinuxContainerSecurityContext(run_as_user=pb.Int64Value(value=4321))
    id = cri.start(
        cri.pod(), "sleep", "1000", security=security, envs=[pb.KeyValue(key="A", value=b"b c")], working_dir="/tmp"
    )
    result = cri.execute(id, "sh", "-c", 'echo "$A $PWD $(id -u) $(cat /proc/1/comm)"; echo err >&2; exit 7')
    assert (result.stdout, result.stderr, result.exit_code) == (b"b c /tmp 4321 sleep\n", b"err\n", 7)
    with pytest.raises(grpc.RpcError) as caught:
        cri.execute(id, "sh", "-c", "sleep 4321; true", timeout=1)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert b"4321" not in cri.execute(id, "ps", "-eo", "args").stdout.replace(b"ps -eo args", b"")
    cri.stop(id, 0)
    with pytest.raises(grpc.RpcError, match="not running"):
        cri.execute(id, "true")


def test_stop_asks_then_kills_everything(cri: Runtime) -> None:
    pod = cri.pod()
    polite = cri.start(pod, "sh", "-c", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done")
    stubborn = cri.start(pod, "sh", "-c", "trap '' TERM; (setsid sleep 98765 &) ; echo up; while :; do sleep 1; done")
    for id in (polite, stubborn):
        eventually(lambda id=id: cri.log(id))
    cri.stop(polite, 30)
    assert (cri.status(polite).exit_code, cri.status(polite).reason) == (0, "Completed")
    assert cri.log(polite)[-1] == ("stdout", "F", "bye")
    cri.stop(stubborn, 1)
    assert cri.status(stubborn).exit_code == 128 + signal.SIGKILL
    assert "98765" not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    cri.stop(stubborn, 1)
    cri.stop("no-such-container", 1)


def test_lists_filter_and_remove_is_idempotent(cri: Runtime) -> None:
    pod, other = cri.pod(), cri.pod()
    here, there = cri.start(pod, "sleep", "1000"), cri.create(other, "true")

    def ids(**options: Any) -> set[str]:
        request = pb.ListContainersRequest(filter=pb.ContainerFilter(**options))
        return {container.id for container in cri.runtime.ListContainers(request).containers}

    assert ids(pod_sandbox_id=pod) == {here}
    assert ids(state=pb.ContainerStateValue(state=pb.CONTAINER_CREATED)) == {there}
    assert ids(id=here, label_selector={"container": "no"}) == set()
    ready = pb.PodSandboxFilter(state=pb.PodSandboxStateValue(state=pb.SANDBOX_READY))
    cri.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pod))
    assert cri.status(here).exit_code == 137
    assert {item.id for item in cri.runtime.ListPodSandbox(pb.ListPodSandboxRequest(filter=ready)).items} == {other}
    for _ in range(2):
        cri.runtime.RemoveContainer(pb.RemoveContainerRequest(container_id=here))
        cri.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pod))
    assert ids() == {there}
    with pytest.raises(grpc.RpcError) as caught:
        cri.status(here)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_images(cri: Runtime) -> None:
    status = cri.images.ImageStatus(pb.ImageStatusRequest(image=pb.ImageSpec(image="docker.io/library/busybox"))).image
    assert list(status.repo_tags) == ["busybox:dev"]
    assert not cri.images.ImageStatus(pb.ImageStatusRequest(image=pb.ImageSpec(image="nginx"))).HasField("image")
    with pytest.raises(grpc.RpcError, match=r"it has: busybox:dev, entry:dev, r1-operator:dev"):
        cri.images.PullImage(pb.PullImageRequest(image=pb.ImageSpec(image="nginx")))
    usage = cri.images.ImageFsInfo(pb.ImageFsInfoRequest()).image_filesystems[0]
    assert usage.used_bytes.value > 1 << 20
    assert usage.inodes_used.value > 0


def test_statistics(cri: Runtime) -> None:
    pod = cri.pod()
    burn = "x = bytearray(64 << 20); x[::4096] = b'1' * len(x[::4096]); print('up', flush=True)\nwhile True: pass"
    id = cri.start(pod, "python3", "-c", burn)
    eventually(lambda: cri.log(id))

    def usage() -> Any:
        return cri.runtime.ContainerStats(pb.ContainerStatsRequest(container_id=id)).stats

    first = usage()
    assert 64 << 20 < first.memory.working_set_bytes.value < 512 << 20
    eventually(lambda: usage().cpu.usage_core_nano_seconds.value > first.cpu.usage_core_nano_seconds.value)
    stats = cri.runtime.ListPodSandboxStats(
        pb.ListPodSandboxStatsRequest(filter=pb.PodSandboxStatsFilter(id=pod))
    ).stats
    assert stats[0].linux.memory.working_set_bytes.value > 64 << 20
    assert stats[0].linux.process.process_count.value == 1


def test_many_pods_at_once(cri: Runtime) -> None:
    requests = []
    for index in range(8):
        config = pb.PodSandboxConfig(
            metadata=pb.PodSandboxMetadata(name=f"p{index}", uid=str(index), namespace="n"), hostname=f"p{index}"
        )
        requests.append(cri.runtime.RunPodSandbox.future(pb.RunPodSandboxRequest(config=config)))
    pods = [request.result().pod_sandbox_id for request in requests]
    cri._pods += pods
    assert len({cri.address(pod) for pod in pods}) == 8


def test_containers_die_with_the_runtime(tmp_path: Path, runtime: Runtime) -> None:
    """Last: it ends the runtime that the others share. A killed runtime is how a node's loss is played."""
    runtime.start(runtime.pod(), "sleep", "54321")
    runtime.start(
        runtime.pod(), "sleep", "54322", security=pb.LinuxContainerSecurityContext(run_as_user=pb.Int64Value(value=77))
    )

    def sleepers() -> int:
        return len(
            re.findall(r"sleep 5432[12]", subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout)
        )

    eventually(sleepers)
    assert runtime.process is not None
    children = subprocess.run(["pgrep", "-P", str(runtime.process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(children[0]), signal.SIGKILL)
    eventually(lambda: sleepers() == 0)
