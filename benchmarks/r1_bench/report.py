"""The report: tables for people, JSON for programs, and the progress of a run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from r1_bench.runner import Limits, Progress
from r1_bench.statistics import PERCENTILES, Distribution, Record, Summary

# Quantity → (what a reader calls it, unit, factor from seconds).
LATENCIES = {
    "ttft": ("first token", "ms", 1e3),
    "first_thought": ("first thought token", "ms", 1e3),
    "first_answer": ("first answer token", "s", 1.0),
    "tpot": ("per output token", "ms", 1e3),
    "itl": ("between pieces", "ms", 1e3),
    "e2e": ("whole request", "s", 1.0),
}
PLAIN_SECONDS = 10.0  # between lines of progress where there is no terminal


def latency_table(summary: Summary) -> Table:
    table = Table(title="Latency from the intended start", title_justify="left")
    table.add_column("")
    table.add_column("unit")
    for heading in ("mean", *(f"p{percent}" for percent in PERCENTILES), "max"):
        table.add_column(heading, justify="right")
    for name, (label, unit, factor) in LATENCIES.items():
        found = summary.latencies.get(name)
        if found is not None:
            table.add_row(label, unit, *(f"{value * factor:.{_digits(unit)}f}" for value in _row(found)))
    return table


def _row(found: Distribution) -> list[float]:
    return [found.mean, *(found.percentiles[percent] for percent in PERCENTILES), found.maximum]


def _digits(unit: str) -> int:
    return 1 if unit == "ms" else 2


def totals_table(summary: Summary) -> Table:
    table = Table(title="Run", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("duration", f"{summary.seconds:.1f} s")
    table.add_row("requests answered", f"{summary.succeeded}")
    table.add_row("requests failed", f"{summary.failed}")
    if summary.unfinished:
        table.add_row("requests unfinished", f"{summary.unfinished}")
    table.add_row("answered per second", f"{summary.requests_per_second:.2f}")
    table.add_row("prompt tokens", f"{summary.prompt_tokens}")
    table.add_row("output tokens", f"{summary.output_tokens} ({summary.thought_tokens} of them thought)")
    table.add_row("output tokens per second", f"{summary.output_tokens_per_second:.1f}")
    if summary.goodput is not None and summary.goodput_per_second is not None:
        table.add_row("within the objectives", f"{summary.goodput:.1%} ({summary.goodput_per_second:.2f} per second)")
    return table


def print_summary(console: Console, summary: Summary) -> None:
    console.print(totals_table(summary))
    if summary.latencies:
        console.print(latency_table(summary))
    for name, count in summary.failures.items():
        console.print(f"failed {count} x {name}", markup=False)
    for warning in summary.warnings:
        console.print(f"warning: {warning}", markup=False)


def as_json(settings: Mapping[str, Any], summary: Summary, records: list[Record]) -> dict[str, Any]:
    """The whole run as plain data; times in seconds after the run's start, the pieces' times left out."""
    rows = [asdict(record) for record in sorted(records, key=lambda record: record.index)]
    for row in rows:
        del row["token_times"]
    figures = asdict(summary)
    for found in figures["latencies"].values():
        found["percentiles"] = {f"p{percent}": value for percent, value in found["percentiles"].items()}
    return {"settings": dict(settings), "summary": figures, "requests": rows}


def write_json(file: Path, document: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


async def show_progress(console: Console, progress: Progress, limits: Limits, clock: Callable[[], float]) -> None:
    """Draw until cancelled: a bar on a terminal, now and then a line elsewhere."""
    if not console.is_terminal:
        while True:
            await asyncio.sleep(PLAIN_SECONDS)
            console.print(f"{clock():.0f} s: {_counts(progress)}", highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    total = limits.requests if limits.requests is not None else limits.seconds
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=total)
        while True:
            done = len(progress.records) if limits.requests is not None else min(int(clock()), int(total or clock()))
            bar.update(task, completed=done, description=_counts(progress))
            await asyncio.sleep(0.2)


def _counts(progress: Progress) -> str:
    failed = sum(record.failure is not None for record in progress.records)
    return f"{len(progress.records) - failed} answered, {progress.in_flight} in flight, {failed} failed"
