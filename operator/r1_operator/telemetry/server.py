"""/healthz, /readyz and /metrics of the operator."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

Check = Callable[[], str | None]
"""None when all is well, else what is wrong."""


class Heartbeat:
    """A loop's sign of life: a check that complains when `beat` was not called for `limit_seconds`."""

    def __init__(self, limit_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_seconds, self._clock = limit_seconds, clock
        self._last = clock()

    def beat(self) -> None:
        self._last = self._clock()

    def check(self) -> str | None:
        silent = self._clock() - self._last
        return f"no sign of life for {silent:.0f} s" if silent > self._limit_seconds else None


def health_app(registry: CollectorRegistry, alive: Mapping[str, Check], ready: Mapping[str, Check]) -> web.Application:
    """`alive`: when one of these complains, the process should be restarted. `ready`: it can do its work.

    The handlers run in the operator's event loop, so a loop that is stuck does not answer at all.
    """

    def answer(checks: Mapping[str, Check]) -> web.Response:
        wrong = {name: text for name, check in checks.items() if (text := check()) is not None}
        if not wrong:
            return web.Response(text="ok\n")
        return web.Response(status=503, text="".join(f"{name}: {text}\n" for name, text in sorted(wrong.items())))

    async def healthz(_: web.Request) -> web.Response:
        return answer(alive)

    async def readyz(_: web.Request) -> web.Response:
        return answer(ready)

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    return app


@asynccontextmanager
async def serving(app: web.Application, port: int, address: str | None = None) -> AsyncIterator[int]:
    """Serve an app while the block runs, on all addresses by default; → the port (of use when 0 was given)."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, address, port).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
