"""The process: watches feed the queue, workers reconcile, the monitor looks at the engines."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection

from ..api import names
from ..cluster import Cache, Change, Client, Events
from ..cluster.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    NETWORK_POLICIES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    R1_DEPLOYMENTS,
    SERVICES,
)
from ..placement.nodes import holder_of
from ..rounds.reading import Settings
from ..telemetry.metrics import Metrics
from .acting import Actor
from .carry_out import Hands
from .clock import steady_clock
from .feeding import GatewayFeeder, Term
from .inventory import Inventory
from .memory import Memory
from .monitor import Monitor
from .node_book import NodeBook
from .observe import Observer
from .placing import Placer
from .ports import Engines, Gateways
from .questions import Questions
from .queue import Key, WorkQueue
from .reconcile import ReconcileFailed, Reconciler
from .tell import Teller

log = logging.getLogger(__name__)

WORKERS = 4
STALL_SECONDS = 120.0
"""A reconcile that takes longer hangs: every call inside it has a shorter time-out."""

_OWNED = (PODS, SERVICES, CONFIG_MAPS, DEPLOYMENTS, NETWORK_POLICIES, POD_DISRUPTION_BUDGETS)


class Operator:
    """All of it, for one leader. `run` ends only when it is cancelled or something breaks that must not."""

    def __init__(
        self,
        client: Client,
        cache: Cache,
        events: Events,
        engines: Engines,
        gateways: Gateways,
        metrics: Metrics,
        settings: Settings,
        *,
        namespaces: Collection[str] = (),
        own_namespace: str = "",
        clock: Callable[[], float] | None = None,
        term: Term | None = None,
    ) -> None:
        clock = clock or steady_clock()
        self._cache, self._metrics = cache, metrics
        self._namespaces = frozenset(namespaces)
        self.queue = WorkQueue()
        self._inventory = inventory = Inventory(cache, settings.node_conditions)
        self.monitor = Monitor(cache, inventory, engines, self._enqueue, clock)
        self._placer = placer = Placer(client, cache, inventory, self._enqueue, clock)
        self._book = book = NodeBook(client, own_namespace, placer.wake, clock)
        inventory.avoid = book.levels
        memory, actor = Memory(), Actor(client, cache)
        feeder = GatewayFeeder(cache, inventory, gateways, settings.keys, term)
        questions = Questions(engines, settings.keys, self._enqueue)
        observer = Observer(client, cache, inventory, self.monitor, placer, memory, settings, questions, feeder.epoch)
        hands = Hands(actor, feeder, placer, memory)
        teller = Teller(client, cache, events, metrics)
        self._reconciler = Reconciler(
            cache, inventory, observer, hands, teller, actor, self.monitor, book, questions, metrics, settings, clock
        )
        self._running: dict[Key, float] = {}
        self._leads = False
        cache.subscribe(self._on_change)

    async def run(self) -> None:
        """Reconcile until cancelled. The cache must be running; nothing is decided before it has synced."""
        await self._cache.wait_synced()
        for key in self._keys():
            self._enqueue(key)
        self.monitor.heartbeat.beat()
        self._leads = True
        async with asyncio.TaskGroup() as group:
            group.create_task(self.monitor.run(), name="monitor")
            group.create_task(self._placer.run(), name="placer")
            group.create_task(self._book.run(), name="nodes")
            for number in range(WORKERS):
                group.create_task(self._work(), name=f"reconcile-{number}")

    def alive(self) -> str | None:
        """What has stalled, or None: a reconcile that hangs, or the loop that looks at the engines."""
        now = time.monotonic()
        for key, since in self._running.items():
            if now - since > STALL_SECONDS:
                return f"the reconcile of {key[0]}/{key[1]} has not ended for {now - since:.0f} s"
        return self.monitor.heartbeat.check() if self._leads else None

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            started = self._running[key] = time.monotonic()
            outcome = "ok"
            try:
                again = await self._reconciler.reconcile(key)
                self.queue.forget(key)
                if again is not None:
                    self.queue.add_after(key, again)
            except ReconcileFailed as error:
                outcome = "error"
                log.warning("%s/%s: again in %.1f s: %s", *key, self.queue.retry(key), error)
            except Exception:
                outcome = "error"
                log.exception("%s/%s: again in %.1f s", *key, self.queue.retry(key))
            finally:
                del self._running[key]
                self.queue.done(key)
                self._metrics.observe_reconcile(key, outcome, time.monotonic() - started)

    # --- what wakes whom ---------------------------------------------------------------------------------------------
    def _on_change(self, change: Change) -> None:
        metadata = change.obj["metadata"]
        namespace = metadata.get("namespace") or ""
        if change.resource == R1_DEPLOYMENTS:
            self._enqueue((namespace, metadata["name"]))
        elif change.resource in _OWNED:
            labels = metadata.get("labels") or {}
            if labels.get(names.LABEL_MANAGED_BY) == names.MANAGED_BY and names.LABEL_INSTANCE in labels:
                self._enqueue((namespace, labels[names.LABEL_INSTANCE]))
            if change.resource == PODS and _frees_room(change):
                self._placer.wake()
        elif change.resource == NODES:
            self._placer.wake()
            for key in self._inventory.keys_on(metadata["name"]):
                self._enqueue(key)
        elif change.resource == PERSISTENT_VOLUME_CLAIMS:
            for key in self._keys():
                if key[0] == namespace:
                    self._enqueue(key)

    def _keys(self) -> list[Key]:
        """All R1Deployments, and those whose pods are left although they are gone themselves."""
        deployments = self._cache.snapshot(R1_DEPLOYMENTS)
        keys = [(d["metadata"]["namespace"], d["metadata"]["name"]) for d in deployments]
        return list(dict.fromkeys([*keys, *self._inventory.deployments()]))

    def _enqueue(self, key: Key) -> None:
        if not self._namespaces or key[0] in self._namespaces:
            self.queue.add(key)


def _frees_room(change: Change) -> bool:
    """Whether a node may have more room than before: whoever's pod it was, it has gone or is over."""
    return change.new is None or (change.old is not None and holder_of(change.old) != holder_of(change.new))
