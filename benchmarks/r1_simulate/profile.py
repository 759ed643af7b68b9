"""What a replica carries, as a load test finds it: more and more of the same requests until the promise breaks."""

from __future__ import annotations

from collections.abc import Sequence

from .controllers import Schedule, always
from .fleet import Fleet
from .outcome import Outcome, Targets, outcome
from .requests import Requests
from .speed import Speed
from .traces import constant, shaped

_SECONDS = 1800.0
_WARM_UP_SECONDS = 600.0
_RUNS = 8


def carried(speed: Speed, lengths: tuple[int, int], targets: Targets, promise: float = 0.99) -> float:
    """Output tokens a second at which `promise` of the requests of one replica are in time."""
    low, high = 0.0, 2.0 * speed.max_running / (lengths[1] * speed.step_seconds[-1])
    for seed in range(_RUNS):
        rate = (low + high) / 2
        requests = shaped(constant(rate), _SECONDS, lengths, seed)
        kept = static(requests, speed, 1, targets, _SECONDS, _WARM_UP_SECONDS).kept
        low, high = (rate, high) if kept >= promise else (low, rate)
    return low * lengths[1]


def static(requests: Requests, speed: Speed, count: int, targets: Targets, until: float, since: float = 0.0) -> Outcome:
    """So many replicas all the time."""
    fleet = Fleet(speed, requests.again(), Schedule(always(count)))
    fleet.play(until)
    return outcome(fleet, targets, since, until)


def peak(requests: Requests, speed: Speed, targets: Targets, until: float, promise: float = 0.99) -> int:
    """The least number that keeps the promise without any scaling."""
    low, high = 1, 2
    while static(requests, speed, high, targets, until).kept < promise:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if static(requests, speed, middle, targets, until).kept >= promise:
            high = middle
        else:
            low = middle
    return high


def mean_lengths(requests: Requests) -> tuple[int, int]:
    return _mean(requests.inputs), _mean(requests.outputs)


def _mean(values: Sequence[int]) -> int:
    return max(1, round(sum(values) / len(values)))
