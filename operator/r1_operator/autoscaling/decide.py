"""How many replicas the load needs, by the time that one more would serve.

The load is what is offered (demand.py); what a replica carries (capacity.py) makes replicas of it, as a real number for
each minute. These are forecast for one start from now, with a bound that the forecast's own past errors set.
Up as soon as the bound, the load of this minute or the queue needs more. Down only if the rest carries the bound with a
margin, has done so for longer than a start takes, and a few at a time. Without fresh data nothing is done; where some
replicas are silent, what is known may still add.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..api.reasons import Reason
from ..api.types import Autoscaling
from .capacity import Capacity, Load, Prior, capacity
from .demand import NOW_SECONDS, offered, offered_now, tokens_per_request
from .forecast import Forecast, forecast
from .history import Minute
from .idle import has_asked, is_idle
from .memory import Memory, remembered, series
from .schedule import bounded_by, bounds
from .window import Sample, recent

FRESH_SECONDS = 30.0
"""Older than this, a sample says nothing about now. One scrape that timed out is no reason to go blind."""
QUEUE_SECONDS = 30.0
"""A queue shorter than this is a burst that the running requests make room for."""
TOLERANCE = 0.02
"""Need above the present number by less than this share does not count."""
SHARE = 0.85
"""Of the moments in which the load shall stay below the forecast's bound; chosen by `r1 simulate`."""
DOWN_MARGIN = 0.05
"""After a step down the rest has this share to spare: otherwise the next step would be up."""
SHORT_MINUTES = 2
"""Of starts so short the load of this moment counts as a minute of its own."""
HOLD_STARTS = 1.2
"""Starts for which the load must have been low: what goes now is missed for one start if it comes back."""
RETURN_MINUTES, RETURNS = 120, 2
"""A load that comes back as often in that time as to need the replicas anew keeps them: each start is a start too late.
"""
DOWN_SHARE = 4
"""At most one replica in so many goes in one step."""
DOWN_PAUSE_SECONDS = 120.0
"""Between two steps down: what the first one did is seen before the next."""
COVERAGE = 0.8
"""Share of the time before a step down that must have been measured: by half of the ready replicas at least."""


@dataclass(frozen=True, slots=True)
class ScalingState:
    """What was decided before, and what came of it. Times in unix seconds; `start_seconds`: what a start takes here,
    measured, or None. `spares`: replicas beside `desired` that serve as well. `running_capacity`: requests that one
    replica runs at once (--max-running-requests), if known. `prior`: the plan's estimate. `target`: promised seconds
    per token."""

    desired: int
    ready: int
    starting: int = 0
    starting_since: float | None = None
    start_seconds: float | None = None
    last_up: float | None = None
    last_down: float | None = None
    spares: int = 0
    running_capacity: int | None = None
    prior: Prior | None = None
    target: float | None = None
    memory: Memory | None = None
    revision: str = ""
    """What is remembered of before this process, and which revision serves now."""
    asked: float | None = None
    """Seconds since somebody asked and found no replica; None: nobody has."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Replicas wanted from now on, and why. `need`: as a real number; `forecast` and `capacity`: what it comes from."""

    desired: int
    reason: Reason
    message: str
    has_data: bool = True
    need: float | None = None
    forecast: Forecast | None = None
    capacity: Capacity | None = None
    memory: Memory | None = None


@dataclass(frozen=True, slots=True)
class _Need:
    """Replicas that one signal asks for, as a real number, and its words."""

    replicas: float
    reason: Reason
    words: str


@dataclass(frozen=True, slots=True)
class _Outlook:
    """What this round decides on. `rest`: replicas that must stay, by the bound until one more could be there; `past`:
    needed in each minute, oldest first."""

    needs: tuple[_Need, ...]
    rest: float
    past: tuple[float, ...]
    forecast: Forecast | None
    capacity: Capacity | None
    missing: str | None
    memory: Memory | None = None

    @property
    def need(self) -> _Need:
        return max(self.needs, key=lambda n: n.replicas)

    def decision(self, desired: int, reason: Reason, message: str) -> Decision:
        return self._told(desired, reason, f"{self.missing}; of the others: {message}" if self.missing else message)

    def stays(self, desired: int) -> Decision:
        """What is known does not add, and what is not might be needed."""
        return self._told(desired, Reason.MISSING_METRICS, f"{self.missing}; the number of replicas stays at {desired}")

    def _told(self, desired: int, reason: Reason, message: str) -> Decision:
        known = self.missing is None
        return Decision(desired, reason, message, known, self.need.replicas, self.forecast, self.capacity, self.memory)


