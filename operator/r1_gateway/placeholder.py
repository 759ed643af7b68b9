"""A worker that is never healthy, so that the router knows the model also while no replica is there.

The router answers 404 for a model of which it knows no worker, and 503 with Retry-After when it knows some but none is
healthy; the second is what a client should get while replicas start. This worker says yes when it is registered and no
to every health check.
"""

from __future__ import annotations

from aiohttp import web


def described(served_name: str) -> dict[str, object]:
    """What the router asks of a worker when it registers it."""
    return {"model_path": served_name, "served_model_name": served_name, "tp_size": 1, "dp_size": 1}


def placeholder_app(served_name: str) -> web.Application:
    """Answers as an engine does while it is registered; refuses health checks and requests."""
    app = web.Application()
    information = described(served_name)

    async def healthy(_: web.Request) -> web.Response:
        return web.Response()

    async def describe(_: web.Request) -> web.Response:
        return web.json_response(information)

    async def refuse(_: web.Request) -> web.Response:
        error = {
            "message": "No replica is ready",
            "type": "server_error",
            "code": "no_available_workers",
            "param": None,
        }
        return web.json_response({"error": error}, status=503, headers={"Retry-After": "1"})

    app.router.add_get("/health", healthy)
    for path in ("/server_info", "/model_info", "/get_server_info", "/get_model_info"):
        app.router.add_get(path, describe)
    app.router.add_route("*", "/{path:.*}", refuse)
    return app
