"""Events on an R1Deployment and on others: what the operator did and why, for `kubectl describe`.

Core v1 events, whose message and count may change: the same event again raises the count of the first instead of
adding one more. An event is best effort: nothing waits for it and nothing fails for it. It is tried again where the API
server could not be asked, as the moments with the most to tell are those in which it is slow.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from r1_operator.api.names import FIELD_MANAGER
from r1_operator.cluster.client import Client
from r1_operator.cluster.errors import NOT_LEADER, ApiError
from r1_operator.cluster.resources import EVENTS, JsonObject

log = logging.getLogger(__name__)

_QUEUE = 1000  # more than that at once says nothing to anybody
_REMEMBERED = 2000  # events kept in mind for counting
_FORGET_SECONDS = 600.0  # a repetition after this long is a new event (client-go's correlator: 10 min)
_RECOUNT_SECONDS = 30.0  # a repeated event's count is written at most this often
# Different messages of one reason about one thing within _FORGET_SECONDS; further ones are dropped. A replica is a
# thing of its own: those of a fleet that becomes ready together are no noise.
_VARIANTS = 20
_MESSAGE_BYTES = 1024  # the API server's limit
_PAUSES = (1.0, 4.0, 10.0)  # s between the tries; an outage that lasts longer costs the event

EventType = Literal["Normal", "Warning"]
_Group = tuple[str, str, str, str]  # uid, type, reason, replica


@dataclass(slots=True)
class _Seen:
    name: str
    group: _Group
    first: datetime
    count: int
    at: float
    written: float


class Events:
    """Queues events and writes them in the background while `run` runs."""

    def __init__(self, client: Client, identity: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client, self._identity, self._clock = client, identity, clock
        self._queue: asyncio.Queue[tuple[dict[str, Any], str, EventType, str]] = asyncio.Queue(_QUEUE)
        self._seen: OrderedDict[tuple[_Group, str], _Seen] = OrderedDict()
        self._variants: Counter[_Group] = Counter()

    def emit(self, regarding: JsonObject, reason: str, message: str, *, type: EventType = "Normal") -> None:
        """Note that something happened to an object. Never raises, never waits; drops events nobody could read."""
        try:
            metadata = regarding["metadata"]
            reference = {
                "apiVersion": regarding["apiVersion"],
                "kind": regarding["kind"],
                "namespace": metadata.get("namespace"),
                "name": metadata["name"],
                "uid": metadata.get("uid"),
            }
            text = message.encode()[:_MESSAGE_BYTES].decode(errors="ignore")
            self._queue.put_nowait(({k: v for k, v in reference.items() if v}, reason, type, text))
        except asyncio.QueueFull:
            log.warning("event dropped, %d are waiting: %s: %s", _QUEUE, reason, message)
        except Exception:
            log.exception("event dropped: %s: %s", reason, message)

    async def run(self) -> None:
        """Write what is queued until cancelled."""
        while True:
            item = await self._queue.get()
            try:
                await self._write(*item)
            except ApiError as error:
                log.warning("event not written: %s", error)
            except Exception:
                log.exception("event not written")
            finally:
                self._queue.task_done()

    async def flush(self, timeout: float = 3.0) -> None:
        """Wait until all queued events are written, or the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._queue.join()

    async def _write(self, reference: dict[str, Any], reason: str, type: EventType, message: str) -> None:
        self._forget()
        group = (str(reference.get("uid") or reference["name"]), type, reason, _replica(reference["name"], message))
        now = datetime.now(UTC)
        seen = self._seen.get((group, message))
        if seen is not None:
            await self._count_up(seen, reference, now)
            return
        if self._variants[group] >= _VARIANTS:
            log.info("event dropped, %d of reason %s within %g s: %s", _VARIANTS, reason, _FORGET_SECONDS, message)
            return
        name = f"{reference['name']}.{uuid.uuid4().hex[:16]}"
        await self._create(self._event(name, reference, reason, type, message, now))
        self._seen[group, message] = _Seen(name, group, now, 1, self._clock(), self._clock())
        self._variants[group] += 1

    async def _create(self, event: dict[str, Any]) -> None:
        for pause in (*_PAUSES, None):
            try:
                await self._client.create(event)
            except ApiError as error:
                if error.already_exists:  # a try whose answer was lost had arrived
                    return
                if pause is None or error.reason == NOT_LEADER or not error.transient:
                    raise
                await asyncio.sleep(pause)
            else:
                return

    async def _count_up(self, seen: _Seen, reference: dict[str, Any], now: datetime) -> None:
        seen.count += 1
        seen.at = self._clock()
        if seen.at - seen.written < _RECOUNT_SECONDS:
            return
        seen.written = seen.at
        namespace = str(reference.get("namespace") or "default")
        body = {"count": seen.count, "lastTimestamp": _seconds(now)}
        await self._client.patch_merge(EVENTS, namespace, seen.name, body)

    def _forget(self) -> None:
        now = self._clock()
        for key in [key for key, seen in self._seen.items() if now - seen.at > _FORGET_SECONDS]:
            self._drop(key)
        while len(self._seen) > _REMEMBERED:
            self._drop(next(iter(self._seen)))

    def _drop(self, key: tuple[_Group, str]) -> None:
        group = self._seen.pop(key).group
        self._variants[group] -= 1
        if not self._variants[group]:
            del self._variants[group]

    def _event(
        self, name: str, reference: dict[str, Any], reason: str, type: EventType, message: str, now: datetime
    ) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Event",
            # Events about cluster-wide objects lie in `default`, as the API server demands.
            "metadata": {"namespace": reference.get("namespace") or "default", "name": name},
            "involvedObject": reference,
            "reason": reason,
            "message": message,
            "type": type,
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": FIELD_MANAGER,
            "reportingInstance": self._identity,
            "firstTimestamp": _seconds(now),
            "lastTimestamp": _seconds(now),
            "count": 1,
        }


def _replica(name: str, message: str) -> str:
    """The replica that a message is about: `r1-3` of "r1-3-0 on n1, n2 serves". Empty: about all of the object."""
    found = re.match(rf"{re.escape(name)}-\d+\b", message)
    return found[0] if found else ""


def _seconds(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
