"""How many replicas the load needs.

Each signal is turned into a number of replicas: KV use summed over the replicas / target, tokens per second / target,
waiting requests / allowed ones. The largest counts. Up follows the mean of the last `UP_SECONDS`; down needs every
sample of the whole scale-down cool-down to fit, with a margin, into fewer replicas. Replicas that are still starting
already count as capacity, because desired includes them. Without complete and fresh data only the bounds act.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..api.reasons import Reason
from ..api.types import Autoscaling
from .window import Sample, recent

UP_SECONDS = 15.0
"""Mean over this long before a step up: shorter than any start, longer than one burst of a few requests."""
FRESH_SECONDS = UP_SECONDS
"""Older than this, a sample says nothing about now. One scrape that timed out is no reason to go blind."""
TOLERANCE = 0.05
"""Need above the present number by less than this share does not count (Kubernetes' HPA uses 0.1)."""
DOWN_MARGIN = 0.8
"""After a step down the rest may carry at most this share of their target: otherwise the next step would be up."""
RUNNING_TARGET = 0.9
"""Of the requests that the engines run at once. R1's cache holds more: they fill up first, then it queues."""
COVERAGE = 0.8
"""Share of the scale-down window that complete samples must span, and share of the samples that must be complete."""


@dataclass(frozen=True, slots=True)
class ScalingState:
    """What was decided before, and what came of it. Times in unix seconds; `start_seconds`: what a start takes here,
    measured, or None. `spares`: replicas beside `desired` that serve as well."""

    desired: int
    ready: int
    starting: int = 0
    starting_since: float | None = None
    start_seconds: float | None = None
    last_up: float | None = None
    last_down: float | None = None
    spares: int = 0
    running_capacity: int | None = None
    """Requests that one replica runs at once (--max-running-requests), if known."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Replicas wanted from now on, and why."""

    desired: int
    reason: Reason
    message: str
    has_data: bool = True


@dataclass(frozen=True, slots=True)
class _Need:
    """Replicas that one signal asks for, as a real number, and its words."""

    replicas: float
    reason: Reason
    words: str


def decide(config: Autoscaling, window: Sequence[Sample], state: ScalingState, now: float) -> Decision:
    """Decide. `window` oldest first. Deterministic; never outside [minReplicas, maxReplicas]."""
    bounded = min(max(state.desired, config.min_replicas), config.max_replicas)
    if bounded != state.desired:
        reason = Reason.AT_MINIMUM if bounded > state.desired else Reason.AT_MAXIMUM
        bounds = f"minReplicas {config.min_replicas}, maxReplicas {config.max_replicas}"
        return Decision(bounded, reason, f"{_count(state.desired)} wanted; {bounds}")
    latest = [s for s in recent(window, UP_SECONDS, now) if s.complete]
    missing = _missing(window, state, now)
    if missing is not None:
        known = [s for s in recent(window, UP_SECONDS, now) if s.replicas]
        if known and state.ready:
            need = max(_needs(config, known, state), key=lambda n: n.replicas)
            if need.replicas > bounded * (1 + TOLERANCE):
                return _up(config, state, bounded, replace(need, words=f"{missing}; of the others: {need.words}"), now)
        reason = Reason.REPLICA_STARTING if state.ready == 0 and state.starting else Reason.MISSING_METRICS
        return Decision(bounded, reason, f"{missing}; the number of replicas stays at {bounded}", has_data=False)
    need = max(_needs(config, latest, state), key=lambda n: n.replicas)
    if need.replicas > bounded * (1 + TOLERANCE):
        return _up(config, state, bounded, need, now)
    if state.starting and need.replicas > state.ready * (1 + TOLERANCE):
        return Decision(bounded, Reason.REPLICA_STARTING, f"{need.words}; {_coming(config, state, now)}")
    return _down(config, window, state, bounded, need, now)


def _count(number: float, noun: str = "replica") -> str:
    shown = f"{number:.0f}"
    return f"{shown} {noun}" if shown == "1" else f"{shown} {noun}s"


def _coming(config: Autoscaling, state: ScalingState, now: float) -> str:
    took = state.start_seconds if state.start_seconds is not None else float(config.startup_seconds)
    how = "as measured here" if state.start_seconds is not None else "spec.autoscaling.startupSeconds"
    since = now - state.starting_since if state.starting_since is not None else 0.0
    left = f"ready in about {took - since:.0f} s" if since < took else f"{since - took:.0f} s overdue"
    return f"{state.starting} starting, {left} (a start takes {took:.0f} s, {how}), will carry the rest"


def _missing(window: Sequence[Sample], state: ScalingState, now: float) -> str | None:
    if state.ready == 0:
        return "no replica is ready, so there is no load to measure"
    fresh = recent(window, FRESH_SECONDS, now)
    if any(s.complete for s in fresh):
        return None
    if fresh and fresh[-1].missing:
        last = fresh[-1]
        return f"{last.missing} of {last.missing + len(last.replicas)} ready replicas did not report their load"
    if not window:
        return "no engine has been measured yet"
    return f"the last measurement is {now - window[-1].at:.0f} s old"


def _needs(config: Autoscaling, samples: Sequence[Sample], state: ScalingState, margin: float = 1.0) -> list[_Need]:
    """What each signal asks for, on the mean of `samples`. `margin` < 1 asks for spare capacity."""
    count = len(samples)
    kv = sum(s.kv_replicas for s in samples) / count
    ready = sum(len(s.replicas) for s in samples) / count
    target = config.target_kv_usage_percent / 100
    words = f"KV cache {100 * kv / ready:.0f}% used in {_count(ready)} (target {config.target_kv_usage_percent}%)"
    needs = [_Need(kv / (target * margin), Reason.KV_USAGE_HIGH, words)]
    if config.target_tokens_per_second_per_replica is not None:
        rate = sum(s.tokens_per_second for s in samples) / count
        goal = config.target_tokens_per_second_per_replica
        words = f"{rate:.0f} tokens/s in {_count(ready)} (target {goal} each)"
        needs.append(_Need(rate / (goal * margin), Reason.THROUGHPUT_HIGH, words))
    if state.running_capacity:
        running = sum(s.running for s in samples) / count
        words = f"{_count(running, 'request')} running in {_count(ready)} of {state.running_capacity} each"
        full = state.running_capacity * RUNNING_TARGET
        needs.append(_Need(running / (full * margin), Reason.REQUESTS_HIGH, words))
    waiting = sum(s.waiting for s in samples) / count
    allowed = config.max_waiting_requests_per_replica
    words = f"{_count(waiting, 'request')} waiting in {_count(ready)} (at most {allowed} each)"
    # A queue says that the present replicas do not keep up; how far, only its growth would tell. One more at a time.
    excess = waiting > allowed * ready
    silent = sum(s.missing for s in samples) / count
    queue = (
        max(1.0, ready + silent - state.spares) + 1
        if excess
        else (ready * waiting / (allowed * ready) if allowed else 0.0)
    )
    needs.append(_Need(queue, Reason.QUEUE_LONG, words))
    return needs


def _up(config: Autoscaling, state: ScalingState, current: int, need: _Need, now: float) -> Decision:
    wanted = math.ceil(need.replicas - TOLERANCE * current)
    wanted = min(max(wanted, current + 1), config.max_replicas)
    if wanted <= current:
        return Decision(current, Reason.AT_MAXIMUM, f"{need.words}; maxReplicas is {config.max_replicas}")
    last_up = None if state.last_up is None else min(state.last_up, now)
    if last_up is not None and now - last_up < config.scale_up_cooldown_seconds:
        left = config.scale_up_cooldown_seconds - (now - last_up)
        text = f"{need.words}: {_count(wanted)} needed, but the last step up was less than"
        return Decision(
            current, Reason.COOLDOWN, f"{text} {config.scale_up_cooldown_seconds} s ago ({left:.0f} s left)"
        )
    return Decision(wanted, need.reason, f"{need.words}: from {current} to {_count(wanted)}")


def _down(
    config: Autoscaling, window: Sequence[Sample], state: ScalingState, current: int, need: _Need, now: float
) -> Decision:
    if current <= config.min_replicas:
        return Decision(current, Reason.WITHIN_TARGETS, f"{need.words}; minReplicas is {config.min_replicas}")
    cooldown = config.scale_down_cooldown_seconds
    samples = recent(window, max(cooldown, UP_SECONDS), now)
    peak = max(
        (n for s in samples if s.complete for n in _needs(config, [s], state, DOWN_MARGIN)),
        key=lambda n: n.replicas,
        default=need,
    )
    wanted = max(math.ceil(peak.replicas), config.min_replicas, 1)
    if wanted >= current:
        return Decision(current, Reason.WITHIN_TARGETS, f"{need.words}: just right for {_count(current)}")
    changed = min(max(state.last_up or 0.0, state.last_down or 0.0), now)
    if now - changed < cooldown:
        left = cooldown - (now - changed)
        text = f"{need.words}: {_count(wanted)} would do; waiting {left:.0f} s more after the last step"
        return Decision(current, Reason.COOLDOWN, text)
    if state.starting:
        text = f"{need.words}: {_count(wanted)} would do; {state.starting} still starting, so the load is not settled"
        return Decision(current, Reason.REPLICA_STARTING, text)
    measured = [s for s in samples if s.complete]
    if len(measured) < COVERAGE * len(samples) or now - measured[0].at < COVERAGE * cooldown:
        text = f"{need.words}: {_count(wanted)} would do; not all of the last {cooldown} s has been measured"
        return Decision(current, Reason.COOLDOWN, text)
    return Decision(
        wanted,
        Reason.LOAD_LOW,
        f"{need.words}; the load of the last {cooldown} s, with a margin, fills {peak.replicas:.1f} of {current}: "
        f"from {current} to {_count(wanted)}",
    )
