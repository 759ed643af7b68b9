"""One container: from its CRI configuration to processes, its end, its exit code and its log."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.cri import api_pb2 as pb
from tests.cluster.cri.attach import Attachments
from tests.cluster.cri.credentials import (
    Credentials,
    IdMaps,
    capabilities_after,
    group_file,
    needs_user_namespace,
    passwd_file,
    setpriv_arguments,
)
from tests.cluster.cri.images import Image
from tests.cluster.cri.logs import ContainerLog
from tests.cluster.cri.processes import detach, finish, kill_group, read_pipe, run, wait
from tests.cluster.cri.sandbox import Sandbox
from tests.cluster.cri.view import Bind, HostLayout, View, bwrap_arguments

_BWRAP = "/usr/bin/bwrap"
_SETPRIV = "/usr/bin/setpriv"
_SETSID = "/usr/bin/setsid"
# The programs that a container's first process is before it is the command.
_LAUNCHERS = frozenset({_BWRAP, _SETPRIV, _SETSID})
_START_SECONDS = 120
_POLL_SECONDS = 0.002
# The exit code other runtimes give a container whose process could not be started at all.
START_FAILED = 128


class StartFailed(RuntimeError):
    """The container's process could not be started; the message says why."""


@dataclass(frozen=True)
class Host:
    """What the runtime knows of its machine: how it is laid out and which ids it may give."""

    layout: HostLayout
    maps: IdMaps


@dataclass
class Container:
    """One container of a pod. `pid` is its first process as the runtime sees it, 0 before and after its life."""

    config: pb.ContainerConfig
    sandbox: Sandbox
    image: Image
    directory: Path
    log_path: Path | None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created_at: int = field(default_factory=time.time_ns)
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    pid: int = 0
    state: pb.ContainerState = pb.CONTAINER_CREATED
    kill_reason: str = ""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    log: ContainerLog | None = None
    attachments: Attachments = field(default_factory=Attachments)
    _supervisor: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """True between the start of its first process and its end."""
        return self.state == pb.CONTAINER_RUNNING

    @property
    def credentials(self) -> Credentials:
        """User, groups and capabilities, from the pod's security context and, where it says nothing, the image."""
        return credentials_of(self.config.linux.security_context, self.image.user)

    def environment(self) -> dict[str, str]:
        """The image's variables, overlaid by the pod's."""
        home = {"HOME": "/root" if self.credentials.uid == 0 else "/", "HOSTNAME": self.sandbox.config.hostname}
        terminal = {"TERM": "xterm"} if self.config.tty else {}
        return {
            **home,
            **terminal,
            **self.image.environment(),
            **{env.key: os.fsdecode(env.value) for env in self.config.envs},
        }

    @property
    def workdir(self) -> str:
        """Directory its processes start in."""
        return self.config.working_dir or self.image.workdir

    async def attach_socket(self) -> Path:
        """Where the streaming server reaches its input and output.

        Raises:
            RuntimeError: the container does not run.
        """
        if not self.running:
            raise RuntimeError(f"container {self.id} is not running")
        socket = self.directory / "attach.sock"
        await self.attachments.listen(socket)
        return socket

    def command(self) -> list[str]:
        """The pod's command and arguments; the image's entry point stands in for the one, its command for the other.

        As in Kubernetes, a pod that names a command gets none of the image's.
        """
        if self.config.command:
            return [*self.config.command, *self.config.args]
        return [*self.image.entrypoint, *(self.config.args or self.image.command)]


def credentials_of(security: pb.LinuxContainerSecurityContext, image_user: int) -> Credentials:
    """Credentials of a security context; names other than root and nobody are those of no image here."""
    names = {"root": 0, "nobody": 65534}
    uid = image_user
    if security.HasField("run_as_user"):
        uid = security.run_as_user.value
    elif security.run_as_username:
        uid = int(names.get(security.run_as_username, security.run_as_username))
    gid = security.run_as_group.value if security.HasField("run_as_group") else (uid if uid == image_user else 0)
    capabilities = capabilities_after(security.capabilities.add_capabilities, security.capabilities.drop_capabilities)
    groups = tuple(security.supplemental_groups)
    return Credentials(uid, gid, groups, capabilities, privileged=security.privileged)


