"""A worker that takes requests while the replicas sleep: it notes that somebody asks, and says when to ask again.

The router answers 503 by itself where no worker is healthy, but tells nobody, and its `Retry-After` of 1 s is none that
a start of ten minutes keeps. What a worker answers it passes on: a 503 after its retries, 5 s later, which go to the
other workers as soon as there are any.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from aiohttp import web

from r1_gateway.placeholder import described

_USERS = ("/v1/", "/generate", "/completions", "/chat/")
"""Begins of the paths that users ask; others are the router's own looks."""


class WaitingRoom:
    """Open while replicas may sleep: `expect` says so."""

    def __init__(self, served_name: str, clock: Callable[[], float]) -> None:
        self._served_name, self._clock = served_name, clock
        self._ready_at: float | None = None
        self._asked_at: float | None = None

    @property
    def open(self) -> bool:
        return self._ready_at is not None

    def expect(self, seconds: float | None) -> None:
        """A replica is ready in so many seconds; None: replicas do not sleep."""
        self._ready_at = self._clock() + seconds if seconds is not None else None

    @property
    def asked_seconds_ago(self) -> float | None:
        """Since somebody asked last; None: nobody has."""
        return self._clock() - self._asked_at if self._asked_at is not None else None

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024**2)
        for path in ("/health", "/v1/models", "/server_info", "/model_info", "/get_server_info", "/get_model_info"):
            app.router.add_get(path, self._describe)
        app.router.add_route("*", "/{path:.*}", self._refuse)
        return app

    async def _describe(self, _: web.Request) -> web.Response:
        return web.json_response(described(self._served_name))

    async def _refuse(self, request: web.Request) -> web.Response:
        now = self._clock()
        if request.method == "POST" and request.path.startswith(_USERS):
            self._asked_at = now
        left = max(1, math.ceil((self._ready_at if self._ready_at is not None else now) - now))
        error = {
            "message": f"Scaled to zero; a replica is being started and is ready in about {left} s",
            "type": "server_error",
            "code": "scaled_to_zero",
            "param": None,
        }
        return web.json_response({"error": error}, status=503, headers={"Retry-After": str(left)})
