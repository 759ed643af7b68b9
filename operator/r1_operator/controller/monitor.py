"""Looks at the engines all the time, so that no reconcile ever waits for one. Keeps the load windows in memory."""

from __future__ import annotations

import asyncio
import logging
import time
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

STAGES_SECONDS, STAGES_PER_SECOND = 0.5, 400
"""How often each gang is asked for its stage: one that has lost a rank must leave the rotation within 2 s, and its own
supervision takes up to one of them. Never more than so many requests a second: a large fleet is asked less often."""
SILENCE_SECONDS = 5.0
"""What an agent said holds for so long; one late answer of a busy node is no news."""
LOADS_SECONDS = 2.0
GPUS_SECONDS = 30.0
"""The agents ask NVML as often."""
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
        self._heard: dict[str, tuple[float, AgentReading]] = {}
        self._gpus: dict[Key, dict[str, dict[str, tuple[str, ...]]]] = {}

    def readings(self, key: Key) -> Mapping[str, AgentReading]:
        """By gang name: what its node 0 said last, unless that is long ago."""
        return self._readings.get(key, {})

    def sick_gpus(self, key: Key) -> Mapping[str, tuple[str, ...]]:
        """By gang name: GPUs of any of its nodes that NVML calls unhealthy."""
        return {
            gang: tuple(f"{node}: {gpu}" for node, gpus in sorted(nodes.items()) for gpu in gpus)
            for gang, nodes in self._gpus.get(key, {}).items()
        }

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
        """Look again and again until cancelled."""
        loads = gpus = float("-inf")
        while True:
            began = time.monotonic()
            asked = 0
            try:
                asked = await self.look_at_stages()
                if began - loads >= LOADS_SECONDS:
                    loads = began
                    await self.look_at_loads()
                if began - gpus >= GPUS_SECONDS:
                    gpus = began
                    await self.look_at_gpus()
            except Exception:
                log.exception("could not look at the engines")
            self.heartbeat.beat()
            period = max(STAGES_SECONDS, asked / STAGES_PER_SECOND)
            await asyncio.sleep(max(0.0, period - (time.monotonic() - began)))

    async def look_at_stages(self) -> int:
        """Ask node 0 of every gang for its stage. → how many there are"""
        heads = self._heads()
        readings = await self._engines.readings(list(heads))
        now = self._clock()
        heard, self._heard = self._heard, {}
        fresh: dict[Key, dict[str, AgentReading]] = defaultdict(dict)
        for address, target in heads.items():
            reading = readings.get(address)
            at, last = (now, reading) if isinstance(reading, AgentReading) else heard.get(address, (now, None))
            if last is not None and now - at < SILENCE_SECONDS:
                self._heard[address] = at, last
                fresh[target.key][target.gang.name] = last
        self._take_readings(fresh)
        return len(heads)

    async def look_at_loads(self) -> None:
        """Ask node 0 of every ready gang for the load of all its ranks."""
        heads = self._heads()
        ranks = {address: self._ranks(target) for address, target in heads.items() if target.ready}
        loads = await self._engines.loads(ranks)
        self._take_loads(heads, {a: load for a, load in loads.items() if isinstance(load, ReplicaLoad)})

    async def look_at_gpus(self) -> None:
        """Ask every pod of every gang for its GPUs' health; one that does not answer says nothing new."""
        pods = {
            member.address: (target, member.node or member.name)
            for target in self._targets()
            for member in target.gang.members
            if member.address and member.phase == "Running"
        }
        readings = await self._engines.readings(list(pods))
        before, self._gpus = self._gpus, {}
        for address, (target, node) in pods.items():
            reading, name = readings.get(address), target.gang.name
            known = before.get(target.key, {}).get(name, {}).get(node, ())
            if sick := reading.sick_gpus if isinstance(reading, AgentReading) else known:
                self._gpus.setdefault(target.key, {}).setdefault(name, {})[node] = sick
        for key in before.keys() | self._gpus.keys():
            if before.get(key) != self._gpus.get(key):
                self._notify(key)

    def _targets(self) -> list[_Target]:
        """Every gang there is."""
        pods: dict[Key, list[JsonObject]] = defaultdict(list)
        ours = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_COMPONENT: names.COMPONENT_ENGINE}
        for pod in self._cache.snapshot(PODS, labels=ours):  # one pass for all: there may be many pods of others
            metadata = pod["metadata"]
            pods[metadata["namespace"], metadata["labels"].get(names.LABEL_INSTANCE, "")].append(pod)
        return [_Target(key, gang) for key, found in pods.items() for gang in gangs_of(found)]

    def _heads(self) -> dict[str, _Target]:
        """Node 0 of each gang that runs, by address."""
        heads = ((target.gang.head, target) for target in self._targets())
        return {head.address: target for head, target in heads if head and head.address and head.phase == "Running"}

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
