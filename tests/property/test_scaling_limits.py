"""Schedules and sleep: which limits hold at which minute, and that nobody sleeps while anybody asks."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r1_operator.api.cron import is_cron, is_time_zone
from r1_operator.api.reasons import Reason
from r1_operator.api.types import Autoscaling, ScalingSchedule
from r1_operator.autoscaling.decide import ScalingState, decide
from r1_operator.autoscaling.history import Minute, fold
from r1_operator.autoscaling.idle import ASKED_SECONDS, is_idle
from r1_operator.autoscaling.schedule import bounds
from r1_operator.autoscaling.window import ReplicaLoad, Sample

BERLIN = ZoneInfo("Europe/Berlin")
DAY = ScalingSchedule(
    name="office", start="0 7 * * 1-5", end="30 19 * * 1-5", time_zone="Europe/Berlin", min_replicas=4
)


def scaled(*schedules: ScalingSchedule, low: int = 1, high: int = 8) -> Autoscaling:
    return Autoscaling(min_replicas=low, max_replicas=high, schedules=schedules)


def least(config: Autoscaling, moment: datetime, ahead: float = 0) -> int:
    return bounds(config, moment.timestamp(), ahead).minimum


@pytest.mark.parametrize(
    ("moment", "minimum"),
    [
        (datetime(2026, 11, 27, 6, 59, 59, tzinfo=BERLIN), 1),
        (datetime(2026, 11, 27, 7, 0, tzinfo=BERLIN), 4),
        (datetime(2026, 11, 27, 19, 29, 59, tzinfo=BERLIN), 4),
        (datetime(2026, 11, 27, 19, 30, tzinfo=BERLIN), 1),
        (datetime(2026, 11, 28, 12, 0, tzinfo=BERLIN), 1),
        # The clock went forward on the 29th of March, a Sunday: seven o'clock is five in Greenwich, and was six.
        (datetime(2026, 3, 27, 5, 59, tzinfo=ZoneInfo("UTC")), 1),
        (datetime(2026, 3, 30, 5, 0, tzinfo=ZoneInfo("UTC")), 4),
    ],
)
def test_a_schedule_holds_by_the_clocks_of_its_zone(moment: datetime, minimum: int) -> None:
    assert least(scaled(DAY), moment) == minimum


def test_what_a_schedule_wants_is_begun_one_start_before() -> None:
    before = datetime(2026, 11, 27, 6, 50, tzinfo=BERLIN)
    assert least(scaled(DAY), before, ahead=600) == 4
    assert least(scaled(DAY), before - timedelta(minutes=1), ahead=600) == 1
    state = ScalingState(desired=1, ready=1, start_seconds=600)
    decision = decide(scaled(DAY), (), (), state, before.timestamp())
    assert (decision.desired, decision.reason) == (4, Reason.AT_MINIMUM)
    assert decision.message == "1 replica wanted; minReplicas 4, maxReplicas 8 (schedule office)"
    # Of its end nothing is anticipated.
    assert least(scaled(DAY), datetime(2026, 11, 27, 19, 29, tzinfo=BERLIN), ahead=600) == 4


def test_of_several_the_greatest_limits_count_whatever_their_order() -> None:
    more = ScalingSchedule(name="sale", start="0 10 27 11 *", end="0 12 27 11 *", min_replicas=2, max_replicas=20)
    noon = datetime(2026, 11, 27, 11, 0, tzinfo=ZoneInfo("UTC")).timestamp()
    for config in (scaled(DAY, more), scaled(more, DAY)):
        found = bounds(config, noon, 0)
        assert (found.minimum, found.maximum) == (4, 20)
        assert set(found.by) == {"office", "sale"}


@given(
    st.integers(0, 23), st.integers(0, 23), st.integers(0, 59), st.integers(0, 2 * 365 * 24 * 60), st.floats(0, 3600)
)
def test_limits_are_what_a_clock_that_runs_through_the_day_would_say(
    start: int, end: int, minute: int, moment: int, ahead: float
) -> None:
    """Also where the end comes before the start, over midnight."""
    schedule = ScalingSchedule(name="s", start=f"{minute} {start} * * *", end=f"0 {end} * * *", min_replicas=3)
    at = datetime(2026, 1, 5, tzinfo=ZoneInfo("UTC")) + timedelta(minutes=moment)
    begin, over, here = start * 60 + minute, end * 60, at.hour * 60 + at.minute
    inside = begin != over and (here - begin) % 1440 < (over - begin) % 1440
    assert (least(scaled(schedule), at) == 3) is inside
    assert least(scaled(schedule), at, ahead) >= least(scaled(schedule), at)


@pytest.mark.parametrize("wrong", ["61 * * * *", "0 24 * * *", "0 0 31 2 *", "0 0 0 * *", "5-1 * * * *", "0 0 * * xyz"])
def test_what_names_no_time_is_no_cron(wrong: str) -> None:
    assert not is_cron(wrong)
    assert is_cron("*/15 7-19 1,15 JAN-jun 1-5")


def test_zones_are_those_of_the_database() -> None:
    assert is_time_zone("Europe/Berlin")
    assert not any(map(is_time_zone, ("Europe", "Berlin", "../etc/passwd", "")))


# --- sleep ------------------------------------------------------------------------------------------------------------
NOW = 1_000_020.0
SLEEPY = Autoscaling(min_replicas=0, max_replicas=3, idle_seconds=600, scale_down_cooldown_seconds=0)
QUIET = ReplicaLoad(0.0, 0.0, 0, 0, ended=7, name="a")


def watched(seconds: float, *changed: tuple[float, ReplicaLoad | None]) -> tuple[Sample, ...]:
    """A look every 2 s, idle but for those `changed`: so long ago, that load, or no answer."""
    found = {round(ago / 2): load for ago, load in changed}
    return tuple(
        Sample(NOW - 2 * i, (load,) if load else (), 0 if load else 1)
        for i in reversed(range(int(seconds / 2) + 1))
        for load in [found.get(i, QUIET)]
    )


def said(window: tuple[Sample, ...], asked: float | None = None, desired: int = 1) -> tuple[int, str]:
    state = ScalingState(desired=desired, ready=desired, start_seconds=60, asked=asked)
    decision = decide(SLEEPY, fold((), window, NOW), window, state, NOW)
    return decision.desired, decision.reason


def test_the_last_replica_sleeps_after_an_idle_time_that_was_measured() -> None:
    assert said(watched(700)) == (0, Reason.IDLE)
    assert said(watched(590))[0] == 1, "not so long yet"
    assert said(watched(700, (400, replace_running(1))))[0] == 1, "somebody asked"
    assert said(watched(700, (300, None)))[0] == 1, "of one look nobody knows"
    assert said(tuple(s for s in watched(700) if not 100 < NOW - s.at < 200))[0] == 1, "nobody looked"
    before = tuple(Sample(s.at, tuple(QUIET for _ in s.replicas)) for s in watched(700) if NOW - s.at > 300)
    after = tuple(Sample(s.at, (ReplicaLoad(0.0, 0.0, 0, 0, ended=8, name="a"),)) for s in watched(300))
    assert said((*before, *after))[0] == 1, "one came and went between two looks"


def replace_running(running: int) -> ReplicaLoad:
    return ReplicaLoad(0.1, 50.0, running, 0, ended=7, name="a")


@given(st.floats(0, 1000))
def test_a_request_wakes_one_replica_and_nothing_else_does(ago: float) -> None:
    assert said((), asked=ago, desired=0) == ((1, Reason.WOKEN) if ago <= ASKED_SECONDS else (0, Reason.ASLEEP))
    assert said((), asked=None, desired=0) == (0, Reason.ASLEEP)
    assert said(watched(700), asked=None, desired=0)[0] == 0, "old looks are none"


def test_a_schedule_wakes_what_sleeps() -> None:
    office = DAY.model_copy(update={"min_replicas": 2})
    config = scaled(office, low=0)
    state = ScalingState(desired=0, ready=0, start_seconds=600)
    at = datetime(2026, 11, 27, 6, 55, tzinfo=BERLIN).timestamp()
    assert decide(config, (), (), state, at).desired == 2
    assert decide(config, (), (), state, at - 3600).desired == 0


@given(st.integers(2, 24), st.integers(0, 23 * 60))
def test_of_an_idle_time_of_hours_each_minute_counts(hours: int, when: int) -> None:
    seconds = hours * 3600.0
    start = NOW // 60 * 60 - seconds - 300
    quiet = [Minute(start + 60 * i, 1, 0, 0, 0, 0, 0.0, 0.0) for i in range(int(seconds / 60) + 4)]
    window = watched(3600)
    assert is_idle(quiet, window, seconds, NOW)
    busy = min(when, len(quiet) - 70)
    if quiet[busy].at >= NOW - seconds:
        loud = [*quiet[:busy], Minute(quiet[busy].at, 1, 1, 0, 0.1, 20, 0.1, 0.0), *quiet[busy + 1 :]]
        assert not is_idle(loud, window, seconds, NOW)
    assert not is_idle(quiet[-70:], window, seconds, NOW), "not known"
