"""The request gate: a thin ASGI layer inside SGLang's own server process, commanded by the agent through shared memory.

Why here and not a proxy: tokens pass through no further process, and the count of requests in flight is exact because
it is taken where the response is sent. SGLang itself, once told to stop, goes on answering new requests.

The agent and the server share one small file, mapped into both: byte 0 says "draining"; from byte 8 on, each server
process has a slot of 8 bytes holding its number of requests in flight; then come the keys that gateways vouch for, by
hash (`doors`), which all server processes see, and each slot's tally of what was answered and what failed. Reading and
writing cost no system call.
"""

from __future__ import annotations

import fcntl
import hmac
import json
import mmap
import os
import struct
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1_engine.doors import ANYBODY, has_token, may_pass

SLOTS = 64
_SLOT = struct.Struct("<q")
_VOUCHED = struct.Struct("<32sd")
_VOUCHED_AT, _VOUCHED_SLOTS = 8 + SLOTS * _SLOT.size, 16
_TALLY = struct.Struct("<qqqq")
_TALLY_AT = _VOUCHED_AT + _VOUCHED_SLOTS * _VOUCHED.size
_SIZE = _TALLY_AT + SLOTS * _TALLY.size
_STREAMED_ERROR = b'data: {"error"'
VOUCHED_SECONDS = 600.0
"""A gateway says again every minute for whom it vouches. A user's old key holds no longer than this after its end."""
RETRY_AFTER_SECONDS = 5

PROBE_HEADER = b"x-r1-probe"
USERS_PATH = "/r1/users"
"""Here a gateway says for whom it vouches: `PUT {"sha256": hex of the users' key, null for anybody}`, with our key."""
_LONGEST_BODY = 4096
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

    def count(self, slot: int, tally: Tally) -> None:
        """What this slot's process has answered by now."""
        microseconds = round(tally.first_byte_seconds * 1e6)
        values = (tally.requests, tally.failed, tally.begun, microseconds)
        _TALLY.pack_into(self._map, _TALLY_AT + slot * _TALLY.size, *values)

    def tally(self) -> Tally:
        """Over all server processes since the engine started."""
        each = [_TALLY.unpack_from(self._map, _TALLY_AT + slot * _TALLY.size) for slot in range(SLOTS)]
        requests, failed, begun, microseconds = (sum(values) for values in zip(*each, strict=True))
        return Tally(requests, failed, begun, microseconds / 1e6)

    def vouch(self, digest: bytes) -> None:
        """Users with this key may pass for VOUCHED_SECONDS from now; where all places are taken, in the oldest's."""
        entries = self._vouched()
        ends = [(0.0 if each == digest else end) for each, end in entries]
        slot = min(range(_VOUCHED_SLOTS), key=ends.__getitem__)
        _VOUCHED.pack_into(self._map, _VOUCHED_AT + slot * _VOUCHED.size, digest, time.monotonic() + VOUCHED_SECONDS)

    def vouched(self) -> frozenset[bytes]:
        """Hashes that hold now."""
        now = time.monotonic()  # of the machine: the same clock in all its processes
        return frozenset(digest for digest, end in self._vouched() if end > now)

    def _vouched(self) -> list[tuple[bytes, float]]:
        where = range(_VOUCHED_AT, _TALLY_AT, _VOUCHED.size)
        return [_VOUCHED.unpack_from(self._map, offset) for offset in where]

    def close(self) -> None:
        self._map.close()
        os.close(self._descriptor)


@dataclass(slots=True)
class Tally:
    """Requests that have ended. `failed`: with a server error, also one inside a stream that had begun. `begun`: those
    of which a first byte was sent, after `first_byte_seconds` in sum."""

    requests: int = 0
    failed: int = 0
    begun: int = 0
    first_byte_seconds: float = 0.0


@dataclass(slots=True)
class _Heard:
    """What is sent of one answer. `first_byte`: seconds to it; None: of no answer that began well."""

    began: float
    failed: bool = False
    first_byte: float | None = None

    def hear(self, event: MutableMapping[str, Any]) -> None:
        if event["type"] == "http.response.start":
            self.failed = int(event["status"]) >= 500
        elif event["type"] == "http.response.body" and not self.failed:
            body = event.get("body", b"")
            if body and self.first_byte is None:
                self.first_byte = time.monotonic() - self.began
            # SGLang tells so of what goes wrong once a stream has begun, whose status is 200 then.
            self.failed = body.startswith(_STREAMED_ERROR)


