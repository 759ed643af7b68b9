"""How long may a rank be silent that works? As long as this gang was seen to need, with room. Pure.

No counter moves inside a step, and idle ranks cannot answer either, since all take part in it. A full-size prefill of
R1 gathers and scatters 235 MB twice in each of 58 layers: 0.1 s over RDMA, 9 s at 3 GB/s, 27 s at 1 GB/s over TCP. So
the limit follows the longest step of the last minutes; where the fabric is not known to be what was planned, it is
generous until a full-size prefill has shown how long one takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from r1_engine.config import Limits
from r1_engine.health import PREFILL_BUSY_US, PREFILL_TOKENS, Moment

_TIMES = 5
_MEMORY_SECONDS = 600.0
_CHUNK = "--chunked-prefill-size"
_USUAL_CHUNK = 8192  # SGLang's own on 80 GB


@dataclass(frozen=True)
class _Seen:
    """A rank's prefill counters at the last look, and when they last moved."""

    at: float
    busy: float
    tokens: float
    moved: Moment


@dataclass(frozen=True)
class Pace:
    """`chunk`: tokens of a full-size prefill of the whole gang. `full`: one was seen, or as many tokens in less time.
    `steps`: those that took long, as (when seen, seconds at least)."""

    chunk: int = _USUAL_CHUNK
    full: bool = False
    steps: tuple[tuple[float, float], ...] = ()
    ranks: Mapping[int, _Seen] = field(default_factory=dict)

    def observed(self, loads: Mapping[int, tuple[int, tuple[float, ...]]], now: Moment) -> Pace:
        """Loads seen, as `health.Ranks` takes them.

        Busy time is added at a step's end. What it grew by beyond the time since the last look was a step that began
        before that look: so long it took at least, less what else explains it (see `health.Moment`).
        """
        ranks, tokens, longest = dict(self.ranks), 0.0, 0.0
        for index, (_, counters) in loads.items():
            if len(counters) <= PREFILL_BUSY_US:
                continue
            before, busy, count = self.ranks.get(index), counters[PREFILL_BUSY_US], counters[PREFILL_TOKENS]
            if before is None or busy < before.busy:
                ranks[index] = _Seen(now.at, busy, count, now)
                continue
            tokens += count - before.tokens
            excused = now.waited - before.moved.waited + now.compiled - before.moved.compiled
            longest = max(longest, (busy - before.busy) / 1e6 - (now.at - before.at) - excused)
            ranks[index] = _Seen(now.at, busy, count, now if busy > before.busy else before.moved)
        recent = tuple(step for step in self.steps if now.at - step[0] <= _MEMORY_SECONDS)
        steps = (*recent, (now.at, longest)) if longest > 0 else recent
        return Pace(self.chunk, self.full or tokens >= self.chunk, steps, ranks)

    def limit(self, limits: Limits, now: float, *, doubtful: bool) -> float:
        """Seconds of silence that are a hang. `doubtful`: the fabric is not known to be what was planned."""
        longest = max((seconds for at, seconds in self.steps if now - at <= _MEMORY_SECONDS), default=0.0)
        feared = limits.slow if doubtful and not self.full else 0.0
        return max(limits.hang, min(limits.slow, max(feared, _TIMES * longest)))


def chunk_of(arguments: Sequence[str]) -> int:
    """Tokens of a full-size prefill of the whole gang, from SGLang's arguments."""
    words = [word for argument in arguments for word in argument.split("=", 1)]
    after = [words[at + 1] for at, word in enumerate(words[:-1]) if word == _CHUNK]
    try:
        return int(after[-1]) if after and int(after[-1]) > 0 else _USUAL_CHUNK
    except ValueError:
        return _USUAL_CHUNK
