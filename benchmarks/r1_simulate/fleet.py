"""Replicas that come and go under a stream of requests: the clock of the simulation. Who decides on their number is
somebody else; see controllers.py."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from .replica import NEVER, Replica
from .requests import Requests
from .speed import Speed

TICK_SECONDS: Final = 10.0
"""How often the engines' loads are read; controllers are asked every so many ticks."""
_LAST_SECONDS: Final = 3600.0
"""For what is in flight when a run is over."""


@dataclass(frozen=True, slots=True)
class Start:
    """How long a replica takes from its nodes to its first request: `seconds`, spread log-normally by `sigma`."""

    seconds: float = 600.0
    sigma: float = 0.1

    def draw(self, rng: random.Random) -> float:
        return self.seconds * rng.lognormvariate(0.0, self.sigma)


@dataclass(slots=True)
class Machine:
    """One replica's nodes, from the moment they are held until they are given back. `ready_at`: when it serves."""

    name: str
    held_at: float
    ready_at: float
    engine: Replica | None = None
    draining_since: float | None = None
    freed_at: float | None = None

    @property
    def serves(self) -> bool:
        return self.engine is not None and self.draining_since is None


class Controller(Protocol):
    """Decides how many replicas there are, by starting, draining and killing machines of the fleet."""

    every_seconds: float

    def control(self, fleet: Fleet) -> None: ...


@dataclass(slots=True)
class Fleet:
    """`machines`: those that hold nodes now. `past`: those that held some. `refused`: requests that met no replica."""

    speed: Speed
    requests: Requests
    controller: Controller
    start: Start = Start()
    drain_seconds: float = 1200.0
    patience: float = NEVER
    tick_seconds: float = TICK_SECONDS
    seed: int = 0
    faults: Callable[[Fleet], None] | None = None
    """Called at each tick: what breaks on its own."""
    now: float = 0.0
    machines: dict[str, Machine] = field(default_factory=dict)
    past: list[Machine] = field(default_factory=list)
    refused: int = 0
    lost: int = 0
    arrived: int = 0
    rng: random.Random = field(default_factory=random.Random)
    _serving: list[Replica] = field(default_factory=list)
    _engines: list[Replica] = field(default_factory=list)
    _counter: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(f"fleet-{self.seed}")

    # --- what controllers do -------------------------------------------------------------------------------------
    def begin(self, name: str | None = None, took: float | None = None) -> Machine:
        """Take nodes for one more replica; it serves when its start is over. `took` 0: it serves at once."""
        self._counter += 1
        ready = self.now + (self.start.draw(self.rng) if took is None else took)
        machine = Machine(name or f"m{self._counter}", self.now, ready)
        self.machines[machine.name] = machine
        if took == 0:
            self._bring_up(machine)
        return machine

    def drain(self, machine: Machine) -> None:
        """Out of the rotation; its nodes are free when its last request has ended, at once where it never served."""
        if machine.engine is None:
            self._free(machine)
        elif machine.draining_since is None:
            machine.draining_since = self.now
            self._arrange()

    def kill(self, machine: Machine) -> None:
        """Its requests are lost with it."""
        if machine.engine is not None:
            self.lost += len(machine.engine.in_flight)
        self._free(machine)

    def serving(self) -> list[Machine]:
        return [m for m in self.machines.values() if m.serves]

    # --- time ----------------------------------------------------------------------------------------------------
    def run(self, end: float) -> None:
        """Until a time, with the controller asked and the machines looked at on the way."""
        at, count = self.requests.at, len(self.requests)
        tick, control = self.now, self.now
        while self.now < end or (self.arrived < count and at[self.arrived] < end):
            if self.now >= control:
                self.controller.control(self)
                control = self.now + self.controller.every_seconds
            tick += self.tick_seconds
            self._until(min(tick, end))
            self.look()
        self._until(end)

    def play(self, until: float) -> None:
        """Until a time; then what is in flight ends, and nothing is decided any more."""
        self.run(until)
        self._until(self.now + _LAST_SECONDS)

    def look(self) -> None:
        """Starts that are over, drains that have ended, faults."""
        for machine in list(self.machines.values()):
            if machine.engine is None and self.now >= machine.ready_at:
                self._bring_up(machine)
            elif machine.draining_since is not None and machine.engine is not None:
                if machine.engine.load == 0:
                    self._free(machine)
                elif self.now - machine.draining_since > self.drain_seconds:
                    self.kill(machine)
        if self.faults is not None:
            self.faults(self)

    def _until(self, end: float) -> None:
        """All events up to a time. The loop of the simulation: every name in it is a local one."""
        at, count, arrived = self.requests.at, len(self.requests), self.arrived
        engines, serving = self._engines, self._serving
        due = [engine.next_at for engine in engines]
        index = {id(engine): number for number, engine in enumerate(engines)}
        soonest = min(due, default=NEVER)
        coming = at[arrived] if arrived < count else NEVER
        while True:
            if coming <= soonest:
                if coming > end:
                    break
                if serving:
                    engine = min(serving, key=_load)
                    engine.arrive(arrived, coming)
                    due[index[id(engine)]] = engine.next_at
                    soonest = min(due)
                else:
                    self.refused += 1
                arrived += 1
                coming = at[arrived] if arrived < count else NEVER
            else:
                if soonest > end:
                    break
                number = due.index(soonest)
                engine = engines[number]
                engine.happen(soonest)
                due[number] = engine.next_at
                soonest = min(due)
        self.arrived, self.now = arrived, end

    def _bring_up(self, machine: Machine) -> None:
        machine.engine = Replica(self.speed, self.requests, self.now, self.patience)
        self._arrange()

    def _free(self, machine: Machine) -> None:
        machine.freed_at = self.now
        del self.machines[machine.name]
        self.past.append(machine)
        self._arrange()

    def _arrange(self) -> None:
        self._engines = [m.engine for m in self.machines.values() if m.engine is not None]
        self._serving = [m.engine for m in self.machines.values() if m.engine is not None and m.draining_since is None]

    # --- what it cost --------------------------------------------------------------------------------------------
    def replica_hours(self, since: float = 0.0, until: float | None = None) -> float:
        """Hours for which replicas held nodes: starts and drains included."""
        end = self.now if until is None else until
        held = 0.0
        for machine in (*self.past, *self.machines.values()):
            freed = end if machine.freed_at is None else min(machine.freed_at, end)
            held += max(0.0, freed - max(machine.held_at, since))
        return held / 3600


def _load(engine: Replica) -> int:
    return engine.load
