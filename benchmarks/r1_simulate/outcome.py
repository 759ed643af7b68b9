"""What a run was worth: requests within their targets, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .fleet import Fleet
from .requests import Requests


@dataclass(frozen=True, slots=True)
class Targets:
    """Per request: seconds to the first token, and mean seconds per further token."""

    ttft_seconds: float = 10.0
    tpot_seconds: float = 0.1


@dataclass(frozen=True, slots=True)
class Outcome:
    """`kept`: share of the requests within both targets. `steps`: changes of the number of replicas; hours of nodes
    held, starts and drains included."""

    requests: int
    kept: float
    replica_hours: float
    output_tokens: int
    steps_up: int
    steps_down: int
    worst_hour: float
    ttft_p99: float


def outcome(fleet: Fleet, targets: Targets, since: float, until: float) -> Outcome:
    """Of the requests asked between two times, once all have ended."""
    requests = fleet.requests
    numbers = [i for i, at in enumerate(requests.at) if since <= at < until]
    kept = [requests.kept(i, targets.ttft_seconds, targets.tpot_seconds) for i in numbers]
    hours: dict[int, list[int]] = {}
    for i, good in zip(numbers, kept, strict=True):
        hour = hours.setdefault(int(requests.at[i] // 3600), [0, 0])
        hour[0] += good
        hour[1] += 1
    machines = [*fleet.past, *fleet.machines.values()]
    first = [requests.first[i] - requests.at[i] if requests.first[i] >= 0 else math.inf for i in numbers]
    return Outcome(
        requests=len(numbers),
        kept=sum(kept) / max(1, len(kept)),
        replica_hours=fleet.replica_hours(since, until),
        output_tokens=sum(requests.outputs[i] for i in numbers if requests.last[i] >= 0),
        steps_up=sum(since < m.held_at < until for m in machines),
        steps_down=sum(m.draining_since is not None and since < m.draining_since < until for m in machines),
        worst_hour=min((good / all_ for good, all_ in hours.values()), default=1.0),
        ttft_p99=percentile(first, 0.99),
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that this share of them does not exceed; 0: there is none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def misses(requests: Requests, targets: Targets, window_seconds: float, until: float) -> Sequence[int]:
    """Requests outside their targets, by the window in which they were asked."""
    found = [0] * math.ceil(until / window_seconds)
    for i, at in enumerate(requests.at):
        if at < until and not requests.kept(i, targets.ttft_seconds, targets.tpot_seconds):
            found[int(at // window_seconds)] += 1
    return found
