"""Does every DP rank still make tokens? Decided from what was seen, without clock or network.

SGLang's /health samples one rank and needs 20 s to say no; /metrics answers in every broken state (measured). So we
look at each rank: while it computes, its counters must move; while not, it must answer a one-token request of ours.

Silence alone does not prove a hang: on an overloaded machine, or where kernels are compiled, a token may take longer
than any limit. Time in which the engine's processes were ready to run and got no CPU (see `starvation`) and time in
which compilers ran (see `compiling`) do not count, each up to a bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

# Fields of one rank in `GET /v1/loads` that move only when the rank finishes a forward pass.
_COUNTERS = ("num_used_tokens", "total_prefill_uncached_tokens", "total_prefill_busy_us")
PREFILL_TOKENS, PREFILL_BUSY_US = 1, 2
"""Where in a rank's counters these stand."""


@dataclass(frozen=True)
class Moment:
    """A point in time: `at` in seconds of one monotonic clock; `waited`: the seconds that all processes of the engine,
    on all nodes, have by then been ready to run without a CPU; `compiled`: those in which a compiler ran on any node.
    None of them ever falls."""

    at: float
    waited: float = 0.0
    compiled: float = 0.0


@dataclass(frozen=True)
class Patience:
    """How much silence, in seconds, is a hang: `limit`, not counting up to `starved` without a CPU and up to
    `compiling` in which kernels were compiled."""

    limit: float
    starved: float = 0.0
    compiling: float = 0.0

    def exhausted(self, since: Moment, now: Moment) -> bool:
        """Sums over processes: tokens pass through all of them one after the other, and so do their waits."""
        excused = min(now.waited - since.waited, self.starved) + min(now.compiled - since.compiled, self.compiling)
        return now.at - since.at - excused >= self.limit


@dataclass(frozen=True)
class Rank:
    """What is known of one DP rank.

    last_token: the last proof that it computes; None before the first.
    counters: the last values that must move while it computes.
    """

    last_token: Moment | None = None
    counters: tuple[float, ...] = ()
    running: int = 0


@dataclass(frozen=True)
class Ranks:
    """All DP ranks of a gang, by rank."""

    by_rank: Mapping[int, Rank] = field(default_factory=dict)

    @staticmethod
    def of(count: int) -> Ranks:
        return Ranks({rank: Rank() for rank in range(count)})

    def answered(self, rank: int, now: Moment) -> Ranks:
        """A token came out of the rank."""
        return self._with(rank, replace(self.by_rank[rank], last_token=now))

    def observed(self, loads: Mapping[int, tuple[int, tuple[float, ...]]], now: Moment) -> Ranks:
        """Loads seen: rank → (running requests, counters). Counters that moved while requests run prove a token."""
        ranks = dict(self.by_rank)
        for index, (running, counters) in loads.items():
            if (rank := ranks.get(index)) is None:
                continue
            moved = bool(rank.counters) and running > 0 and counters != rank.counters
            ranks[index] = Rank(now if moved else rank.last_token, counters, running)
        return Ranks(ranks)

    def _with(self, rank: int, value: Rank) -> Ranks:
        return Ranks({**self.by_rank, rank: value})


def silent_ranks(ranks: Ranks) -> tuple[int, ...]:
    """Ranks that have not yet given a token since the start."""
    return tuple(index for index, rank in sorted(ranks.by_rank.items()) if rank.last_token is None)


def ranks_to_probe(ranks: Ranks, now: Moment, quiet: float) -> tuple[int, ...]:
    """Ranks without proof for `quiet` seconds."""
    return tuple(
        index
        for index, rank in sorted(ranks.by_rank.items())
        if rank.last_token is None or now.at - rank.last_token.at >= quiet
    )


def hung_ranks(ranks: Ranks, now: Moment, patience: Patience) -> dict[int, float]:
    """Ranks that once worked and whose silence has exhausted our patience → seconds of silence."""
    return {
        index: now.at - rank.last_token.at
        for index, rank in sorted(ranks.by_rank.items())
        if rank.last_token is not None and patience.exhausted(rank.last_token, now)
    }


def loads_by_rank(document: Any) -> dict[int, tuple[int, tuple[float, ...]]]:
    """`GET /v1/loads` → rank → (running requests, counters). A rank whose entry is not understood is left out."""
    result: dict[int, tuple[int, tuple[float, ...]]] = {}
    loads = document.get("loads", ()) if isinstance(document, dict) else ()
    for load in loads:
        try:
            moments = load.get("decode_moments") or (0.0,)
            counters = (*(float(load.get(name) or 0) for name in _COUNTERS), *(float(moment) for moment in moments))
            result[int(load["dp_rank"])] = (int(load["num_running_reqs"]), counters)
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
    return result