def decide(
    config: Autoscaling, minutes: Sequence[Minute], window: Sequence[Sample], state: ScalingState, now: float
) -> Decision:
    """Decide. `minutes` and `window` oldest first. Deterministic; never outside the hour's limits."""
    limits = bounds(config, now, start_seconds(config, state))
    config = bounded_by(config, limits)
    bounded = min(max(state.desired, limits.minimum), limits.maximum)
    if bounded != state.desired:
        reason = Reason.AT_MINIMUM if bounded > state.desired else Reason.AT_MAXIMUM
        text = f"minReplicas {limits.minimum}, maxReplicas {limits.maximum}{limits.words}"
        return Decision(bounded, reason, f"{_count(state.desired)} wanted; {text}")
    if bounded == 0:
        return _asleep(config, state)
    known = [s for s in recent(window, FRESH_SECONDS, now) if s.replicas]
    if not known or not state.ready:
        reason = Reason.REPLICA_STARTING if state.ready == 0 and state.starting else Reason.MISSING_METRICS
        words = f"{_unknown(window, state, now)}; the number of replicas stays at {bounded}"
        return Decision(bounded, reason, words, has_data=False)
    outlook = _outlook(config, minutes, window, state, now)
    need = outlook.need
    if need.replicas > bounded * (1 + TOLERANCE):
        return _up(config, state, bounded, outlook, now)
    if outlook.missing is not None:
        return outlook.stays(bounded)
    if state.starting and need.replicas > state.ready * (1 + TOLERANCE):
        return outlook.decision(bounded, Reason.REPLICA_STARTING, f"{need.words}; {_coming(config, state, now)}")
    return _down(config, minutes, window, state, bounded, outlook, now)


def _asleep(config: Autoscaling, state: ScalingState) -> Decision:
    if has_asked(state.asked):
        took = start_seconds(config, state)
        return Decision(
            1, Reason.WOKEN, f"a request found no replica: from 0 to 1 replica, ready in about {took:.0f} s"
        )
    return Decision(0, Reason.ASLEEP, "nobody asks; the next request wakes a replica")


def _count(number: float, noun: str = "replica") -> str:
    shown = f"{number:.0f}"
    return f"{shown} {noun}" if shown == "1" else f"{shown} {noun}s"


def _coming(config: Autoscaling, state: ScalingState, now: float) -> str:
    took = start_seconds(config, state)
    how = "as measured here" if state.start_seconds is not None else "spec.autoscaling.startupSeconds"
    since = now - state.starting_since if state.starting_since is not None else 0.0
    left = f"ready in about {took - since:.0f} s" if since < took else f"{since - took:.0f} s overdue"
    return f"{state.starting} starting, {left} (a start takes {took:.0f} s, {how}), will carry the rest"


def start_seconds(config: Autoscaling, state: ScalingState) -> float:
    """What a start takes: measured, or until then as the spec says."""
    return state.start_seconds if state.start_seconds is not None else float(config.startup_seconds)


def _unknown(window: Sequence[Sample], state: ScalingState, now: float) -> str:
    if state.ready == 0:
        return "no replica is ready, so there is no load to measure"
    fresh = recent(window, FRESH_SECONDS, now)
    if fresh:
        return _unheard(fresh[-1])
    return f"the last measurement is {now - window[-1].at:.0f} s old" if window else "no engine has been measured yet"


def _silent(window: Sequence[Sample], now: float) -> str | None:
    """Some ready replicas have not answered for a while; late answers, now of one and now of another, are nothing."""
    fresh = recent(window, FRESH_SECONDS, now)
    heard = {replica.name for sample in fresh for replica in sample.replicas}
    if any(s.complete for s in fresh) or len(heard) >= fresh[-1].ready:
        return None
    return _unheard(fresh[-1])


def _unheard(sample: Sample) -> str:
    return f"{sample.missing} of {sample.ready} ready replicas did not report their load"


