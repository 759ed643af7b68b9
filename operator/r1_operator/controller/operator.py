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
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    R1_DEPLOYMENTS,
    SECRETS,
    SERVICES,
)
from ..telemetry.metrics import Metrics
from .monitor import Monitor
from .ports import Engines, Gateways
from .queue import Key, WorkQueue
from .reading import Settings
from .reconcile import ReconcileFailed, Reconciler

log = logging.getLogger(__name__)

WORKERS = 4
STALL_SECONDS = 120.0
"""A reconcile that takes longer hangs: every call inside it has a shorter time-out."""

_OWNED = (PODS, SERVICES, CONFIG_MAPS, SECRETS, DEPLOYMENTS)


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
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cache, self._metrics = cache, metrics
        self._namespaces = frozenset(namespaces)
        self.queue = WorkQueue()
        self.monitor = Monitor(cache, engines, self._enqueue, clock)
        self._reconciler = Reconciler(client, cache, events, self.monitor, gateways, metrics, settings, clock)
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
            if change.resource == PODS and change.new is None:
                self._wake_unplaced()
        elif change.resource == NODES:
            for key in {*self._keys(), *self._keys_of_pods()}:
                self._enqueue(key)
        elif change.resource == PERSISTENT_VOLUME_CLAIMS:
            for key in self._keys():
                if key[0] == namespace:
                    self._enqueue(key)

    def _wake_unplaced(self) -> None:
        """Some pod went: room for those that wait, whoever's pod it was."""
        for deployment in self._cache.snapshot(R1_DEPLOYMENTS):
            replicas = (deployment.get("status") or {}).get("replicaStatuses") or []
            if any(replica.get("stage") == "Gated" for replica in replicas):
                self._enqueue((deployment["metadata"]["namespace"], deployment["metadata"]["name"]))

    def _keys(self) -> list[Key]:
        return [(d["metadata"]["namespace"], d["metadata"]["name"]) for d in self._cache.snapshot(R1_DEPLOYMENTS)]

    def _keys_of_pods(self) -> list[Key]:
        """Those whose pods are left although they are gone themselves."""
        pods = self._cache.snapshot(PODS, labels={names.LABEL_MANAGED_BY: names.MANAGED_BY})
        return [(p["metadata"]["namespace"], p["metadata"]["labels"].get(names.LABEL_INSTANCE, "")) for p in pods]

    def _enqueue(self, key: Key) -> None:
        if not self._namespaces or key[0] in self._namespaces:
            self.queue.add(key)