def view_of(container: Container, host: Host) -> View:
    """What the container sees: its image's paths, its own /etc files, the kubelet's mounts."""
    image, credentials = container.image, container.credentials
    binds = {path: Bind(path, path) for path in image.binds}
    binds.update({target: Bind(source, target) for target, source in image.root.items()})
    for name in ("passwd", "group", "hostname", "nsswitch.conf"):
        binds[f"/etc/{name}"] = Bind(str(container.directory / name), f"/etc/{name}")
    binds["/etc/resolv.conf"] = Bind(str(container.sandbox.resolv_conf), "/etc/resolv.conf")
    for device in container.config.devices:
        binds[device.container_path] = Bind(device.host_path, device.container_path, device=True)
    for mount in container.config.mounts:
        target = mount.container_path.rstrip("/") or "/"
        binds[target] = Bind(mount.host_path, target, read_only=mount.readonly)
    return View(
        binds=tuple(binds.values()),
        environment=container.environment(),
        workdir=container.workdir,
        read_only_root=container.config.linux.security_context.readonly_rootfs,
        user=(credentials.uid, credentials.gid) if needs_user_namespace(credentials, host.maps) else None,
    )


def _write_files(container: Container) -> None:
    credentials = container.credentials
    files = {
        "passwd": passwd_file(credentials.uid, credentials.gid),
        "group": group_file(credentials.gid, credentials.groups),
        "hostname": container.sandbox.config.hostname + "\n",
        "nsswitch.conf": "hosts: files dns\n",
    }
    container.directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (container.directory / name).write_text(text)
    for mount in container.config.mounts:
        if not Path(mount.host_path).exists():
            Path(mount.host_path).mkdir(parents=True)


async def start(container: Container, host: Host) -> None:
    """Start the container's first process.

    Raises:
        StartFailed: no command, a mount that cannot be made, a pod that has been stopped.
    """
    if not container.command():
        raise StartFailed(f"no command: neither the pod nor image {container.image.name} names one")
    _write_files(container)
    container.log = ContainerLog(container.log_path)
    arguments = bwrap_arguments(view_of(container, host), host.layout)
    terminal = [_SETSID, "--ctty"] if container.config.tty else []
    command = [*terminal, *setpriv_arguments(container.credentials, host.maps), *container.command()]
    try:
        process, info = _spawn(container, arguments, command)
    except (OSError, RuntimeError) as error:
        raise StartFailed(str(error)) from error
    container.started_at = time.time_ns()
    readers = _start_readers(container, process)
    announced = bytearray()
    try:
        async with asyncio.timeout(_START_SECONDS):
            await read_pipe(info, announced.extend)
    except TimeoutError:
        kill_group(process)
    container.pid = _announced_pid(bytes(announced))
    container.state = pb.CONTAINER_RUNNING
    container._supervisor = asyncio.create_task(_supervise(container, process, readers))
    await _until_executed(container)
    if container.reason == "StartError":
        raise StartFailed(container.message)


async def _until_executed(container: Container) -> None:
    """Wait until the container's command has replaced bubblewrap and setpriv, so that its view is complete."""
    deadline = time.monotonic() + _START_SECONDS
    while not container.ended.is_set() and time.monotonic() < deadline:
        if _program(container.pid) not in _LAUNCHERS:
            return
        await asyncio.sleep(_POLL_SECONDS)


def _program(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/exe").readlink())
    except OSError:  # it is ending; the supervisor says how
        return _BWRAP


def _announced_pid(text: bytes) -> int:
    try:
        return int(json.loads(text)["child-pid"])
    except (ValueError, KeyError):
        return 0


def _spawn(container: Container, arguments: list[str], command: list[str]) -> tuple[subprocess.Popen[bytes], int]:
    """Start bubblewrap inside the pod's namespaces; returns it and the pipe on which it names its child."""
    options = os.memfd_create("bwrap-arguments")  # not on the command line: `ps` shows the command, not the environment
    info_read, info_write = os.pipe()
    try:
        os.write(options, b"\0".join(os.fsencode(argument) for argument in arguments) + b"\0")
        os.lseek(options, 0, os.SEEK_SET)
        bwrap = [_BWRAP, "--args", str(options), "--info-fd", str(info_write), "--", *command]
        process = _popen(
            container, ["/usr/bin/nsenter", *container.sandbox.namespaces(), "--", *bwrap], (options, info_write)
        )
    except BaseException:
        os.close(info_read)
        raise
    finally:
        os.close(options)
        os.close(info_write)
    return process, info_read


def _popen(container: Container, argv: list[str], descriptors: tuple[int, ...]) -> subprocess.Popen[bytes]:
    config, attachments = container.config, container.attachments
    if config.tty:
        attachments.stdin, terminal = os.openpty()
        try:
            return subprocess.Popen(
                argv, stdin=terminal, stdout=terminal, stderr=terminal, pass_fds=descriptors, start_new_session=True
            )
        finally:
            os.close(terminal)
    process = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE if config.stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=descriptors,
        start_new_session=True,
    )
    if process.stdin is not None:
        attachments.stdin, attachments.once = os.dup(process.stdin.fileno()), config.stdin_once
        process.stdin.close()
    return process


