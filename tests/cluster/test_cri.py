"""The life of a container, driven over the runtime's own gRPC socket, as root and with one id."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.cluster.cri import api_pb2 as pb
from tests.cluster.cri_fixtures import MODES, Runtime, eventually, running


def processes_named(arguments: str) -> int:
    """How many processes of this machine have these words as their whole command line."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return listed.splitlines().count(arguments)


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
    # Killed with its group, whose last member may outlive the answer by a moment.
    eventually(lambda: b"4321" not in cri.execute(id, "ps", "-eo", "args").stdout)
    cri.stop(id, 0)
    with pytest.raises(grpc.RpcError, match="not running"):
        cri.execute(id, "true")


def test_stop_asks_then_kills_everything(cri: Runtime) -> None:
    pod = cri.pod()
    polite = cri.start(pod, "sh", "-c", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done")
    mark = f"98765.{os.getpid()}"
    ignore = f"trap '' TERM; (setsid sleep {mark} &) ; echo up; while :; do sleep 1; done"
    stubborn = cri.start(pod, "sh", "-c", ignore)
    for id in (polite, stubborn):
        eventually(lambda id=id: cri.log(id))
    cri.stop(polite, 30)
    assert (cri.status(polite).exit_code, cri.status(polite).reason) == (0, "Completed")
    assert cri.log(polite)[-1] == ("stdout", "F", "bye")
    cri.stop(stubborn, 1)
    assert cri.status(stubborn).exit_code == 128 + signal.SIGKILL
    assert processes_named(f"sleep {mark}") == 0
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


@pytest.mark.parametrize("mode", MODES)
def test_containers_die_with_the_runtime(tmp_path: Path, mode: str) -> None:
    """A killed runtime is how a node's loss is played."""
    mark = f"54321.{os.getpid()}"  # of this test run alone: another one may be under way
    with running(mode, tmp_path) as own:
        own.start(own.pod(), "sleep", mark)
        other_user = pb.LinuxContainerSecurityContext(run_as_user=pb.Int64Value(value=77))
        own.start(own.pod(), "sleep", mark, security=other_user)
        assert processes_named(f"sleep {mark}") == 2
        children = subprocess.run(["pgrep", "-P", str(own.process.pid)], capture_output=True, text=True).stdout.split()
        os.kill(int(children[0]), signal.SIGKILL)
        eventually(lambda: processes_named(f"sleep {mark}") == 0)
