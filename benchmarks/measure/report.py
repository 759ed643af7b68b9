"""The figures as a table in Markdown, each goal beside what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .dead_rank import GOAL_SECONDS
from .idle import MEMORY_GOAL_MB

Row = tuple[str, str, str]


def table(figures: Mapping[str, Any]) -> str:
    """Markdown of the figures as `__main__.measure` yields them; parts that are not measured yet are left out."""
    parts = {"start": _start, "deadRank": _dead_rank, "idle": _idle}
    rows = [row for part, render in parts.items() if part in figures for row in render(figures[part])]
    lines = ["| figure | measured | goal |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]
    return "\n".join([f"{figures['date']}, {figures['machine']}; {figures['engine']}.", "", *lines])


def _start(start: Mapping[str, Any]) -> list[Row]:
    return [
        *((f"apply: {step}", f"{seconds:.1f} s", "") for step, seconds in start["steps"].items()),
        *((f"engine's own account: {stage}", f"{seconds:.1f} s", "") for stage, seconds in start["engine"].items()),
        ("**apply → first token**", f"{start['total']:.1f} s", ""),
    ]


def _dead_rank(dead: Mapping[str, Any]) -> list[Row]:
    answers = ", ".join(f"{count} × {status}" for status, count in sorted(dead["answers"].items()))
    again = dead["serving_again"]
    return [
        ("**dead rank → out of rotation**", *_judged(dead["out_of_rotation"], GOAL_SECONDS, "s")),
        ("dead rank → last request answered", f"{dead['last_answer']:.2f} s", ""),
        ("dead rank → first 503", f"{dead['first_refusal']:.2f} s", ""),
        ("dead rank → status says Failed", f"{dead['status_says_failed']:.2f} s", ""),
        ("longest wait of a request for its answer or 503", f"{dead['longest_wait']:.2f} s", ""),
        ("**dead rank → serving again**", f"{again:.1f} s" if again is not None else "not in time", ""),
        ("answers between (0: broken)", answers, ""),
    ]


def _idle(idle: Mapping[str, Any]) -> list[Row]:
    writes = idle["writes"]
    return [
        ("**operator's memory**", *_judged(idle["memory_mb"], MEMORY_GOAL_MB, "MB")),
        ("at its peak", f"{idle['peak_memory_mb']:.0f} MB", ""),
        (
            "**writes in reconciles without a change**",
            f"{len(writes)} in {idle['reconciles']} reconciles",
            "0, met" if not writes else "0, **missed**: " + "; ".join(sorted(set(writes))),
        ),
    ]


def _judged(value: float, goal: float, unit: str) -> tuple[str, str]:
    digits = 2 if goal < 10 else 0
    return f"{value:.{digits}f} {unit}", f"< {goal:g} {unit}, {'met' if value < goal else '**missed**'}"
