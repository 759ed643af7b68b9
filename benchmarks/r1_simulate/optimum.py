"""The least replica-hours of any schedule that keeps the promise, knowing the future: what a policy is held against.

What so many replicas miss in each window of time is measured by running each number all through, with clients that go
away when the first token is late, so that no window pays for the one before. The schedule of least cost for a price
of a miss is then a shortest path over windows and numbers; the price is raised until the schedule, run in the
simulator as it is, keeps the promise.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from .controllers import Schedule, always
from .fleet import Fleet, Start
from .outcome import Outcome, Targets, misses, outcome
from .requests import Requests
from .speed import Speed

WINDOW_SECONDS = 300.0
_WORTH_PROCESSES = 100_000
_DRAIN_SECONDS = 120.0
"""What it costs to let a replica go, about: its requests' ends."""


@dataclass(frozen=True, slots=True)
class Optimum:
    """`counts`: replicas that serve in each window."""

    counts: tuple[int, ...]
    found: Outcome


def optimum(
    requests: Requests, speed: Speed, start: Start, targets: Targets, most: int, until: float, promise: float = 0.99
) -> Optimum:
    """The cheapest schedule found that keeps `promise` of the requests within their targets."""
    missed = missed_by(requests, speed, targets, most, until)
    cheap, dear = 0.0, 1.0
    best: Optimum | None = None
    for _ in range(9):
        price = (cheap + dear) / 2 if best is not None else dear
        counts = schedule(missed, start.seconds, price)
        found = Optimum(tuple(counts), follow(requests, speed, start, targets, counts, until))
        if found.found.kept >= promise:
            best = found if best is None or found.found.replica_hours < best.found.replica_hours else best
            dear = price
        elif best is None:
            cheap, dear = dear, dear * 4
        else:
            cheap = price
    if best is None:
        raise ValueError(f"even {most} replicas all the time do not keep {promise:.0%} of the requests in time")
    return best


def missed_by(requests: Requests, speed: Speed, targets: Targets, most: int, until: float) -> tuple[Sequence[int], ...]:
    """Misses by number of replicas less one, and by window."""
    if len(requests) < _WORTH_PROCESSES:
        return tuple(_missed(requests, speed, targets, until, count) for count in range(1, most + 1))
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:  # each takes its own copy of the requests
        runs = [pool.submit(_missed, requests, speed, targets, until, count) for count in range(1, most + 1)]
        return tuple(run.result() for run in runs)


def _missed(requests: Requests, speed: Speed, targets: Targets, until: float, count: int) -> Sequence[int]:
    asked = requests.again()
    fleet = Fleet(speed, asked, Schedule(always(count)), patience=targets.ttft_seconds)
    fleet.play(until)
    return misses(asked, targets, WINDOW_SECONDS, until)


def schedule(missed: Sequence[Sequence[int]], start_seconds: float, price: float) -> list[int]:
    """The cheapest path: a replica-second costs 1/60, a miss `price`. → replicas in each window"""
    windows, most = len(missed[0]), len(missed)
    held, begun, left = WINDOW_SECONDS / 60, start_seconds / 60, _DRAIN_SECONDS / 60
    cost = [held * (n + 1) + price * missed[n][0] for n in range(most)]
    came: list[list[int]] = []
    for window in range(1, windows):
        # From below: a start each; from above: a drain each. Two sweeps instead of all pairs.
        best, origin = list(cost), list(range(most))
        for n in range(1, most):
            if best[n - 1] + begun < best[n]:
                best[n], origin[n] = best[n - 1] + begun, origin[n - 1]
        for n in range(most - 2, -1, -1):
            if best[n + 1] + left < best[n]:
                best[n], origin[n] = best[n + 1] + left, origin[n + 1]
        came.append(origin)
        cost = [best[n] + held * (n + 1) + price * missed[n][window] for n in range(most)]
    at = min(range(most), key=lambda n: cost[n])
    path = [at]
    for origin in reversed(came):
        at = origin[at]
        path.append(at)
    return [n + 1 for n in reversed(path)]


def follow(
    requests: Requests, speed: Speed, start: Start, targets: Targets, counts: Sequence[int], until: float
) -> Outcome:
    """The schedule run as it is, its replicas begun as long ahead as a start takes."""
    wanted = Schedule(lambda t: counts[min(len(counts) - 1, int(t // WINDOW_SECONDS))], start.seconds)
    fleet = Fleet(speed, requests.again(), wanted, Start(start.seconds, 0.0))
    fleet.play(until)
    return outcome(fleet, targets, 0.0, until)
