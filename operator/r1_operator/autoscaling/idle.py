"""When the last replica may sleep, and what wakes the first one: `minReplicas: 0`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from .history import MINUTE, Minute
from .window import KEEP_SECONDS, Sample, recent

ASKED_SECONDS = 60.0
"""Who was refused so long ago may still come back; longer ago, he has given up."""
GAP_SECONDS = 60.0
"""Longer than that without a measurement, somebody may have asked unseen: of shorter ones the engines' counts tell."""
LATEST_SECONDS = 15.0
"""How old the last look may be."""


def has_asked(seconds_ago: float | None) -> bool:
    """Whether somebody asks and finds no replica. `seconds_ago`: as the gateways said last; None: nobody has."""
    return seconds_ago is not None and seconds_ago <= ASKED_SECONDS


def is_idle(minutes: Sequence[Minute], window: Sequence[Sample], seconds: float, now: float) -> bool:
    """Whether nobody has asked for so long, for certain: each moment of it was measured, and nobody was silent."""
    looked = min(seconds, KEEP_SECONDS - GAP_SECONDS)
    lately = recent(window, looked + GAP_SECONDS, now)
    if not lately or lately[0].at > now - looked or lately[-1].at < now - LATEST_SECONDS or not _is_measured(lately):
        return False
    lately = tuple(s for s in lately if s.at >= now - looked)
    if not lately or not all(map(_is_quiet, lately)) or _have_ended(lately):
        return False
    earlier = [m for m in minutes if now - seconds <= m.at < lately[0].at - MINUTE]
    due = (seconds - looked) / MINUTE - 2
    return len(earlier) >= due and not any(m.running or m.waiting or m.silent or m.ended for m in earlier)


def _is_measured(samples: Sequence[Sample]) -> bool:
    return all(after.at - before.at <= GAP_SECONDS for before, after in pairwise(samples))


def _is_quiet(sample: Sample) -> bool:
    return sample.complete and not sample.running and not sample.waiting


def _have_ended(samples: Sequence[Sample]) -> bool:
    """Whether requests came and went between two looks."""
    counts: dict[str, set[int | None]] = {}
    for replica in (r for s in samples for r in s.replicas):
        counts.setdefault(replica.name, set()).add(replica.ended)
    return any(len(found) > 1 for found in counts.values())
