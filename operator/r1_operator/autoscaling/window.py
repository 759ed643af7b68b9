"""Load samples of one R1Deployment and what a window of them says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

KEEP_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class ReplicaLoad:
    """Load of one ready replica, over all its ranks. KV use is the mean over the ranks, 0…1.

    `kv_usage_max`: the fullest rank's. `ended`: requests it has answered or failed since it started; None: not told.
    `name`: of its gang.
    """

    kv_usage: float
    tokens_per_second: float
    running: int
    waiting: int
    kv_usage_max: float | None = None
    ended: int | None = None
    name: str = ""

    @property
    def kv_pressure(self) -> float:
        """KV use as new requests meet it: where some wait, the fullest rank's, though others have room."""
        return self.kv_usage_max if self.waiting and self.kv_usage_max is not None else self.kv_usage


@dataclass(frozen=True, slots=True)
class Sample:
    """All ready replicas at one moment. `missing`: ready replicas that did not answer: neither idle nor full."""

    at: float
    replicas: tuple[ReplicaLoad, ...]
    missing: int = 0

    @property
    def complete(self) -> bool:
        return self.missing == 0 and bool(self.replicas)

    @property
    def ready(self) -> int:
        return len(self.replicas) + self.missing

    @property
    def whole(self) -> float:
        """By what sums are multiplied: the silent count as the mean of those that spoke."""
        return self.ready / len(self.replicas) if self.replicas else 1.0

    @property
    def kv_replicas(self) -> float:
        """KV cache in use, counted in whole replicas."""
        return sum(r.kv_usage for r in self.replicas)

    @property
    def kv_pressure(self) -> float:
        """KV cache in use as new requests meet it, in whole replicas, the silent ones' too."""
        return sum(r.kv_pressure for r in self.replicas) * self.whole

    @property
    def tokens_per_second(self) -> float:
        return sum(r.tokens_per_second for r in self.replicas)

    @property
    def running(self) -> int:
        return sum(r.running for r in self.replicas)

    @property
    def waiting(self) -> int:
        return sum(r.waiting for r in self.replicas)


def recent(window: Sequence[Sample], seconds: float, now: float) -> tuple[Sample, ...]:
    """Samples not older than `seconds`, oldest first; none from the future, which a clock that was set back makes."""
    return tuple(s for s in window if 0 <= now - s.at <= seconds)


def trimmed(window: Sequence[Sample], now: float) -> tuple[Sample, ...]:
    """The window without what no decision looks at any more."""
    return recent(window, KEEP_SECONDS, now)
