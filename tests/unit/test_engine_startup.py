"""When a start has failed: it stands still or takes too long. What counts as going forward, and what is said of it."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r1_engine import reading
from r1_engine.gang import Gang
from r1_engine.health import Moment
from r1_engine.outcome import Cause, Exit
from r1_engine.output import Output
from r1_engine.stages import Member, Stage
from r1_engine.startup import Course, Limits, verdict

LIMITS = Limits(stall=1800.0, total=14_400.0)
NODES = 2


def gang(*stages: Stage, nodes: int = NODES) -> Gang:
    result = Gang(nodes, {}, {})
    for index, stage in enumerate(stages):
        result = result.heard(Member(index, f"gpu-{index}", stage, "words of its own."), 0.0)
    return result


LOADING = gang(Stage.WEIGHTS, Stage.WEIGHTS)


@dataclass(frozen=True)
class Seen:
    """What node 0 learns at one tick: seconds since the last, how many of them without a CPU, who went forward."""

    seconds: float
    waited: float
    forward: frozenset[int]


def ended(ticks: list[Seen], limits: Limits) -> tuple[float, Cause] | None:
    """When and why a start that goes like this is ended, as `HeadRole` judges it; None when it never is."""
    now = Moment(0.0)
    course, steps = Course(now), dict.fromkeys(range(NODES), 0)
    for tick in ticks:
        now = Moment(now.at + tick.seconds, now.waited + tick.waited)
        for index in range(NODES):
            steps[index] += index in tick.forward
            course = course.heard(index, steps[index], now)
        if cause := verdict(course, LOADING, (0, 1), now, limits):
            return now.at, cause
    return None


SOMEBODY = st.frozensets(st.integers(0, NODES - 1), min_size=1)
LIMITED = st.builds(lambda stall, more: Limits(stall, stall + more), st.floats(10, 2000), st.floats(0, 20_000))


@given(limits=LIMITED, gaps=st.lists(st.tuples(st.floats(0, 0.99), SOMEBODY), max_size=60))
def test_a_start_that_goes_forward_somewhere_never_ends_below_the_total(
    limits: Limits, gaps: list[tuple[float, frozenset[int]]]
) -> None:
    end = ended([Seen(share * limits.stall, 0.0, forward) for share, forward in gaps], limits)
    if end is not None:
        at, cause = end
        assert at >= limits.total
        assert cause.reason == "StartTimedOut"


@given(limits=LIMITED, before=st.lists(SOMEBODY, max_size=10))
def test_a_start_that_stands_still_ends_within_the_stall_and_a_tick(
    limits: Limits, before: list[frozenset[int]]
) -> None:
    moving = [Seen(1.0, 0.0, forward) for forward in before]
    still = [Seen(1.0, 0.0, frozenset())] * int(limits.stall + 3)
    end = ended(moving + still, limits)
    assert end is not None
    assert min(len(before) + limits.stall, limits.total) <= end[0] <= len(before) + 1 + limits.stall + 1
    assert end[1].code is Exit.NEVER_READY


@given(share=st.floats(0, 1), stall=st.integers(20, 200))
def test_a_starved_start_gets_time_but_no_more_than_twice_as_much(share: float, stall: int) -> None:
    starving = [Seen(1.0, share, frozenset())] * (3 * stall)
    end = ended(starving, Limits(float(stall), 1e6))
    assert end is not None
    assert end[0] == pytest.approx(min(2 * stall, stall / max(1 - share, 0.5)), abs=2.1)


def test_seventy_seven_minutes_of_a_slow_volume_are_left_alone_and_a_hung_one_is_not() -> None:
    """Case N-18: an hour ended a load that went forward; today's defaults do not."""
    slow = [Seen(60.0, 0.0, frozenset({minute % 2})) for minute in range(77)]
    silent = [Seen(60.0, 0.0, frozenset())] * 20  # a compilation inside the process: nothing to see of it
    assert ended(slow + silent + slow, LIMITS) is None
    hung = ended(slow + [Seen(60.0, 0.0, frozenset())] * 40, LIMITS)
    assert hung is not None
    assert hung[0] == (77 + 30) * 60


def test_time_in_which_node_0_itself_did_not_run_is_no_standing_still() -> None:
    course = Course(Moment(0.0)).heard(0, 1, Moment(0.0)).heard(1, 1, Moment(0.0))
    woke = Moment(2000.0)
    assert verdict(course, LOADING, (), woke, LIMITS) is not None
    assert verdict(course.excused(1990.0, woke.at), LOADING, (), woke, LIMITS) is None
    assert course.excused(5000.0, woke.at).latest == woke


def stood_still(known: Gang, last: dict[int, float], silent: tuple[int, ...] = (0, 1)) -> Cause:
    course = Course(Moment(0.0))
    for index, at in last.items():
        course = course.heard(index, 1, Moment(at))
    cause = verdict(course, known, silent, Moment(max(last.values()) + 1800), LIMITS)
    assert cause is not None
    return cause


def test_the_node_that_never_came_is_named() -> None:
    cause = stood_still(gang(Stage.RAY, nodes=3), {0: 5.0})
    assert cause.reason == "NodeNeverCame"
    assert "stood still for 1800 s (spec.startup.stallSeconds = 1800): node 1, node 2 never came" in cause.message


