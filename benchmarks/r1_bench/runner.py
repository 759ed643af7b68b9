"""Runs a workload: open loop at intended times, or closed loop at a fixed concurrency."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from r1_bench.statistics import Record
from r1_bench.workload import Planned

Send = Callable[[Planned], Awaitable[Record]]


@dataclass(frozen=True)
class Limits:
    """When to stop starting requests: after a number of them, after seconds, or at the end of the plan."""

    requests: int | None = None
    seconds: float | None = None


@dataclass
class Progress:
    """The run so far; read by the display while it grows, and by the report after an interrupt."""

    records: list[Record] = field(default_factory=list)
    started: int = 0
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Set: start no more requests; those in flight finish."""

    @property
    def in_flight(self) -> int:
        return self.started - len(self.records)


async def run_open(
    plan: Iterator[Planned], send: Send, clock: Callable[[], float], limits: Limits, progress: Progress
) -> None:
    """Start each request at its intended time whatever became of the others, then wait for all of them."""
    running: set[asyncio.Task[None]] = set()
    try:
        for planned in plan:
            at = planned.at or 0.0
            if limits.requests is not None and planned.index >= limits.requests:
                break
            if limits.seconds is not None and at >= limits.seconds:
                break
            if (wait := at - clock()) > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(progress.stop.wait(), wait)
            if progress.stop.is_set():
                break
            progress.started += 1
            task = asyncio.create_task(_one(planned, send, progress))
            running.add(task)
            task.add_done_callback(running.discard)
        while running:
            await asyncio.gather(*running)
    finally:
        await _cancel(running)


async def run_closed(
    plan: Iterator[Planned],
    send: Send,
    clock: Callable[[], float],
    limits: Limits,
    progress: Progress,
    concurrency: int,
) -> None:
    """Keep `concurrency` requests in flight until a limit is reached, then wait for the last ones."""

    async def worker() -> None:
        for planned in plan:
            if progress.stop.is_set():
                return
            if limits.requests is not None and planned.index >= limits.requests:
                return
            if limits.seconds is not None and clock() >= limits.seconds:
                return
            progress.started += 1
            await _one(planned, send, progress)

    workers = {asyncio.create_task(worker()) for _ in range(concurrency)}
    try:
        await asyncio.gather(*workers)
    finally:
        await _cancel(workers)


async def _one(planned: Planned, send: Send, progress: Progress) -> None:
    progress.records.append(await send(planned))


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