def _start_readers(container: Container, process: subprocess.Popen[bytes]) -> list[asyncio.Task[None]]:
    log = container.log
    assert log is not None

    async def pump(stream: str, descriptor: int) -> None:
        def sink(data: bytes) -> None:
            log.write(stream, data)
            container.attachments.write(stream, data)

        await read_pipe(descriptor, sink)
        log.write(stream, b"")

    if container.config.tty:
        return [asyncio.create_task(pump("stdout", os.dup(container.attachments.stdin)))]
    return [asyncio.create_task(pump(stream, detach(process, stream))) for stream in ("stdout", "stderr")]


async def _supervise(container: Container, process: subprocess.Popen[bytes], readers: list[asyncio.Task[None]]) -> None:
    code = await wait(process)
    await finish(readers)
    assert container.log is not None
    last = container.log.tail[-1].decode(errors="replace") if container.log.tail else ""
    container.log.close()
    container.attachments.close()
    container.reason = container.kill_reason or ("Completed" if code == 0 else "Error")
    # What ran last before the command proper was bubblewrap or setpriv: their complaint means that it never started.
    if not container.pid or (code and last.startswith(("bwrap: ", "setpriv: "))):
        code, container.reason = START_FAILED, "StartError"
        container.message = last or f"bubblewrap ended with {code} without a word"
    _finish(container, code)


def _finish(container: Container, code: int) -> None:
    container.exit_code = code
    container.finished_at = time.time_ns()
    container.pid = 0
    container.state = pb.CONTAINER_EXITED
    container.ended.set()


def fail(container: Container, message: str) -> None:
    """Record that the container could not be started."""
    container.started_at = container.started_at or time.time_ns()
    container.reason, container.message = "StartError", message
    _finish(container, START_FAILED)


def _signal(container: Container, number: int) -> None:
    if container.pid:
        try:
            os.kill(container.pid, number)
        except ProcessLookupError:
            return  # it has just ended; its supervisor will say so


async def stop(container: Container, grace_seconds: float) -> None:
    """Ask the first process to end (its stop signal, else SIGTERM), then kill everything in the container."""
    if not container.running:
        return
    if grace_seconds > 0:
        _signal(container, stop_signal(container.config.stop_signal))
        try:
            async with asyncio.timeout(grace_seconds):
                await container.ended.wait()
                return
        except TimeoutError:
            pass
    _signal(container, signal.SIGKILL)  # process 1 of its namespace: the kernel kills the others with it
    await container.ended.wait()


def stop_signal(requested: pb.Signal) -> int:
    """The number of a CRI signal; the default is SIGTERM."""
    name = pb.Signal.Name(requested)
    known = getattr(signal, name, None)
    return int(known) if isinstance(known, signal.Signals) else int(signal.SIGTERM)


def remove_files(container: Container) -> None:
    """Delete what the runtime keeps of the container; its log is the kubelet's."""
    shutil.rmtree(container.directory, ignore_errors=True)


def exec_arguments(container: Container, command: list[str], host: Host, *, tty: bool = False) -> list[str]:
    """A command on the host that runs `command` inside the running container, as its user and with its variables.

    Raises:
        RuntimeError: the container does not run.
    """
    if not container.running:
        raise RuntimeError(f"container {container.id} is not running")
    spaces = ["--mount", "--pid", "--net", "--uts", "--ipc"]
    if needs_user_namespace(container.credentials, host.maps):
        spaces += ["--user", "--preserve-credentials"]
    terminal = {"TERM": "xterm"} if tty else {}
    variables = [f"{name}={value}" for name, value in {**terminal, **container.environment()}.items()]
    return [
        *("/usr/bin/nsenter", "--target", str(container.pid), *spaces, "--"),
        *("/usr/bin/env", "-i", f"--chdir={container.workdir}", *variables),
        *([_SETSID, "--ctty"] if tty else []),
        *setpriv_arguments(container.credentials, host.maps),
        *command,
    ]


async def exec_sync(container: Container, command: list[str], host: Host, timeout: float) -> pb.ExecSyncResponse:
    """Run a command inside and collect its output; `timeout` 0 means no limit.

    Raises:
        TimeoutError: it ran past the limit and has been killed.
    """
    result = await run(exec_arguments(container, command, host), timeout=timeout or None)
    return pb.ExecSyncResponse(stdout=result.stdout, stderr=result.stderr, exit_code=result.code)
