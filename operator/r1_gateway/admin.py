"""The gateway's admin port, for the operator and the kubelet; users never reach it through the Service."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Callable
from typing import Any

from aiohttp import web

from r1_gateway.feeder import Feeder, Outdated
from r1_gateway.router import Router, RouterError

log = logging.getLogger(__name__)

_STALE_SECONDS = 15.0


class Admin:
    """Handlers. `token_hash`: SHA-256, in hex, of the operator's token. `leaving` is set once the pod terminates: it
    must leave the Service before it stops serving."""

    def __init__(self, feeder: Feeder, router: Router, token_hash: str, clock: Callable[[], float]) -> None:
        self._feeder, self._router, self._token_hash, self._clock = feeder, router, token_hash, clock
        self.leaving = asyncio.Event()

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/ready", self.ready)
        app.router.add_get("/workers", self.get_workers)
        app.router.add_put("/workers", self.put_workers)
        return app

    async def healthz(self, _: web.Request) -> web.Response:
        """Red when the router has not answered for a while."""
        silent = self._clock() - self._feeder.beat
        if silent > _STALE_SECONDS:
            return web.Response(status=503, text=f"the router has not answered for {silent:.0f} s\n")
        return web.Response(text="ok\n")

    async def ready(self, _: web.Request) -> web.Response:
        """Green while the router serves and knows the replicas, also when there are none: then users get a 503."""
        if self.leaving.is_set():
            return web.Response(status=503, text="terminating\n")
        if not self._feeder.ready():
            return web.Response(status=503, text="not told of the replicas yet\n")
        if not await self._router.alive():
            return web.Response(status=503, text="the router does not answer\n")
        return web.Response(text="ok\n")

    async def get_workers(self, request: web.Request) -> web.Response:
        self._authorize(request)
        return web.json_response(self._state())

    async def put_workers(self, request: web.Request) -> web.Response:
        """Body `{"workers": [URL, …], "epoch": N, "retryAfterSeconds": S}`: exactly these. Answers with every replica's
        state, and how long ago somebody asked while there was none (`askedSecondsAgo`; null: nobody).

        `retryAfterSeconds`: replicas may sleep, and one would be ready so much later; absent: they do not.
        `epoch` is optional: which leadership of the operator speaks. After a greater one a smaller one is refused with
        409 and `{"epoch": the greater one}`.
        """
        self._authorize(request)
        try:
            body = await request.json()
            workers, epoch, retry_after = body["workers"], body.get("epoch"), body.get("retryAfterSeconds")
            if not isinstance(workers, list) or not all(_is_url(url) for url in workers):
                raise ValueError("workers must be a list of http URLs")
            if epoch is not None and (isinstance(epoch, bool) or not isinstance(epoch, int)):
                raise ValueError("epoch must be an integer")
            if retry_after is not None and (isinstance(retry_after, bool) or not isinstance(retry_after, int)):
                raise ValueError("retryAfterSeconds must be an integer")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise web.HTTPBadRequest(text=f'expected {{"workers": ["http://host:port", …]}}: {error}\n') from error
        try:
            await self._feeder.feed(frozenset(workers), epoch, retry_after)
        except Outdated as outdated:
            log.warning("refused a list of epoch %s: %s", epoch, outdated)
            return web.json_response({"epoch": outdated.seen}, status=409)
        except RouterError as error:
            raise web.HTTPBadGateway(text=f"the router could not be told: {error}\n") from error
        return web.json_response(self._state())

    def _state(self) -> dict[str, Any]:
        return {
            "workers": [
                {"url": replica.url, "state": replica.state, "inFlight": replica.in_flight}
                for replica in self._feeder.replicas()
            ],
            "askedSecondsAgo": self._feeder.asked_seconds_ago,
        }

    def _authorize(self, request: web.Request) -> None:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        digest = hashlib.sha256(given.encode()).hexdigest()
        if scheme != "Bearer" or not hmac.compare_digest(digest, self._token_hash):
            raise web.HTTPUnauthorized(text="the admin port asks for the operator's token\n")


def _is_url(value: object) -> bool:
    return isinstance(value, str) and value.startswith(("http://", "https://")) and not value.endswith("/")
