"""Writes pods and what they need: makes gangs one after another, deletes pods, sweeps what no gang needs any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Collection, Iterable
from dataclasses import dataclass

from ..api import names
from ..cluster import ApiError, Cache, Client, resource_of
from ..cluster.resources import CONFIG_MAPS, PODS, JsonObject
from ..lifecycle.actions import CreateGang, EndPods
from ..lifecycle.pods import owned_by
from ..manifests.template import Loose, Template, gang_config_map, gang_pod
from ..rounds.children import child_of, owner_words
from ..rounds.facts import Child

_REPEAT_SECONDS = 10.0
"""A delete that the watch has not shown yet is not sent again before this."""
_TRIES = 3
"""For a name that comes and goes."""


@dataclass(slots=True)
class NameTaken(Exception):
    """An object of that name exists and is somebody else's."""

    child: Child
    whose: str

    def __str__(self) -> str:
        return f"{' '.join(self.child)} belongs to {self.whose}"


class GangRefused(Exception):
    """A pod of a gang was refused; what had been made of the gang is taken back."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(str(error))
        self.error = error


class Actor:
    """Writes pods, config maps and the other children."""

    def __init__(self, client: Client, cache: Cache) -> None:
        self._client, self._cache = client, cache
        self._deleted: dict[tuple[str, int | None], float] = {}

    # --- children --------------------------------------------------------------------------------------------------
    async def create(self, obj: JsonObject, uid: str) -> JsonObject:
        """Create it, or find that it exists and is ours. → the live object. Raises NameTaken, ApiError."""
        made = await self._made_or_found(obj)
        if not owned_by(made, uid):
            raise NameTaken(child_of(obj), owner_words(made))
        self._cache.remember(dict(made))
        return made

    async def _made_or_found(self, obj: JsonObject, tries: int = _TRIES) -> JsonObject:
        """A name that was in the way may be free by the time one looks whose it is: then it is tried again."""
        try:
            return await self._client.create(obj)
        except ApiError as error:
            if not error.already_exists:
                raise
        try:
            return await self._client.get(resource_of(obj), obj["metadata"]["namespace"], obj["metadata"]["name"])
        except ApiError as error:
            if not error.not_found or tries == 1:
                raise
        return await self._made_or_found(obj, tries - 1)

    async def create_unread(self, obj: JsonObject) -> None:
        """Create what may be there already and may not be read: its name says whose it is. Raises ApiError."""
        try:
            await self._client.create(obj)
        except ApiError as error:
            if not error.already_exists:
                raise

    async def create_or_apply(self, obj: JsonObject, uid: str) -> None:
        """Create it; where it exists and is ours although the cache does not show it, make it as it should be."""
        made = await self.create(obj, uid)
        if any(made["metadata"].get("labels", {}).get(k) != v for k, v in obj["metadata"]["labels"].items()):
            await self.apply(obj, made)

    async def apply(self, obj: JsonObject, live: JsonObject) -> None:
        """Bring a child of ours to what it should be; never one that was made anew by somebody in between."""
        self._cache.remember(await self._client.apply(obj, uid=live["metadata"]["uid"]))

    async def remove(self, live: JsonObject) -> None:
        """Delete a child of ours; never one that was made anew by somebody in between."""
        namespace, (name, uid) = live["metadata"]["namespace"], _name_and_uid(live)
        await self._client.delete(resource_of(live), namespace, name, uid=uid)

    # --- gangs -----------------------------------------------------------------------------------------------------
    async def create_gang(self, template: Template, uid: str, action: CreateGang, loose: Loose | None = None) -> None:
        """Config map first, then the pods, all gated. What exists already and is ours is left alone.

        Raises GangRefused when the API server does not want one of them: none of those just made is left then.
        Raises ApiError when it could not be asked: the next round completes the gang. Raises NameTaken.
        """
        try:
            await self._create_config(gang_config_map(template, action.replica, action.attempt, loose), uid)
        except ApiError as error:
            if error.refused:
                raise GangRefused(error) from error
            raise
        pods = [gang_pod(template, action.replica, action.attempt, node, loose) for node in action.members]
        results = await asyncio.gather(*(self.create(pod, uid) for pod in pods), return_exceptions=True)
        failures = [r for r in results if isinstance(r, BaseException)]
        refused = next((e for e in failures if isinstance(e, ApiError) and e.refused), None)
        if refused is not None:
            made = [r for r in results if not isinstance(r, BaseException)]
            calls = [self._delete(p["metadata"]["namespace"], *_name_and_uid(p), 0) for p in made]
            await asyncio.gather(*calls, return_exceptions=True)  # what stays is taken back by the next round
            raise GangRefused(refused)
        if failures:
            raise failures[0]

    async def _create_config(self, obj: JsonObject, uid: str) -> None:
        """One that is left of an earlier gang of this name must go first; the limits in it may be of another moment."""
        made = await self.create(obj, uid)
        if (made.get("data") or {}).get(names.ENGINE_CONFIG_KEY) != obj["data"][names.ENGINE_CONFIG_KEY]:
            namespace, (name, live_uid) = obj["metadata"]["namespace"], _name_and_uid(made)
            await self._client.delete(CONFIG_MAPS, namespace, name, uid=live_uid)
            await self.create(obj, uid)

    async def label(self, namespace: str, pod: str, labels: JsonObject) -> None:
        """Set labels of a running pod; None takes one away. One that has gone meanwhile needs none."""
        try:
            self._cache.remember(await self._client.patch_merge(PODS, namespace, pod, {"metadata": {"labels": labels}}))
        except ApiError as error:
            if not error.not_found:
                raise

    def end_pods(self, namespace: str, action: EndPods, drain_grace: int | None = None) -> list[Awaitable[object]]:
        """Deletes to send now. `drain_grace`: seconds for those that drain; None: what their pods say."""
        now = time.monotonic()
        self._deleted = {key: at for key, at in self._deleted.items() if now - at < _REPEAT_SECONDS}
        calls: list[Awaitable[object]] = []
        for pod in action.pods:
            grace = drain_grace if action.drains else action.grace_seconds
            key = (pod.uid, grace)
            if key not in self._deleted:
                self._deleted[key] = now
                calls.append(self._delete(namespace, pod.name, pod.uid, grace))
        return calls

    async def _delete(self, namespace: str, name: str, uid: str, grace_seconds: int | None) -> None:
        try:
            await self._client.delete(PODS, namespace, name, grace_seconds=grace_seconds, uid=uid)
        except ApiError as error:
            self._deleted.pop((uid, grace_seconds), None)
            if not error.conflict:  # another pod of that name: not the one we meant
                raise

    def sweep(
        self, maps: Iterable[JsonObject], uid: str, gangs: Collection[str], revisions: Collection[str]
    ) -> list[Awaitable[object]]:
        """Deletes of config maps of ours that belong to no gang and no revision of these."""
        calls: list[Awaitable[object]] = []
        for obj in maps:
            labels = obj["metadata"].get("labels") or {}
            gang, revision = labels.get(names.LABEL_GANG), labels.get(names.LABEL_REVISION)
            used = gang in gangs if gang is not None else revision is None or revision in revisions
            if not used and owned_by(obj, uid):
                namespace, (name, live_uid) = obj["metadata"]["namespace"], _name_and_uid(obj)
                calls.append(self._client.delete(CONFIG_MAPS, namespace, name, uid=live_uid))
        return calls


def _name_and_uid(obj: JsonObject) -> tuple[str, str]:
    return obj["metadata"]["name"], obj["metadata"]["uid"]