def _outlook(
    config: Autoscaling, minutes: Sequence[Minute], window: Sequence[Sample], state: ScalingState, now: float
) -> _Outlook:
    kv_share = config.target_kv_usage_percent / 100
    line = state.memory.line if state.memory is not None and state.memory.revision == state.revision else None
    size = capacity(minutes, state.prior, state.running_capacity, state.target, kv_share, line)
    took = start_seconds(config, state)
    lately = [s for s in recent(window, min(NOW_SECONDS, max(FRESH_SECONDS, took / 5)), now) if s.replicas]
    waits = _waiting([s for s in lately if now - s.at <= QUEUE_SECONDS])
    needs = [_kv(lately, kv_share)]
    goal = config.target_tokens_per_second_per_replica
    if size is None and goal is None:
        needs.append(_queue(config, waits, state, None))
        return _Outlook(tuple(needs), max(n.replicas for n in needs), (), None, None, _silent(window, now))
    present = offered_now(minutes, lately)
    needed = [_replicas(load, size, goal)[0] for load in offered(minutes)]
    past = series(minutes, needed, state.memory, now)
    count, limit = _replicas(present, size, goal)
    ahead = max(1, math.ceil(took / 60))
    # Where a start takes a minute or two, the last whole minute is old.
    coming = forecast([*past, count] if ahead <= SHORT_MINUTES or not past else past, ahead, SHARE)
    backlog = Load(waits[0] / took, waits[0] / took * tokens_per_request(minutes))
    needs.append(_queue(config, waits, state, count + _replicas(backlog, size, goal)[0]))
    words = f"{present} asked for fill {count:.1f} replicas ({limit})"
    needs.append(_Need(count, _REASON.get(limit, Reason.THROUGHPUT_HIGH), words))
    off = f", {coming.error:.0%} off as a rule" if coming.error is not None else ""
    words = f"{words}, in {ahead} min up to {coming.upper:.1f} ({coming.way}: {coming.mean:.1f}{off})"
    needs.append(_Need(coming.upper, Reason.FORECAST_HIGH, words))
    rest = max(coming.upper, count, needs[0].replicas)
    kept = _kept(minutes, past, size, state)
    return _Outlook(tuple(needs), rest, tuple(past), coming, size, _silent(window, now), kept)


def _kept(
    minutes: Sequence[Minute], past: Sequence[float], size: Capacity | None, state: ScalingState
) -> Memory | None:
    """Nothing new is learnt without a minute measured."""
    if not minutes:
        return state.memory
    line = (size.alone, size.per_request, size.per_token) if size is not None else None
    return remembered(past, minutes[-1].at + 60, line, state.revision)


def _replicas(load: Load, size: Capacity | None, goal: int | None) -> tuple[float, str]:
    """How many carry a load, and what limits them; `goal`: tokens a second of each that the user asks for."""
    found = size.replicas(load) if size is not None else (0.0, "")
    if goal is not None and load.tokens / goal > found[0]:
        return load.tokens / goal, f"target {goal:,} tokens/s each"
    return found


_REASON = {"KV cache": Reason.KV_USAGE_HIGH, "max-running-requests": Reason.REQUESTS_HIGH}


def _kv(samples: Sequence[Sample], share: float) -> _Need:
    kv = sum(s.kv_pressure for s in samples) / len(samples)
    ready = sum(s.ready for s in samples) / len(samples)
    words = f"KV cache {100 * kv / ready:.0f}% used in {_count(ready)} (target {100 * share:.0f}%)"
    return _Need(kv / share, Reason.KV_USAGE_HIGH, words)


def _waiting(samples: Sequence[Sample]) -> tuple[float, float]:
    """Requests that have waited all the while, and the replicas that are ready."""
    waiting = min((s.waiting * s.whole for s in samples), default=0.0)
    return waiting, max(1.0, sum(s.ready for s in samples) / len(samples)) if samples else 1.0


def _queue(config: Autoscaling, waits: tuple[float, float], state: ScalingState, count: float | None) -> _Need:
    """`count`: replicas for what is asked now and for what waits, if that is to be gone one start after it. What is
    there is not enough in any case, so one more it is at least."""
    (waiting, ready), allowed = waits, config.max_waiting_requests_per_replica
    words = f"{_count(waiting, 'request')} waiting in {_count(ready)} (at most {allowed} each)"
    if waiting <= allowed * ready:
        return _Need(0.0, Reason.QUEUE_LONG, words)
    return _Need(max(count or 0.0, ready - state.spares + 1), Reason.QUEUE_LONG, words)


