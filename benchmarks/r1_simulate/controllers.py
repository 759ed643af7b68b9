"""Who decides on the number of replicas: the operator itself on simulated pods and nodes, or plans made beforehand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from r1_operator.autoscaling.history import fold
from r1_operator.autoscaling.window import ReplicaLoad, Sample, trimmed

from .cluster import SimulatedCluster
from .fleet import TICK_SECONDS, Fleet, Machine

EPOCH: Final = 1_800_000_000.0
"""The operator's clock at the run's start, a whole ten minutes; a day later it is the same time of the trace's day."""
ROUND_SECONDS: Final = 30.0


@dataclass(slots=True)
class Schedule:
    """So many replicas at each moment, known beforehand. `wanted(seconds)` says how many are to serve; each is begun
    `lead_seconds` ahead."""

    wanted: Callable[[float], int]
    lead_seconds: float = 0.0
    every_seconds: float = TICK_SECONDS

    def control(self, fleet: Fleet) -> None:
        first = fleet.now == 0.0
        ahead = max(self.wanted(fleet.now), self.wanted(fleet.now + self.lead_seconds))
        adjust(fleet, self.wanted(0.0) if first else ahead, at_once=first)


def always(count: int) -> Callable[[float], int]:
    """For a `Schedule`: the same number at each moment."""
    return lambda _: count


def adjust(fleet: Fleet, wanted: int, *, at_once: bool = False) -> None:
    """Begin or drain machines until so many are there or coming. Those that start go first, then the least loaded."""
    there = [m for m in fleet.machines.values() if m.draining_since is None]
    for _ in range(wanted - len(there)):
        fleet.begin(took=0 if at_once else None)
    spare = sorted(there, key=lambda m: (m.engine is not None, m.engine.load if m.engine else -m.held_at))
    for machine in spare[: max(0, len(there) - wanted)]:
        fleet.drain(machine)


@dataclass(slots=True)
class Operator:
    """The operator's own mind, `rounds.decide`, on a cluster of values; what it does to pods is done to the fleet."""

    spec: dict[str, Any]
    nodes: int
    every_seconds: float = TICK_SECONDS
    round_seconds: float = ROUND_SECONDS
    hears: Callable[[Machine], bool] = lambda _: True
    """Whether a replica's load is read at this tick."""
    cluster: SimulatedCluster = field(init=False)
    said: list[tuple[float, int, str, str]] = field(default_factory=list)
    """Each change of the number of replicas: when, to what, the reason and its words."""
    trail: list[tuple[float, int, int, float, float, int]] = field(default_factory=list)
    """Each round: when, replicas that serve, that hold nodes, that are needed, up to how many by the forecast, and how
    many are wanted."""
    _round_at: float = 0.0
    _generated: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cluster = SimulatedCluster(self.spec, 0, now=EPOCH)
        for number in range(self.nodes):
            self.cluster.add_node(f"n{number}", "4Ti")

    def control(self, fleet: Fleet) -> None:
        cluster = self.cluster
        cluster.now = EPOCH + fleet.now
        if fleet.now == 0.0:
            self._settle(fleet)
        self._see(fleet)
        self._sample(fleet)
        if fleet.now >= self._round_at:
            self._round_at = fleet.now + self.round_seconds
            self._decide(fleet)

    def _settle(self, fleet: Fleet) -> None:
        """What the spec asks for serves already when the run begins."""
        for _ in range(8):
            self.cluster.reconcile()
            self.cluster.advance(3.0)
        for gang in self.cluster.serving():
            fleet.begin(gang, took=0)

    def _see(self, fleet: Fleet) -> None:
        """What became of the fleet, as kubelets would tell it."""
        pods, machines = self.cluster.machines, fleet.machines
        ended = {machine.name for machine in fleet.past}
        for gang in pods.gangs():
            bound = all(pod["spec"].get("nodeName") for pod in pods.of(gang))
            leaves = any("deletionTimestamp" in pod["metadata"] for pod in pods.of(gang))
            if bound and gang not in machines and not leaves and gang not in ended:
                fleet.begin(gang)
                pods.starting.add(gang)
            machine = machines.get(gang)
            if machine is not None and machine.serves and gang in pods.starting:
                pods.starting.discard(gang)
                self.cluster.start_seconds = fleet.now - machine.held_at
            if machine is not None and leaves:
                fleet.drain(machine)
            if gang not in machines and bound:
                self._gone(gang, leaves)
        left = set(pods.gangs())
        for name in [name for name in machines if name not in left]:
            fleet.drain(machines[name])
        pods.advance(self.cluster.now)

    def _gone(self, gang: str, leaves: bool) -> None:
        pods = self.cluster.machines
        if leaves:
            for pod in pods.of(gang):
                del pods.pods[pod["metadata"]["name"]]
        else:
            pods.end(gang, 70, self.cluster.now, range(99))

    def _sample(self, fleet: Fleet) -> None:
        loads, silent = {}, 0
        for machine in fleet.serving():
            if self.hears(machine):
                loads[machine.name] = self._load(machine)
            else:
                silent += 1
        cluster = self.cluster
        cluster.loads = {name: load.running + load.waiting for name, load in loads.items()}
        cluster.window = trimmed((*cluster.window, Sample(cluster.now, tuple(loads.values()), silent)), cluster.now)
        cluster.minutes = fold(cluster.minutes, cluster.window, cluster.now)

    def _load(self, machine: Machine) -> ReplicaLoad:
        engine, name = machine.engine, machine.name
        assert engine is not None
        at, before = self._generated.get(name, (self.cluster.now - self.every_seconds, 0.0))
        self._generated[name] = (self.cluster.now, engine.generated)
        rate = (engine.generated - before) / max(1.0, self.cluster.now - at)
        return ReplicaLoad(
            engine.kv_usage, rate, engine.running, engine.waiting, engine.kv_usage, engine.ended, machine.name
        )

    def _decide(self, fleet: Fleet) -> None:
        before = self.cluster.status.desired_replicas
        round_ = self.cluster.reconcile()
        scaling = round_.scaling.decision
        if scaling is not None:
            upper = scaling.forecast.upper if scaling.forecast is not None else 0.0
            self.trail.append(
                (fleet.now, len(fleet.serving()), len(fleet.machines), scaling.need or 0.0, upper, scaling.desired)
            )
        said = self.said[-1][1] if self.said else before
        if scaling is not None and scaling.desired != said:
            self.said.append((fleet.now, scaling.desired, str(scaling.reason), scaling.message))
