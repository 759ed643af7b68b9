"""The fleet simulator: its engines against arithmetic, and the operator's own mind in a closed loop with them.

A1 to A7 are the faults of the autoscaler that a review found; each runs here as the load that showed it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from r1_operator.cli.main import main
from r1_simulate import calibration, profile, traces
from r1_simulate.calibration import closed_loop
from r1_simulate.cluster import spec_of
from r1_simulate.controllers import Operator, Schedule
from r1_simulate.fleet import Fleet, Start
from r1_simulate.optimum import schedule
from r1_simulate.outcome import Targets, outcome
from r1_simulate.replica import Replica
from r1_simulate.requests import Requests
from r1_simulate.speed import Speed
from r1_simulate.world import BASELINES, Answer, Believed, Question, ask, baseline, operator_of, planned

SMALL = Speed((0.02,) * 5, 0.0, 1.0, 0.05, 0.0001, 1000, 10_000)
"""Four requests at once, 20 ms a step, whatever runs; 50 ms and 0.1 ms a token to prefill."""
LENGTHS = (1200, 1500)
HOUR = 3600.0


# --- one engine against arithmetic -----------------------------------------------------------------------------------
def served(speed: Speed, rows: list[tuple[float, int, int]]) -> Requests:
    requests = traces.requests_of(rows)
    fleet = Fleet(speed, requests, Schedule(lambda _: 1))
    fleet.play(rows[-1][0] + 1)
    return requests


def test_a_request_alone_takes_its_prefill_and_a_step_a_token() -> None:
    requests = served(SMALL, [(10.0, 500, 101)])
    assert requests.first[0] == pytest.approx(10.1)
    assert requests.last[0] == pytest.approx(10.1 + 100 * 0.02)


def test_a_fifth_request_waits_for_room_and_a_prefill_holds_up_the_others() -> None:
    requests = served(SMALL, [(0.0, 100, 101)] * 4 + [(0.5, 100, 11)])
    alone = 0.05 + 4 * 100 * 0.0001
    assert [requests.first[i] for i in range(2)] == [pytest.approx(0.06), pytest.approx(0.06 + alone - 0.01)]
    assert requests.first[4] > max(requests.last[i] for i in range(1))
    assert requests.last[0] == pytest.approx(requests.last[1], abs=0.1)


def test_a_full_memory_takes_the_youngest_back_and_nobody_is_lost() -> None:
    full = replace(SMALL, kv_tokens=1000)
    requests = served(full, [(0.0, 200, 400), (0.01, 200, 400), (0.02, 200, 400)])
    assert all(last > 0 for last in requests.last)
    assert requests.last[0] < requests.last[1] < requests.last[2]
    engine = Replica(full, traces.requests_of([(0.0, 200, 700)] * 3), 0.0)
    for number in range(3):
        engine.arrive(number, 0.0)
    while engine.load:
        engine.happen(engine.next_at)
        assert engine.kv_usage <= 1.0
    assert engine.ended == 3
    assert engine.retracted >= 1
    assert engine.output_tokens == 2100


def test_a_closed_loop_of_one_is_arithmetic_and_more_at_once_give_more_tokens_more_slowly() -> None:
    one, four = (closed_loop(SMALL, n, (100, 101)) for n in (1, 4))
    assert one.ttft_seconds == pytest.approx(0.06, rel=0.1)
    assert one.tpot_seconds == pytest.approx(0.02)
    assert one.tokens_per_second == pytest.approx(101 / (0.06 + 2.0), rel=0.1)
    assert 3 * one.tokens_per_second < four.tokens_per_second < 4 * one.tokens_per_second
    assert four.tpot_seconds > one.tpot_seconds
    rows = calibration.errors().splitlines()
    assert "| TPOT | 23 ms | " in rows[2]


def test_the_same_seed_is_the_same_run() -> None:
    one, other = (traces.shaped(traces.constant(3.0), 600.0, LENGTHS, 7) for _ in range(2))
    assert (one.at, one.inputs, one.outputs) == (other.at, other.inputs, other.outputs)
    assert len(one) == pytest.approx(1800, rel=0.1)


def test_clients_of_a_recorded_day_keep_their_rate_and_their_bursts(tmp_path: Path) -> None:
    (tmp_path / "chunk-0-trace.csv").write_text("0,2.0,3.0,Gamma,0.111,4.5\n600,0,0,,0,0\n1200,1.0,1.0,Weibull,1,1\n")
    tokens = {"input_tokens": "{10: 0.5, 20: 0.5}", "output_tokens": "{100: 1.0}"}
    (tmp_path / "chunk-0-dataset.json").write_text(json.dumps({"0": tokens}))
    clients = traces.servegen(tmp_path)
    counts = [traces.day(clients, 5.0, seed) for seed in range(20)]
    first = [sum(at < 600 for at in each.at) for each in counts]
    last = [sum(at >= 1200 for at in each.at) for each in counts]
    assert sum(first) / 20 == pytest.approx(6000, rel=0.1)
    assert sum(last) / 20 == pytest.approx(3000, rel=0.05)
    spread = [sum((n - sum(each) / 20) ** 2 for n in each) / 20 / (sum(each) / 20) for each in (first, last)]
    assert spread[0] > 3 * spread[1], "gaps of a variation of 3 come in bursts"
    assert set(counts[0].outputs) == {100}


def test_the_cheapest_schedule_pays_for_starts_and_takes_no_step_for_a_moment() -> None:
    missed = [[0, 20, 0, 300, 300, 0, 0], [0, 0, 0, 0, 0, 0, 0]]
    assert schedule(missed, 600.0, 0.1) == [1, 1, 1, 2, 2, 1, 1]
    assert schedule(missed, 600.0, 10.0) == [2, 2, 2, 2, 2, 1, 1]


# --- the operator in a closed loop -----------------------------------------------------------------------------------
@functools.cache
def a_replicas_rate() -> float:
    _, speed = planned(Question(Requests([], [], []), 0.0))
    return profile.carried(speed, LENGTHS, Targets()) / LENGTHS[1]


def run(
    rate: Callable[[float], float], hours: float, *, first: int, most: int, truth: Believed | None = None, seed: int = 1
) -> Answer:
    """`rate`: of what one replica carries."""
    top, end = a_replicas_rate(), hours * HOUR
    requests = traces.shaped(lambda t: top * rate(t), end, LENGTHS, seed)
    question = Question(requests, end, first=first, most=most, truth=truth or Believed())
    plan, speed = planned(question)
    return ask(question, "operator", operator_of(question, plan), speed)


def counts(answer: Answer) -> list[int]:
    return [count for _, count, _, _ in answer.said]


def test_a_constant_load_is_served_without_a_step() -> None:
    found = run(traces.constant(2.4), 4, first=4, most=8)
    assert found.outcome.kept > 0.99
    assert len(found.said) <= 1, found.said
    assert found.outcome.steps_up == 0


def test_a_tenfold_crowd_is_answered_at_once_and_not_a_start_at_a_time() -> None:
    """A5: 2, 3, 5, 7, 10, 14 replicas at 0, 10, 20, 30, 40 and 50 minutes."""
    found = run(traces.flash_crowd(0.5, 10, HOUR, 3 * HOUR), 3, first=1, most=20)
    asked = next(at for at, count, _, _ in found.said if count >= 5)
    assert asked - HOUR < 300
    assert max(counts(found)) <= 12, "what is begun already counts, and a queue is not asked for twice"


def test_a_load_that_goes_away_takes_replicas_a_few_at_a_time() -> None:
    """A4: 20 to 1 in one step, after less time than a start takes."""
    found = run(traces.step(12.0, 0.4, HOUR), 3, first=16, most=20)
    after = [(at, count) for at, count, _, _ in found.said if at > HOUR]
    steps = [16, *counts(found)]
    assert all(before - now <= max(1, before // 4) for before, now in pairwise(steps))
    assert steps[-1] == 1
    below = next(at for at, count in after if count < 12)
    assert below - HOUR > 600
    assert found.outcome.kept > 0.99


def test_a_square_wave_keeps_its_replicas() -> None:
    """A6: 58 steps up and 28 down in twelve hours, saturated for 430 of 432 busy minutes."""
    found = run(traces.square_wave(0.6, 3.6, 900, 600), 6, first=3, most=10)
    late = [at for at, *_ in found.said if at > 2 * HOUR]
    assert len(late) <= 24, "four an hour, and the most of them between two numbers"
    serving = [row[1] for row in found.trail if row[0] > 2 * HOUR]
    assert min(serving) >= 3, "down to one it never goes"


@pytest.mark.parametrize(
    "truth", [Believed(speed=0.7), Believed(speed=1.3), Believed(start=2.0), Believed(lost=0.2)], ids=str
)
def test_what_is_believed_may_be_wrong(truth: Believed) -> None:
    found = run(traces.ramp(0.5, 3.0, HOUR, 3 * HOUR), 4, first=2, most=12, truth=truth)
    assert found.outcome.kept > 0.9, found.said
    assert len(found.said) <= 16, found.said


def test_replicas_that_die_are_replaced_and_nobody_else_pays() -> None:
    found = run(traces.constant(2.4), 4, first=4, most=8, truth=Believed(deaths=1.0))
    assert 0.9 < found.outcome.kept < 1.0
    assert [row[1] for row in found.trail][-1] >= 3


def test_a_replica_that_never_gets_nodes_holds_up_nothing() -> None:
    """A2, in the loop: five wanted, nodes for four; the load goes and so do they."""
    top = a_replicas_rate()
    requests = traces.shaped(traces.step(3.5 * top, 0.3 * top, HOUR), 3 * HOUR, LENGTHS, 1)
    question = Question(requests, 3 * HOUR, first=4, most=5)
    plan, speed = planned(question)
    operator = replace_nodes(operator_of(question, plan), 4 * plan.nodes_per_replica)
    found = ask(question, "operator", operator, speed)
    assert max(counts(found), default=4) >= 4
    assert counts(found)[-1] == 1


def replace_nodes(operator: Operator, nodes: int) -> Operator:
    return Operator(operator.spec, nodes)


class Forgetful(Operator):
    """An operator whose process ends twice: what it had in memory is gone, what it wrote is not."""

    def control(self, fleet: Fleet) -> None:
        if fleet.now in {HOUR, 2 * HOUR}:
            self.cluster.window, self.cluster.minutes, self.cluster.start_seconds = (), (), None
        Operator.control(self, fleet)


def test_a_restart_of_the_operator_is_no_reason_for_a_step() -> None:
    """Its plan's estimate is not what it has seen, and a load that it has not measured is not none."""
    top = a_replicas_rate()
    requests = traces.shaped(traces.constant(2.4 * top), 3 * HOUR, LENGTHS, 1)
    question = Question(requests, 3 * HOUR, first=4, most=8)
    plan, speed = planned(question)
    like = operator_of(question, plan)
    operator = Forgetful(like.spec, like.nodes)
    found = ask(question, "operator", operator, speed)
    assert len(found.said) <= 1, found.said
    status = operator.cluster.status.autoscaling
    assert status is not None
    assert status.history is not None
    assert len(status.history.needed_percents) == 17
    assert all(200 < percent < 350 for percent in status.history.needed_percents)


