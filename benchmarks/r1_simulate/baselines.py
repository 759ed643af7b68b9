"""What others would have done with the same fleet: Kubernetes' HPA by its own rules, KEDA, a planner like Dynamo's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from .controllers import adjust
from .fleet import Fleet, Machine
from .replica import Replica

_SYNC_SECONDS: Final = 20.0
"""The HPA looks every 15 s; the nearest multiple of the simulation's tick."""
_TOLERANCE: Final = 0.1
_STABILIZATION_SECONDS: Final = 300.0
_AT_ONCE: Final = 4
"""Its default policy upwards: as many again, or four pods, whichever is more, every 15 s."""


def kv_usage(engine: Replica) -> float:
    return engine.kv_usage


def waiting(engine: Replica) -> float:
    return float(engine.waiting)


@dataclass(slots=True)
class Stabilized:
    """The HPA's stabilization downwards: the highest of the last five minutes' wishes, each within the bounds."""

    least: int
    most: int
    _wishes: list[tuple[float, int]] = field(default_factory=list)

    def of(self, wish: int, now: float) -> tuple[int, int]:
        """→ this wish within the bounds, and the highest of late."""
        bounded = min(self.most, max(self.least, wish))
        self._wishes = [w for w in self._wishes if now - w[0] < _STABILIZATION_SECONDS] + [(now, bounded)]
        return bounded, max(w for _, w in self._wishes)


@dataclass(slots=True)
class Hpa:
    """A HorizontalPodAutoscaler on a mean per pod (`target`), with its defaults: pods that are not ready count as
    nothing upwards and are left out downwards; the highest of the last five minutes' wishes holds downwards."""

    metric: Callable[[Replica], float]
    target: float
    wishes: Stabilized
    first: int
    every_seconds: float = _SYNC_SECONDS

    def control(self, fleet: Fleet) -> None:
        if fleet.now == 0.0:
            adjust(fleet, self.first, at_once=True)
            return
        there = [m for m in fleet.machines.values() if m.draining_since is None]
        wish, held = self.wishes.of(self._wish(there), fleet.now)
        wanted = min(wish, len(there) + max(_AT_ONCE, len(there))) if wish > len(there) else min(held, len(there))
        adjust(fleet, wanted)

    def _wish(self, there: list[Machine]) -> int:
        values = [self.metric(m.engine) for m in there if m.engine is not None]
        if not values:
            return len(there)
        ratio = sum(values) / len(values) / self.target
        if abs(ratio - 1) <= _TOLERANCE:
            return len(there)
        if ratio > 1:
            with_all = sum(values) / len(there) / self.target
            return math.ceil(with_all * len(there)) if with_all > 1 + _TOLERANCE else len(there)
        return math.ceil(ratio * len(values)) + len(there) - len(values)


@dataclass(slots=True)
class Keda:
    """KEDA on the whole queue: an external metric, so `threshold` requests a replica whatever runs there now."""

    threshold: float
    wishes: Stabilized
    first: int
    every_seconds: float = _SYNC_SECONDS

    def control(self, fleet: Fleet) -> None:
        if fleet.now == 0.0:
            adjust(fleet, self.first, at_once=True)
            return
        queue = sum(m.engine.waiting for m in fleet.machines.values() if m.engine is not None)
        adjust(fleet, self.wishes.of(math.ceil(queue / self.threshold), fleet.now)[1])


@dataclass(slots=True)
class LoadPlanner:
    """After Dynamo's throughput planner: each interval the last one's load is taken for the next one's, divided by what
    profiling found a replica to carry (`tokens_per_second`), and the difference is begun or drained at once."""

    tokens_per_second: float
    least: int
    most: int
    first: int
    every_seconds: float = 180.0
    trend: bool = False
    """Take the change between the last two intervals to go on, as its regressing predictors do."""
    _arrived: dict[str, int] = field(default_factory=dict)
    _rates: list[float] = field(default_factory=list)

    def control(self, fleet: Fleet) -> None:
        if fleet.now == 0.0:
            adjust(fleet, self.first, at_once=True)
            return
        arrived, tokens, ended = 0, 0, 0
        for name, machine in fleet.machines.items():
            if machine.engine is not None:
                arrived += machine.engine.arrived - self._arrived.get(name, 0)
                tokens, ended = tokens + machine.engine.output_tokens, ended + machine.engine.ended
                self._arrived[name] = machine.engine.arrived
        length = tokens / ended if ended else 0.0
        self._rates = [*self._rates, arrived / self.every_seconds * length][-2:]
        rate = self._rates[-1]
        if self.trend and len(self._rates) == 2:
            rate = max(0.0, 2 * self._rates[-1] - self._rates[0])
        adjust(fleet, min(self.most, max(self.least, math.ceil(rate / self.tokens_per_second))))
