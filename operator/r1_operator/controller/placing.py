"""Placement as one queue for the whole operator: a tick places all gangs that wait, by priority and age, where it fits.

One tick at a time, on a cache that knows our own writes: two gangs never want the same node. To carry one out: pin
every pod of the gang to its node, then lift all gates. After a crash half-way the next tick finds the pins in the pods
and completes them, or says that they are broken, and the gang is started anew.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..api import names
from ..api.pinning import pinned_affinity
from ..cluster import ApiError, Cache, Client
from ..cluster.resources import PODS, JsonObject
from ..lifecycle.gangs import Gang
from ..lifecycle.pods import gangs_of
from ..placement.nodes import Node, holder_of, pod_requests
from ..placement.place import Placement, Request, Shape, Unplaceable, place
from ..rounds.decide import Waiting
from .inventory import Inventory
from .queue import Key

log = logging.getLogger(__name__)

DEBOUNCE_SECONDS = 0.2
"""What comes together is placed together: the order of the queue counts, not that of the events."""
RETRY_SECONDS = 2.0
RESERVE_SECONDS = 300.0
"""After so long the free nodes of its domain are kept for the first gang of the queue: small ones behind it would take
one after the other, and it would never find enough at once."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """One gang in the queue. `pods`: uids of its pods; others may carry its labels. `since`: when they were created.
    `priority`: of its pods, by their priority class as the API server resolved it. `missed`, `on_trial`: see `Waiting`.
    """

    key: Key
    gang: str
    shape: Shape
    pods: frozenset[str]
    since: float
    priority: int = 0
    missed: bool = True
    on_trial: bool = False


class Placer:
    """The queue of all R1Deployments' gangs that want nodes, and what the last tick said of each."""

    def __init__(
        self,
        client: Client,
        cache: Cache,
        inventory: Inventory,
        notify: Callable[[Key], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._client, self._cache, self._inventory, self._notify = client, cache, inventory, notify
        self._queue: dict[tuple[str, str], _Entry] = {}
        self._verdicts: dict[tuple[str, str], Unplaceable] = {}
        self._dirty = asyncio.Event()

    # --- what the rounds say and ask ---------------------------------------------------------------------------------
    def submit(self, key: Key, waiting: Sequence[Waiting]) -> None:
        """These gangs of one R1Deployment want nodes; whatever else of it was in the queue does not any more."""
        wanted = {(key[0], each.gang.name): self._entry(key, each) for each in waiting}
        kept = {place: entry for place, entry in self._queue.items() if entry.key != key}
        before = {place: entry for place, entry in self._queue.items() if entry.key == key}
        self._queue = kept | wanted
        self._verdicts = {p: verdict for p, verdict in self._verdicts.items() if p in self._queue}
        if wanted.keys() - before.keys() or any(before[p] != wanted[p] for p in wanted.keys() & before.keys()):
            self.wake()

    def verdicts(self, key: Key) -> Mapping[str, Unplaceable]:
        """By gang name: why it waits."""
        return {
            gang: verdict
            for (namespace, gang), verdict in self._verdicts.items()
            if namespace == key[0] and self._queue[namespace, gang].key == key
        }

    def ahead_of(self, key: Key) -> tuple[Request, ...]:
        """Gangs of the other R1Deployments that wait, in their order, up to the first of this one: if all counted as
        ahead, two that roll on full nodes would wait for each other for ever."""
        before = itertools.takewhile(lambda entry: entry.key != key, self._in_order())
        return tuple(Request(e.gang, e.shape, reserves=self._reserves(e)) for e in before)

    def wake(self) -> None:
        """Something that placement reads has changed."""
        if self._queue:
            self._dirty.set()

    # --- the ticks ---------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Place whenever something has changed, until cancelled."""
        while True:
            await self._dirty.wait()
            await asyncio.sleep(DEBOUNCE_SECONDS)
            self._dirty.clear()
            try:
                await self.tick()
            except ApiError as error:
                log.warning("placing: %s; again in %.0f s", error, RETRY_SECONDS)
                asyncio.get_running_loop().call_later(RETRY_SECONDS, self.wake)
            except Exception:
                log.exception("placing: again in %.0f s", RETRY_SECONDS)
                asyncio.get_running_loop().call_later(RETRY_SECONDS, self.wake)

    async def tick(self) -> None:
        """Place what fits of all that waits, all of a gang or nothing of it.

        Raises ApiError of the first gang that could not be carried out; the others have been by then.
        """
        waiting = [(entry, gang) for entry in self._in_order() if (gang := self._still_waits(entry)) is not None]
        requests = [
            Request(f"{e.key[0]}/{g.name}", self._as_admitted(e), _pins(g), self._reserves(e)) for e, g in waiting
        ]
        results = place(requests, self._nodes_without([entry for entry, _ in waiting]))
        errors: list[ApiError] = []
        for (entry, gang), result in zip(waiting, results, strict=True):
            where = (entry.key[0], gang.name)
            if isinstance(result, Unplaceable):
                verdict = Unplaceable(gang.name, result.message, result.broken_pins)
                if self._verdicts.get(where) != verdict:
                    self._verdicts[where] = verdict
                    self._notify(entry.key)
                continue
            self._verdicts.pop(where, None)
            try:
                await self._carry_out(entry.key[0], gang, result)
            except ApiError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _in_order(self) -> list[_Entry]:
        return sorted(self._queue.values(), key=lambda e: (-e.priority, e.on_trial, e.since, e.key, e.gang))

    def _reserves(self, entry: _Entry) -> bool:
        return entry.missed and self._clock() - entry.since >= RESERVE_SECONDS

    def _entry(self, key: Key, waiting: Waiting) -> _Entry:
        members = waiting.gang.members
        uids = frozenset(m.uid for m in members)
        pods = [pod for pod in self._inventory.pods(key, names.COMPONENT_ENGINE) if pod["metadata"]["uid"] in uids]
        priority = max((int(pod["spec"].get("priority") or 0) for pod in pods), default=0)
        since = min(m.created_at for m in members)
        name, shape = waiting.gang.name, waiting.shape
        return _Entry(key, name, shape, uids, since, priority, waiting.missed, waiting.on_trial)

    def _still_waits(self, entry: _Entry) -> Gang | None:
        """The gang as its pods are now, if it is whole, gated and not on its way out."""
        gang = next(iter(gangs_of(self._pods(entry))), None)
        if gang is None or gang.missing or any(m.deleting for m in gang.members):
            return None
        return gang if any(m.gated for m in gang.members) else None

    def _as_admitted(self, entry: _Entry) -> Shape:
        """What its pods ask for as the API server took them: webhooks and limit ranges add to what we render."""
        asked = dict(entry.shape.requests)
        for pod in self._pods(entry):
            for resource, amount in pod_requests(pod["spec"]).items():
                asked[resource] = max(asked.get(resource, amount), amount)
        return replace(entry.shape, requests=asked)

    def _pods(self, entry: _Entry) -> list[JsonObject]:
        pods = self._inventory.pods(entry.key, names.COMPONENT_ENGINE)
        return [pod for pod in pods if pod["metadata"]["uid"] in entry.pods]

    def _nodes_without(self, entries: Sequence[_Entry]) -> tuple[Node, ...]:
        """Nodes, not counting pods of the gangs that are placed: their pins speak for them."""
        nodes = {node.name: node for node in self._inventory.nodes()}
        for entry in entries:
            for pod in self._pods(entry):
                holder = holder_of(pod)
                if holder in nodes:
                    nodes[holder] = nodes[holder].without(pod_requests(pod["spec"]))
        return tuple(nodes.values())

    # --- carrying a placement out ------------------------------------------------------------------------------------
    async def _carry_out(self, namespace: str, gang: Gang, placement: Placement) -> None:
        unpinned = [(m.name, m.uid, placement.nodes[m.index]) for m in gang.members if m.pinned is None]
        gated = [(m.name, m.uid) for m in gang.members if m.gated]
        await _together([self._pin(namespace, *pod) for pod in unpinned])
        await _together([self._lift(namespace, *pod) for pod in gated])
        log.info("placed %s/%s on %s", namespace, gang.name, ", ".join(placement.nodes))

    async def _pin(self, namespace: str, pod: str, uid: str, node: str) -> None:
        live = self._cache.get(PODS, namespace, pod) or {}
        affinity = pinned_affinity(node, live.get("spec", {}).get("affinity"))
        operations: list[JsonObject] = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "add", "path": "/spec/affinity", "value": affinity},
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


def _pins(gang: Gang) -> dict[int, str]:
    return {m.index: m.pinned for m in gang.members if m.pinned}


async def _together(calls: Sequence[Awaitable[None]]) -> None:
    """Await all; raises the first failure once every call has ended."""
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
