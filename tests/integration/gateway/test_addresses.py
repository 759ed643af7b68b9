"""The gateway in pods of either address family, and where every pod is given a proxy for the world outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.integration.gateway.engines import engines
from tests.integration.gateway.launch import gateway
from tests.proxies import proxied


@asynccontextmanager
async def recording_proxy() -> AsyncIterator[tuple[dict[str, str], list[str]]]:
    """A proxy that reaches nothing: the variables that lead to it, and what it was asked for."""
    asked: list[str] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).decode())
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        yield proxied(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), asked


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_users_operator_and_kubelet_reach_it_and_it_its_engines(tmp_path: Path, address: str) -> None:
    async with (
        recording_proxy() as (proxies, asked),
        engines(1, host=address) as (engine,),
        gateway(tmp_path) as target,
    ):
        target.address, target.seen_at, target.environment = None, address, proxies
        await target.serve(engine.url)
        assert (await target.ask()).status == 200
        assert "smg" in await target.metrics()
        assert engine.answers == 1
    assert asked == []
