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
def test_nothing_but_the_bounds_without_data(
    data: st.DataObject, config: Autoscaling, replicas: list[ReplicaLoad], lack: str
) -> None:
    state = data.draw(states(len(replicas)))
    window = {
        "none": (),
        "part": steady(replicas, missing=1),
        "old": tuple(replace(s, at=s.at - 60) for s in steady(replicas)),
    }[lack]
    decision = decide(config, window, state, NOW)
    bounded = min(max(state.desired, config.min_replicas), config.max_replicas)
    assert decision.desired == bounded
    if bounded == state.desired:
        assert decision.reason is Reason.MISSING_METRICS
        assert not decision.has_data


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
