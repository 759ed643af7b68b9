"""The agent's endpoints: what only tells is open, what acts takes the gang's token."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from r1_engine.agent import application
from r1_engine.config import EngineConfig, Pod, Settings
from r1_engine.doors import has_token


class Role:
    """A member of a gang that is ready."""

    ready, in_flight, progress_at = True, 3, 1.0

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
