"""The request gate: counts work in flight, refuses new work while draining, lets control calls and probes pass."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from r1_engine.gate import PROBE_HEADER, USERS_PATH, VOUCHED_SECONDS, Gate, GateFile
from r1_engine.own_requests import show_key


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


def bearer(key: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", f"Bearer {key}".encode())]


async def status(gate: Gate, method: str, path: str, key: str | None = None) -> int:
    sent = await call(gate, method, path, headers=[] if key is None else bearer(key))
    return int(sent[0]["status"])


async def tell_users(gate: Gate, key: str, sha256: object) -> int:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": json.dumps({"sha256": sha256}).encode()}

    await gate({"type": "http", "method": "PUT", "path": USERS_PATH, "headers": bearer(key)}, receive, send)
    return int(sent[0]["status"])


@pytest.fixture
def closed(agent: GateFile, tmp_path: Path) -> Gate:
    server = Server()
    server.go.set()
    return Gate(server, GateFile(tmp_path / "gate"), "probe", "engine-key")


CHAT = "/v1/chat/completions"


async def test_without_the_key_only_figures_are_told(closed: Gate) -> None:
    for path in ("/health", "/metrics", "/v1/loads"):
        assert await status(closed, "GET", path) == 200
    for method, path in (
        ("POST", CHAT),
        ("GET", "/server_info"),
        ("POST", "/update_weights_from_disk"),
        ("POST", "/health"),
    ):
        assert await status(closed, method, path) == 401
        assert await status(closed, method, path, "guess") == 401
        assert await status(closed, method, path, "engine-key") == 200
    (start, body) = await call(closed)
    assert json.loads(body["body"])["error"]["code"] == 401
    assert dict(start["headers"])[b"www-authenticate"] == b"Bearer"
    assert (await call(closed, path="/generate", headers=[(PROBE_HEADER, b"probe")]))[0]["status"] == 200
    assert (await call(closed, type="websocket", method="", path="/v1/realtime"))[0]["code"] == 1008


async def test_users_pass_with_the_key_that_a_gateway_vouches_for(closed: Gate) -> None:
    digest = hashlib.sha256(b"users-key").hexdigest()
    assert await tell_users(closed, "guess", digest) == 401
    assert await tell_users(closed, "users-key", digest) == 401
    assert await status(closed, "POST", CHAT, "users-key") == 401
    assert await tell_users(closed, "engine-key", digest) == 200
    assert await status(closed, "POST", CHAT, "users-key") == 200
    assert await status(closed, "POST", CHAT, "another") == 401
    assert await status(closed, "POST", "/flush_cache", "users-key") == 401
    assert await status(closed, "GET", "/server_info", "users-key") == 401
    assert await tell_users(closed, "engine-key", "00" * 32) == 400  # would be anybody
    assert await tell_users(closed, "engine-key", "zz") == 400


async def test_where_the_gateway_asks_for_no_key_any_will_do_but_none_will_not(closed: Gate) -> None:
    assert await tell_users(closed, "engine-key", None) == 200
    assert await status(closed, "POST", CHAT, "EMPTY") == 200
    assert await status(closed, "POST", CHAT) == 401  # the gateway would have sent ours
    assert await status(closed, "POST", "/pause_generation", "EMPTY") == 401


async def test_what_is_vouched_for_ends_and_the_oldest_makes_room(
    agent: GateFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("r1_engine.gate.time.monotonic", lambda: now)
    other_process = GateFile(tmp_path / "gate")
    for number in range(40):
        now += 1
        agent.vouch(bytes([number + 1]) * 32)
        agent.vouch(b"k" * 32)
    held = other_process.vouched()
    assert len(held) == 16
    assert {b"k" * 32, bytes([40]) * 32} <= held
    now += VOUCHED_SECONDS + 1
    assert other_process.vouched() == frozenset()


async def test_an_operator_that_made_no_key_leaves_the_port_open(agent: GateFile, tmp_path: Path) -> None:
    server = Server()
    server.go.set()
    gate = Gate(server, GateFile(tmp_path / "gate"), "probe")
    assert await status(gate, "POST", CHAT) == await status(gate, "GET", "/server_info", "users-key") == 200


def test_sglang_shows_the_probes_key_to_itself_alone() -> None:
    asked: list[dict[str, Any]] = []
    requests = SimpleNamespace(
        get=lambda url, **options: asked.append(options),
        post=lambda url, **options: asked.append(options),
        exceptions=1,
    )
    module = SimpleNamespace(requests=requests)
    show_key(module, "probe")
    module.requests.post("http://127.0.0.1:30000/generate", headers={"a": "b"}, timeout=1)
    module.requests.get("http://elsewhere/info", timeout=1)
    assert asked == [{"headers": {"a": "b", PROBE_HEADER.decode(): "probe"}, "timeout": 1}, {"timeout": 1}]


async def test_what_fails_is_counted_and_how_long_the_first_byte_took(agent: GateFile, tmp_path: Path) -> None:
    """A canary is judged by it: errors by status, inside a stream that had begun, and of the application itself."""
    answers: list[tuple[int, list[bytes]]] = [
        (200, [b"data: {}\n\n", b"data: [DONE]\n\n"]),
        (200, [b"data: {}\n\n", b'data: {"error": {"message": "aborted"}}\n\n']),
        (500, [b"{}"]),
        (400, [b"{}"]),
    ]

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if not answers:
            raise RuntimeError("broken")
        status, parts = answers.pop(0)
        await send({"type": "http.response.start", "status": status, "headers": []})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})

    gate = Gate(application, GateFile(tmp_path / "gate"), "key")
    for _ in range(4):
        await call(gate)
    with pytest.raises(RuntimeError, match="broken"):
        await call(gate)
    tally = agent.tally()
    assert (tally.requests, tally.failed, tally.begun) == (5, 3, 3)
    assert 0 <= tally.first_byte_seconds < 60