def test_the_others_play_by_their_own_rules() -> None:
    top = a_replicas_rate()
    requests = traces.shaped(traces.ramp(0.5 * top, 3 * top, 600.0, HOUR), 2 * HOUR, LENGTHS, 1)
    question = Question(requests, 2 * HOUR, first=1, most=6)
    _, speed = planned(question)
    for who in BASELINES:
        found = ask(question, who, baseline(who, question, top * LENGTHS[1]), speed)
        assert 0 < found.outcome.kept <= 1
        assert 1 <= found.outcome.steps_up <= 40, who
    static = [profile.static(requests, speed, n, Targets(), 2 * HOUR) for n in (1, 4)]
    assert static[0].kept < 0.7 < 0.99 < static[1].kept


def test_hours_count_from_the_nodes_to_their_return() -> None:
    """A start and a drain are paid for; a replica that never served is paid for too."""
    requests = traces.requests_of([(0.0, 10, 50_000), (HOUR, 10, 10)])
    fleet = Fleet(SMALL, requests, Schedule(lambda t: 1 if t < 1000 else 0), Start(600.0, 0.0))
    fleet.run(HOUR)
    assert fleet.replica_hours() == pytest.approx(1010 / HOUR, abs=0.02)
    assert outcome(fleet, Targets(), 0.0, HOUR).requests == 1


