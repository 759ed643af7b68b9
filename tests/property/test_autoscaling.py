"""The autoscaler: bounds, silence without data, cool-downs, and that more load never means fewer replicas."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from r1_operator.api.reasons import Reason
from r1_operator.api.types import Autoscaling
from r1_operator.autoscaling.decide import ScalingState, decide
from r1_operator.autoscaling.window import ReplicaLoad, Sample

NOW = 1_000_000.0
PERIOD = 10.0


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
    )


loads = st.builds(
    ReplicaLoad,
    kv_usage=st.floats(0, 1),
    tokens_per_second=st.floats(0, 10_000),
    running=st.integers(0, 500),
    waiting=st.integers(0, 100),
)


def steady(replicas: list[ReplicaLoad], seconds: float = 400, missing: int = 0) -> tuple[Sample, ...]:
    count = int(seconds / PERIOD)
    return tuple(Sample(NOW - i * PERIOD, tuple(replicas), missing) for i in reversed(range(count)))


@st.composite
def states(draw: st.DrawFn, ready: int) -> ScalingState:
    starting = draw(st.integers(0, 2))
    ago = st.none() | st.floats(0, 1000).map(lambda seconds: NOW - seconds)
    since = NOW - draw(st.floats(0, 900)) if starting else None
    return ScalingState(ready + starting, ready, starting, since, None, draw(ago), draw(ago))


def within(config: Autoscaling, state: ScalingState) -> ScalingState:
    return replace(state, desired=min(max(state.desired, config.min_replicas), config.max_replicas))


@given(st.data(), configs(), st.lists(loads, min_size=1, max_size=6))
def test_never_outside_the_bounds(data: st.DataObject, config: Autoscaling, replicas: list[ReplicaLoad]) -> None:
    state = data.draw(states(len(replicas)))
    decision = decide(config, steady(replicas), state, NOW)
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
    decision = decide(config, window, state, NOW)
    bounded = min(max(state.desired, config.min_replicas), config.max_replicas)
    assert decision.desired >= bounded
    if lack != "part":
        assert decision.desired == bounded
    if bounded == state.desired == decision.desired:
        assert not decision.has_data or decision.reason in {Reason.COOLDOWN, Reason.AT_MAXIMUM}


def full(kv: float = 0.2, running: int = 256, waiting: int = 0) -> ReplicaLoad:
    return ReplicaLoad(kv, 6000.0, running, waiting)


def test_one_silent_replica_does_not_hide_nineteen_full_ones() -> None:
    """A1."""
    window = steady([full(0.99, waiting=200)] * 19, missing=1)
    decision = decide(Autoscaling(max_replicas=40), window, ScalingState(20, 20), NOW)
    assert decision.desired > 20
    assert "1 of 20 ready replicas did not report" in decision.message


def test_full_replicas_are_not_taken_away_because_their_cache_is_half_empty() -> None:
    """A3: 4 replicas at 256 of 256 running requests and 20% KV went down to 2."""
    config = Autoscaling(max_replicas=8)
    busy = decide(config, steady([full()] * 4), ScalingState(4, 4, running_capacity=256), NOW)
    assert (busy.desired, busy.reason) == (5, Reason.REQUESTS_HIGH)
    calm = decide(config, steady([full(running=20)] * 4), ScalingState(4, 4, running_capacity=256), NOW)
    assert calm.desired == 2


def test_a_clock_that_was_set_back_makes_no_sample_fresh() -> None:
    """L13: 400 old idle samples of the "future" outvoted those of the present."""
    future = [replace(s, at=s.at + 3600) for s in steady([full(0.05, running=0)] * 4)]
    present = [Sample(NOW - 14 + i, (full(0.99, waiting=500),) * 4) for i in range(0, 14, 2)]
    decision = decide(Autoscaling(max_replicas=8), (*future, *present), ScalingState(4, 4, last_up=NOW + 3600), NOW)
    assert decision.reason is Reason.COOLDOWN
    assert "60 s left" in decision.message, "the step of the future counts as one of now"


@given(st.data(), configs(), st.lists(loads, min_size=1, max_size=6))
def test_cooldowns_hold(data: st.DataObject, config: Autoscaling, replicas: list[ReplicaLoad]) -> None:
    state = within(config, data.draw(states(len(replicas))))
    decision = decide(config, steady(replicas), state, NOW)
    if decision.desired > state.desired:
        assert state.last_up is None or NOW - state.last_up >= config.scale_up_cooldown_seconds
    if decision.desired < state.desired:
        changed = max(state.last_up or 0, state.last_down or 0)
        assert NOW - changed >= config.scale_down_cooldown_seconds


@given(st.data(), configs(), st.lists(loads, min_size=1, max_size=6), st.floats(0, 1))
def test_more_load_never_means_fewer_replicas(
    data: st.DataObject, config: Autoscaling, replicas: list[ReplicaLoad], share: float
) -> None:
    state = data.draw(states(len(replicas)))
    less = [
        ReplicaLoad(r.kv_usage * share, r.tokens_per_second * share, int(r.running * share), int(r.waiting * share))
        for r in replicas
    ]
    calm, busy = (decide(config, steady(load), state, NOW) for load in (less, replicas))
    assert calm.desired <= busy.desired


@given(st.data(), configs(), st.lists(loads, min_size=2, max_size=6))
def test_after_a_step_down_the_rest_is_within_its_targets(
    data: st.DataObject, config: Autoscaling, replicas: list[ReplicaLoad]
) -> None:
    state = within(config, data.draw(states(len(replicas))))
    decision = decide(config, steady(replicas), state, NOW)
    if decision.desired < state.desired:
        kv = sum(r.kv_usage for r in replicas) / decision.desired
        assert 100 * kv <= config.target_kv_usage_percent
        if config.target_tokens_per_second_per_replica is not None:
            rate = sum(r.tokens_per_second for r in replicas) / decision.desired
            assert rate <= config.target_tokens_per_second_per_replica


@given(configs(), st.lists(loads, min_size=1, max_size=6), st.floats(20, 200))
def test_a_short_window_never_scales_down(config: Autoscaling, replicas: list[ReplicaLoad], seconds: float) -> None:
    state = within(config, ScalingState(len(replicas), len(replicas)))
    config = config.model_copy(update={"scale_down_cooldown_seconds": 300})
    assert decide(config, steady(replicas, seconds), state, NOW).desired >= state.desired
