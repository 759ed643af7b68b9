"""The engine's decisions as values: what a gang's end is called, who is silent, what a dying server said."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r1_engine import gang as gangs
from r1_engine import health
from r1_engine.outcome import TERMINATION_LIMIT, Cause, Exit, termination_line
from r1_engine.refusal import explain
from r1_engine.stages import Member, Progress, Stage
from r1_engine.supervise import Ended

TIMES = st.floats(0, 1e6, allow_nan=False)


# ── health ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@st.composite
def observations(draw: st.DrawFn) -> list[tuple[str, int, int, tuple[float, ...], float]]:
    """Answers and loads of up to four ranks, in the order of time."""
    times = sorted(draw(st.lists(TIMES, max_size=12)))
    return [
        (
            draw(st.sampled_from(("answer", "load"))),
            draw(st.integers(0, 3)),
            draw(st.integers(0, 2)),
            (float(draw(st.integers(0, 3))),),
            time,
        )
        for time in times
    ]


def replay(events: list[tuple[str, int, int, tuple[float, ...], float]]) -> health.Ranks:
    ranks = health.Ranks.of(4)
    for kind, rank, running, counters, time in events:
        ranks = ranks.answered(rank, time) if kind == "answer" else ranks.observed({rank: (running, counters)}, time)
    return ranks


@given(events=observations(), later=st.floats(0, 100), limit=st.floats(0.1, 60))
def test_a_rank_is_hung_exactly_when_its_last_proof_is_older_than_the_limit(
    events: list[tuple[str, int, int, tuple[float, ...], float]], later: float, limit: float
) -> None:
    now = (events[-1][4] if events else 0.0) + later
    proofs: dict[int, float] = {}
    before: dict[int, tuple[float, ...]] = {}
    for kind, rank, running, counters, time in events:
        if kind == "answer" or (running and rank in before and before[rank] != counters):
            proofs[rank] = time
        if kind == "load":
            before[rank] = counters
    ranks = replay(events)
    assert set(health.hung_ranks(ranks, now, limit)) == {r for r, at in proofs.items() if now - at >= limit}
    assert set(health.silent_ranks(ranks)) == set(range(4)) - set(proofs)


@given(events=observations(), later=st.floats(0, 100), quiet=st.floats(0.1, 10))
def test_every_rank_is_asked_before_it_can_be_called_hung(
    events: list[tuple[str, int, int, tuple[float, ...], float]], later: float, quiet: float
) -> None:
    now = (events[-1][4] if events else 0.0) + later
    ranks = replay(events)
    assert set(health.hung_ranks(ranks, now, quiet)) <= set(health.ranks_to_probe(ranks, now, quiet))


def test_loads_are_read_as_sglang_writes_them() -> None:
    document = {
        "loads": [
            {"dp_rank": 0, "num_running_reqs": 2, "num_used_tokens": 40, "decode_moments": [3, 0.5]},
            {"dp_rank": 1, "num_running_reqs": 0, "num_used_tokens": 0, "decode_moments": None},
            {"num_running_reqs": 1},
        ]
    }
    assert health.loads_by_rank(document) == {0: (2, (40.0, 0.0, 0.0, 3.0, 0.5)), 1: (0, (0.0, 0.0, 0.0, 0.0))}
    assert health.loads_by_rank("unexpected") == {}


# ── the gang ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def gang(*stages: Stage, nodes: int = 2, seen: float = 0.0) -> gangs.Gang:
    result = gangs.Gang(nodes, {}, {})
    for index, stage in enumerate(stages):
        result = result.heard(Member(index, f"gpu-{index}", stage, "words of its own"), seen)
    return result


def test_a_start_that_ends_late_names_the_node_that_never_came() -> None:
    cause = gangs.start_timed_out(gang(Stage.RAY, nodes=3), 600, (0, 1))
    assert (cause.code, cause.reason) == (Exit.NEVER_READY, "NodeNeverCame")
    assert "node 1, node 2 never came" in cause.message
    assert "startup.seconds = 600" in cause.message


def test_a_start_that_ends_late_names_the_node_that_stands_still() -> None:
    cause = gangs.start_timed_out(gang(Stage.WARM_UP, Stage.WEIGHTS), 600, (0, 1))
    assert "node 1 (gpu-1) is still in stage Weights: words of its own" in cause.message
    assert cause.node == "gpu-1"


def test_a_start_that_ends_late_names_the_ranks_without_a_token() -> None:
    cause = gangs.start_timed_out(gang(Stage.WARM_UP, Stage.WARM_UP), 600, (1,))
    assert "no token came out of DP rank(s) 1" in cause.message


@given(seen=TIMES, silence=st.floats(0, 100), lease=st.floats(1, 60))
def test_a_member_is_lost_exactly_when_its_lease_is_over(seen: float, silence: float, lease: float) -> None:
    now = seen + silence
    expired = gangs.expired_member(gang(Stage.READY, Stage.READY, seen=seen), now, lease)
    assert (expired is not None) == (now - seen > lease)
    assert expired is None or expired[0] == 1


# ── stages ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.tuples(st.sampled_from(Stage), st.floats(0, 10)), max_size=10))
def test_a_stage_never_goes_back(steps: list[tuple[Stage, float]]) -> None:
    order, now = list(Stage), 0.0
    progress = Progress(Stage.RAY, "", 0.0)
    for stage, seconds in steps:
        now += seconds
        following = progress.enter(stage, "", now)
        assert order.index(following.stage) >= order.index(progress.stage)
        progress = following
    assert sum(progress.timings.values()) <= now + 0.01


# ── causes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.text(max_size=6000))
def test_a_termination_message_is_one_line_that_kubernetes_keeps_whole(message: str) -> None:
    line = termination_line(Cause(Exit.DIED, "EngineDied", message, "gpu-1"))
    assert len(line.encode()) <= TERMINATION_LIMIT
    assert "\n" not in line
    read = json.loads(line)
    assert (read["reason"], read["node"]) == ("EngineDied", "gpu-1")
    if len(message) < 300:
        assert read["message"] == message


ARGPARSE = (
    "usage: serve.py [-h] --model-path MODEL_PATH",
    "serve.py: error: unrecognized arguments: --enable-deepep-moe",
)
TRACEBACK = (
    "Traceback (most recent call last):",
    '  File "server_args.py", line 1, in check_server_args',
    "ValueError: tp_size 3 is not a multiple of attn_dp_size 2",
)


@pytest.mark.parametrize(
    ("ended", "code", "reason", "words"),
    [
        (
            Ended("server", 2, ARGPARSE, False),
            78,
            "EngineArgumentRefused",
            "unrecognized arguments: --enable-deepep-moe",
        ),
        (Ended("server", 1, TRACEBACK, False), 78, "EngineArgumentRefused", "tp_size 3 is not a multiple"),
        (Ended("server", 1, TRACEBACK, True), 70, "EngineDied", "ended with status 1. Its last error: ValueError"),
        (Ended("server", -9, (), True), 70, "EngineDied", "ended with signal 9"),
        (
            Ended("sglang::scheduler (process 7)", None, (), True),
            70,
            "EngineDied",
            "sglang::scheduler (process 7) ended.",
        ),
    ],
)
def test_the_end_of_a_server_is_told_from_its_status_and_last_words(
    ended: Ended, code: int, reason: str, words: str
) -> None:
    cause = explain(ended, "gpu-1", "node 1 (gpu-1)")
    assert (cause.code, cause.reason) == (code, reason)
    assert words in cause.message
    assert Cause.from_json(cause.to_json()) == cause
