"""Carries placements out: pin every pod of a gang to its node, then lift all gates.

One at a time for the whole operator, on a cache that knows our own writes: two gangs never want the same node. After a
crash half-way the next round finds the pins in the pods and completes them, or starts the gang anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from ..api import names
from ..api.pinning import pinned_affinity
from ..cluster import Cache, Client
from ..cluster.resources import NODES, PODS, JsonObject
from ..lifecycle.gangs import Gang
from ..placement.nodes import Node, nodes_of
from ..placement.place import Placement, Request, Shape, Unplaceable, place, room_for

log = logging.getLogger(__name__)


class Placer:
    """Places gated gangs of all R1Deployments."""

    def __init__(self, client: Client, cache: Cache) -> None:
        self._client, self._cache = client, cache
        self._turn = asyncio.Lock()

    def room(self, shape: Shape) -> int:
        """Gangs of this shape that the free nodes could take now, gated ones included."""
        return room_for(shape, self._nodes(frozenset()))

    async def place(self, namespace: str, gangs: Sequence[Gang], shape: Shape) -> tuple[Placement | Unplaceable, ...]:
        """Place what fits, all of a gang or nothing of it. Raises ApiError; then the next round goes on from there."""
        if not gangs:
            return ()
        async with self._turn:
            requests = [Request(g.name, shape, {m.index: m.pinned for m in g.members if m.pinned}) for g in gangs]
            results = place(requests, self._nodes(frozenset((namespace, g.name) for g in gangs)))
            for gang, result in zip(gangs, results, strict=True):
                if isinstance(result, Placement):
                    await self._carry_out(namespace, gang, result)
            return results

    def _nodes(self, without: frozenset[tuple[str, str]]) -> tuple[Node, ...]:
        """Nodes with what is used, not counting pods of the gangs in `without` (their pins speak for them).

        `without`: namespace and name; gangs of two namespaces may well have the same name.
        """
        pods = [pod for pod in self._cache.snapshot(PODS) if _gang_of(pod) not in without]
        return nodes_of(self._cache.snapshot(NODES), pods)

    async def _carry_out(self, namespace: str, gang: Gang, placement: Placement) -> None:
        unpinned = [(m.name, m.uid, placement.nodes[m.index]) for m in gang.members if m.pinned is None]
        gated = [(m.name, m.uid) for m in gang.members if m.gated]
        await self._together([self._pin(namespace, *pod) for pod in unpinned])
        await self._together([self._lift(namespace, *pod) for pod in gated])
        log.info("placed %s/%s on %s", namespace, gang.name, ", ".join(placement.nodes))

    async def _together(self, calls: Sequence[Any]) -> None:
        results = await asyncio.gather(*calls, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _pin(self, namespace: str, pod: str, uid: str, node: str) -> None:
        operations: list[JsonObject] = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "add", "path": "/spec/affinity", "value": pinned_affinity(node)},
        ]
        self._cache.remember(await self._client.patch_json(PODS, namespace, pod, operations))

    async def _lift(self, namespace: str, pod: str, uid: str) -> None:
        live = self._cache.get(PODS, namespace, pod)
        gates = (live or {}).get("spec", {}).get("schedulingGates") or []
        positions = [i for i, gate in enumerate(gates) if gate["name"] == names.SCHEDULING_GATE]
        if not positions:
            return
        path = f"/spec/schedulingGates/{positions[0]}"
        operations = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "test", "path": f"{path}/name", "value": names.SCHEDULING_GATE},
            {"op": "remove", "path": path},
        ]
        self._cache.remember(await self._client.patch_json(PODS, namespace, pod, operations))


def _gang_of(pod: JsonObject) -> tuple[str, str | None]:
    metadata = pod["metadata"]
    return metadata.get("namespace", ""), (metadata.get("labels") or {}).get(names.LABEL_GANG)
