"""The simulated engine beside published measurements of R1 on Hopper: a closed loop of so many requests at once."""

from __future__ import annotations

import random
from dataclasses import dataclass

from r1_operator.planning.wishes import Load

from .replica import Replica
from .requests import Requests
from .speed import Speed
from .world import planned_as

_MODEL = "deepseek-ai/DeepSeek-R1"
_ROUNDS = 6
"""Answers that each place in the loop gives; the first and the last do not count."""


@dataclass(frozen=True, slots=True)
class Steady:
    """Means over the middle of a closed loop."""

    tokens_per_second: float
    ttft_seconds: float
    tpot_seconds: float


@dataclass(frozen=True, slots=True)
class Published:
    """A measurement of one replica that prefills and decodes: where, of what, and in which figure of `Steady`."""

    source: str
    set_up: str
    quantity: str
    measured: float
    wishes: dict[str, int]
    hardware: str
    lengths: tuple[int, int]
    at_once: int


PUBLISHED = (
    Published("tt-inference-server issue 356", "2 × 8 H100, tp 16, one request", "tpot_seconds", 0.0231,
              {"nodes": 2, "tensor_parallel": 16, "attention_dp": 1, "expert_parallel": 1}, "H100x8", (128, 128), 1),
    Published("tt-inference-server issue 356", "2 × 8 H100, tp 16, one request", "ttft_seconds", 0.180,
              {"nodes": 2, "tensor_parallel": 16, "attention_dp": 1, "expert_parallel": 1}, "H100x8", (128, 128), 1),
    Published("Azure walkthrough, May 2026", "2 × 8 H100, tp 16, 64 at once", "tokens_per_second", 492.0,
              {"nodes": 2, "tensor_parallel": 16, "attention_dp": 1, "expert_parallel": 1}, "H100x8", (1024, 1024), 64),
    Published("GPUStack lab", "8 H200, ShareGPT, 256 at once assumed", "tokens_per_second", 7143.0,
              {"nodes": 1, "tensor_parallel": 8, "attention_dp": 8, "expert_parallel": 1}, "H200x8", (220, 200), 256),
)  # fmt: skip


def closed_loop(speed: Speed, at_once: int, lengths: tuple[int, int], seed: int = 1) -> Steady:
    """So many requests in flight all the time; lengths spread by a tenth, so that they do not march in step."""
    rng, count = random.Random(seed), at_once * _ROUNDS
    inputs, outputs = ([max(1, round(n * rng.uniform(0.9, 1.1))) for _ in range(count)] for n in lengths)
    asked = [0.0] * count
    requests = Requests(asked, inputs, outputs)
    engine, now, sent = Replica(speed, requests, 0.0), 0.0, 0
    while sent < at_once:
        engine.arrive(sent, 0.0)
        sent += 1
    while engine.load:
        now, before = engine.next_at, engine.ended
        engine.happen(now)
        for _ in range(min(engine.ended - before, count - sent)):
            asked[sent] = now
            engine.arrive(sent, now)
            sent += 1
    middle = range(at_once, count - at_once)
    seconds = max(requests.last[i] for i in middle) - min(asked[i] for i in middle)
    return Steady(
        sum(outputs[i] for i in middle) / seconds,
        sum(requests.first[i] - asked[i] for i in middle) / len(middle),
        sum((requests.last[i] - requests.first[i]) / max(1, outputs[i] - 1) for i in middle) / len(middle),
    )


def errors() -> str:
    """A table of what is published, what is simulated, and how far it is off."""
    lines = ["| source | set-up | figure | published | simulated | error |", "|---|---|---|---|---|---|"]
    for entry in PUBLISHED:
        _, speed = planned_as(_MODEL, entry.hardware, load=Load(*entry.lengths), **entry.wishes)
        simulated = getattr(closed_loop(speed, entry.at_once, entry.lengths), entry.quantity)
        unit, factor = ("ms", 1000) if entry.quantity.endswith("seconds") else ("tok/s", 1)
        name = {"tpot_seconds": "TPOT", "ttft_seconds": "TTFT", "tokens_per_second": "output"}[entry.quantity]
        figures = f"{factor * entry.measured:,.0f} {unit} | {factor * simulated:,.0f} {unit}"
        off = f"{100 * (simulated / entry.measured - 1):+.0f}%"
        lines.append(f"| {entry.source} | {entry.set_up} | {name} | {figures} | {off} |")
    return "\n".join(lines)
