"""What the autoscaler still knows after its process has ended: it stands in the status. Pure.

The load of the last day in replicas, and what a replica was seen to carry. Minutes are contiguous here: what nobody
measured is what was remembered of it, or else as it was before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .history import KEEP_MINUTES, MINUTE, Minute

BLOCK = 600.0
"""Seconds of which one mean is remembered."""
BLOCKS = 144
"""A day."""


@dataclass(frozen=True, slots=True)
class Memory:
    """`until`: end of the last block in unix seconds. `needs`: replicas, a mean for each block, oldest first. `line`:
    tokens a second of a lone request, and what each request and each token a second of a replica take of it.
    `revision`: of which that was seen."""

    until: float = 0.0
    needs: tuple[float, ...] = ()
    line: tuple[float, float, float] | None = None
    revision: str = ""


def series(minutes: Sequence[Minute], needs: Sequence[float], memory: Memory | None, now: float) -> list[float]:
    """Replicas needed in each minute up to the last one, without gaps. `needs`: of each of the minutes."""
    measured = list(zip((m.at for m in minutes[len(minutes) - len(needs) :]), needs, strict=True))
    blocks = _blocks(memory, now)
    if not measured and not blocks:
        return []
    starts = [at for at, _ in (*blocks[:1], *measured[:1])]
    end = max([at + MINUTE for at, _ in measured[-1:]] + [at + BLOCK for at, _ in blocks[-1:]])
    start = max(min(starts), end - KEEP_MINUTES * MINUTE)
    values: list[float | None] = [None] * round((end - start) / MINUTE)
    for at, need in blocks:
        for minute in range(round(BLOCK / MINUTE)):
            _put(values, round((at - start) / MINUTE) + minute, need)
    for at, need in measured:
        _put(values, round((at - start) / MINUTE), need)
    return _without_gaps(values)


def _blocks(memory: Memory | None, now: float) -> list[tuple[float, float]]:
    """Begin and need of each block; none that ends in the future, which another clock has made."""
    if memory is None or not memory.needs or memory.until > now + BLOCK:
        return []
    first = memory.until - len(memory.needs) * BLOCK
    return [(first + BLOCK * number, need) for number, need in enumerate(memory.needs)]


def _put(values: list[float | None], index: int, need: float) -> None:
    if 0 <= index < len(values):
        values[index] = need


def _without_gaps(values: Sequence[float | None]) -> list[float]:
    known = next((v for v in values if v is not None), 0.0)
    found = []
    for value in values:
        known = known if value is None else value
        found.append(known)
    return found


def remembered(
    needs: Sequence[float], end: float, line: tuple[float, float, float] | None, revision: str
) -> Memory | None:
    """Of a series that ends at `end`: the whole blocks of its last day."""
    size, until = round(BLOCK / MINUTE), end // BLOCK * BLOCK
    last = len(needs) - round((end - until) / MINUTE)
    count = min(BLOCKS, max(0, last) // size)
    means = [sum(needs[last - size * (k + 1) : last - size * k]) / size for k in reversed(range(count))]
    return Memory(until, tuple(means), line, revision) if means or line is not None else None
