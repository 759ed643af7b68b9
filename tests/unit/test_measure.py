"""Benchmarks on the local cluster: what the figures are made of, and that a missed goal is said."""

from __future__ import annotations

from typing import Any

from benchmarks.measure.dead_rank import last_answer
from benchmarks.measure.report import table
from benchmarks.measure.start import steps_done
from benchmarks.measure.traffic import Request, first

KILLED = 100.0


def test_the_last_answer_counts_only_between_the_kill_and_the_refusals() -> None:
    requests = [Request(98, 99, 200), Request(99, 100.7, 200), Request(101, 101.2, 503), Request(160, 161, 200)]
    assert last_answer(requests, KILLED, 101.2) == 100.7
    assert last_answer(requests[:1], KILLED, 101.2) == KILLED


def test_requests_that_were_on_their_way_before_do_not_count() -> None:
    requests = [Request(99, 100.5, 503), Request(101, 103, 503), Request(102, 102.5, 503)]
    assert first(requests, 503, KILLED) == Request(102, 102.5, 503)
    assert first(requests, 200, KILLED) is None


def test_a_step_is_reached_when_every_pod_has_reached_it() -> None:
    def pod(node: str | None, phase: str, ready: str) -> dict[str, Any]:
        conditions = [{"type": "Ready", "status": ready}]
        return {"spec": {"nodeName": node}, "status": {"phase": phase, "conditions": conditions}}

    pods = [pod("n1", "Running", "True"), pod("n2", "Pending", "False")]
    assert steps_done(pods[:1], 2) == []
    assert steps_done(pods, 2) == ["pods created", "nodes chosen and bound"]


def test_a_missed_goal_is_said() -> None:
    figures = {
        "date": "2026-11-25",
        "machine": "2 cores",
        "engine": "stand-in",
        "start": {"steps": {"pods created": 0.5}, "engine": {"ray": 2.0}, "total": 9.0},
        "idle": {"memory_mb": 100.0, "peak_memory_mb": 110.0, "reconciles": 10, "writes": ["patch pods ns/a"]},
        "deadRank": {
            "out_of_rotation": 2.5,
            "last_answer": 0.1,
            "first_refusal": 2.6,
            "longest_wait": 2.6,
            "status_says_failed": 3.0,
            "serving_again": 60.0,
            "answers": {503: 40, 0: 1},
        },
    }
    text = table(figures)
    assert "| 2.50 s | < 2 s, **missed** |" in text
    assert "| 100 MB | < 200 MB, met |" in text
    assert "| 1 in 10 reconciles | 0, **missed**: patch pods ns/a |" in text
    assert "1 × 0, 40 × 503" in text