def _up(config: Autoscaling, state: ScalingState, current: int, outlook: _Outlook, now: float) -> Decision:
    need = outlook.need
    wanted = min(max(math.ceil(need.replicas - TOLERANCE * current), current + 1), config.max_replicas)
    if wanted <= current:
        text = f"{need.words}: {_count(math.ceil(need.replicas))} needed; maxReplicas is {config.max_replicas}"
        return outlook.decision(current, Reason.AT_MAXIMUM, text)
    last_up = None if state.last_up is None else min(state.last_up, now)
    if last_up is not None and now - last_up < config.scale_up_cooldown_seconds:
        left = config.scale_up_cooldown_seconds - (now - last_up)
        text = f"{need.words}: {_count(wanted)} needed, but the last step up was less than"
        return outlook.decision(
            current, Reason.COOLDOWN, f"{text} {config.scale_up_cooldown_seconds} s ago ({left:.0f} s left)"
        )
    return outlook.decision(wanted, need.reason, f"{need.words}: from {current} to {_count(wanted)}")


def _down(
    config: Autoscaling,
    minutes: Sequence[Minute],
    window: Sequence[Sample],
    state: ScalingState,
    current: int,
    outlook: _Outlook,
    now: float,
) -> Decision:
    need = outlook.need
    may_sleep = current == 1 and config.min_replicas == 0 and not has_asked(state.asked)
    if may_sleep and is_idle(minutes, window, config.idle_seconds, now):
        text = f"nobody has asked for {config.idle_seconds} s: from 1 to 0 replicas; the next request wakes one"
        return outlook.decision(0, Reason.IDLE, text)
    if current <= config.min_replicas:
        text = f"{need.words}; minReplicas is {config.min_replicas}"
        return outlook.decision(current, Reason.WITHIN_TARGETS, text)
    hold = max(float(config.scale_down_cooldown_seconds), HOLD_STARTS * start_seconds(config, state))
    past = [m for m in minutes[-math.ceil(hold / 60) - 2 :] if now - hold - 60 <= m.at <= now]
    peak = outlook.rest
    if outlook.past and past:
        peak = max(peak, *_smooth(outlook.past[-len(past) :]))
    wanted = max(math.ceil(peak * (1 + DOWN_MARGIN)), config.min_replicas, 1)
    if wanted >= current:
        return outlook.decision(current, Reason.WITHIN_TARGETS, f"{need.words}: just right for {_count(current)}")
    would = f"{need.words}: {_count(wanted)} would do"
    wait = _wait(config, state, hold, now)
    if wait > 0:
        return outlook.decision(current, Reason.COOLDOWN, f"{would}; waiting {wait:.0f} s more after the last step")
    latest = recent(window, FRESH_SECONDS, now)[-1]
    if latest.missing:  # what is silent counts as the others, and may be the busiest of all
        return outlook.decision(current, Reason.COOLDOWN, f"{would}; but {_unheard(latest)} just now")
    if (times := _returns(outlook.past[-RETURN_MINUTES:], wanted)) >= RETURNS:
        text = f"{would}; but {times} times in {RETURN_MINUTES // 60} h the load has come back above that"
        return outlook.decision(current, Reason.COOLDOWN, text)
    measured = [m for m in past if m.silent <= m.ready / 2]
    if len(measured) < COVERAGE * hold / 60:
        text = f"{would}; not all of the last {hold:.0f} s has been measured"
        return outlook.decision(current, Reason.COOLDOWN, text)
    wanted = max(wanted, current - max(1, current // DOWN_SHARE))
    text = f"{need.words}; the load of the last {hold:.0f} s and what is forecast fill {peak:.1f} of {current}"
    return outlook.decision(wanted, Reason.LOAD_LOW, f"{text}: from {current} to {_count(wanted)}")


def _returns(needs: Sequence[float], count: int) -> int:
    """How often the load has risen above what so many replicas carry."""
    smooth = _smooth(needs, 5)
    return sum(before <= count < after for before, after in pairwise(smooth))


def _smooth(values: Sequence[float], over: int = 3) -> list[float]:
    """Means over some minutes: the peak of one alone is chance."""
    return [sum(values[max(0, i - over + 1) : i + 1]) / min(over, i + 1) for i in range(len(values))]


def _wait(config: Autoscaling, state: ScalingState, hold: float, now: float) -> float:
    """Seconds until a step down may follow what was done before: long after a step up, soon after one down."""
    up = hold - (now - min(state.last_up, now)) if state.last_up is not None else 0.0
    pause = min(DOWN_PAUSE_SECONDS, float(config.scale_down_cooldown_seconds))
    down = pause - (now - min(state.last_down, now)) if state.last_down is not None else 0.0
    return max(up, down)
