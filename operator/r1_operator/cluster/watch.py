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
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from r1_operator.cluster.client import Client
from r1_operator.cluster.errors import ApiError, error_from_answer
from r1_operator.cluster.resources import JsonObject, Resource, key_of, version_of
from r1_operator.cluster.trim import Trim, trim_bookkeeping

log = logging.getLogger(__name__)

# The server ends each watch after this many seconds, at random within the span so that not all come back at once
# (client-go: 5 to 10 min).
_WATCH_SECONDS = (300, 600)
# A bookmark comes about once a minute even when nothing changes; a watch that is silent for longer is dead.
_SILENCE_SECONDS = 150.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 30.0


@dataclass(frozen=True, slots=True)
class Change:
    """One object that came, changed or went. `old` is None when it came, `new` is None when it went."""

    resource: Resource
    type: Literal["Added", "Modified", "Deleted"]
    old: JsonObject | None
    new: JsonObject | None

    @property
    def obj(self) -> JsonObject:
        """The object as it is now, or as it last was."""
        obj = self.new if self.new is not None else self.old
        assert obj is not None
        return obj


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
        """`time.monotonic()` when the API server last said anything about this kind."""
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self._client = client
        self.namespace = namespace if resource.namespaced else None
        self._labels, self._fields = labels, fields
        self._trim, self._on_change = trim, on_change
        self._silence_seconds = silence_seconds
        self._version: str | None = None
        self._progress = False

    async def run(self) -> None:
        """List and watch for ever."""
        pause = _FIRST_PAUSE
        while True:
            self._progress = False
            try:
                if self._version is None:
                    await self._list()
                await self._watch()
            except ApiError as error:
                self._note_failure(error)
            if self._progress:
                pause = _FIRST_PAUSE
            # Also after a watch that simply ended: a server that keeps ending them at once must not be hammered.
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = _FIRST_PAUSE if self._progress else min(pause * 2, _LONGEST_PAUSE)

    def put(self, obj: dict[str, Any]) -> None:
        """Take over an object as a write of our own returned it, unless the copy is newer already."""
        self._store(obj)

    async def _list(self) -> None:
        listing = await self._client.list(self.resource, self.namespace, labels=self._labels, fields=self._fields)
        listed = {key_of(item) for item in listing.items}
        for item in listing.items:
            self._store(item)
        for key, gone in list(self.objects.items()):
            # What we wrote after the list was made is newer than the list and stays.
            if key not in listed and version_of(gone) <= int(listing.resource_version or 0):
                self._drop(key)
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
            self.last_contact = time.monotonic()
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
        if kind == "DELETED":
            if version_of(self.objects.get(key_of(obj), {})) <= version_of(obj):
                self._drop(key_of(obj))
        elif kind != "BOOKMARK":
            self._store(obj)
        self._version = obj["metadata"]["resourceVersion"]

    def _store(self, obj: dict[str, Any]) -> None:
        key, new = key_of(obj), self._trim(obj)
        old = self.objects.get(key)
        if old is not None and version_of(old) >= version_of(new):
            return
        self.objects[key] = new
        if old is None:
            self._on_change(Change(self.resource, "Added", None, new))
        elif not _same_but_version(old, new):
            self._on_change(Change(self.resource, "Modified", old, new))

    def _drop(self, key: tuple[str, str]) -> None:
        old = self.objects.pop(key, None)
        if old is not None:
            self._on_change(Change(self.resource, "Deleted", old, None))

    def _touch(self) -> None:
        self.last_contact = time.monotonic()
        self._progress = True

    def _note_failure(self, error: ApiError) -> None:
        if not error.transient or error.reason == "Expired":
            # 410: the version is too old. Others (403, 404 while the CRD is not there yet) may come back anywhere.
            self._version = None
        level = logging.INFO if error.transient or error.expired else logging.WARNING
        log.log(level, "watching %s: %s", self.resource.plural, error)


def _same_but_version(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """True when nothing that we keep has changed: a heartbeat is no reason to reconcile."""
    old_metadata = {**old["metadata"], "resourceVersion": None}
    return old_metadata == {**new["metadata"], "resourceVersion": None} and {**old, "metadata": None} == {
        **new,
        "metadata": None,
    }
