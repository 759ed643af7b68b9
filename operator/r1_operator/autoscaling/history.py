"""The load of one R1Deployment minute by minute, for as long as a forecast looks back. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from .window import Sample

MINUTE = 60.0
KEEP_MINUTES = 31 * 60
"""What was at this time of the day, and six hours in which a forecast by it can be tried."""


@dataclass(frozen=True, slots=True)
class Minute:
    """Means over one minute, summed over the ready replicas. `at`: its begin in unix seconds.

    `kv`: caches in use, in whole replicas. `arrived`, `ended`: requests a second; None: the engines do not count.
    `silent`: ready replicas that did not answer; the sums count them as the mean of the others.
    """

    at: float
    ready: float
    running: float
    waiting: float
    kv: float
    tokens_per_second: float
    arrived: float | None = None
    ended: float | None = None
    silent: float = 0.0


def fold(minutes: tuple[Minute, ...], window: Sequence[Sample], now: float) -> tuple[Minute, ...]:
    """The history with every whole minute of the window that it lacks. None from the future."""
    done = minutes[-1].at + MINUTE if minutes else 0.0
    if done > now + MINUTE:  # the clock was set back: what was measured "then" is of no use
        minutes = tuple(m for m in minutes if m.at + MINUTE <= now)
        done = minutes[-1].at + MINUTE if minutes else 0.0
    end = now // MINUTE * MINUTE
    if done >= end:
        return minutes
    fresh = [s for s in window if done - MINUTE <= s.at < end and s.replicas]
    added: list[Minute] = []
    for start in sorted({s.at // MINUTE * MINUTE for s in fresh if s.at >= done}):
        found = minute_of([s for s in fresh if start - MINUTE / 2 <= s.at < start + MINUTE], start)
        if found is not None:
            added.append(found)
    return (*minutes, *added)[-KEEP_MINUTES:] if added else minutes


def minute_of(samples: Sequence[Sample], start: float) -> Minute | None:
    """One minute. Samples from before its begin only serve as what counters are compared with."""
    inside = [s for s in samples if s.at >= start]
    if not inside:
        return None
    count = len(inside)
    arrived, ended = _flows([*[s for s in samples if s.at < start][-1:], *inside])
    return Minute(
        at=start,
        ready=sum(s.ready for s in inside) / count,
        running=sum(s.running * s.whole for s in inside) / count,
        waiting=sum(s.waiting * s.whole for s in inside) / count,
        kv=sum(s.kv_pressure for s in inside) / count,
        tokens_per_second=sum(s.tokens_per_second * s.whole for s in inside) / count,
        arrived=arrived,
        ended=ended,
        silent=sum(s.missing for s in inside) / count,
    )


def _flows(samples: Sequence[Sample]) -> tuple[float | None, float | None]:
    """Requests that came and that ended, a second. Of a replica that is new or began anew, what it holds has come."""
    came = went = seconds = 0.0
    for before, after in pairwise(samples):
        known = {r.name: r for r in before.replicas if r.ended is not None}
        counted = [r for r in after.replicas if r.ended is not None]
        if not counted:
            continue
        seconds += after.at - before.at
        share = after.ready / len(counted)
        for replica in counted:
            assert replica.ended is not None
            earlier = known.get(replica.name)
            if earlier is None or earlier.ended is None or replica.ended < earlier.ended:
                continue
            ended = replica.ended - earlier.ended
            went += ended * share
            came += share * (ended + replica.running + replica.waiting - earlier.running - earlier.waiting)
    return (max(0.0, came) / seconds, went / seconds) if seconds else (None, None)
