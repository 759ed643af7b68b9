"""A gang outside Kubernetes: N "pods" on this machine, each with namespaces, a network address, /tmp and /dev/shm.

    with Gang(model, nodes=2, engine_args=[...]) as gang:
        gang.wait_ready()
        gang.chat("Which is larger, 9.8 or 9.11?")
        gang.kill(1, "sglang::scheduler")      # or freeze, cut, terminate
        gang.wait_ended()

What runs in a pod is exactly what Kubernetes runs: `python -m r1_engine` as the first process. Everything ends with the
`with` block, or with this process: a pod's processes die with its first one, the network is in `namespaces` of our own.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from r1_engine import processes
from r1_engine.ray_group import bracketed

from tests.engine import namespaces

ROOT = Path(__file__).parents[2]
TINY_MODEL = ROOT / "engine" / "tiny_model" / "weights"
START_SECONDS = 240.0

# Inside the pod's namespaces: its name and hosts file as Kubernetes makes them (no name server), the model at
# /mnt/model, a private /dev/shm and /tmp (in which a checkout below ours stays visible), then the agent as process 1.
_ENTER = r"""
set -e
hostname "$4"
printf '127.0.0.1 localhost\n%s %s\n' "$POD_IP" "$4" > "$2/hosts" && mount --bind "$2/hosts" /etc/hosts
: > "$2/resolv.conf" && mount --bind "$2/resolv.conf" /etc/resolv.conf
mount -t tmpfs tmpfs /mnt && mkdir /mnt/model && mount --bind "$1" /mnt/model
mount -t tmpfs tmpfs /dev/shm
case "$5" in /tmp/*) mkdir -p "$2/${5#/tmp/}" && mount --bind "$5" "$2/${5#/tmp/}" ;; esac
mount --rbind "$2" /tmp
cd /
exec "$3" -m r1_engine
"""

TWO_RANKS = ("--tp-size", "2", "--attn-dp-size", "2", "--ep-size", "2", "--reasoning-parser", "deepseek-r1")


class Network:
    """A bridge of its own on this machine; the pods hang on it as eth0, with addresses of one family (4 or 6). `cut`
    takes one pod's cable."""

    def __init__(self, nodes: int, family: int = 4) -> None:
        self.nodes, self.family = nodes, family
        namespaces.enter()
        self._number = next(
            n for n in range(1, 250) if self._ip("link", "add", f"r1t{n}", "type", "bridge", check=False)
        )
        self.bridge = f"r1t{self._number}"

    def __enter__(self) -> Network:
        self._ip("addr", "add", self._interface(254), "dev", self.bridge, *self._at_once)
        self._ip("link", "set", self.bridge, "up")
        for index in range(self.nodes):
            space, cable = self.space(index), self._cable(index)
            self._ip("netns", "add", space)
            self._ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
            self._ip("link", "set", cable, "master", self.bridge, "up")
            self._ip("-n", space, "addr", "add", self._interface(10 + index), "dev", "eth0", *self._at_once)
            self._ip("-n", space, "link", "set", "eth0", "up")
            self._ip("-n", space, "link", "set", "lo", "up")
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        for index in range(self.nodes):
            self._ip("link", "del", self._cable(index), check=False)
            self._ip("netns", "del", self.space(index), check=False)
        self._ip("link", "del", self.bridge, check=False)

    def space(self, index: int) -> str:
        return f"{self.bridge}-{index}"

    def address(self, index: int) -> str:
        return self._address(10 + index)

    def cut(self, index: int) -> None:
        self._ip("link", "set", self._cable(index), "down")

    def _cable(self, index: int) -> str:
        return f"{self.bridge}v{index}"

    def _address(self, host: int) -> str:
        return f"10.209.{self._number}.{host}" if self.family == 4 else f"fd00:209:{self._number}::{host}"

    def _interface(self, host: int) -> str:
        return f"{self._address(host)}/{24 if self.family == 4 else 64}"

    @property
    def _at_once(self) -> tuple[str, ...]:
        """An IPv6 address is used only after a second in which nobody else claimed it."""
        return () if self.family == 4 else ("nodad",)

    @staticmethod
    def _ip(*arguments: str, check: bool = True) -> bool:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
        return done.returncode == 0


@dataclass
class PodProcess:
    """One running pod. `process` is the parent of the agent in our process namespace and exits with its status."""

    index: int
    address: str
    process: subprocess.Popen[bytes]
    log: Path
    termination_log: Path
    ended_at: float | None = None

    @property
    def agent(self) -> int:
        """The agent's process id, seen from outside."""
        return processes.children(self.process.pid)[0]

    def find(self, title: str) -> int:
        """The process below the agent whose command line contains `title`. Raises LookupError when there is none."""
        for pid in processes.descendants(self.process.pid):
            if title in processes.title(pid):
                return pid
        raise LookupError(f"no {title!r} in node {self.index}")

    def finds(self, title: str) -> bool:
        """Whether there is such a process."""
        with suppress(LookupError):
            return bool(self.find(title))
        return False


@dataclass
class Gang:
    """See the module. `config` overrides fields of engine.json; pods in `absent` never come."""

    model: Path = TINY_MODEL
    nodes: int = 2
    engine_args: Sequence[str] = TWO_RANKS
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    absent: Sequence[int] = ()
    models: dict[int, Path] = field(default_factory=dict)  # another model directory for single nodes
    tokens: dict[int, str] = field(default_factory=dict)  # another Ray token for single nodes
    python: str = sys.executable
    family: int = 4  # of the pods' addresses
    pods: list[PodProcess] = field(default_factory=list)

    def __enter__(self) -> Gang:
        self.directory = Path(tempfile.mkdtemp(prefix="r1-gang-"))
        self._network = Network(self.nodes, self.family)
        self.token, self.key = secrets.token_hex(16), secrets.token_hex(16)
        self.started_at = time.monotonic()
        try:
            self._network.__enter__()
            self._write_config()
            for index in range(self.nodes):
                if index not in self.absent:
                    self.pods.append(self._start(index))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            print(self.logs(60), file=sys.stderr)
        self.close()

    def close(self) -> None:
        for pod in self.pods:
            pod.process.kill()  # unshare --kill-child: takes the pod's process 1 and so the whole namespace
        for pod in self.pods:
            pod.process.wait()
        self._network.__exit__(None, None, None)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _write_config(self) -> None:
        document = {
            "deployment": "test",
            "replica": 0,
            "attempt": 1,
            "nodes": self.nodes,
            "gpusPerNode": 1,
            "device": "cpu",
            "headAddress": self._network.address(0),
            "servedName": "deepseek-r1",
            "modelPath": "/mnt/model",
            "engineArgs": list(self.engine_args),
            "attentionDataParallel": self.nodes,
            "startSeconds": START_SECONDS,
            "drainSeconds": 20,
            **self.config,
        }
        (self.directory / "engine.json").write_text(json.dumps(document))

    def _start(self, index: int) -> PodProcess:
        home, address = self.directory / f"node-{index}", self._network.address(index)
        (home / "tmp").mkdir(parents=True)
        # The pod's /tmp is a private one: what it reads from ours has to be carried in.
        shutil.copy(self.directory / "engine.json", home / "tmp" / "engine.json")
        (home / "tmp" / "ray-token").write_text(self.tokens.get(index, self.token))
        (home / "tmp" / "engine-key").write_text(self.key)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": "/tmp",
            "LANG": "C.UTF-8",
            "POD_NAME": f"test-0-1-{index}",
            "POD_NAMESPACE": "default",
            "POD_IP": address,
            "NODE_NAME": f"machine-{index}",
            "R1_NODE_INDEX": str(index),
            "R1_ENGINE_CONFIG": "/tmp/engine.json",
            "RAY_AUTH_TOKEN_PATH": "/tmp/ray-token",
            "R1_ENGINE_KEY_PATH": "/tmp/engine-key",
            "R1_TERMINATION_LOG": "/tmp/termination-log",
            **self.environment,
        }
        log = home / "log"
        model = self.models.get(index, self.model)
        argv = ["ip", "netns", "exec", self._network.space(index)]
        argv += ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"]
        argv += [
            "sh",
            "-c",
            _ENTER,
            "enter",
            str(model),
            str(home / "tmp"),
            self.python,
            f"test-0-1-{index}",
            str(ROOT),
        ]
        with log.open("wb") as out:
            # Tied to this process: even if it is killed, no pod stays behind.
            process = processes.start(argv, environment, stdout=out, stderr=out)
        return PodProcess(index, address, process, log, home / "tmp" / "termination-log")

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def url(self) -> str:
        """SGLang's HTTP server on node 0, reachable from this process."""
        return self._url(0, 30000)

    def get(self, index: int, path: str, port: int = 8500) -> tuple[int, Any]:
        """(status, JSON body or None); status 0 when nobody answers."""
        return _request(f"{self._url(index, port)}{path}")

    def _url(self, index: int, port: int) -> str:
        return f"http://{bracketed(self._network.address(index))}:{port}"

    def post(self, url: str, body: Any, seconds: float = 60, key: str | None = None) -> tuple[int, Any]:
        """With the key of the HTTP port, or another one."""
        return _request(url, json.dumps(body).encode(), seconds, self.key if key is None else key)

    @property
    def headers(self) -> dict[str, str]:
        """Of a request to the HTTP port."""
        return {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}

    def vouch(self, users_key: str) -> int:
        """What a gateway tells the engine of its users' key; → the status code."""
        body = json.dumps({"sha256": hashlib.sha256(users_key.encode()).hexdigest()}).encode()
        request = urllib.request.Request(f"{self.url}/r1/users", body, self.headers, method="PUT")
        with urllib.request.urlopen(request, timeout=60) as response:
            return int(response.status)

    def status(self, index: int = 0) -> dict[str, Any]:
        return self.get(index, "/status")[1] or {}

    def chat(self, question: str, seconds: float = 60, **more: Any) -> dict[str, Any]:
        """The message of a greedy chat completion."""
        body = {
            "model": "deepseek-r1",
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": 256,
            **more,
        }
        code, answer = self.post(f"{self.url}/v1/chat/completions", body, seconds)
        assert code == 200, answer
        message: dict[str, Any] = answer["choices"][0]["message"]
        return message

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def wait(self, what: str, condition: Callable[[], Any], seconds: float) -> Any:
        """Until the condition holds; fails with the pods' logs when it does not in time or a pod ends meanwhile."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(f"not in {seconds:g} s: {what}\n{self.logs()}")
            time.sleep(0.05)
        return value

    def wait_ready(self, seconds: float = START_SECONDS) -> float:
        """Until every pod is ready. Returns the seconds since the start."""

        def all_ready() -> bool:
            self.assert_alive()
            return all(self.get(pod.index, "/ready")[0] == 200 for pod in self.pods)

        self.wait("every pod is ready", all_ready, seconds)
        return time.monotonic() - self.started_at

    def assert_alive(self) -> None:
        for pod in self.pods:
            assert pod.process.poll() is None, f"node {pod.index} ended with {pod.process.returncode}\n{self.logs()}"

    def wait_ended(self, seconds: float = 30) -> list[int]:
        """Until every pod has ended; returns their exit codes by node index and notes when each ended."""

        def all_ended() -> bool:
            for pod in self.pods:
                if pod.ended_at is None and pod.process.poll() is not None:
                    pod.ended_at = time.monotonic()
            return all(pod.ended_at for pod in self.pods)

        self.wait("every pod has ended", all_ended, seconds)
        return [pod.process.returncode for pod in self.pods]

    def causes(self) -> list[dict[str, str]]:
        """What each pod left in its termination log; {} for none."""
        return [json.loads(p.termination_log.read_text()) if p.termination_log.exists() else {} for p in self.pods]

    # ── breaking ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def kill(self, index: int, title: str) -> None:
        os.kill(self.pods[index].find(title), signal.SIGKILL)

    def freeze(self, index: int, title: str) -> None:
        os.kill(self.pods[index].find(title), signal.SIGSTOP)

    def terminate(self, index: int) -> None:
        os.kill(self.pods[index].agent, signal.SIGTERM)

    def cut(self, index: int) -> None:
        self._network.cut(index)

    def logs(self, lines: int = 40) -> str:
        parts = []
        for pod in self.pods:
            text = pod.log.read_text(errors="replace").splitlines()
            parts.append("\n".join([f"── node {pod.index}: the last lines ──", *text[-lines:]]))
        return "\n".join(parts)


def _request(url: str, body: bytes | None = None, seconds: float = 5, key: str = "") -> tuple[int, Any]:
    shown = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **shown})
    try:
        with urllib.request.urlopen(request, timeout=seconds) as response:
            return response.status, _json(response.read())
    except urllib.error.HTTPError as error:
        return error.code, _json(error.read())
    except OSError:
        return 0, None


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def main() -> None:
    """`python -m tests.engine.gang [model]`: a gang to play with, until Ctrl-C."""
    model = Path(sys.argv[1]) if len(sys.argv) > 1 else TINY_MODEL
    with Gang(model) as gang:
        print(f"ready after {gang.wait_ready():.1f} s at {gang.url}; logs in {gang.directory}", flush=True)
        print(json.dumps(gang.status(), indent=1), flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
