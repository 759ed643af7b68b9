"""List and watch one kind of object and keep a copy that is at most moments old.

The library's own watch returns a broken line as a string, retries a 410 with the same version and reconnects without a
pause, so this one is ours: list, then watch from that version with bookmarks; after a cut, go on from the last version
seen; after a 410, list again; wait longer, with jitter, each time in a row that it fails.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable
from typing import Any

from r1_operator.cluster.client import Client
from r1_operator.cluster.clock import boot_seconds
from r1_operator.cluster.errors import ApiError, error_from_answer
from r1_operator.cluster.resources import Resource
from r1_operator.cluster.store import Change, Store
from r1_operator.cluster.trim import Trim, trim_bookkeeping

log = logging.getLogger(__name__)

# The server ends each watch after this many seconds, at random within the span so that not all come back at once
# (client-go: 5 to 10 min).
_WATCH_SECONDS = (300, 600)
# A bookmark comes about once a minute even when nothing changes; a watch that is silent for longer is dead.
_SILENCE_SECONDS = 150.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 30.0


class Informer:
    """The copy of one kind, possibly narrowed by namespace and selectors. `run` fills it until it is cancelled."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        *,
        namespace: str | None = None,
        labels: str | None = None,
        fields: str | None = None,
        trim: Trim = trim_bookkeeping,
        on_change: Callable[[Change], None] = lambda change: None,
        silence_seconds: float = _SILENCE_SECONDS,
    ) -> None:
        self.resource = resource
        self.synced = asyncio.Event()
        self.last_contact = float("-inf")
        """`boot_seconds()` when the API server last said anything about this kind: a list, an event or a bookmark."""
        self.store = Store(resource, trim, on_change)
        self.objects = self.store.objects
        self._client = client
        self.namespace = namespace if resource.namespaced else None
        self._labels, self._fields = labels, fields
        self._silence_seconds = silence_seconds
        self._version: str | None = None
        self._progress = False

    async def run(self) -> None:
        """List and watch for ever."""
        pause = _FIRST_PAUSE
        while True:
            self._progress, asked_to_wait = False, 0.0
            try:
                if self._version is None:
                    await self._list()
                await self._watch()
            except ApiError as error:
                self._note_failure(error)
                asked_to_wait = error.retry_after or 0.0
            if self._progress:
                pause = _FIRST_PAUSE
            # Also after a watch that simply ended: a server that keeps ending them at once must not be hammered.
            await asyncio.sleep(max(pause * random.uniform(0.5, 1.5), min(asked_to_wait, _LONGEST_PAUSE)))
            pause = _FIRST_PAUSE if self._progress else min(pause * 2, _LONGEST_PAUSE)

    def put(self, obj: dict[str, Any]) -> None:
        """Take over an object as a write of our own returned it, unless the copy is newer already."""
        self.store.put(obj)

    async def _list(self) -> None:
        listing = await self._client.list(self.resource, self.namespace, labels=self._labels, fields=self._fields)
        self.store.replace(listing.items, int(listing.resource_version or 0))
        self._version = listing.resource_version
        self._touch()
        self.synced.set()

    async def _watch(self) -> None:
        query = {
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(random.randint(*_WATCH_SECONDS)),
            "labelSelector": self._labels,
            "fieldSelector": self._fields,
        }
        async with self._client.open_watch(
            self.resource, self.namespace, query, silence_seconds=self._silence_seconds
        ) as lines:
            # That it was opened says nothing yet about what happened since the last one: no contact before a line.
            async for line in lines:
                self._handle(line)
                self._touch()

    def _handle(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            kind, obj = event["type"], event["object"]
        except (ValueError, KeyError, TypeError) as error:
            raise ApiError(0, "BadAnswer", f"watch of {self.resource.plural}: not an event: {line[:100]!r}") from error
        if kind == "ERROR":
            raise error_from_answer(int(obj.get("code") or 500), json.dumps(obj).encode())
        self.store.hear(kind, obj)
        self._version = obj["metadata"]["resourceVersion"]

    def _touch(self) -> None:
        self.last_contact = boot_seconds()
        self._progress = True

    def _note_failure(self, error: ApiError) -> None:
        if not error.transient or error.reason == "Expired":
            # 410: the version is too old. Others (403, 404 while the CRD is not there yet) may come back anywhere.
            self._version = None
        level = logging.INFO if error.transient or error.expired else logging.WARNING
        log.log(level, "watching %s: %s", self.resource.plural, error)
