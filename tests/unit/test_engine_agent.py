"""The agent: what only tells is open, what acts takes the gang's token; what ended first is what it tells."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from r1_engine.agent import application
from r1_engine.config import EngineConfig, Pod, Settings
from r1_engine.doors import has_token
from r1_engine.node import Ending, Node
from r1_engine.node_paths import AGENT_SOCKET
from r1_engine.outcome import Cause


class Role:
    """A member of a gang that is ready."""

    ready, in_flight, progress_at, served = True, 3, 1.0, None

    def __init__(self) -> None:
        self.drained = 0
        self.gpus: dict[str, Any] = {}
        self.node = SimpleNamespace(progress=SimpleNamespace(stage="Ready", message="", since=1.0, timings={}))

    def drain(self) -> None:
        self.drained += 1

    def status_nodes(self) -> list[dict[str, Any]]:
        return []

    def fabric(self) -> dict[str, Any]:
        return {}


def settings() -> Settings:
    config = {
        "deployment": "r1",
        "replica": 0,
        "attempt": 0,
        "nodes": 1,
        "gpusPerNode": 1,
        "headAddress": "h",
        "servedName": "m",
        "modelPath": "/models",
    }
    pod = Pod(name="r1-0-0-0", ip="127.0.0.1", node_name="n", index=0, run_dir=Path("/tmp/r1"))
    return Settings(config=EngineConfig.model_validate(config), pod=pod, token="secret")


@pytest.mark.parametrize("given", ["", "secret", "Bearer ", "Bearer guess", "Bearer secret2", "Basic secret"])
async def test_only_the_gangs_token_drains(given: str) -> None:
    role = Role()
    async with TestClient(TestServer(application(settings(), role))) as client:  # type: ignore[arg-type]
        refused = await client.post("/drain", headers={"Authorization": given})
        assert (refused.status, role.drained) == (401, 0)
        assert "token" in (await refused.json())["error"]
        for path in ("/healthz", "/ready", "/status"):
            assert (await client.get(path)).status == 200
        accepted = await client.post("/drain", headers={"Authorization": "Bearer secret"})
        assert (accepted.status, role.drained) == (200, 1)


def test_no_token_at_all_opens_nothing() -> None:
    assert not has_token("Bearer ", "")
    assert not has_token("Bearer \u00e9", "e")


@pytest.mark.parametrize("raylet_dies", [True, False])
async def test_a_ray_actor_that_ended_with_its_raylet_is_not_the_cause(tmp_path: Path, raylet_dies: bool) -> None:
    """The actor's connection may close before the kernel tells of the raylet's end."""
    ending = Ending(settle=60 if raylet_dies else 0.01)
    told = settings()
    node = Node(
        told.model_copy(update={"pod": told.pod.model_copy(update={"run_dir": tmp_path})}), ending, lambda: None
    )
    server = await asyncio.start_unix_server(node._serve_actor, str(tmp_path / AGENT_SOCKET))
    raylet = await asyncio.create_subprocess_exec("sleep", "600")
    node.watch(raylet.pid, "raylet")
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / AGENT_SOCKET))
    writer.close()
    if raylet_dies:
        assert await reader.read() == b""  # the agent has seen the end of the actor, and closed its side
        raylet.kill()
    cause: Cause = await asyncio.wait_for(ending.wait(), 60)
    assert cause.message == f"node 0 (n): {'raylet' if raylet_dies else 'its Ray actor'} ended."
    with suppress(ProcessLookupError):
        raylet.kill()
    await raylet.wait()
    server.close()