class Gate:
    """ASGI middleware. While draining, new work gets 503 with Retry-After and a JSON error; work in flight goes on.

    `key`: what the gateway shows; what shows nothing gets 401 unless it is open (`doors`). Empty: an operator that made
    none, so nobody is asked for it.
    """

    def __init__(self, app: Application, file: GateFile, probe_key: str, key: str = "") -> None:
        self._app, self._file, self._probe_key, self._key = app, file, probe_key.encode(), key
        self._slot, self._count, self._tally = file.claim_slot(), 0, Tally()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind, method, path = scope["type"], scope.get("method", ""), scope.get("path", "")
        if kind not in ("http", "websocket") or self._is_probe(scope):
            await self._app(scope, receive, send)
            return
        shown = _header(scope, b"authorization")
        if self._key and not may_pass(method, path, shown, self._key, self._file.vouched()):
            await _refuse(kind, receive, send, _NO_KEY)
        elif self._key and (method, path) == ("PUT", USERS_PATH) and has_token(shown, self._key):
            await self._hear_users(receive, send)
        elif not is_work(kind, method, path):
            await self._app(scope, receive, send)
        elif self._file.draining:
            await _refuse(kind, receive, send, _DRAINING)
        else:
            await self._work(scope, receive, send)

    async def _work(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._add(1)
        heard = _Heard(time.monotonic())

        async def listen(event: MutableMapping[str, Any]) -> None:
            heard.hear(event)
            await send(event)

        try:
            await self._app(scope, receive, listen)
        except Exception:
            heard.failed = True
            raise
        finally:
            self._add(-1)
            self._note(heard)

    def _note(self, heard: _Heard) -> None:
        """A request that its client has broken off counts as one that went well."""
        tally = self._tally
        tally.requests += 1
        tally.failed += heard.failed
        if heard.first_byte is not None:
            tally.begun += 1
            tally.first_byte_seconds += heard.first_byte
        self._file.count(self._slot, tally)

    async def _hear_users(self, receive: Receive, send: Send) -> None:
        try:
            digest = _digest(await _body(receive))
        except (ValueError, KeyError, TypeError):
            await _answer(
                send, 400, {"error": {"message": 'expected {"sha256": "64 hex digits" or null}', "code": 400}}
            )
            return
        self._file.vouch(digest)
        await _answer(send, 200, {"heard": True})

    def _is_probe(self, scope: Scope) -> bool:
        return bool(self._probe_key) and hmac.compare_digest(_header(scope, PROBE_HEADER), self._probe_key)

    def _add(self, change: int) -> None:
        self._count += change
        self._file.write(self._slot, self._count)


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: int
    kind: str
    message: str
    close_code: int
    headers: tuple[tuple[bytes, bytes], ...]


_DRAINING = _Refusal(
    503,
    "draining",
    "This replica is draining; send the request again.",
    1013,
    ((b"retry-after", str(RETRY_AFTER_SECONDS).encode()), (b"connection", b"close")),
)
_NO_KEY = _Refusal(
    401,
    "unauthorized",
    "This engine asks for its key; send the request to the gateway.",
    1008,
    ((b"www-authenticate", b"Bearer"),),
)


async def _refuse(kind: str, receive: Receive, send: Send, why: _Refusal) -> None:
    if kind == "websocket":
        await receive()  # the connect event; closing before accepting answers 403
        await send({"type": "websocket.close", "code": why.close_code, "reason": why.message})
        return
    error = {"message": why.message, "type": why.kind, "code": why.status}
    await _answer(send, why.status, {"error": error}, why.headers)


async def _answer(send: Send, status: int, content: object, more: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _header(scope: Scope, name: bytes) -> bytes:
    return next((bytes(value) for key, value in scope.get("headers", ()) if key == name), b"")


async def _body(receive: Receive) -> bytes:
    body = b""
    while len(body) <= _LONGEST_BODY:
        event = await receive()
        body += bytes(event.get("body", b""))
        if event["type"] != "http.request" or not event.get("more_body"):
            return body
    raise ValueError("too long")


def _digest(body: bytes) -> bytes:
    text = json.loads(body)["sha256"]
    digest: bytes = ANYBODY if text is None else bytes.fromhex(text)
    if len(digest) != len(ANYBODY) or (text is not None and digest == ANYBODY):
        raise ValueError("no SHA-256")
    return digest
