"""The autoscaler: bounds, silence without data, cool-downs, and that more load never means fewer replicas.

What it does over a whole day is in tests/simulate/test_simulate.py, where it runs against simulated engines.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r1_operator.api.reasons import Reason
from r1_operator.api.types import Autoscaling
from r1_operator.autoscaling.capacity import Load, Prior, capacity
from r1_operator.autoscaling.decide import Decision, ScalingState, decide, start_seconds
from r1_operator.autoscaling.demand import offered
from r1_operator.autoscaling.forecast import DAY, forecast
from r1_operator.autoscaling.history import Minute, fold
from r1_operator.autoscaling.window import ReplicaLoad, Sample

NOW = 1_000_020.0
PERIOD = 10.0
PRIOR = Prior(running=256, seconds_per_token=0.08)


@st.composite
def configs(draw: st.DrawFn) -> Autoscaling:
    low = draw(st.integers(1, 4))
    return Autoscaling(
        min_replicas=low,
        max_replicas=low + draw(st.integers(0, 6)),
        target_kv_usage_percent=draw(st.integers(20, 95)),
        target_tokens_per_second_per_replica=draw(st.none() | st.integers(10, 5000)),
        max_waiting_requests_per_replica=draw(st.integers(0, 20)),
        scale_up_cooldown_seconds=draw(st.sampled_from([0, 30, 60])),
        scale_down_cooldown_seconds=draw(st.sampled_from([0, 30, 300])),
        startup_seconds=draw(st.sampled_from([30, 180])),
    )


loads = st.builds(
    ReplicaLoad,
    kv_usage=st.floats(0, 1),
    tokens_per_second=st.floats(0, 10_000),
    running=st.integers(0, 500),
    waiting=st.integers(0, 100),
    ended=st.none() | st.integers(0, 1000),
    name=st.sampled_from(["a", "b", "c"]),
)


def steady(replicas: list[ReplicaLoad], seconds: float = 900, missing: int = 0) -> tuple[Sample, ...]:
    count = int(seconds / PERIOD)
    return tuple(Sample(NOW - i * PERIOD, tuple(replicas), missing) for i in reversed(range(count)))


def decided(config: Autoscaling, window: tuple[Sample, ...], state: ScalingState) -> Decision:
    return decide(config, fold((), window, NOW), window, state, NOW)


@st.composite
def states(draw: st.DrawFn, ready: int) -> ScalingState:
    starting = draw(st.integers(0, 2))
    ago = st.none() | st.floats(0, 1000).map(lambda seconds: NOW - seconds)
    since = NOW - draw(st.floats(0, 900)) if starting else None
    prior = draw(st.sampled_from([None, PRIOR]))
    return ScalingState(ready + starting, ready, starting, since, None, draw(ago), draw(ago), prior=prior)


def within(config: Autoscaling, state: ScalingState) -> ScalingState:
    return replace(state, desired=min(max(state.desired, config.min_replicas), config.max_replicas))


@given(st.data(), configs(), st.lists(loads, min_size=1, max_size=6))
def test_never_outside_the_bounds(data: st.DataObject, config: Autoscaling, replicas: list[ReplicaLoad]) -> None:
    decision = decided(config, steady(replicas), data.draw(states(len(replicas))))
    assert config.min_replicas <= decision.desired <= config.max_replicas
    assert decision.message


@given(st.data(), configs(), st.lists(loads, min_size=1, max_size=6), st.sampled_from(["none", "part", "old"]))
def test_without_data_nothing_goes_and_what_is_known_may_add(
    data: st.DataObject, config: Autoscaling, replicas: list[ReplicaLoad], lack: str
) -> None:
    """A1: one silent replica of twenty is no reason to be blind for the other nineteen."""
    state = data.draw(states(len(replicas)))
    window = {
        "none": (),
        "part": steady(replicas, missing=1),
        "old": tuple(replace(s, at=s.at - 60) for s in steady(replicas)),
    }[lack]
    decision = decided(config, window, state)
    bounded = min(max(state.desired, config.min_replicas), config.max_replicas)
    assert decision.desired >= bounded
    if lack != "part":
        assert decision.desired == bounded
    if bounded == state.desired == decision.desired:
        assert not decision.has_data or decision.reason in {Reason.COOLDOWN, Reason.AT_MAXIMUM}


def full(kv: float = 0.2, running: int = 256, waiting: int = 0, tokens: float = 6000.0) -> ReplicaLoad:
    return ReplicaLoad(kv, tokens, running, waiting)


def test_one_silent_replica_does_not_hide_nineteen_full_ones() -> None:
    """A1."""
    window = steady([full(0.99, waiting=200)] * 19, missing=1)
    decision = decided(Autoscaling(max_replicas=40), window, ScalingState(20, 20))
    assert decision.desired > 20
    assert "1 of 20 ready replicas did not report" in decision.message


def test_full_replicas_are_not_taken_away_because_their_cache_is_half_empty() -> None:
    """A3: 4 replicas at 256 of 256 running requests and 20% KV went down to 2."""
    config, state = Autoscaling(max_replicas=8), ScalingState(4, 4, running_capacity=256, prior=PRIOR)
    busy = decided(config, steady([full()] * 4), state)
    assert busy.desired >= 4
    assert "max-running-requests" in busy.message
    calm = decided(config, steady([full(running=20, tokens=400.0)] * 4, 2400), state)
    assert (calm.desired, calm.reason) == (3, Reason.LOAD_LOW), "one at a time"


def test_a_full_rank_is_not_hidden_by_the_mean() -> None:
    """A7: rank 0 full with 7 waiting, mean 62% → within targets, for ever."""
    one = ReplicaLoad(0.62, 3000.0, 120, 7, kv_usage_max=1.0)
    config, state = Autoscaling(max_replicas=4), ScalingState(1, 1, running_capacity=256)
    decision = decided(config, steady([one]), state)
    assert decision.desired == 2
    assert decision.reason in {Reason.KV_USAGE_HIGH, Reason.FORECAST_HIGH}
    nobody_waits = decided(config, steady([replace(one, waiting=0)]), state)
    assert nobody_waits.desired == 1


def test_a_queue_asks_for_as_many_as_would_run_it() -> None:
    """A5: one more replica at a time, a start apart, met a tenfold crowd after 50 minutes."""
    crowd = steady([full(0.9, running=256, waiting=2000)], 60)
    state = ScalingState(1, 1, running_capacity=256, prior=PRIOR)
    assert decided(Autoscaling(max_replicas=40), crowd, state).desired >= 8


def test_a_crowd_is_met_when_it_comes_and_not_when_it_queues() -> None:
    """Requests that arrive tell it: the replicas are not full yet, and nobody waits."""
    calm = [ReplicaLoad(0.1, 1000.0, 20, 0, ended=100 + 5 * i, name="a") for i in range(90)]
    comes = [ReplicaLoad(0.1, 1000.0, 20 + 45 * i, 0, ended=550 + 5 * i, name="a") for i in range(1, 6)]
    window = tuple(Sample(NOW + 10.0 * (i - 94), (one,)) for i, one in enumerate([*calm, *comes]))
    state = ScalingState(1, 1, running_capacity=256, prior=PRIOR)
    before = decided(Autoscaling(max_replicas=40), tuple(replace(s, at=s.at + 50) for s in window[:-5]), state)
    assert before.desired == 1
    assert decided(Autoscaling(max_replicas=40), window, state).desired >= 2


def test_a_clock_that_was_set_back_makes_no_sample_fresh() -> None:
    """L13: 400 old idle samples of the "future" outvoted those of the present."""
    future = tuple(replace(s, at=s.at + 3600) for s in steady([full(0.05, running=0)] * 4))
    present = tuple(Sample(NOW - 14 + i, (full(0.99, waiting=500),) * 4) for i in range(0, 14, 2))
    minutes = fold((), future, NOW + 3600)
    state = ScalingState(4, 4, last_up=NOW + 3600)
    kept = fold(minutes, (*future, *present), NOW)
    assert all(m.at <= NOW for m in kept)
    decision = decide(Autoscaling(max_replicas=8), kept, (*future, *present), state, NOW)
    assert decision.reason is Reason.COOLDOWN
    assert "60 s left" in decision.message, "the step of the future counts as one of now"


@given(st.data(), configs(), st.lists(loads, min_size=1, max_size=6))
def test_cooldowns_hold(data: st.DataObject, config: Autoscaling, replicas: list[ReplicaLoad]) -> None:
    state = within(config, data.draw(states(len(replicas))))
    decision = decided(config, steady(replicas), state)
    if decision.desired > state.desired:
        assert state.last_up is None or NOW - state.last_up >= config.scale_up_cooldown_seconds
    if decision.desired < state.desired:
        hold = max(config.scale_down_cooldown_seconds, start_seconds(config, state))
        assert state.last_up is None or NOW - state.last_up >= hold
        assert state.desired - decision.desired <= max(1, state.desired // 4), "a few at a time (A4)"


@given(st.data(), configs(), st.integers(1, 6), st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0, 1))
def test_more_load_never_means_fewer_replicas(
    data: st.DataObject, config: Autoscaling, count: int, fills: list[float], share: float
) -> None:
    """Of the same replicas, known by their plan: what they do under one load is what they would under another."""
    state = replace(data.draw(states(count)), prior=PRIOR, running_capacity=256)
    size = capacity((), PRIOR, 256, None, 1.0)
    assert size is not None

    def at(fill: float) -> ReplicaLoad:
        running = fill * 256
        return ReplicaLoad(fill, running * size.alone / (1 + size.per_token * running), round(running), 0)

    replicas = [at(fills[i % len(fills)]) for i in range(count)]
    less = [at(share * fills[i % len(fills)]) for i in range(count)]
    calm, busy = (decided(config, steady(each), state) for each in (less, replicas))
    assert calm.desired <= busy.desired


@given(configs(), st.lists(loads, min_size=1, max_size=6), st.floats(20, 100))
def test_a_short_window_never_scales_down(config: Autoscaling, replicas: list[ReplicaLoad], seconds: float) -> None:
    state = within(config, ScalingState(len(replicas), len(replicas)))
    config = config.model_copy(update={"scale_down_cooldown_seconds": 300})
    assert decided(config, steady(replicas, seconds), state).desired >= state.desired


@given(st.lists(loads, min_size=1, max_size=4), st.integers(1, 30))
def test_a_history_is_the_same_however_often_it_is_brought_up_to_date(replicas: list[ReplicaLoad], every: int) -> None:
    window = steady(replicas, 600)
    minutes: tuple[Minute, ...] = ()
    for end in range(1, len(window) + 1, every):
        minutes = fold(minutes, window[:end], window[end - 1].at)
    minutes = fold(minutes, window, NOW)
    assert minutes == fold((), window, NOW)
    assert [m.at for m in minutes] == sorted({m.at for m in minutes})


def test_a_counter_that_begins_anew_is_no_crowd() -> None:
    """A replica that was restarted counts from 0 again, and one that is new brings its whole count along."""
    first = [Sample(NOW - 120 + i, (ReplicaLoad(0.5, 100.0, 4, 0, ended=500 + i, name="a"),)) for i in range(0, 60, 5)]
    later = [Sample(NOW - 60 + i, (ReplicaLoad(0.5, 100.0, 4, 0, ended=i, name="a"),)) for i in range(0, 65, 5)]
    for minute in fold((), (*first, *later), NOW):
        assert minute.ended == pytest.approx(1.0, abs=0.1)
        assert minute.arrived == pytest.approx(1.0, abs=0.1)


def test_silence_is_neither_idle_nor_full() -> None:
    busy = full(0.5, running=100, tokens=1000.0)
    (*_, all_of_them) = fold((), steady([busy] * 4, 300), NOW)
    (*_, three) = fold((), steady([busy] * 3, 300, missing=1), NOW)
    assert three == replace(all_of_them, silent=1.0)


def test_a_full_replica_that_falls_silent_beside_an_idle_one_takes_nobody_away() -> None:
    """It counts as the mean of the others, which are idle, until it has been silent for long; a start of seconds holds
    nothing back. The crowd has come a moment ago, so that no minute before speaks against a step down either."""
    config = Autoscaling(max_replicas=2, scale_down_cooldown_seconds=5, startup_seconds=6)
    calm, busy, idle = (
        ReplicaLoad(kv, 100 * kv, round(8 * kv), 0, name=n) for kv, n in ((0, "a"), (0.97, "a"), (0, "b"))
    )
    window = [Sample(NOW - 340 + 2 * i, (calm,)) for i in range(150)]
    window += [Sample(NOW - 40 + 2 * i, (busy,)) for i in range(20)]
    state = ScalingState(2, 2, start_seconds=6.0, last_up=NOW - 10)
    for at in range(0, 60, 2):
        window.append(Sample(NOW + at, (idle,), missing=1) if at > 2 else Sample(NOW + at, (busy, idle)))
        decision = decide(config, fold((), window, NOW + at), window, state, NOW + at)
        assert decision.desired == 2, (at, decision.message)


def test_a_constant_load_is_offered_as_it_is_served() -> None:
    """However wrong the tokens per request are, as after a load of another kind."""
    minutes = [Minute(60.0 * i, 1, 10, 0, 0.2, 500.0, 0.5, 0.5) for i in range(10)]
    minutes += [Minute(600.0 + 60 * i, 1, 1, 0, 0.1, 20.0, 1.0, 1.0) for i in range(5)]
    assert offered(minutes)[-1] == Load(1.0, 20.0)


@given(st.integers(0, 10_000), st.integers(1, 30))
def test_a_forecast_of_a_constant_is_that_constant(seed: int, ahead: int) -> None:
    rng = Random(seed)
    noise = [100 * (1 + 0.02 * rng.uniform(-1, 1)) for _ in range(400)]
    found = forecast(noise, ahead, 0.9)
    assert found.mean == pytest.approx(100, rel=0.15)
    assert found.mean <= found.upper <= 1.2 * found.mean


def test_a_forecast_follows_a_ramp_and_knows_the_day_before() -> None:
    ramp = [100.0 + 2 * i for i in range(400)]
    assert forecast(ramp, 10, 0.9).way == "trend"
    assert forecast(ramp, 10, 0.9).mean > ramp[-1]
    jump = [1000.0 if i % DAY >= 720 else 100.0 for i in range(DAY + 715)]
    found = forecast(jump, 10, 0.9)
    assert (found.way, round(found.mean)) == ("day before", 1000), "five minutes before it comes"


@given(st.floats(0.1, 20), st.floats(10, 4000))
def test_a_capacity_that_was_seen_replaces_the_plans(requests: float, tokens: float) -> None:
    """Replicas of half the speed that was planned: the need doubles once there is evidence."""
    minutes = [
        Minute(60.0 * i, 1, n, 0, 0.01 * n, n * u, 0.01 * n, 0.01 * n)
        for i in range(120)
        for n in [20.0 + i]
        for u in [1 / (2 * (0.032 + 0.0001875 * n))]
    ]
    believed, seen = (capacity(each, PRIOR, 256, 0.3, 0.9) for each in ((), minutes))
    assert believed is not None
    assert seen is not None
    load = Load(requests, tokens)
    more = seen.replicas(load)[0] / believed.replicas(load)[0]
    assert more > 0.6, "the plan counts for half until it has been seen"
    assert seen.alone == pytest.approx(1 / 0.064, rel=0.25)
