"""The request gate: counts work in flight, refuses new work while draining, lets control calls and probes pass."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from r1_engine.gate import PROBE_HEADER, Gate, GateFile


class Server:
    """An ASGI application that answers only when told to."""

    def __init__(self) -> None:
        self.go, self.calls = asyncio.Event(), 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def call(gate: Gate, method: str = "POST", path: str = "/v1/chat/completions", **scope: Any) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    await gate({"type": "http", "method": method, "path": path, "headers": [], **scope}, receive, send)
    return sent


@pytest.fixture
def agent(tmp_path: Path) -> GateFile:
    return GateFile(tmp_path / "gate", create=True)


async def test_work_is_counted_until_its_response_is_sent(agent: GateFile, tmp_path: Path) -> None:
    server = Server()
    gate = Gate(server, GateFile(tmp_path / "gate"), "key")
    requests = [asyncio.create_task(call(gate)) for _ in range(3)]
    probe = asyncio.create_task(call(gate, headers=[(PROBE_HEADER, b"key")]))
    look = asyncio.create_task(call(gate, "GET", "/v1/loads"))
    while server.calls < 5:
        await asyncio.sleep(0)
    assert agent.in_flight() == 3
    requests[0].cancel()  # a client that went away
    await asyncio.gather(requests[0], return_exceptions=True)
    assert agent.in_flight() == 2
    server.go.set()
    await asyncio.gather(*requests[1:], probe, look)
    assert agent.in_flight() == 0


async def test_while_draining_new_work_is_refused_and_old_work_finishes(agent: GateFile, tmp_path: Path) -> None:
    server = Server()
    gate = Gate(server, GateFile(tmp_path / "gate"), "key")
    old = asyncio.create_task(call(gate))
    while not server.calls:
        await asyncio.sleep(0)
    agent.drain()
    start, body = await call(gate)
    assert start["status"] == 503
    assert dict(start["headers"])[b"retry-after"].isdigit()
    assert json.loads(body["body"])["error"]["type"] == "draining"
    forged = await call(gate, headers=[(PROBE_HEADER, b"guess")])
    assert forged[0]["status"] == 503
    server.go.set()
    assert (await old)[0]["status"] == 200
    assert (await call(gate, headers=[(PROBE_HEADER, b"key")]))[0]["status"] == 200
    assert (await call(gate, path="/abort_request"))[0]["status"] == 200
    assert (await call(gate, "GET", "/metrics"))[0]["status"] == 200
