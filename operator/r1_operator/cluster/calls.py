"""How a call to the API server is made: limits, deadlines, retries, credentials, and the fence around writes.

The fence: a write must be over before another process may lead. `write_seconds` says how long that is. A request is on
its way for at most `Connection.delivery_seconds` (the kernel sees to it, whatever becomes of this process); what is
left of the time is given to the server as its `timeout`. A write that was sent is not given up when its caller is
cancelled: nobody would know its fate. A server that stands still with the request in its hands, or a process that is
frozen in the middle of sending, can still be late: against those help the uid and the version that a write names.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import aiohttp

from r1_operator.cluster.clock import boot_seconds
from r1_operator.cluster.connection import Connection
from r1_operator.cluster.errors import NOT_LEADER, TIMEOUT, UNREACHABLE, ApiError, error_from_answer
from r1_operator.cluster.resources import LEASES, Resource

JSON = "application/json"
_TRIES = 4  # of one call that is asked to wait
_SHORTEST_WAIT = 0.1
_SHORTEST_HANDLING = 0.2  # seconds; a write that leaves the server less is not sent any more

Observer = Callable[[str, Resource, int, float], None]
"""Told of each call: verb, resource, HTTP status (0: no answer), seconds.

Verbs: `get`, `list`, `watch`, `create`, `apply`, `patch`, `update`, `delete`."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, and what it is called in metrics and errors."""

    verb: str
    method: str
    resource: Resource
    path: str
    query: Mapping[str, str | None] | None = None
    body: Any = None
    content_type: str = JSON

    @property
    def guarded(self) -> bool:
        """A write that needs the lease. The lease itself does not: it is how one becomes leader, and is locked."""
        return self.method != "GET" and self.resource != LEASES


