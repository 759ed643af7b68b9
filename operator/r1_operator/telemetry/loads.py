"""Load of an engine by `GET /v1/loads` of its node 0, which answers for all ranks of all nodes (SGLang 0.5.23).

Tokens per second are the ranks' own `gen_throughput`: tokens over the last 40 or so decode steps, 0 when nothing is
decoded. The counter `sglang:generation_tokens_total` will not do: it grows when a request ends, and a chain of thought
ends minutes after it began. `sglang:realtime_tokens_total{mode="decode"}` would, but a node tells only its own ranks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from r1_operator.api.names import PORT_ENGINE_HTTP, host
from r1_operator.telemetry.http import Failure, ask_all, fetch_json


@dataclass(frozen=True, slots=True)
class RankLoad:
    """One attention-DP rank. `kv_usage` is 0…1, without the evictable prefix cache."""

    rank: int
    running: int
    waiting: int
    kv_tokens_used: int
    kv_tokens_total: int
    kv_usage: float
    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """One replica at one moment. `at`: seconds since the epoch, when the answer came."""

    at: float
    ranks: tuple[RankLoad, ...]

    @property
    def running(self) -> int:
        return sum(rank.running for rank in self.ranks)

    @property
    def waiting(self) -> int:
        return sum(rank.waiting for rank in self.ranks)

    @property
    def kv_tokens_used(self) -> int:
        return sum(rank.kv_tokens_used for rank in self.ranks)

    @property
    def kv_tokens_total(self) -> int:
        return sum(rank.kv_tokens_total for rank in self.ranks)

    @property
    def kv_usage(self) -> float:
        """Mean over the ranks, 0…1."""
        return sum(rank.kv_usage for rank in self.ranks) / len(self.ranks)

    @property
    def kv_usage_max(self) -> float:
        """The fullest rank, 0…1: requests wait there although others have room."""
        return max(rank.kv_usage for rank in self.ranks)

    @property
    def tokens_per_second(self) -> float:
        """Output tokens of all ranks, thoughts included."""
        return sum(rank.tokens_per_second for rank in self.ranks)


def parse_loads(answer: Mapping[str, Any], at: float, expected_ranks: int | None = None) -> EngineLoad | Failure:
    """The load in an answer of /v1/loads. A rank that is missing or has reported nothing is a Failure, not a zero."""
    try:
        ranks = tuple(sorted((_rank(entry) for entry in answer["loads"]), key=lambda rank: rank.rank))
    except (KeyError, TypeError, ValueError) as error:
        return Failure(f"/v1/loads: not what SGLang 0.5.23 answers: {type(error).__name__}: {error}")
    if not ranks:
        return Failure("/v1/loads: no rank has reported")
    if expected_ranks is not None and len(ranks) != expected_ranks:
        return Failure(f"/v1/loads: {len(ranks)} of {expected_ranks} ranks have reported")
    silent = [rank.rank for rank in ranks if rank.kv_tokens_total <= 0]
    if silent:
        return Failure(f"/v1/loads: rank {silent[0]} has not reported yet")
    return EngineLoad(at, ranks)


def _rank(entry: Mapping[str, Any]) -> RankLoad:
    return RankLoad(
        rank=int(entry["dp_rank"]),
        running=int(entry["num_running_reqs"]),
        waiting=int(entry["num_waiting_reqs"]),
        kv_tokens_used=int(entry["num_used_tokens"]),
        kv_tokens_total=int(entry["max_total_num_tokens"]),
        kv_usage=float(entry["token_usage"]),
        tokens_per_second=float(entry["gen_throughput"]),
    )


async def scrape_loads(
    session: aiohttp.ClientSession,
    addresses: Collection[str],
    *,
    port: int = PORT_ENGINE_HTTP,
    expected_ranks: Mapping[str, int] | None = None,
    clock: Callable[[], float] = time.time,
) -> dict[str, EngineLoad | Failure]:
    """Loads of the replicas whose node 0 is at these addresses, all at once. Never raises for an engine's fault."""

    async def one(address: str) -> EngineLoad | Failure:
        url = f"http://{host(address)}:{port}/v1/loads?include=core"
        answer = await fetch_json(session, "GET", url)
        if isinstance(answer, Failure):
            return answer
        return parse_loads(answer, clock(), (expected_ranks or {}).get(address))

    return await ask_all(addresses, one)
