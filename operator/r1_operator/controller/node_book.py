"""What is held against nodes, in a ConfigMap beside the operator, so that it outlives a leader and can be cleared.

`r1 nodes` reads it and takes entries away; we look at it again every few seconds, so that a cleared node is used again
at once. What nobody can write down is remembered by this process alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping

from ..api import names
from ..cluster import ApiError, Client
from ..cluster.resources import CONFIG_MAPS, JsonObject
from ..placement.blame import Blame, Held, faded, from_texts, held_against, levels, to_text

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0


class NodeBook:
    """`changed` is called when other nodes are to be avoided than before."""

    def __init__(self, client: Client, namespace: str, changed: Callable[[], None], clock: Callable[[], float]) -> None:
        self._client, self._namespace, self._changed, self._clock = client, namespace, changed, clock
        self._held: dict[str, Held] = {}
        self._early: list[Blame] | None = []
        """What was told before the first look: it adds to what stands there. None: nothing waits any more."""
        self._unwritten: set[str] = set()

    def levels(self) -> Mapping[str, int]:
        """By node: how much it is to be avoided now."""
        return levels(self._held, self._clock())

    def blame(self, blames: Collection[Blame]) -> None:
        """Hold these against their nodes; each counts once, however often it is told."""
        if self._early is not None:
            self._early += blames
            return
        for blame in blames:
            before = self._held.get(blame.node)
            after = held_against(before, blame, self._clock())
            if after != before:
                log.warning("node %s is avoided for a while: %s: %s", blame.node, blame.reason, blame.message)
                self._held[blame.node] = after
                self._unwritten.add(blame.node)
                self._changed()

    async def run(self) -> None:
        """Read and write until cancelled."""
        while True:
            try:
                await self.look()
            except ApiError as error:
                log.warning("ConfigMap %s/%s: %s", self._namespace, names.NODES_CONFIG_MAP, error)
            self._hear_what_waited()
            await asyncio.sleep(LOOK_SECONDS)

    def _hear_what_waited(self) -> None:
        early, self._early = self._early, None
        self.blame(early or ())

    async def look(self) -> None:
        """One look: what somebody has cleared is forgotten, what is new is written. Raises ApiError."""
        if not self._namespace:
            return
        live = await self._live()
        known = from_texts((live or {}).get("data") or {})
        mine = {node: held for node, held in self._held.items() if node in self._unwritten}
        kept = faded(known | mine, self._clock())
        if self._held != kept:
            self._held = kept
            self._changed()
        gone = {node: None for node in ((live or {}).get("data") or {}) if node not in kept}
        body = {"data": {**gone, **{node: to_text(kept[node]) for node in self._unwritten if node in kept}}}
        if not body["data"]:
            return
        if live is None:
            await self._client.create(_config_map(self._namespace, {k: v for k, v in body["data"].items() if v}))
        else:
            await self._client.patch_merge(CONFIG_MAPS, self._namespace, names.NODES_CONFIG_MAP, body)
        self._unwritten.clear()

    async def _live(self) -> JsonObject | None:
        try:
            return await self._client.get(CONFIG_MAPS, self._namespace, names.NODES_CONFIG_MAP)
        except ApiError as error:
            if error.not_found:
                return None
            raise


def _config_map(namespace: str, data: Mapping[str, str]) -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": names.NODES_CONFIG_MAP, "namespace": namespace},
        "data": dict(data),
    }
