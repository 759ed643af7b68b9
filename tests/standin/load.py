"""A simple model of how an engine's load behaves: pure state, time is an argument.

Per attention rank: requests hold KV tokens (prompt + what they generated), each gets a token rate that shrinks when the
rank's total is shared by many, and what does not fit waits. When the cache is full the youngest request is retracted.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass
class Request:
    """One generation. `produced` grows as `Rank.advance` is called; the API streams what is new."""

    prompt_tokens: int
    output_tokens: int
    produced: int = 0
    credit: float = 0.0
    stuck: bool = False
    truncated: bool = False  # ends at max_tokens, not by itself

    @property
    def held(self) -> int:
        return self.prompt_tokens + self.produced

    @property
    def done(self) -> bool:
        return self.produced >= self.output_tokens and not self.stuck


@dataclass
class Rank:
    """One data-parallel rank's scheduler: capacity in KV tokens, rates in tokens per second."""

    kv_tokens: int
    max_running: int
    request_rate: float
    rank_rate: float
    running: list[Request] = field(default_factory=list)
    waiting: deque[Request] = field(default_factory=deque)
    generated_total: int = 0
    prompt_total: int = 0
    retracted_total: int = 0
    recent: deque[tuple[float, int]] = field(default_factory=deque)

    def submit(self, request: Request) -> None:
        self.waiting.append(request)

    def remove(self, request: Request) -> None:
        """Forget a request that ended or whose client left."""
        if request in self.running:
            self.running.remove(request)
        if request in self.waiting:
            self.waiting.remove(request)

    def used(self) -> int:
        return sum(request.held for request in self.running)

    def advance(self, now: float, elapsed: float) -> None:
        """Move on by `elapsed` seconds: admit, generate, retract."""
        self._admit()
        made = 0
        if self.running:
            rate = min(self.request_rate, self.rank_rate / len(self.running))
            for request in self.running:
                if request.produced >= request.output_tokens:
                    continue
                request.credit += rate * elapsed
                step = min(int(request.credit), request.output_tokens - request.produced)
                request.credit -= step
                request.produced += step
                made += step
        self._retract()
        self.generated_total += made
        self.recent.append((now, made))
        while self.recent and now - self.recent[0][0] > 2.0:
            self.recent.popleft()

    def throughput(self, now: float) -> float:
        """Tokens per second over the last two seconds (SGLang reports its last log interval)."""
        made = sum(count for at, count in self.recent if now - at <= 2.0)
        return made / 2.0

    def _admit(self) -> None:
        free = self.kv_tokens - self.used()
        while self.waiting and len(self.running) < self.max_running and self.waiting[0].held < free:
            request = self.waiting.popleft()
            free -= request.held
            if request.produced == 0:
                self.prompt_total += request.prompt_tokens
            self.running.append(request)

    def _retract(self) -> None:
        while len(self.running) > 1 and self.used() > self.kv_tokens:
            self.waiting.appendleft(self.running.pop())
            self.retracted_total += 1


def snapshot(rank: Rank, index: int, now: float, wall: float) -> dict[str, object]:
    """One entry of /v1/loads, field by field as SGLang 0.5.23 (srt/managers/load_snapshot.py, LoadSnapshot.to_dict)."""
    used = rank.used()
    waiting_tokens = sum(request.held for request in rank.waiting)
    return {
        "timestamp": wall,
        "dp_rank": index,
        "num_running_reqs": len(rank.running),
        "num_waiting_reqs": len(rank.waiting),
        "num_waiting_uncached_tokens": waiting_tokens,
        "num_used_tokens": used,
        "num_total_tokens": used + waiting_tokens,
        "num_active_tokens": used + waiting_tokens,
        "num_prealloc_ready_tokens": 0,
        "max_total_num_tokens": rank.kv_tokens,
        "max_running_requests": rank.max_running,
        "token_usage": round(used / rank.kv_tokens, 4),
        "gen_throughput": round(rank.throughput(now), 2),
        "cache_hit_rate": 0.0,
        "utilization": round(len(rank.running) / rank.max_running, 4),
        "total_prefill_uncached_tokens": rank.prompt_total,
        "total_prefill_busy_us": 0,
        "decode_moments": None,
        "memory": {"weight_gb": 0.01, "kv_cache_gb": 0.01, "graph_gb": 0.0, "token_capacity": rank.kv_tokens},
        "disaggregation": {
            "mode": "null",
            "prefill_bootstrap_queue_reqs": 0,
            "prefill_inflight_queue_reqs": 0,
            "decode_prealloc_queue_reqs": 0,
            "decode_transfer_queue_reqs": 0,
            "decode_retracted_queue_reqs": 0,
            "kv_transfer_speed_gb_s": 0.0,
            "kv_transfer_latency_ms": 0.0,
        },
        "queues": {
            "waiting": len(rank.waiting),
            "grammar": 0,
            "paused": 0,
            "retracted": rank.retracted_total,
            "prealloc_ready": 0,
        },
    }
