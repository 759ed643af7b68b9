"""Start a gateway as a plain process on loopback ports."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from r1_operator.api import names
from r1_operator.telemetry.gateway import SyncResult, Worker, sync_workers

from tests.ports import free_port
from tests.waiting import PATIENCE_SECONDS

MODEL = "standin"
TOKEN = "admin-token"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: str

    @property
    def error(self) -> dict[str, Any]:
        return dict(json.loads(self.body)["error"])


@dataclass
class Gateway:
    folder: Path
    session: aiohttp.ClientSession
    api_key: str | None = None
    token: str = TOKEN
    engine_key: str | None = None
    port: int = field(default_factory=free_port)
    admin_port: int = field(default_factory=free_port)
    metrics_port: int = field(default_factory=free_port)
    address: str | None = "127.0.0.1"
    """Where it listens; None: where it does by itself."""
    seen_at: str = "127.0.0.1"
    """The address by which the test reaches it, as operator, kubelet and users do in turn."""
    environment: dict[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None
    wanted: tuple[str, ...] = ()

    async def start(self, workers: Iterable[str] = (), epoch: int = 0) -> None:
        config = {
            "servedName": MODEL,
            "port": self.port,
            "adminPort": self.admin_port,
            "metricsPort": self.metrics_port,
            "drainSeconds": 30,
            "lingerSeconds": 0.5,
            "workers": list(workers),
            "epoch": epoch,
            "adminTokenSha256": hashlib.sha256(TOKEN.encode()).hexdigest(),
        }
        (self.folder / "gateway.json").write_text(json.dumps(config))
        if self.engine_key is not None:
            (self.folder / "key").write_text(self.engine_key)
        files = ["--config", str(self.folder / "gateway.json"), "--engine-key-file", str(self.folder / "key")]
        where = ["--address", self.address] if self.address else []
        command = [sys.executable, "-m", "r1_gateway", *files, *where]
        key = {"R1_API_KEY": self.api_key} if self.api_key else {}
        environment = {**os.environ, **key, **self.environment}
        with (self.folder / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(*command, env=environment, stderr=log, stdout=log)

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    def terminate(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    async def ready(self) -> bool:
        try:
            async with self.session.get(f"http://{self._host}:{self.admin_port}/ready") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def sync(self, *urls: str, epoch: int | None = None, retry_after: int | None = None) -> SyncResult:
        self.wanted = urls
        wanted = frozenset(Worker(url) for url in urls)
        told = {"epoch": epoch, "retry_after": retry_after}
        options: dict[str, Any] = {"token": self.token, "port": self.admin_port, **told}
        return await sync_workers(self.session, [self.seen_at], wanted, **options)

    async def serve(self, *urls: str) -> None:
        """Start, feed and wait until ready, as operator and kubelet do."""
        await self.start()
        await until(self._answers)
        await self.sync(*urls)
        await until(self.ready)

    async def _answers(self) -> bool:
        return (await self.sync()).told

    async def ask(self, content: str = "count to 3", model: str = MODEL, key: str | None = None) -> Answer:
        body = {"model": model, "messages": [{"role": "user", "content": content}]}
        async with self.session.post(self._chat, json=body, headers=bearer(key)) as answer:
            return Answer(answer.status, dict(answer.headers), await answer.text())

    async def stream(self, tokens: int, started: asyncio.Event | None = None) -> list[str]:
        """The data of every SSE event of a streamed answer; `started` is set at the first token."""
        content = f"count to {tokens}"
        body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": content}]}
        events: list[str] = []
        async with self.session.post(self._chat, json=body, headers=bearer(self.api_key)) as answer:
            assert answer.status == 200, await answer.text()
            async for line in answer.content:
                if line.startswith(b"data: "):
                    events.append(line[6:].decode().strip())
                    if started is not None and len(events) > 1:
                        started.set()
        return events

    async def metrics(self) -> str:
        async with self.session.get(f"http://{self._host}:{self.metrics_port}/metrics") as answer:
            assert answer.status == 200
            return await answer.text()

    @property
    def _chat(self) -> str:
        return f"http://{self._host}:{self.port}/v1/chat/completions"

    @property
    def _host(self) -> str:
        return names.host(self.seen_at)


def bearer(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


async def until(condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.05)


@asynccontextmanager
async def gateway(folder: Path, api_key: str | None = None, engine_key: str | None = None) -> AsyncIterator[Gateway]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        running = Gateway(folder, session, api_key, engine_key=engine_key)
        try:
            yield running
        finally:
            await running.kill()
