"""The request gate: a thin ASGI layer inside SGLang's own server process, commanded by the agent through shared memory.

Why here and not a proxy: tokens pass through no further process, and the count of requests in flight is exact because
it is taken where the response is sent. SGLang itself, once told to stop, goes on answering new requests.

The agent and the server share one small file, mapped into both: byte 0 says "draining"; from byte 8 on, each server
process has a slot of 8 bytes holding its number of requests in flight. Reading and writing cost no system call.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

SLOTS = 64
_SLOT = struct.Struct("<q")
_SIZE = 8 + SLOTS * _SLOT.size
RETRY_AFTER_SECONDS = 5

PROBE_HEADER = b"x-r1-probe"
# Control calls that end or describe work; everything else that is posted is work.
_CONTROL = frozenset({"/abort_request", "/freeze_gc", "/configure_logging", "/flush_cache"})

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def is_work(kind: str, method: str, path: str) -> bool:
    """Whether a request makes the model compute: a POST that is no control call, or a web socket."""
    return kind == "websocket" or (kind == "http" and method == "POST" and path not in _CONTROL)


class GateFile:
    """The shared file. The agent creates it; each server process claims a slot."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        flags = os.O_RDWR | (os.O_CREAT | os.O_TRUNC if create else 0)
        self._descriptor = os.open(path, flags, 0o600)
        if create:
            os.ftruncate(self._descriptor, _SIZE)
        self._map = mmap.mmap(self._descriptor, _SIZE)

    @property
    def draining(self) -> bool:
        return self._map[0] != 0

    def drain(self) -> None:
        self._map[0] = 1

    def in_flight(self) -> int:
        """Requests in flight over all server processes."""
        return sum(_SLOT.unpack_from(self._map, 8 + slot * _SLOT.size)[0] for slot in range(SLOTS))

    def claim_slot(self) -> int:
        """A slot of this process's own, locked until the process ends. Raises RuntimeError when all are taken."""
        for slot in range(SLOTS):
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 8 + slot * _SLOT.size)
            except OSError:
                continue
            self.write(slot, 0)
            return slot
        raise RuntimeError(f"more than {SLOTS} server processes: raise gate.SLOTS")

    def write(self, slot: int, value: int) -> None:
        _SLOT.pack_into(self._map, 8 + slot * _SLOT.size, value)

    def close(self) -> None:
        self._map.close()
        os.close(self._descriptor)


class Gate:
    """ASGI middleware. While draining, new work gets 503 with Retry-After and a JSON error; work in flight goes on."""

    def __init__(self, app: Application, file: GateFile, probe_key: str) -> None:
        self._app, self._file, self._probe_key = app, file, probe_key.encode()
        self._slot, self._count = file.claim_slot(), 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if not is_work(kind, scope.get("method", ""), scope.get("path", "")) or self._is_probe(scope):
            await self._app(scope, receive, send)
            return
        if self._file.draining:
            await _refuse(kind, receive, send)
            return
        self._add(1)
        try:
            await self._app(scope, receive, send)
        finally:
            self._add(-1)

    def _is_probe(self, scope: Scope) -> bool:
        return bool(self._probe_key) and (PROBE_HEADER, self._probe_key) in scope.get("headers", ())

    def _add(self, change: int) -> None:
        self._count += change
        self._file.write(self._slot, self._count)


async def _refuse(kind: str, receive: Receive, send: Send) -> None:
    if kind == "websocket":
        await receive()  # the connect event; closing before accepting answers 403
        await send({"type": "websocket.close", "code": 1013, "reason": "draining; try again"})
        return
    error = {"message": "This replica is draining; send the request again.", "type": "draining", "code": 503}
    body = json.dumps({"error": error}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", str(RETRY_AFTER_SECONDS).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
