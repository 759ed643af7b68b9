"""The agent's endpoints, port 8500 of every pod."""

from __future__ import annotations

from aiohttp import web

from tests.standin.faults import inject
from tests.standin.pod import Pod


def agent_app(pod: Pod) -> web.Application:
    async def status(_: web.Request) -> web.Response:
        return web.json_response(
            {
                "stage": pod.stage,
                "message": pod.message,
                "since": pod.since,
                "progressAt": pod.progress_at,
                "nodeIndex": pod.settings.node_index,
                "nodes": [vars(pod.members[index]) for index in sorted(pod.members)],
                "inFlight": pod.in_flight,
                "served": {
                    "requests": pod.requests,
                    "failed": pod.failed,
                    "begun": pod.requests - pod.failed,
                    "firstByteSeconds": pod.first_byte_seconds,
                },
                "timings": pod.timings,
                "fabric": pod.fabric,
                "gpus": {"available": False, "message": "a stand-in has no GPUs", "devices": []},
            }
        )

    async def ready(_: web.Request) -> web.Response:
        return web.json_response({"ready": pod.ready, "stage": pod.stage}, status=200 if pod.ready else 503)

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def drain(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {pod.settings.ray_token}":
            return web.json_response({"error": "POST /drain asks for the gang's token"}, status=401)
        pod.drain()
        return web.json_response({"draining": True, "inFlight": pod.in_flight})

    async def fault(request: web.Request) -> web.Response:
        try:
            inject(pod, await request.json())
        except (ValueError, TypeError) as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from error
        return web.json_response({"ok": True})

    app = web.Application()
    app.router.add_get("/status", status)
    app.router.add_get("/ready", ready)
    app.router.add_get("/healthz", healthz)
    app.router.add_post("/drain", drain)
    app.router.add_post("/fault", fault)
    return app
