"""Looks at the engines all the time, so that no reconcile ever waits for one. Keeps the load windows in memory."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from ..api import names
from ..autoscaling.history import Minute, fold
from ..autoscaling.window import ReplicaLoad, Sample, trimmed
from ..cluster import Cache
from ..cluster.resources import CONFIG_MAPS, JsonObject
from ..lifecycle.gangs import Gang, Heard
from ..lifecycle.pods import gangs_of, owner_of
from ..manifests.engine_config import attention_ranks
from ..rounds.facts import Served
from ..status.observation import FabricReport
from ..telemetry.server import Heartbeat
from .inventory import Inventory
from .ports import AgentReading, Engines
from .queue import Key
from .starts import Starts

log = logging.getLogger(__name__)

STAGES_SECONDS, STAGES_PER_SECOND = 0.5, 400
"""How often each gang is asked for its stage: one that has lost a rank must leave the rotation within 2 s, and its own
supervision takes up to one of them. Never more than so many requests a second: a large fleet is asked less often."""
SILENCE_SECONDS = 5.0
"""What an agent said holds for so long; one late answer of a busy node is no news."""
ASKED_AT_ONCE = 64
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


@dataclass(frozen=True, slots=True)
class _Spoken:
    """What an agent said last and when; `at` is when it was asked first, until it has said anything.

    `moved_at`: when its `progress_at` changed last, by our own clock: two hosts' clocks are not compared.
    """

    at: float
    reading: AgentReading | None = None
    moved_at: float | None = None


class Monitor:
    """Last reading of each gang, and a window of load samples of each R1Deployment."""

    def __init__(
        self,
        cache: Cache,
        inventory: Inventory,
        engines: Engines,
        notify: Callable[[Key], None],
        clock: Callable[[], float],
    ) -> None:
        self._cache, self._inventory, self._engines = cache, inventory, engines
        self._notify, self._clock = notify, clock
        self.heartbeat = Heartbeat(STALL_SECONDS)
        self._windows: dict[Key, tuple[Sample, ...]] = {}
        self._minutes: dict[Key, tuple[Minute, ...]] = {}
        self._loads: dict[Key, dict[str, ReplicaLoad]] = {}
        self._starts: dict[Key, Starts] = {}
        self._spoken: dict[str, _Spoken] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._told: dict[Key, dict[str, tuple[str, str, str]]] = {}
        self._heads: dict[Key, dict[str, str]] = {}
        self._gpus: dict[Key, dict[str, dict[str, tuple[str, ...]]]] = {}
        self._gate = asyncio.Semaphore(ASKED_AT_ONCE)

    # --- what the rounds read ----------------------------------------------------------------------------------------
    def heard(self, key: Key) -> Mapping[str, Heard]:
        """By gang name: what its node 0 said last, unless that is long ago."""
        now = self._clock()
        return {
            gang: Heard(spoken.reading.stage, spoken.reading.message, spoken.moved_at)
            for gang, address in self._heads.get(key, {}).items()
            if (spoken := self._spoken.get(address)) and spoken.reading and now - spoken.at < SILENCE_SECONDS
        }

    def silence(self, key: Key) -> Mapping[str, float]:
        """By gang name: seconds since its node 0 last said anything, or was asked first."""
        now = self._clock()
        return {
            gang: max(0.0, now - self._spoken[address].at)
            for gang, address in self._heads.get(key, {}).items()
            if address in self._spoken
        }

    def sick_gpus(self, key: Key) -> Mapping[str, tuple[str, ...]]:
        """By gang name: GPUs of any of its nodes that NVML calls unhealthy."""
        return {
            gang: tuple(f"{node}: {gpu}" for node, gpus in sorted(nodes.items()) for gpu in gpus)
            for gang, nodes in self._gpus.get(key, {}).items()
        }

    def fabrics(self, key: Key) -> Mapping[str, FabricReport]:
        """By gang name: what its node 0 said of the network between the nodes, which outlasts a silence."""
        return {
            gang: spoken.reading.fabric
            for gang, address in self._heads.get(key, {}).items()
            if (spoken := self._spoken.get(address)) and spoken.reading and spoken.reading.fabric
        }

    def served(self, key: Key) -> Mapping[str, Served]:
        """By gang name: requests since its start, by its own count."""
        return {
            gang: spoken.reading.served
            for gang, address in self._heads.get(key, {}).items()
            if (spoken := self._spoken.get(address)) and spoken.reading and spoken.reading.served
        }

    def window(self, key: Key) -> tuple[Sample, ...]:
        """Load samples, oldest first. Empty after a restart of the operator."""
        return self._windows.get(key, ())

    def minutes(self, key: Key) -> tuple[Minute, ...]:
        """The load minute by minute, oldest first."""
        return self._minutes.get(key, ())

    def loads(self, key: Key) -> Mapping[str, int]:
        """By gang name: requests running or waiting."""
        return {gang: load.running + load.waiting for gang, load in self._loads.get(key, {}).items()}

    def start_seconds(self, key: Key) -> float | None:
        """How long a start takes here, once it has nodes; None: none was seen."""
        return self._starts[key].seconds if key in self._starts else None

    def last_start(self, key: Key) -> Mapping[str, float]:
        """Seconds of the last one by stage; empty: none was seen."""
        return self._starts[key].last if key in self._starts else {}

    # --- looking -----------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Look again and again until cancelled, each kind by itself: a frozen engine holds up none of the others."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._again(self.look_at_stages, STAGES_SECONDS))
            group.create_task(self._again(self.look_at_loads, LOADS_SECONDS))
            group.create_task(self._again(self.look_at_gpus, GPUS_SECONDS))

    async def _again(self, look: Callable[[], Awaitable[int]], period: float) -> None:
        while True:
            began, asked = time.monotonic(), 0
            try:
                asked = await look()
            except Exception:
                log.exception("could not look at the engines")
            self.heartbeat.beat()
            await asyncio.sleep(max(0.0, max(period, asked / STAGES_PER_SECOND) - (time.monotonic() - began)))

    async def look_at_stages(self) -> int:
        """Ask node 0 of every gang for its stage, and wait for nobody beyond the period. → how many there are"""
        heads = self._heads_of_gangs()
        self._spoken = {address: self._spoken.get(address, _Spoken(self._clock())) for address in heads}
        for address in heads:
            if address not in self._asking:
                self._asking[address] = asyncio.create_task(self._ask(address))
        if self._asking:
            await asyncio.wait(self._asking.values(), timeout=STAGES_SECONDS)
        self._asking = {address: task for address, task in self._asking.items() if not task.done()}
        self._heads = {}
        self._starts = {key: self._starts[key] for key in self._inventory.deployments() if key in self._starts}
        for address, target in heads.items():
            self._heads.setdefault(target.key, {})[target.gang.name] = address
            reading = self._spoken[address].reading
            if reading is not None and reading.start and target.ready:
                self._starts.setdefault(target.key, Starts()).add(target.gang, reading.start)
        self._tell()
        return len(heads)

    async def _ask(self, address: str) -> None:
        async with self._gate:
            reading = (await self._engines.readings([address])).get(address)
        if isinstance(reading, AgentReading) and address in self._spoken:
            self._spoken[address] = _after(self._spoken[address], reading, self._clock())

    def _tell(self) -> None:
        """Wake those of whom something new was heard, or nothing any more."""
        told: dict[Key, dict[str, tuple[str, str, str]]] = {}
        for key in self._heads:
            fabrics = {gang: report.reason for gang, report in self.fabrics(key).items()}
            told[key] = {gang: (h.stage, h.message, fabrics.get(gang, "")) for gang, h in self.heard(key).items()}
        before, self._told = self._told, told
        for key in before.keys() | told.keys():
            if before.get(key, {}) != told.get(key, {}):
                self._notify(key)

    async def look_at_loads(self) -> int:
        """Ask node 0 of every ready gang for the load of all its ranks."""
        heads = self._heads_of_gangs()
        ranks = {address: self._ranks(target) for address, target in heads.items() if target.ready}
        loads = await self._engines.loads(ranks)
        self._take_loads(heads, {a: load for a, load in loads.items() if isinstance(load, ReplicaLoad)})
        return len(ranks)

    async def look_at_gpus(self) -> int:
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
        return len(pods)

    def _targets(self) -> list[_Target]:
        """Every gang there is."""
        targets: list[_Target] = []
        for key in self._inventory.deployments():
            by_owner: dict[str | None, list[JsonObject]] = defaultdict(list)
            for pod in self._inventory.pods(key, names.COMPONENT_ENGINE):
                by_owner[owner_of(pod)].append(pod)
            targets += [_Target(key, gang) for pods in by_owner.values() for gang in gangs_of(pods)]
        return targets

    def _heads_of_gangs(self) -> dict[str, _Target]:
        """Node 0 of each gang that runs, by address."""
        heads = ((target.gang.head, target) for target in self._targets())
        return {head.address: target for head, target in heads if head and head.address and head.phase == "Running"}

    def _ranks(self, target: _Target) -> int | None:
        """Attention-DP ranks of a gang, from its own configuration: during a roll, gangs differ."""
        (namespace, name), gang = target.key, target.gang
        return attention_ranks(
            self._cache.get(CONFIG_MAPS, namespace, names.engine_config_map(name, gang.replica, gang.attempt))
        )

    def _take_loads(self, targets: Mapping[str, _Target], loads: Mapping[str, ReplicaLoad]) -> None:
        now = self._clock()
        answered: dict[Key, dict[str, ReplicaLoad]] = defaultdict(dict)
        missing: dict[Key, int] = defaultdict(int)
        for address, target in targets.items():
            if target.ready and address in loads:
                answered[target.key][target.gang.name] = self._counted(loads[address], address, target.gang.name)
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
        self._minutes = {key: fold(self._minutes.get(key, ()), window, now) for key, window in windows.items()}

    def _counted(self, load: ReplicaLoad, address: str, name: str) -> ReplicaLoad:
        """With the requests that its gate has counted."""
        spoken = self._spoken.get(address)
        served = spoken.reading.served if spoken is not None and spoken.reading is not None else None
        return replace(load, name=name, ended=served.requests if served is not None else None)


def _after(before: _Spoken, reading: AgentReading, now: float) -> _Spoken:
    if reading.progress_at is None:
        return _Spoken(now, reading)
    same = before.reading is not None and before.reading.progress_at == reading.progress_at
    return _Spoken(now, reading, before.moved_at if same and before.moved_at is not None else now)
