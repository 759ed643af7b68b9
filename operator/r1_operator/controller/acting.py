"""Carries the lifecycle's actions out: creates gangs, deletes pods, sweeps what no gang needs any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterable, Sequence

from ..api import names
from ..cluster import ApiError, Cache, Client
from ..cluster.resources import CONFIG_MAPS, PODS, JsonObject
from ..lifecycle.actions import CreateGang, EndPods
from ..manifests.context import Context
from ..manifests.engine_config import engine_config_map
from ..manifests.engine_pod import engine_pod

_REPEAT_SECONDS = 10.0
"""A delete that the watch has not shown yet is not sent again before this."""


class Actor:
    """Writes pods and their config maps."""

    def __init__(self, client: Client, cache: Cache) -> None:
        self._client, self._cache = client, cache
        self._deleted: dict[tuple[str, int | None], float] = {}

    def create_gang(self, context: Context, revision: str, action: CreateGang) -> Awaitable[None]:
        """Config map first, then the pods, all gated. What exists already is left alone."""
        return self._create_gang(context, revision, action)

    async def _create_gang(self, context: Context, revision: str, action: CreateGang) -> None:
        await self.create(engine_config_map(context, action.replica, action.attempt))
        pods = [engine_pod(context, action.replica, action.attempt, node, revision) for node in action.members]
        results = await asyncio.gather(*(self.create(pod) for pod in pods), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def create(self, obj: JsonObject) -> None:
        """Create unless it exists. Raises ApiError otherwise."""
        try:
            self._cache.remember(await self._client.create(obj))
        except ApiError as error:
            if not error.already_exists:
                raise

    def end_pods(self, namespace: str, action: EndPods) -> list[Awaitable[object]]:
        """Deletes to send now."""
        now = time.monotonic()
        self._deleted = {key: at for key, at in self._deleted.items() if now - at < _REPEAT_SECONDS}
        calls: list[Awaitable[object]] = []
        for pod in action.pods:
            key = (pod.uid, action.grace_seconds)
            if key not in self._deleted:
                self._deleted[key] = now
                calls.append(self._delete(namespace, pod.name, pod.uid, action.grace_seconds))
        return calls

    async def _delete(self, namespace: str, name: str, uid: str, grace_seconds: int | None) -> None:
        try:
            await self._client.delete(PODS, namespace, name, grace_seconds=grace_seconds, uid=uid)
        except ApiError as error:
            self._deleted.pop((uid, grace_seconds), None)
            if not error.conflict:  # another pod of that name: not the one we meant
                raise

    def sweep(self, namespace: str, name: str, created: Iterable[str]) -> list[Awaitable[object]]:
        """Deletes of config maps whose gang has no pod any more, except those just `created`."""
        labels = names.base_labels(name, names.COMPONENT_ENGINE)
        keep = set(created)
        for pod in self._cache.snapshot(PODS, namespace, labels):
            keep.add(pod["metadata"]["labels"].get(names.LABEL_GANG, ""))
        maps: Sequence[JsonObject] = self._cache.snapshot(CONFIG_MAPS, namespace, labels)
        return [
            self._client.delete(CONFIG_MAPS, namespace, m["metadata"]["name"], uid=m["metadata"]["uid"])
            for m in maps
            if names.LABEL_GANG in m["metadata"]["labels"] and m["metadata"]["labels"][names.LABEL_GANG] not in keep
        ]