def test_the_command_prints_a_table_and_a_page_and_names_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "day.html"
    shape = ["simulate", "--shape", "ramp", "--hours", "1", "--peak-replicas", "2", "--seeds", "2"]
    assert main([*shape, "--policy", "operator", "--policy", "static-peak", "--html", str(page)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split(" | ")[0] for row in rows] == [
        "| policy",
        "|---|---|---|---|---|---|---|",
        "| operator",
        "| static-peak",
    ]
    assert "±" in rows[2]
    assert "<svg" in page.read_text()
    assert main([*shape, "-o", "json"]) == 0
    assert {row["seed"] for row in json.loads(capsys.readouterr().out)} == {1, 2}
    assert main(["simulate", "--trace", str(tmp_path / "none.csv")]) == 2
    assert "none.csv" in capsys.readouterr().err
    assert main(["simulate", "--shape", "ramp", "--hardware", "H99x8"]) == 2
    assert "H99x8" in capsys.readouterr().err
    assert main([*shape, "--policy", "static-peak", "--html", str(page)]) == 2
    assert "--html: the page shows the operator's day" in capsys.readouterr().err


def test_the_simulated_operator_plans_the_real_model() -> None:
    operator = Operator({**spec_of(), "hardware": "CPUx1"}, 2)
    assert operator.cluster.devices == 1
    question = Question(Requests([], [], []), 0.0)
    plan, speed = planned(question)
    assert operator_of(question, plan).cluster.devices == 8
    assert speed.max_running == plan.limits.max_running_requests