def test_the_node_that_is_furthest_behind_is_named_with_its_stage_and_the_last_progress_of_all() -> None:
    cause = stood_still(gang(Stage.WARM_UP, Stage.WEIGHTS), {0: 50.0, 1: 100.0})
    assert (cause.reason, cause.node) == ("StartStoodStill", "gpu-1")
    assert (
        "node 1 (gpu-1) is still in stage Weights: words of its own. Last progress: node 0 1850 s ago" in cause.message
    )
    assert "spec.model.weights" in cause.message
    # In the same stage the one that stopped first kept the other waiting.
    assert stood_still(LOADING, {0: 100.0, 1: 50.0}).node == "gpu-1"


def test_the_ranks_without_a_token_are_named() -> None:
    cause = stood_still(gang(Stage.WARM_UP, Stage.WARM_UP), {0: 50.0, 1: 100.0}, (1,))
    assert "no token came out of DP rank(s) 1" in cause.message


def test_a_start_that_took_its_whole_time_names_the_other_field() -> None:
    course = Course(Moment(0.0)).heard(0, 1, Moment(14_399.0)).heard(1, 1, Moment(10.0))
    cause = verdict(course, LOADING, (0, 1), Moment(14_400.0), LIMITS)
    assert cause is not None
    assert cause.reason == "StartTimedOut"
    assert "not ready after spec.startup.seconds = 14400: node 1 (gpu-1) is still in stage Weights" in cause.message


# ── what the output tells ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Multi-thread loading shards:  25% Completed | 41/163 [00:30<01:30]", "Loading weights: 41 of 163 shards."),
        ("[2026-11-25 TP0] Load weight begin. avail mem=78.26 GB", "Loading weights."),
        ("[TP0] Try DeepGEMM JIT Compiling for <GEMM_NT_F8F8BF16> N=4096, K=7168, num_groups=1", "Compiling DeepGEMM"),
        ("[TP0] Capture decode CUDA graph begin. This can take up to several minutes.", "Capturing CUDA graphs."),
        ("[TP0] Prefill batch, #new-seq: 1", None),
    ],
)
def test_a_line_of_the_server_tells_what_the_start_is_at(line: str, words: str | None) -> None:
    detail = Output().heard(line, 0.0)[1].detail
    assert detail is None if words is None else detail is not None and detail.startswith(words)


def shards(done: int, total: int = 163) -> str:
    return f"Loading safetensors checkpoint shards:  {100 * done // total}% Completed | {done}/{total} [00:30<01:30]"


def test_shards_tell_their_pace_and_the_end_but_not_at_every_shard() -> None:
    output, told = Output(), []
    for done in range(164):
        at = done * 5.0
        output, heard = output.heard(shards(done), at)
        assert heard.moved
        if heard.detail:
            told.append((at, heard.detail))
    assert told[0] == (0.0, "Loading weights: 0 of 163 shards.")
    assert told[-1][1] == "Loading weights: 163 of 163 shards."
    assert (600.0, "Loading weights: 120 of 163 shards, 12.0 a minute, about 4 min left.") in told
    gaps = [later - sooner for (sooner, _), (later, _) in itertools.pairwise(told[:-1])]
    assert min(gaps) >= 15


def test_a_second_model_starts_to_count_anew() -> None:
    output, _ = Output().heard(shards(163), 0.0)
    _, heard = output.heard(shards(0, 1), 100.0)
    assert heard.moved
    assert heard.detail == "Loading weights: 0 of 1 shards."


def test_what_is_said_again_and_again_is_no_progress() -> None:
    output = Output()
    moved = []
    for second in range(3):
        for line in (
            f"[10:00:0{second} TP0] Waiting for the store, retry {second}",
            f"DeepGEMM warmup:  12%|█▏        | 2000/16384 [00:0{second}<01:12, 199.5it/s]",
            shards(7),
            "",
        ):
            output, heard = output.heard(line, float(second))
            moved.append(heard.moved)
    assert moved == [True, True, True, False] + [False] * 8
    assert output.heard("DeepGEMM warmup:  13%|█▏        | 2100/16384 [00:02<01:12, 199.5it/s]", 3.0)[1].moved


# ── what the kernel tells ────────────────────────────────────────────────────────────────────────────────────────────

READ = """
import sys
print("waits", flush=True)
sys.stdin.readline()
with open(sys.argv[1], "rb") as file:
    file.read()
print("has read", flush=True)
sys.stdin.readline()
"""


def test_a_process_that_reads_is_seen_and_one_that_waits_is_not(tmp_path: Path) -> None:
    size = 8 << 20
    (tmp_path / "shard").write_bytes(b"\0" * size)
    argv = [sys.executable, "-c", READ, str(tmp_path / "shard")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"waits\n"
        meter = reading.Meter()
        assert meter.read([process.pid]) == 0  # what it read before does not count
        assert meter.read([process.pid]) < size / 16
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"has read\n"
        assert meter.read([process.pid]) >= size
        process.stdin.close()
    assert meter.read([process.pid]) == 0
