"""The engine's decisions as values: what a gang's end is called, who is silent, what a dying server said."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r1_engine import compiling, health, starvation
from r1_engine import gang as gangs
from r1_engine.config import Limits
from r1_engine.node import Ending
from r1_engine.outcome import TERMINATION_LIMIT, Cause, Exit, termination_line
from r1_engine.refusal import explain, with_xids
from r1_engine.stages import Member, Progress, Stage
from r1_engine.supervise import Ended
from r1_engine.xids import Xid

TIMES = st.floats(0, 1e6, allow_nan=False)


# ── health ───────────────────────────────────────────────────────────────────────────────────────────────────────────

Event = tuple[str, int, int, tuple[float, ...], health.Moment]


def growing(limit: float) -> st.SearchStrategy[list[float]]:
    return st.lists(st.floats(0, limit), max_size=12).map(sorted)


@st.composite
def observations(draw: st.DrawFn) -> tuple[list[Event], health.Moment]:
    """Answers and loads of up to four ranks in the order of time, with waits for a CPU, and a moment after them."""
    counts = zip(draw(growing(1e5)), draw(growing(1e4)), draw(growing(1e4)), strict=False)
    moments = [health.Moment(*count) for count in counts]
    events = [
        (
            draw(st.sampled_from(("answer", "load"))),
            draw(st.integers(0, 3)),
            draw(st.integers(0, 2)),
            (float(draw(st.integers(0, 3))),),
            moment,
        )
        for moment in moments
    ]
    last = moments[-1] if moments else health.Moment(0.0)
    later = [value + draw(st.floats(0, 100)) for value in (last.at, last.waited, last.compiled)]
    return events, health.Moment(*later)


def replay(events: list[Event]) -> health.Ranks:
    ranks = health.Ranks.of(4)
    for kind, rank, running, counters, moment in events:
        seen = {rank: (running, counters)}
        ranks = ranks.answered(rank, moment) if kind == "answer" else ranks.observed(seen, moment)
    return ranks


PATIENCES = st.builds(health.Patience, st.floats(0.1, 60), st.floats(0, 60), st.floats(0, 60))


@given(observed=observations(), patience=PATIENCES)
def test_a_rank_is_hung_exactly_when_its_silence_less_what_excuses_it_reaches_the_limit(
    observed: tuple[list[Event], health.Moment], patience: health.Patience
) -> None:
    events, now = observed
    proofs: dict[int, health.Moment] = {}
    before: dict[int, tuple[float, ...]] = {}
    for kind, rank, running, counters, moment in events:
        if kind == "answer" or (running and rank in before and before[rank] != counters):
            proofs[rank] = moment
        if kind == "load":
            before[rank] = counters
    ranks = replay(events)
    hung = health.hung_ranks(ranks, now, patience)
    for rank, proof in proofs.items():
        starved = min(now.waited - proof.waited, patience.starved)
        compiled = min(now.compiled - proof.compiled, patience.compiling)
        assert (rank in hung) == (now.at - proof.at - (starved + compiled) >= patience.limit)
    assert set(health.silent_ranks(ranks)) == set(range(4)) - set(proofs)


@given(observed=observations(), patience=PATIENCES, more=st.floats(0, 100))
def test_a_starved_or_compiling_engine_gets_time_but_never_for_ever(
    observed: tuple[list[Event], health.Moment], patience: health.Patience, more: float
) -> None:
    events, now = observed
    ranks = replay(events)
    hung = health.hung_ranks(ranks, now, patience)
    for excused in (replace(now, waited=now.waited + more), replace(now, compiled=now.compiled + more)):
        assert set(health.hung_ranks(ranks, excused, patience)) <= set(hung)
    for rank, known in ranks.by_rank.items():
        if known.last_token is None:
            assert rank not in hung
        elif now.at - known.last_token.at >= patience.limit + patience.starved + patience.compiling + 1e-6:
            assert rank in hung
        elif now.at - known.last_token.at < patience.limit:
            assert rank not in hung


@given(observed=observations(), patience=PATIENCES)
def test_every_rank_is_asked_before_it_can_be_called_hung(
    observed: tuple[list[Event], health.Moment], patience: health.Patience
) -> None:
    events, now = observed
    ranks = replay(events)
    assert set(health.hung_ranks(ranks, now, patience)) <= set(health.ranks_to_probe(ranks, now, patience.limit))


def test_the_engine_as_it_is_set_finds_a_frozen_rank_in_15_s_unless_it_was_starved_or_compiled() -> None:
    limits = Limits()
    patience = health.Patience(limits.hang, limits.starved, limits.compiling)
    ranks = health.Ranks.of(1).answered(0, health.Moment(100.0, 3.0))
    assert health.hung_ranks(ranks, health.Moment(115.0 - limits.probe, 4.0), patience)
    # Two replicas and a load test on two cores: a healthy rank silent for 20 s, its processes 12 s without a CPU.
    assert not health.hung_ranks(ranks, health.Moment(120.0, 15.0), patience)
    # A DeepGEMM kernel that a first long prompt needs, compiled in ten minutes; the token comes some seconds later.
    assert not health.hung_ranks(ranks, health.Moment(705.0, 3.0, 600.0), patience)
    assert health.hung_ranks(ranks, health.Moment(100.0 + limits.longest_silence, 500.0, 5000.0), patience)


def test_the_compile_clock_counts_the_time_in_which_a_compiler_was_seen() -> None:
    clock = compiling.Clock(10.0)
    for now, seen in ((11.0, False), (12.5, True), (13.0, True), (14.0, False)):
        clock.tick(now, seen)
    assert clock.seconds == 2.0


def test_a_process_that_competes_for_a_cpu_is_seen_waiting_and_a_frozen_one_is_not() -> None:
    cpu = min(os.sched_getaffinity(0))
    pin = lambda: os.sched_setaffinity(0, {cpu})  # noqa: E731
    spin = [sys.executable, "-c", "while True: pass"]
    competing = [subprocess.Popen(spin, preexec_fn=pin) for _ in range(2)]
    frozen = subprocess.Popen(spin, preexec_fn=pin)
    try:
        os.kill(frozen.pid, signal.SIGSTOP)
        os.waitpid(frozen.pid, os.WUNTRACED)
        meters = {process.pid: starvation.Meter() for process in (*competing, frozen)}
        deadline = time.monotonic() + 30
        while not all(meters[process.pid].read([process.pid]) > 0.1 for process in competing):
            assert meters[frozen.pid].read([frozen.pid]) == 0
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        for process in (*competing, frozen):
            process.kill()
            process.wait()
    total = meters[competing[0].pid].total
    assert meters[competing[0].pid].read([competing[0].pid]) == total  # gone, and what it waited still counts


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


@given(seen=TIMES, silence=st.floats(0, 100), lease=st.floats(1, 60))
def test_a_member_is_lost_exactly_when_its_lease_is_over(seen: float, silence: float, lease: float) -> None:
    now = seen + silence
    expired = gangs.expired_member(gang(Stage.READY, Stage.READY, seen=seen), now, lease)
    assert (expired is not None) == (now - seen > lease)
    assert expired is None or expired[0] == 1


@given(seen=TIMES, silence=st.floats(0, 100), stall=st.floats(0, 100), lease=st.floats(1, 60))
def test_time_in_which_node_0_itself_did_not_run_counts_against_no_member(
    seen: float, silence: float, stall: float, lease: float
) -> None:
    now = seen + silence
    known = gang(Stage.READY, Stage.READY, seen=seen)
    excused = known.excused(stall, now)
    assert all(known.seen[index] <= at <= now for index, at in excused.seen.items())
    assert (gangs.expired_member(excused, now, lease) is not None) == (now - min(now, seen + stall) > lease)


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


GLOO = "RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.2]:41"
NCCL = "ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely."


@pytest.mark.parametrize("words", [GLOO, NCCL])
def test_a_server_that_lost_its_peer_does_not_win_over_the_peer(words: str) -> None:
    lost = Ended("sglang::data_parallel_controller (process 8)", None, ("Traceback …", words, "Killed"), True)
    killed = Ended("sglang::scheduler (process 7)", None, (), True)
    consequence = explain(lost, "gpu-1", "node 1 (gpu-1)")
    first_hand = explain(killed, "gpu-0", "node 0 (gpu-0)")

    async def first_to_last(*causes: Cause, settle: float) -> Cause:
        ending = Ending(settle)
        for cause in causes:
            ending.set(cause)
        return await asyncio.wait_for(ending.wait(), 60)

    assert asyncio.run(first_to_last(consequence, first_hand, settle=60)) == first_hand
    assert asyncio.run(first_to_last(first_hand, consequence, settle=60)) == first_hand
    assert asyncio.run(first_to_last(consequence, settle=0.01)) == consequence


def test_an_xid_before_a_death_is_told_with_it() -> None:
    died = Cause(Exit.DIED, "EngineDied", "node 0 (gpu-0): the server ended.", "gpu-0")
    xids = (Xid(31, 2, 100.0), Xid(79, 4, 990.0))
    told = with_xids(died, "gpu-0", xids, 1000.0)
    assert told.message == f"{died.message} Just before: Xid 79 (the GPU has fallen off the bus) on GPU 4."
    assert with_xids(died, "gpu-1", xids, 1000.0) == died, "another node's GPU was blamed"
    refused = Cause(Exit.CONFIGURATION, "HardwareMismatch", "…", "gpu-0")
    assert with_xids(refused, "gpu-0", xids, 1000.0) == refused
