"""Tells the gateway pods of the replicas, in the name of the present term of the lease."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ..api import names
from ..cluster import Cache
from ..cluster.resources import DEPLOYMENTS
from ..manifests.keys import Keys
from ..rounds.reading import Subject
from ..telemetry.gateway import Worker
from .gateway import GatewayRound, feed, gateway_pods
from .inventory import Inventory
from .ports import Gateways
from .queue import Key

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Term:
    """The lease's number of the present term, and the way to raise it above one that the gateways have seen: only who
    really holds the lease can."""

    epoch: Callable[[], int]
    advance: Callable[[int], Awaitable[int]]


class GatewayFeeder:
    """Feeds the gateways of any R1Deployment. Without a term, as in tests, no list is older than another."""

    def __init__(
        self,
        cache: Cache,
        inventory: Inventory,
        gateways: Gateways,
        keys: Keys,
        term: Term | None = None,
    ) -> None:
        self._cache, self._inventory, self._gateways, self._term = cache, inventory, gateways, term
        self._keys = keys

    def epoch(self) -> int | None:
        """Of the present term."""
        return self._term.epoch() if self._term is not None else None

    async def feed(
        self, key: Key, subject: Subject, workers: frozenset[str], retry_after: int | None = None
    ) -> GatewayRound:
        """Tell every running gateway pod of exactly these replicas, and when one is ready where they may sleep."""
        deployment = self._cache.get(DEPLOYMENTS, key[0], names.gateway_name(key[1]))
        found = self._inventory.pods(key, names.COMPONENT_GATEWAY)
        uid = subject.metadata.uid
        pods, token = gateway_pods(found, deployment, uid), self._keys.gateway(uid)
        wanted = frozenset(map(Worker, workers))
        fed = await feed(self._gateways, pods, wanted, token, self.epoch(), retry_after)
        if fed.newer_epoch is not None and self._term is not None:
            # The lease was made anew, and its count with it. Raising it proves that we still lead.
            log.warning("%s/%s: the gateways have seen term %d", *key, fed.newer_epoch)
            await self._term.advance(fed.newer_epoch)
            fed = await feed(self._gateways, pods, wanted, token, self.epoch(), retry_after)
        return fed
