"""Asks for the key as the real engine's gate does (r1_engine/doors.py, which the image of a stand-in cannot import)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

OPEN = {("GET", path) for path in ("/health", "/metrics", "/v1/loads")}
USERS = {"/v1/chat/completions"}
ANYBODY = "anybody"


def key_middleware(file: Path) -> Middleware:
    """`file` holds the engine's key; without the file nobody is asked for one."""
    vouched: set[str] = set()
    key = file.read_text().strip() if file.is_file() else ""

    @web.middleware
    async def ask(request: web.Request, handler: Handler) -> web.StreamResponse:
        shown = request.headers.get("Authorization", "").removeprefix("Bearer ")
        where = (request.method, request.path)
        if not key or where in OPEN:
            return await handler(request)
        if where == ("PUT", "/r1/users") and shown == key:
            vouched.add(json.loads(await request.text())["sha256"] or ANYBODY)
            return web.json_response({"heard": True})
        digest = hashlib.sha256(shown.encode()).hexdigest()
        user = request.method == "POST" and request.path in USERS and shown and vouched & {digest, ANYBODY}
        if shown == key or user:
            return await handler(request)
        error = {"message": "This engine asks for its key.", "type": "unauthorized", "code": 401}
        return web.json_response({"error": error}, status=401)

    return ask
