"""Reconcile one R1Deployment: observe → decide → carry out → tell."""

from __future__ import annotations

from collections.abc import Callable

from ..api import names
from ..cluster import Cache
from ..cluster.resources import R1_DEPLOYMENTS
from ..lifecycle.actions import EndPods, PodRef, Why
from ..lifecycle.gangs import Gang
from ..lifecycle.pods import gangs_of
from ..rounds.decide import BUSY_SECONDS, SOON_SECONDS, decide, next_look
from ..rounds.reading import Settings
from ..telemetry.metrics import Metrics
from .acting import Actor
from .carry_out import Hands
from .inventory import Inventory
from .monitor import Monitor
from .node_book import NodeBook
from .observe import Observer
from .questions import Questions
from .queue import Key
from .steps import Steps
from .tell import Teller


class ReconcileFailed(Exception):
    """One or more steps failed; the status says which."""


class Reconciler:
    """Holds the means; each reconcile is independent of the others."""

    def __init__(
        self,
        cache: Cache,
        inventory: Inventory,
        observer: Observer,
        hands: Hands,
        teller: Teller,
        actor: Actor,
        monitor: Monitor,
        book: NodeBook,
        questions: Questions,
        metrics: Metrics,
        settings: Settings,
        clock: Callable[[], float],
    ) -> None:
        self._cache, self._inventory, self._clock, self._settings = cache, inventory, clock, settings
        self._observer, self._hands, self._teller, self._actor = observer, hands, teller, actor
        self._monitor, self._book, self._questions, self._metrics = monitor, book, questions, metrics

    async def reconcile(self, key: Key) -> float | None:
        """One round. → seconds until the next one if nothing happens. Raises ReconcileFailed in the end."""
        steps, now = Steps(f"{key[0]}/{key[1]}"), self._clock()
        obj = self._cache.get(R1_DEPLOYMENTS, *key)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            left = await self._sweep_after_deletion(key, steps, now)
            return _after(steps, BUSY_SECONDS if left else None)
        facts = await self._observer.observe(key, obj, now)
        if facts.predecessors:
            await self._teller.tell_of_predecessor(obj, facts, steps, now)
            return _after(steps, SOON_SECONDS)
        round_ = decide(facts, now)
        self._book.blame(round_.blames)
        self._questions.put(key, facts, round_)
        outcome = await self._hands.carry_out(key, facts, round_, steps, now)
        await self._teller.tell(obj, facts, round_, outcome, steps, now)
        self._hands.remember(key, round_)
        again = next_look(round_, outcome.gateway.routed, outcome.gateway.finding)
        return _after(steps, min(again, SOON_SECONDS) if outcome.again else again)

    async def _sweep_after_deletion(self, key: Key, steps: Steps, now: float) -> bool:
        """The garbage collector removes what is owned; where the kubelet is gone, we confirm. → whether any is left"""
        self._metrics.forget(key)
        self._hands.forget(key)
        self._questions.forget(key)
        gangs = gangs_of(self._inventory.pods(key, names.COMPONENT_ENGINE))
        silent = {
            node.name
            for node in self._inventory.nodes()
            if node.silent_since is not None and now - node.silent_since >= self._settings.node_lost_seconds
        }
        known = {node.name for node in self._inventory.nodes()}
        heard = self._monitor.heard(key)
        for gang in gangs:
            if gang.name in heard:
                continue  # it still finishes its requests
            lost = _lost(gang, silent, known)
            await steps.all(f"force {gang.name}", self._actor.end_pods(key[0], lost))
        return bool(gangs)


def _lost(gang: Gang, silent: set[str], known: set[str]) -> EndPods:
    """Pods on their way out whose kubelet will never confirm it."""
    members = [m for m in gang.members if m.deleting and m.node and (m.node in silent or m.node not in known)]
    return EndPods(gang.name, tuple(PodRef(m.name, m.uid) for m in members), 0, Why.LEAVING, "their node is lost")


def _after(steps: Steps, next_look: float | None) -> float | None:
    if steps.errors:
        raise ReconcileFailed("; ".join(steps.errors))
    return next_look
