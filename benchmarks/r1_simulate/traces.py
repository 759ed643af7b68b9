"""Where requests come from: recorded days, synthetic shapes, a user's CSV. A seed gives the same requests."""

from __future__ import annotations

import json
import math
import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from r1_bench.workload import Lengths, Rows, WorkloadError, read_chunks, read_replay

from .requests import Requests

DAY_SECONDS = 86_400.0
WINDOW_SECONDS = 600.0
"""Of ServeGen's fits."""

_Row = tuple[float, int, int]


@dataclass(frozen=True, slots=True)
class _Lengths:
    """Token counts of one period of the day, to be drawn by their cumulated shares."""

    start: float
    inputs: tuple[int, ...]
    input_shares: tuple[float, ...]
    outputs: tuple[int, ...]
    output_shares: tuple[float, ...]

    def draw(self, rng: random.Random) -> tuple[int, int]:
        one = bisect_right(self.input_shares, rng.random() * self.input_shares[-1])
        other = bisect_right(self.output_shares, rng.random() * self.output_shares[-1])
        return self.inputs[min(one, len(self.inputs) - 1)], self.outputs[min(other, len(self.outputs) - 1)]


@dataclass(frozen=True, slots=True)
class _Window:
    """Arrivals of one client for ten minutes: gaps of a law of this shape, with this mean rate."""

    start: float
    rate: float
    law: str
    shape: float

    def gap(self, rng: random.Random, rate: float) -> float:
        if self.law == "Gamma" and self.shape > 0:
            return rng.gammavariate(self.shape, 1 / (self.shape * rate))
        if self.law == "Weibull" and self.shape > 0:
            return rng.weibullvariate(1 / (rate * math.gamma(1 + 1 / self.shape)), self.shape)
        return rng.expovariate(rate)


@dataclass(frozen=True, slots=True)
class Client:
    """One client of ServeGen: each window is a renewal process of its own, bursts and all."""

    windows: tuple[_Window, ...]
    lengths: tuple[_Lengths, ...]

    def requests(self, scale: float, rng: random.Random) -> Iterator[_Row]:
        """A day of it, `scale` times as often; the burstiness of a client stays as it was fitted."""
        for window in self.windows:
            rate, end = window.rate * scale, window.start + WINDOW_SECONDS
            if rate <= 0:
                continue
            lengths = max((p for p in self.lengths if p.start <= window.start), key=lambda p: p.start, default=None)
            lengths = lengths or self.lengths[0]
            # Not at an arrival: the first gap is met at a moment that knows nothing of it.
            at = window.start + rng.random() * window.gap(rng, rate)
            while at < end:
                yield (at, *lengths.draw(rng))
                at += window.gap(rng, rate)


def servegen(folder: Path) -> tuple[Client, ...]:
    """The clients of a ServeGen folder: chunk-N-trace.csv and chunk-N-dataset.json (arXiv 2505.09999)."""

    def client(rows: Rows, lengths: tuple[Lengths, ...]) -> Client:
        windows = tuple(_Window(float(r[0]), float(r[1]), r[3], float(r[4] or 0)) for r in rows)
        return Client(windows, tuple(_cumulated(*each) for each in lengths))

    return read_chunks(folder, client)


def _cumulated(
    start: float,
    inputs: tuple[int, ...],
    shares: tuple[float, ...],
    outputs: tuple[int, ...],
    others: tuple[float, ...],
) -> _Lengths:
    return _Lengths(start, inputs, tuple(accumulate(shares)), outputs, tuple(accumulate(others)))


def day(clients: Sequence[Client], scale: float, seed: int, days: int = 1) -> Requests:
    """Requests of so many like days; each draws anew."""
    rows: list[_Row] = []
    for number in range(days):
        rng, offset = random.Random(f"{seed}-{number}"), number * DAY_SECONDS
        rows += [(at + offset, i, o) for client in clients for at, i, o in client.requests(scale, rng)]
    return requests_of(rows)


def requests_of(rows: list[_Row]) -> Requests:
    rows.sort()
    return Requests([r[0] for r in rows], [max(1, r[1]) for r in rows], [max(1, r[2]) for r in rows])


def longer(requests: Requests, since: float, factor: float) -> Requests:
    """The same with prompts so many times as long from a moment on."""
    inputs = [round(n * factor) if at >= since else n for at, n in zip(requests.at, requests.inputs, strict=True)]
    return Requests(requests.at, inputs, requests.outputs)


def shaped(rate: Callable[[float], float], seconds: float, lengths: tuple[int, int], seed: int) -> Requests:
    """Poisson arrivals whose rate a second follows `rate(seconds)`; lengths spread like an exponential around the
    means, as reasoning traces do."""
    rng = random.Random(seed)
    peak = max(rate(seconds * i / 1000) for i in range(1001))
    rows: list[_Row] = []
    at = 0.0
    while peak > 0:
        at += rng.expovariate(peak)
        if at >= seconds:
            break
        if rng.random() * peak < rate(at):
            rows.append((at, 1 + int(rng.expovariate(1 / lengths[0])), 1 + int(rng.expovariate(1 / lengths[1]))))
    return requests_of(rows)


def constant(rate: float) -> Callable[[float], float]:
    return lambda _: rate


def step(low: float, high: float, at: float) -> Callable[[float], float]:
    return lambda t: high if t >= at else low


def ramp(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda t: low + (high - low) * min(1.0, max(0.0, (t - start) / (end - start)))


def flash_crowd(low: float, times: float, start: float, end: float) -> Callable[[float], float]:
    return lambda t: low * times if start <= t < end else low


def square_wave(low: float, high: float, up: float, down: float) -> Callable[[float], float]:
    return lambda t: high if t % (up + down) < up else low


def week(low: float, high: float, weekend: float = 0.5) -> Callable[[float], float]:
    """A sine over each day, highest at 15 h; Saturdays and Sundays carry `weekend` of it."""

    def rate(t: float) -> float:
        share = (1 - math.cos(2 * math.pi * (t / DAY_SECONDS - 0.125))) / 2
        return (low + (high - low) * share) * (weekend if int(t // DAY_SECONDS) % 7 >= 5 else 1.0)

    return rate


def recorded(file: Path, scale: float = 1.0) -> Requests:
    """A CSV with TIMESTAMP, ContextTokens, GeneratedTokens (Azure's), or Mooncake's JSON lines with timestamp in
    milliseconds, input_length and output_length. `scale`: so many times as fast."""
    rows = _mooncake(file) if file.suffix in {".jsonl", ".json"} else read_replay(file)
    origin = rows[0][0]
    return requests_of([((at - origin) / scale, i, o) for at, i, o in rows])


def _mooncake(file: Path) -> list[_Row]:
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        rows = [(float(r["timestamp"]) / 1000, int(r["input_length"]), int(r["output_length"])) for r in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__} {error}; each line needs timestamp, input_length and output_length"
        raise WorkloadError(f"--trace {file}: {reason}") from error
    if not rows:
        raise WorkloadError(f"--trace {file}: holds no request")
    return rows