class Calls:
    """Makes calls over one connection, at most `parallel_writes` writes at a time."""

    def __init__(
        self, connection: Connection, *, call_seconds: float, parallel_writes: int, observe: Observer | None
    ) -> None:
        self._connection = connection
        self._call_seconds = call_seconds
        self._observe = observe
        self._slots = asyncio.Semaphore(parallel_writes)
        self._reloaded_at = float("-inf")
        self._reload_lock = asyncio.Lock()
        self._under_way: set[asyncio.Task[dict[str, Any]]] = set()
        self._unsettled_until = float("-inf")  # boot_seconds() when the last write of unknown fate is over
        self.write_seconds: Callable[[], float] | None = None
        """How long a write sent now may take; None: no fence. Not enough: it is refused as `NotLeader`."""

    async def close(self) -> None:
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self._connection.close()

    async def settle(self, seconds: float) -> bool:
        """Wait until no write of ours can take effect any more. False when `seconds` do not suffice for that."""
        deadline = boot_seconds() + seconds
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=seconds)
        if self._under_way or self._unsettled_until > deadline:
            return False
        await asyncio.sleep(max(0.0, self._unsettled_until - boot_seconds()))
        return True

    async def make(self, call: Call, timeout: float | None = None) -> dict[str, Any]:
        """The answer to one call. `timeout` (default: `call_seconds`) is for all tries, not for the wait for a slot."""
        seconds = timeout or self._call_seconds
        if not call.guarded:
            return await self._try_until(call, seconds)
        self._fence(call)  # a thousand writes may wait below for nothing
        async with self._slots:
            return await self._try_until(call, seconds)

    async def _try_until(self, call: Call, seconds: float) -> dict[str, Any]:
        deadline, tries, reloaded = time.monotonic() + seconds, 0, False
        while True:
            tries += 1
            try:
                return await self._send(call, max(0.001, deadline - time.monotonic()))
            except ApiError as error:
                if error.status == 401 and not reloaded and await self._reload_credentials():
                    reloaded = True
                    continue
                pause = pause_before_retry(error, tries, deadline - time.monotonic())
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    def _fence(self, call: Call) -> tuple[float, float]:
        """Seconds until a write sent now must be over, and what the server gets of them. Raises `NotLeader`."""
        if self.write_seconds is None:
            return float("inf"), float("inf")
        left = self.write_seconds()
        handling = left - self._connection.delivery_seconds
        if handling < _SHORTEST_HANDLING:
            why = "this process does not hold the lease any more, or not long enough to finish"
            raise ApiError(0, NOT_LEADER, f"{call.verb} {call.path}: refused, {why}")
        return left, handling

    async def _send(self, call: Call, seconds: float) -> dict[str, Any]:
        if not call.guarded or self.write_seconds is None:
            return await self._exchange(call, call.query, aiohttp.ClientTimeout(total=seconds))
        left, handling = self._fence(call)
        query = {**(call.query or {}), "timeout": f"{min(handling, seconds) * 1000:.0f}ms"}
        over = boot_seconds() + left
        timeout = aiohttp.ClientTimeout(total=min(seconds, left), connect=self._connection.delivery_seconds / 2)
        task = asyncio.ensure_future(self._exchange(call, query, timeout))
        self._under_way.add(task)
        task.add_done_callback(lambda task: self._ended(task, over))
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[dict[str, Any]], over: float) -> None:
        self._under_way.discard(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        refused = isinstance(error, ApiError) and 0 < error.status < 500
        if error is not None and not refused:
            self._unsettled_until = max(self._unsettled_until, over)

    async def _exchange(
        self, call: Call, query: Mapping[str, str | None] | None, timeout: aiohttp.ClientTimeout
    ) -> dict[str, Any]:
        url = _url(call.path, query)
        started, status = time.monotonic(), 0
        try:
            async with self._connection.request(
                call.method,
                url,
                timeout=timeout,
                body=call.body,
                content_type=call.content_type,
            ) as response:
                status = response.status
                content = await response.read()
                retry_after = response.headers.get("Retry-After")
        except TimeoutError as error:
            raise ApiError(0, TIMEOUT, f"{call.verb} {call.path}: no answer in {timeout.total:.3g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ApiError(0, UNREACHABLE, f"{call.verb} {call.path}: {error or type(error).__name__}") from error
        finally:
            self._note(call.verb, call.resource, status, started)
        if not 200 <= status < 300:
            raise error_from_answer(status, content, retry_after)
        parsed = json.loads(content)
        if not isinstance(parsed, dict):
            raise ApiError(status, "BadAnswer", f"{call.verb} {url}: the answer is not a JSON object")
        return parsed

    @asynccontextmanager
    async def open_watch(
        self,
        resource: Resource,
        namespace: str | None,
        query: Mapping[str, str | None],
        *,
        silence_seconds: float,
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The lines of a watch, without any interpretation; `cluster.watch` makes sense of them."""
        url = _url(resource.path(namespace), {**query, "watch": "true"})
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._call_seconds, sock_read=silence_seconds)
        started = time.monotonic()
        try:
            async with self._connection.request("GET", url, timeout=timeout) as response:
                self._note("watch", resource, response.status, started)
                if response.status != 200:
                    body = await response.read()
                    if response.status == 401:
                        await self._reload_credentials()
                    raise error_from_answer(response.status, body, response.headers.get("Retry-After"))
                yield _lines(response)
        except TimeoutError as error:
            raise ApiError(0, TIMEOUT, f"watch of {resource.plural}: silent for {silence_seconds:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ApiError(0, UNREACHABLE, f"watch of {resource.plural}: {error or type(error).__name__}") from error

    async def _reload_credentials(self) -> bool:
        """Read the credentials again, at most every 10 s. False when that was done only just now, to no avail."""
        asked = time.monotonic()
        async with self._reload_lock:
            if self._reloaded_at >= asked:  # another call reloaded while this one waited
                return True
            if asked - self._reloaded_at < 10:
                return False
            await self._connection.reload()
            self._reloaded_at = time.monotonic()
            return True

    def _note(self, verb: str, resource: Resource, status: int, started: float) -> None:
        if self._observe is not None:
            self._observe(verb, resource, status, time.monotonic() - started)


def pause_before_retry(error: ApiError, tries: int, left: float) -> float | None:
    """Seconds to wait before the same call is made again; None: it is the caller's to decide.

    Only where the server asks for it (429 or 503 with Retry-After): then it did nothing. With jitter, so that not all
    come back at once, and never past the `left` seconds of the call.
    """
    if error.status not in (429, 503) or error.retry_after is None or tries >= _TRIES:
        return None
    pause = max(_SHORTEST_WAIT, error.retry_after) * random.uniform(1.0, 1.2)
    return pause if pause < left else None


def _url(path: str, query: Mapping[str, str | None] | None) -> str:
    given = {name: value for name, value in (query or {}).items() if value}
    return f"{path}?{urlencode(given)}" if given else path


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Whole lines of any length: aiohttp's own line reader gives up at 4 MB, and a broken last line is no line."""
    rest = bytearray()
    async for chunk in response.content.iter_any():
        rest += chunk
        while (end := rest.find(b"\n")) >= 0:
            line = bytes(rest[:end])
            del rest[: end + 1]
            if line.strip():
                yield line
