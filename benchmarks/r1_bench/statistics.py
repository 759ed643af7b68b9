"""From records of requests to figures. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

ErrorKind = Literal["connect", "status", "cut", "timeout", "protocol"]
PERCENTILES = (50, 90, 95, 99)
# A client that starts requests this late (p99, seconds) measures itself, not the server.
SATURATION_SECONDS = 0.05


@dataclass(frozen=True)
class Failure:
    """Why a request failed: connect (no connection), status (not 200), cut (the stream broke off), timeout, or
    protocol (what came could not be read)."""

    kind: ErrorKind
    detail: str


@dataclass(frozen=True)
class Record:
    """One request. Times in seconds after the run's start; None where it never came so far.

    `intended` is when it should have started: latencies count from there, so that a slow server cannot hide requests
    that had to wait (coordinated omission). `token_times` are the arrivals of pieces of thought or answer.
    """

    index: int
    intended: float
    sent: float
    ended: float
    first_thought: float | None = None
    first_answer: float | None = None
    token_times: tuple[float, ...] = ()
    prompt_tokens: int = 0
    output_tokens: int = 0
    thought_tokens: int = 0
    counted: bool = True  # token counts are the server's (usage), not the number of pieces
    finish: str | None = None
    failure: Failure | None = None

    @property
    def first_token(self) -> float | None:
        return self.token_times[0] if self.token_times else None


@dataclass(frozen=True)
class Distribution:
    """Figures of one quantity; percentiles by linear interpolation between the closest ranks."""

    count: int
    mean: float
    maximum: float
    percentiles: Mapping[int, float]


@dataclass(frozen=True)
class Summary:
    """The run as a whole. Seconds, tokens, requests per second; rates are over `seconds`, first start to last end."""

    seconds: float
    succeeded: int
    failed: int
    unfinished: int
    requests_per_second: float
    prompt_tokens: int
    output_tokens: int
    thought_tokens: int
    output_tokens_per_second: float
    latencies: Mapping[str, Distribution]
    failures: Mapping[str, int]
    goodput: float | None  # share of all requests that met every objective
    goodput_per_second: float | None
    warnings: tuple[str, ...]


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the ordered values lie. Raises ValueError if there are none."""
    if not ordered:
        raise ValueError("no values")
    rank = (len(ordered) - 1) * percent / 100
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def distribution(values: Iterable[float]) -> Distribution | None:
    """Figures of the values, None if there are none."""
    ordered = sorted(values)
    if not ordered:
        return None
    figures = {percent: percentile(ordered, percent) for percent in PERCENTILES}
    return Distribution(len(ordered), math.fsum(ordered) / len(ordered), ordered[-1], figures)


def measures(record: Record) -> dict[str, float]:
    """The latencies of one request that succeeded, in seconds.

    ttft: to the first token of any kind; first_thought, first_answer: to the first of its kind; tpot: mean time per
    output token after the first; e2e: to the end. All but tpot from the intended start.
    """
    found = {"e2e": record.ended - record.intended}
    for name, at in (
        ("ttft", record.first_token),
        ("first_thought", record.first_thought),
        ("first_answer", record.first_answer),
    ):
        if at is not None:
            found[name] = at - record.intended
    if len(record.token_times) > 1 and record.output_tokens > 1:
        found["tpot"] = (record.token_times[-1] - record.token_times[0]) / (record.output_tokens - 1)
    return found


def gaps(record: Record) -> list[float]:
    """Times between the pieces of one stream (inter-token latency when a piece is a token)."""
    times = record.token_times
    return [later - earlier for earlier, later in pairwise(times)]


def meets(record: Record, objectives: Mapping[str, float]) -> bool:
    """Did the request succeed within every objective (seconds)? A quantity it has none of is not held against it."""
    if record.failure is not None:
        return False
    found = measures(record)
    return all(found.get(name, 0.0) <= limit for name, limit in objectives.items())


def summarize(records: Sequence[Record], unfinished: int, objectives: Mapping[str, float]) -> Summary:
    """Figures of a run: `records` of requests that ended, `unfinished` those an interrupted run left."""
    good = [record for record in records if record.failure is None]
    failed = [record for record in records if record.failure is not None]
    start = min((record.intended for record in records), default=0.0)
    seconds = max((record.ended for record in records), default=0.0) - start
    output = sum(record.output_tokens for record in good)
    collected: dict[str, list[float]] = {}
    for record in good:
        for name, value in measures(record).items():
            collected.setdefault(name, []).append(value)
    collected["itl"] = [gap for record in good for gap in gaps(record)]
    figures = {name: distribution(values) for name, values in collected.items()}
    met = sum(meets(record, objectives) for record in records) if objectives else None
    total = len(records) + unfinished
    return Summary(
        seconds=seconds,
        succeeded=len(good),
        failed=len(failed),
        unfinished=unfinished,
        requests_per_second=_rate(len(good), seconds),
        prompt_tokens=sum(record.prompt_tokens for record in good),
        output_tokens=output,
        thought_tokens=sum(record.thought_tokens for record in good),
        output_tokens_per_second=_rate(output, seconds),
        latencies={name: found for name, found in figures.items() if found is not None},
        failures=dict(Counter(_failure_name(record.failure) for record in failed if record.failure).most_common()),
        goodput=None if met is None or not total else met / total,
        goodput_per_second=None if met is None else _rate(met, seconds),
        warnings=_warnings(records),
    )


def _rate(count: float, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0


def _failure_name(failure: Failure) -> str:
    return f"{failure.kind}: {failure.detail}" if failure.detail else failure.kind


def _warnings(records: Sequence[Record]) -> tuple[str, ...]:
    found = []
    lag = distribution(record.sent - record.intended for record in records)
    if lag is not None and lag.percentiles[99] > SATURATION_SECONDS:
        found.append(
            f"requests started up to {lag.percentiles[99]:.2f} s late (p99): this client is saturated, "
            "run it on a faster machine or lower the rate"
        )
    if any(not record.counted for record in records if record.failure is None):
        found.append("the server sent no usage: tokens are counted as pieces of the stream")
    return tuple(found)
