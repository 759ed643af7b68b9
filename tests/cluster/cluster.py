"""The host's side of a local cluster: start it, use it, break it, end it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.cluster import build, control, identities, images, network, preflight
from tests.cluster.config import CHECKOUT, ClusterConfig, ClusterPaths, clusters_root, paths_of
from tests.cluster.processes import last_lines

START_SECONDS = 600.0
"""A start takes 6 to 20 s; with nine busy processes for each core it took more than 300 s."""


class ClusterError(RuntimeError):
    """The cluster cannot do what was asked: the message says why and what to do."""


class Cluster:
    """A running cluster, seen from the host. `start` makes one, `attach` finds one by name."""

    def __init__(self, paths: ClusterPaths) -> None:
        self.paths = paths
        self.binaries = paths.binaries
        self.config = ClusterConfig.from_json(paths.config.read_text())
        self._lifeline: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ports: dict[tuple[str, str, int | str], int] = {}

    # Life

    @classmethod
    def start(
        cls,
        config: ClusterConfig,
        *,
        bound_to_caller: bool = True,
        install: bool = False,
        report: Callable[[str], None] = lambda _: None,
    ) -> Cluster:
        """Starts a cluster and waits until every node is Ready.

        bound_to_caller: the cluster ends when this process does, even by kill -9. Otherwise it runs until `stop`.
        install: let a root user's preflight install missing Debian packages.
        report: is told each stage that is done.
        Raises PreflightError, BuildError, or ClusterError with the stage that failed and its log.
        """
        preflight.check(install)
        binaries, hold = build.hold_binaries()
        paths = paths_of(config.name)
        descriptors = [hold]
        lifeline: tuple[int, int] | None = os.pipe() if bound_to_caller else None
        try:
            descriptors.append(_claim(paths))
            paths.config.write_text(config.to_json())
            paths.logs.mkdir()
            paths.images.write_text(json.dumps(images.image_table(CHECKOUT), indent=1))
            paths.binaries.symlink_to(binaries)
            process = _spawn(paths, config, descriptors, None if lifeline is None else lifeline[0])
        finally:
            for descriptor in (*descriptors, *(() if lifeline is None else lifeline[:1])):
                os.close(descriptor)
        cluster = cls(paths)
        cluster._process = process
        cluster._lifeline = None if lifeline is None else lifeline[1]
        try:
            cluster._await_start(report)
        except BaseException:
            cluster.stop(keep_logs=True)
            raise
        return cluster

    @classmethod
    def attach(cls, name: str) -> Cluster:
        """A cluster that runs already. Raises ClusterError if none of that name does."""
        paths = paths_of(name)
        if not is_running(paths):
            running = ", ".join(running_clusters()) or "none"
            raise ClusterError(
                f"cluster {name!r} is not running (running: {running}); start it with `python -m tests.cluster up`"
            )
        return cls(paths)

    def stop(self, keep_logs: bool = False) -> None:
        """Ends the cluster and everything in it; returns when all of it is gone. Stopping a dead one just clears up."""
        with contextlib.suppress(OSError, control.ControlError):
            pid = control.supervisor_pid(self.paths.control)
            with contextlib.suppress(OSError, control.ControlError):
                control.request(self.paths.control, {"do": "shutdown"}, timeout=2)
            if not _wait_until(lambda: not is_running(self.paths), seconds=3):
                os.kill(pid, signal.SIGKILL)
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
        if not _wait_until(lambda: not is_running(self.paths), seconds=120):
            raise ClusterError(f"cluster {self.config.name} does not end; see {self.paths.logs}/supervisor.log")
        if self._process is not None:
            self._process.wait()
        if not keep_logs:
            shutil.rmtree(self.paths.root, ignore_errors=True)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Use

    @property
    def kubeconfig(self) -> Path:
        return self.paths.kubeconfig

    def environment(self, base: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Environment variables with which kubectl, helm and every client library reach this cluster from the host."""
        return {**base, "KUBECONFIG": str(self.kubeconfig), "PATH": f"{self.binaries}:{base.get('PATH', '')}"}

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 300) -> str:
        """Standard output of a kubectl command. Raises ClusterError with its standard error if it fails."""
        return self._call("kubectl", arguments, stdin, timeout)

    def kubectl_json(self, *arguments: str) -> Any:
        return json.loads(self.kubectl(*arguments, "-o", "json"))

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """kubectl apply of objects given as values."""
        self.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def helm(self, *arguments: str, timeout: float = 300) -> str:
        return self._call("helm", arguments, None, timeout)

    def expose(self, namespace: str, service: str, port: int | str, host_port: int = 0) -> int:
        """Port on the host's 127.0.0.1 that leads to a Service's port, until the cluster ends.

        The Service may come later, or be replaced: it is looked up for each connection. Asked again: the same port.
        """
        key = (namespace, service, port)
        if key not in self._ports:
            self._ports[key] = self._listen({"namespace": namespace, "service": service, "port": port}, host_port)
        return self._ports[key]

    def expose_address(self, address: str, port: int, host_port: int = 0) -> int:
        """Port on the host's 127.0.0.1 that leads to an address inside the cluster, such as a pod's."""
        return self._listen({"address": address, "port": port}, host_port)

    def exec_inside(
        self, argv: Sequence[str], node: str | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program on the host's files but in the cluster's network, mounts and processes.

        node: on that node instead of beside the control plane. options: as for subprocess.run.
        """
        defaults = {"text": True, "check": True, "env": self._environment_inside()}
        return subprocess.run([*self._entry_command(node), *argv], **{**defaults, **options})

    def popen_inside(self, argv: Sequence[str], node: str | None = None, **options: Any) -> subprocess.Popen[Any]:
        """Starts a program as `exec_inside` does and does not wait for it. options: as for subprocess.Popen.

        The process is nsenter, whose only child is the program: it ends with the program and exits with its status.
        """
        return subprocess.Popen([*self._entry_command(node), *argv], **{"env": self._environment_inside(), **options})

    def status(self) -> dict[str, Any]:
        return self._ask({"do": "status"})

    # Nodes and their faults

    def add_node(self) -> str:
        """One more node, Ready on return. Returns its name."""
        node = str(self._ask({"do": "add-node"})["node"])
        self.await_nodes(node)
        return node

    def await_nodes(self, *names: str, timeout: float = START_SECONDS) -> None:
        self._ask({"do": "await-nodes", "nodes": list(names)}, timeout=timeout)

    def kill_node(self, node: str) -> None:
        """Power cut: kubelet, runtime and all containers are gone at once."""
        self._ask({"do": "break", "node": node, "fault": "kill"})

    def cut_node(self, node: str) -> None:
        """Network plug pulled: nothing of the node reaches anything outside it, and nothing reaches it."""
        self._ask({"do": "break", "node": node, "fault": "cut"})

    def freeze_node(self, node: str) -> None:
        """Every process of the node stops, as on a machine that hangs. Its connections stay open."""
        self._ask({"do": "break", "node": node, "fault": "freeze"})

    def silence_kubelet(self, node: str) -> None:
        """The kubelet stands still (SIGSTOP): the control plane hears nothing, the containers serve on."""
        self._ask({"do": "break", "node": node, "fault": "silence"})

    def fill_memory(self, node: str) -> None:
        """The kubelet sees its memory used up: MemoryPressure, evictions. No memory is really taken."""
        self._ask({"do": "break", "node": node, "fault": "fill-memory"})

    def fill_disk(self, node: str) -> None:
        """The node's file system (/var/lib: emptyDir volumes and the like) has no room: DiskPressure and ENOSPC."""
        self._ask({"do": "break", "node": node, "fault": "fill-disk"})

    def fail_gpus(self, node: str, *gpus: str) -> None:
        """These GPUs (`GPU-0`, …, or `all`) turn unhealthy: the node offers fewer. Pods that have them keep running."""
        self._ask({"do": "fail-gpus", "node": node, "gpus": list(gpus)})

    def signal_component(self, name: str, number: int) -> None:
        """To a program of the control plane (`etcd`, `kube-apiserver`, …), which is started again when it ends."""
        self._ask({"do": "signal", "component": name, "number": int(number)})

    def heal_node(self, node: str) -> None:
        """Undoes all faults of the node. A killed one boots as a replaced machine: same name, nothing on its disk."""
        self._ask({"do": "heal", "node": node})

    # Within

    def _ask(
        self, request: dict[str, Any], descriptor: int | None = None, timeout: float = START_SECONDS
    ) -> dict[str, Any]:
        try:
            return control.request(self.paths.control, request, descriptor, timeout)
        except control.ControlError as error:
            raise ClusterError(str(error)) from error
        except OSError as error:
            where = f"{self.paths.logs}/supervisor.log"
            raise ClusterError(f"cluster {self.config.name} does not answer ({error}); see {where}") from error

    def _call(self, program: str, arguments: Sequence[str], stdin: str | None, timeout: float) -> str:
        done = subprocess.run(
            [str(self.binaries / program), *arguments],
            env=self.environment(),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise ClusterError(f"{program} {' '.join(arguments)}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def _listen(self, target: dict[str, Any], host_port: int) -> int:
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", host_port))
            except OSError as error:
                told = f"port {host_port} of 127.0.0.1 cannot be used ({error.strerror}); choose another"
                raise ClusterError(told) from error
            listener.listen(256)
            self._ask({"do": "expose", "target": target}, listener.fileno())
            port: int = listener.getsockname()[1]
            return port

    def _environment_inside(self) -> dict[str, str]:
        return preflight.with_system_path(self.environment())

    def _entry_command(self, node: str | None) -> list[str]:
        spaces = ("--mount", "--net", "--pid", "--")
        user = ("--user", "--preserve-credentials") if self.config.user_namespace else ()
        command = ["nsenter", f"--target={control.supervisor_pid(self.paths.control)}", *user, *spaces]
        if node is not None:
            pid = self._ask({"do": "node-init", "node": node})["pid"]  # as it is called inside
            command += ["nsenter", f"--target={pid}", *spaces]
        return command

    def _await_start(self, report: Callable[[str], None]) -> None:
        deadline = time.monotonic() + START_SECONDS
        reported: set[str] = set()
        while True:
            if not is_running(self.paths):
                told = last_lines(self.paths.logs / "supervisor.log")
                raise ClusterError(f"the cluster ended while it started:\n{told}")
            state = self._status_or_none()
            if state is not None:
                for stage in [stage for stage in state["timings"] if stage not in reported]:
                    reported.add(stage)
                    report(f"{stage} {state['timings'][stage]:.1f} s")
                if state["error"]:
                    raise ClusterError(f"the cluster could not start; {state['error']}\nIts logs: {self.paths.logs}")
                if "api-server" in state["timings"] and not self.kubeconfig.exists():
                    self._publish_api_server()
                if state["stage"] == "ready":
                    return
            if time.monotonic() > deadline:
                stage = state["stage"] if state else "control socket"
                raise ClusterError(
                    f"no start within {START_SECONDS:.0f} s: stuck at {stage}. The cluster's logs: {self.paths.logs}"
                )
            time.sleep(0.1)

    def _status_or_none(self) -> dict[str, Any] | None:
        with contextlib.suppress(OSError):
            return control.request(self.paths.control, {"do": "status"}, timeout=10)
        return None

    def _publish_api_server(self) -> None:
        target = {"address": self.config.addresses.control_plane, "port": network.APISERVER_PORT}
        port = self._listen(target, self.config.apiserver_port)
        identities.write_kubeconfig(self.paths, "admin", self.kubeconfig, f"https://127.0.0.1:{port}")


def known_clusters() -> list[str]:
    """Names of the clusters that run, and of those that have ended without `stop` and left their logs."""
    root = clusters_root()
    return sorted(folder.name for folder in root.iterdir()) if root.is_dir() else []


def running_clusters() -> list[str]:
    return [name for name in known_clusters() if is_running(paths_of(name))]


def is_running(paths: ClusterPaths) -> bool:
    """Whether a process of the cluster still lives. The kernel drops the lock with the last of them."""
    try:
        with paths.lock.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _claim(paths: ClusterPaths) -> int:
    """A fresh folder, and its lock as a descriptor that the cluster's processes will hold."""
    if is_running(paths):
        raise ClusterError(
            f"a cluster named {paths.root.name!r} is running; `python -m tests.cluster down` it or choose another name"
        )
    shutil.rmtree(paths.root, ignore_errors=True)
    paths.root.mkdir(parents=True, mode=0o700)
    # Containers may run as any user and must reach their volumes and logs below; secrets are in files of mode 600.
    paths.root.chmod(0o711)
    lock = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    # Whoever asks is_running holds the lock for an instant; a cluster of the same name holds it for good.
    if not _wait_until(lambda: _locked(lock), seconds=10):
        os.close(lock)
        raise ClusterError(f"a cluster named {paths.root.name!r} is being started by another process")
    return lock


def _locked(lock: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _spawn(
    paths: ClusterPaths, config: ClusterConfig, held: list[int], lifeline: int | None
) -> subprocess.Popen[bytes]:
    """Starts the cluster's first process in namespaces of its own. It holds the descriptors `held` for all its life."""
    command = [
        "unshare",
        *preflight.namespace_flags(config.user_namespace),
        sys.executable,
        "-m",
        "tests.cluster.init",
        str(paths.root),
    ]
    if lifeline is not None:
        command += ["--lifeline", str(lifeline)]
    with (paths.logs / "supervisor.log").open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env=_clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[*held, *(() if lifeline is None else (lifeline,))],
        )


def _clean_environment() -> dict[str, str]:
    """The cluster does not depend on who starts it: no proxies, no KUBECONFIG, no Python settings."""
    kept = {name: os.environ[name] for name in ("HOME", "XDG_CACHE_HOME") if name in os.environ}
    return {"LANG": "C.UTF-8", "PATH": preflight.SYSTEM_PATH, **kept}


def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
