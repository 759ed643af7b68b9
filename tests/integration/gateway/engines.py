"""An engine's HTTP side with nothing behind it: it answers at once, so that few clients make many requests."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

from aiohttp import web
from r1_operator.api import names

from tests.integration.gateway.launch import MODEL
from tests.standin.launch import free_port


class Engine:
    """One replica. The fields are what a test turns; each counts from the next request on.

    `ranks`: attention-DP ranks. The router asks for loads only where there is one: with several it never does.
    """

    def __init__(self, ranks: int, host: str = "127.0.0.1") -> None:
        self.ranks = ranks
        self._host, self._port = host, free_port()
        self.url = f"http://{names.host(host)}:{self._port}"
        self.registers_after = 0.0
        """Seconds until it answers a router that wants to know it: so long the router holds it for no worker yet."""
        self.late_probes = 0
        """So many health checks get no answer; counts down when the router gives them up."""
        self.refused_probes = 0
        """So many health checks are answered with 503; counts down."""
        self.good_probes = self.load_reports = self.answers = 0
        self.waiting = 0
        """Requests in its queue, as it says."""
        self.flows = asyncio.Event()
        """Cleared, requests are taken and not answered, as behind a long prompt."""
        self.flows.set()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/health", self._ok)
        app.router.add_get("/v1/models", self._probe)
        app.router.add_get("/v1/loads", self._loads)
        for path in ("/model_info", "/get_model_info", "/server_info", "/get_server_info"):
            app.router.add_get(path, self._describe)
        app.router.add_post("/v1/chat/completions", self._chat)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.01)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()

    async def die(self) -> None:
        """As SIGKILL does it: connections are reset, new ones refused."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        assert runner.server is not None
        for connection in list(runner.server.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()

    async def _ok(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _probe(self, _: web.Request) -> web.Response:
        if self.refused_probes > 0:
            self.refused_probes -= 1
            return web.Response(status=503)
        if self.late_probes > 0:
            try:
                await asyncio.Event().wait()
            finally:
                self.late_probes -= 1
        self.good_probes += 1
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "sglang"}]})

    async def _describe(self, _: web.Request) -> web.Response:
        await asyncio.sleep(self.registers_after)
        sizes = {"tp_size": self.ranks, "dp_size": 1, "attn_dp_size": self.ranks}
        return web.json_response({"model_path": MODEL, "served_model_name": MODEL, "is_generation": True, **sizes})

    async def _loads(self, _: web.Request) -> web.Response:
        self.load_reports += 1
        load = {"num_running_reqs": 1, "num_waiting_reqs": self.waiting, "token_usage": 0.1}
        return web.json_response({"timestamp": "", "loads": [{"dp_rank": rank, **load} for rank in range(self.ranks)]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        streamed = (await request.json()).get("stream")
        self.waiting += 1
        try:
            await self.flows.wait()
        finally:
            self.waiting -= 1
        self.answers += 1
        return await self._stream(request) if streamed else web.json_response(_answer("message", finish="stop"))

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for finish in (None, None, "stop"):
            await response.write(f"data: {json.dumps(_answer('delta', finish))}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response


def _answer(part: str, finish: str | None) -> dict[str, Any]:
    kind = "chat.completion" if part == "message" else "chat.completion.chunk"
    choice = {"index": 0, part: {"role": "assistant", "content": "1 "}, "finish_reason": finish}
    usage = {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
    return {"id": "1", "object": kind, "created": 1, "model": MODEL, "choices": [choice], "usage": usage}


@contextmanager
def swallowing(url: str) -> Iterator[None]:
    """As an address that nobody has any more: it neither takes nor refuses connections. Linux lets the first packets of
    connections drop where those before them were not accepted."""
    address = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
    with ExitStack() as opened:
        listener = opened.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(0)
        for _ in range(3):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        yield


@asynccontextmanager
async def engines(count: int, ranks: int = 2, host: str = "127.0.0.1") -> AsyncIterator[list[Engine]]:
    """So many replicas that serve on this host; they are gone at the end."""
    running = [Engine(ranks, host) for _ in range(count)]
    try:
        for engine in running:
            await engine.start()
        yield running
    finally:
        for engine in running:
            await engine.die()
