"""Start stand-in pods as plain processes on loopback addresses, for tests that need no cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.ports import free_port
from tests.waiting import PATIENCE_SECONDS

PROJECT = Path(__file__).resolve().parents[2]
RAY_TOKEN = "secret"


@dataclass
class Gang:
    """Running stand-ins: `processes[i]` is node i, whose files lie under `roots[i]`."""

    ports: Mapping[str, int]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    roots: list[Path] = field(default_factory=list)

    def address(self, node: int) -> str:
        return f"127.0.1.{node + 1}"

    @property
    def url(self) -> str:
        return f"http://{self.address(0)}:{self.ports['http']}"

    def agent(self, path: str, node: int = 0, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        """Status and decoded JSON of an agent's endpoint, asked with the gang's token; 0 while it does not answer."""
        return fetch(f"http://{self.address(node)}:{self.ports['agent']}{path}", body, RAY_TOKEN)

    def wait_ready(self, seconds: float = PATIENCE_SECONDS) -> None:
        wait_for(lambda: all(self.agent("/ready", node)[0] == 200 for node in range(len(self.processes))), seconds)

    def termination(self, node: int) -> dict[str, str]:
        return dict(json.loads((self.roots[node] / "dev/termination-log").read_text()))


def fetch(url: str, body: Mapping[str, Any] | None = None, token: str | None = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    shown = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **shown})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, _decode(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, _decode(error.read())
    except (urllib.error.URLError, ConnectionError):
        return 0, None


def _decode(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode()


def wait_for(condition: Any, seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not true within {seconds:g} s")
        time.sleep(0.05)


def engine_json(nodes: int, ports: Mapping[str, int], **fields: Any) -> dict[str, Any]:
    document = {
        "deployment": "r1",
        "replica": 0,
        "attempt": 0,
        "nodes": nodes,
        "gpusPerNode": 1,
        "device": "cpu",
        "headAddress": "127.0.1.1",
        "servedName": "standin",
        "modelPath": "/models",
        "engineArgs": [],
        "env": {},
        "attentionDataParallel": nodes,
        "startSeconds": 30,
        "stallSeconds": 30,
        "drainSeconds": 10,
        "ports": ports,
    }
    return {**document, **fields}


@contextmanager
def gang(
    directory: Path, nodes: int = 1, env: Mapping[str, str] | None = None, key: str | None = None, **fields: Any
) -> Iterator[Gang]:
    """Run `nodes` stand-ins (`fields` go into engine.json, `env` into its "env", `key` is what their HTTP port asks
    for); they are gone at the end."""
    ports = {name: free_port() for name in ("http", "agent", "ray", "dist")}
    running = Gang(ports)
    document = engine_json(nodes, ports, **{"env": dict(env or {}), **fields})
    try:
        for node in range(nodes):
            root = directory / f"node-{node}"
            for folder in ("etc/r1", "models", "var/run/r1", "dev"):
                (root / folder).mkdir(parents=True)
            (root / "etc/r1/engine.json").write_text(json.dumps(document))
            (root / "var/run/r1/ray-token").write_text(RAY_TOKEN)
            if key is not None:
                (root / "var/run/r1/engine-key").write_text(key)
            (root / "models/config.json").write_text("{}")
            (root / "models/tokenizer.json").write_text("{}")
            variables = {
                "R1_STANDIN_ROOT": str(root),
                "R1_NODE_INDEX": str(node),
                "POD_IP": running.address(node),
                "NODE_NAME": f"node-{node}",
            }
            command = [sys.executable, "-m", "tests.standin"]
            process = subprocess.Popen(command, cwd=PROJECT, env={**os.environ, **variables}, stderr=subprocess.DEVNULL)
            running.processes.append(process)
            running.roots.append(root)
        yield running
    finally:
        for process in running.processes:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
