"""The load as it is offered: what users ask for, whether or not they get it. Pure.

What is served will not do: full replicas serve what they can, and a crowd's tokens come minutes after it. So to what is
served comes what requests that arrive bring, over those that end: each the tokens that requests came to lately. While
nothing changes that is nothing, however wrong the length. Engines that do not count requests leave what is served, and
more as the queue asks.
"""

from __future__ import annotations

from collections.abc import Sequence

from .capacity import Load
from .history import Minute, minute_of
from .window import Sample

NOW_SECONDS = 120.0
"""The load of this moment is a mean over so long, of short starts a fifth: shorter than one, longer than a burst."""
LENGTH_MINUTES = 20
"""Tokens per request are a mean over this long: many requests, and soon enough when their kind changes."""


def offered(minutes: Sequence[Minute]) -> list[Load]:
    """What was asked for in each minute, oldest first."""
    tokens = ended = 0.0
    found = []
    for number, minute in enumerate(minutes):
        if minute.ended is not None:
            tokens, ended = tokens + minute.tokens_per_second, ended + minute.ended
        if number >= LENGTH_MINUTES and (old := minutes[number - LENGTH_MINUTES]).ended is not None:
            tokens, ended = tokens - old.tokens_per_second, ended - old.ended
        found.append(_offered(minute, tokens / ended if ended > 1e-9 else None))
    return found


def offered_now(minutes: Sequence[Minute], lately: Sequence[Sample]) -> Load:
    """What is asked for, over the last samples: not empty, each with a replica that spoke."""
    minute = minute_of(lately, lately[0].at)
    assert minute is not None
    return _offered(minute, tokens_per_request(minutes) or None)


def tokens_per_request(minutes: Sequence[Minute]) -> float:
    """Output tokens that requests came to lately; 0: not known."""
    past = [m for m in minutes[-LENGTH_MINUTES:] if m.ended is not None]
    ended = sum(m.ended for m in past if m.ended is not None)
    return sum(m.tokens_per_second for m in past) / ended if ended > 1e-9 else 0.0


def _offered(minute: Minute, length: float | None) -> Load:
    served, arrived = minute.tokens_per_second, minute.arrived or 0.0
    if minute.arrived is not None and minute.ended is not None and length is not None:
        return Load(arrived, max(0.0, served + (arrived - minute.ended) * length))
    if minute.waiting and minute.running:
        served *= (minute.running + minute.waiting) / minute.running
    return Load(arrived, served)
