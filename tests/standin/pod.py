"""The state of one stand-in pod: stage, members, load, faults, and how it will end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.standin.load import Rank, Request, snapshot
from tests.standin.settings import Settings

PART_DIED, HUNG, NEVER_READY = 70, 71, 72
TICK_SECONDS = 0.02
AT_ONCE_TOKENS_PER_SECOND = 1e6
"""A request that is so fast does not wait for the next tick."""


@dataclass(frozen=True)
class End:
    """How the process ends: exit code, and what the termination log says when it is not 0. `node`: of the cause, where
    that is not this pod's own."""

    code: int
    reason: str
    message: str
    node: str = ""


@dataclass
class Member:
    """What node 0 knows of a node, or another node of itself."""

    index: int
    name: str = ""
    stage: str = "Ray"
    message: str = "has not joined"
    progressAt: float = field(default_factory=time.time)  # as in /status


@dataclass
class Pod:
    settings: Settings
    stage: str = "Ray"
    message: str = "starting"
    since: float = field(default_factory=time.time)
    timings: dict[str, float] = field(default_factory=dict)
    members: dict[int, Member] = field(default_factory=dict)
    head_stage: str = ""  # nodes other than 0: what node 0 said last
    head_loads: list[Mapping[str, Any]] = field(default_factory=list)
    in_flight: int = 0
    draining: bool = False
    requests: int = 0  # answered or failed since the start, as the engine's gate counts them
    failed: int = 0
    first_byte_seconds: float = 0.0
    refusing: bool = False  # fault: chat completions answer 500
    silent: bool = False  # fault: /v1/loads and /metrics answer 500
    unready: bool = False  # fault: /ready answers 503
    hung: bool = False  # fault: no token progress
    stuck: bool = False  # fault: requests never finish
    stalled: bool = False  # fault: the start stands still
    fabric: Mapping[str, Any] | None = None  # as in /status: what a test lets it say of the network between its nodes
    synthetic_load: Mapping[str, float] = field(default_factory=dict)
    ranks: list[Rank] = field(default_factory=list)

    def __post_init__(self) -> None:
        chosen = self.settings
        self.members[chosen.node_index] = Member(chosen.node_index, chosen.node_name, message="starting")
        self.ranks = [
            Rank(
                kv_tokens=chosen.kv_tokens_per_rank,
                max_running=chosen.max_running_per_rank,
                request_rate=chosen.tokens_per_second_per_request,
                rank_rate=chosen.tokens_per_second_per_rank,
            )
            for _ in range(chosen.ranks)
        ]
        self.ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self.progress = asyncio.Condition()
        self.terminating = asyncio.Event()
        self.changed = asyncio.Event()

    @property
    def is_head(self) -> bool:
        return self.settings.node_index == 0

    @property
    def ready(self) -> bool:
        if self.unready or self.ended.done():
            return False
        return self.stage == "Ready" and (self.is_head or self.head_stage == "Ready")

    def enter(self, stage: str, message: str) -> None:
        self.stage, self.message, self.since = stage, message, time.time()
        own = self.members[self.settings.node_index]
        own.stage, own.message, own.progressAt = stage, message, time.time()
        self.changed.set()

    @property
    def progress_at(self) -> float:
        """When the start last went forward on any node that this one knows of (unix seconds)."""
        return max(member.progressAt for member in self.members.values())

    def drain(self) -> None:
        """Refuse new requests from now on; those in flight go on. Idempotent."""
        if not self.draining:
            self.draining = True
            self.enter("Draining", f"{self.in_flight} requests in flight")

    def end(self, code: int, reason: str, message: str, node: str = "") -> None:
        """End the process; the first cause wins."""
        if not self.ended.done():
            if code:
                self.enter("Failed", message)
            self.ended.set_result(End(code, reason, message, node))

    def loads(self) -> list[dict[str, Any]]:
        """/v1/loads entries of all ranks; a synthetic load (fault "load") overrides the figures it names."""
        now, wall = time.monotonic(), time.time()
        entries = [snapshot(rank, index, now, wall) for index, rank in enumerate(self.ranks)]
        fake = self.synthetic_load
        for entry, rank in zip(entries, self.ranks, strict=True):
            if "kvUsage" in fake:
                entry["token_usage"] = fake["kvUsage"]
                entry["num_used_tokens"] = entry["num_total_tokens"] = int(fake["kvUsage"] * rank.kv_tokens)
            if "tokensPerSecond" in fake:
                entry["gen_throughput"] = fake["tokensPerSecond"] / len(self.ranks)
            if "running" in fake:
                entry["num_running_reqs"] = int(fake["running"] / len(self.ranks))
            if "waiting" in fake:
                entry["num_waiting_reqs"] = int(fake["waiting"] / len(self.ranks))
        return entries

    def submit(self, request: Request, rank: int | None) -> Rank:
        """Queue the request on the asked rank, or on the least loaded one."""
        chosen = self.ranks[rank] if rank is not None else min(self.ranks, key=lambda r: r.used() + len(r.waiting))
        chosen.submit(request)
        if self.settings.tokens_per_second_per_request >= AT_ONCE_TOKENS_PER_SECOND and not self.hung:
            chosen.advance(time.monotonic(), TICK_SECONDS)
        return chosen

    async def generate(self) -> None:
        """Let time pass for the ranks, for ever."""
        last = time.monotonic()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            if not self.hung:
                for rank in self.ranks:
                    rank.advance(now, now - last)
            last = now
            async with self.progress:
                self.progress.notify_all()
