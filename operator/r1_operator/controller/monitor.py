"""Looks at the engines all the time, so that no reconcile ever waits for one. Keeps the load windows in memory."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..api import names
from ..autoscaling.window import ReplicaLoad, Sample, trimmed
from ..cluster import Cache
from ..cluster.resources import CONFIG_MAPS, PODS, JsonObject
from ..lifecycle.gangs import Gang
from ..lifecycle.pods import gangs_of
from ..manifests.engine_config import attention_ranks
from ..telemetry.server import Heartbeat
from .ports import AgentReading, Engines
from .queue import Key

log = logging.getLogger(__name__)

PERIOD_SECONDS = 2.0
STALL_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Target:
    key: Key
    gang: Gang

    @property
    def ready(self) -> bool:
        return not self.gang.missing and all(m.ready and not m.deleting for m in self.gang.members)


class Monitor:
    """Last reading of each gang, and a window of load samples of each R1Deployment."""

    def __init__(
        self, cache: Cache, engines: Engines, notify: Callable[[Key], None], clock: Callable[[], float]
    ) -> None:
        self._cache, self._engines, self._notify, self._clock = cache, engines, notify, clock
        self.heartbeat = Heartbeat(STALL_SECONDS)
        self._readings: dict[Key, dict[str, AgentReading]] = {}
        self._windows: dict[Key, tuple[Sample, ...]] = {}
        self._loads: dict[Key, dict[str, ReplicaLoad]] = {}
        self._starts: dict[Key, float] = {}

    def readings(self, key: Key) -> Mapping[str, AgentReading]:
        """By gang name: what its node 0 said within the last period."""
        return self._readings.get(key, {})

    def window(self, key: Key) -> tuple[Sample, ...]:
        """Load samples, oldest first. Empty after a restart of the operator."""
        return self._windows.get(key, ())

    def loads(self, key: Key) -> Mapping[str, int]:
        """By gang name: requests running or waiting."""
        return {gang: load.running + load.waiting for gang, load in self._loads.get(key, {}).items()}

    def start_seconds(self, key: Key) -> float | None:
        """How long the last start took, by the engine's own account."""
        return self._starts.get(key)

    async def run(self) -> None:
        """Look every PERIOD_SECONDS until cancelled."""
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("could not look at the engines")
            self.heartbeat.beat()
            await asyncio.sleep(PERIOD_SECONDS)

    async def look(self) -> None:
        """One look at every engine."""
        targets = self._targets()
        ranks = {address: self._ranks(target) for address, target in targets.items() if target.ready}
        readings, loads = await asyncio.gather(self._engines.readings(list(targets)), self._engines.loads(ranks))
        fresh: dict[Key, dict[str, AgentReading]] = defaultdict(dict)
        for address, reading in readings.items():
            if isinstance(reading, AgentReading):
                fresh[targets[address].key][targets[address].gang.name] = reading
        self._take_readings(fresh)
        self._take_loads(targets, {a: load for a, load in loads.items() if isinstance(load, ReplicaLoad)})

    def _targets(self) -> dict[str, _Target]:
        """Node 0 of each gang that runs, by address."""
        pods: dict[Key, list[JsonObject]] = defaultdict(list)
        ours = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_COMPONENT: names.COMPONENT_ENGINE}
        for pod in self._cache.snapshot(PODS, labels=ours):  # one pass for all: there may be many pods of others
            metadata = pod["metadata"]
            pods[metadata["namespace"], metadata["labels"].get(names.LABEL_INSTANCE, "")].append(pod)
        targets: dict[str, _Target] = {}
        for key, found in pods.items():
            for gang in gangs_of(found):
                head = gang.head
                if head is not None and head.address and head.phase == "Running":
                    targets[head.address] = _Target(key, gang)
        return targets

    def _ranks(self, target: _Target) -> int | None:
        """Attention-DP ranks of a gang, from its own configuration: during a roll, gangs differ."""
        (namespace, name), gang = target.key, target.gang
        return attention_ranks(
            self._cache.get(CONFIG_MAPS, namespace, names.engine_config_map(name, gang.replica, gang.attempt))
        )

    def _take_readings(self, fresh: dict[Key, dict[str, AgentReading]]) -> None:
        before, self._readings = self._readings, fresh
        for key in before.keys() | fresh.keys():
            old = {gang: (r.stage, r.message) for gang, r in before.get(key, {}).items()}
            new = {gang: (r.stage, r.message) for gang, r in fresh.get(key, {}).items()}
            if old != new:
                self._notify(key)
            for reading in fresh.get(key, {}).values():
                if reading.start_seconds is not None:
                    self._starts[key] = reading.start_seconds

    def _take_loads(self, targets: Mapping[str, _Target], loads: Mapping[str, ReplicaLoad]) -> None:
        now = self._clock()
        answered: dict[Key, dict[str, ReplicaLoad]] = defaultdict(dict)
        missing: dict[Key, int] = defaultdict(int)
        for address, target in targets.items():
            if target.ready and address in loads:
                answered[target.key][target.gang.name] = loads[address]
            elif target.ready:
                missing[target.key] += 1
        self._loads = answered
        windows: dict[Key, tuple[Sample, ...]] = {}
        for key in {target.key for target in targets.values()}:
            window = self._windows.get(key, ())
            if key in answered or key in missing:
                window = (*window, Sample(now, tuple(answered[key].values()), missing[key]))
            windows[key] = trimmed(window, now)
        self._windows = windows
