"""Open loop: nothing that happens to one request delays another. Closed loop: never more in flight than asked."""

from __future__ import annotations

import asyncio
import time
from itertools import islice

from r1_bench.runner import Limits, Progress, run_closed, run_open
from r1_bench.statistics import Record
from r1_bench.workload import Planned, arrival_times, plan_closed, plan_open, synthetic_prompts


def record(planned: Planned, at: float) -> Record:
    return Record(index=planned.index, intended=planned.at or at, sent=at, ended=at)


async def test_an_open_loop_starts_everything_while_nothing_is_answered() -> None:
    all_started = asyncio.Event()
    progress = Progress()

    async def send(planned: Planned) -> Record:
        if planned.index == 19:
            all_started.set()
        await all_started.wait()  # a runner that waited for answers would never get to the twentieth request
        return record(planned, planned.at or 0)

    plan = plan_open(arrival_times(1000, "constant", 0), synthetic_prompts(3, None, 0))
    begin = time.perf_counter()
    async with asyncio.timeout(120):
        await run_open(plan, send, lambda: time.perf_counter() - begin, Limits(requests=20), progress)
    assert sorted(one.index for one in progress.records) == list(range(20))
    assert progress.in_flight == 0


async def test_a_closed_loop_keeps_its_concurrency() -> None:
    progress, seen = Progress(), []
    full = asyncio.Event()

    async def send(planned: Planned) -> Record:
        seen.append(progress.in_flight)
        if progress.in_flight == 4:
            full.set()
        await full.wait()
        await asyncio.sleep(0)
        return record(planned, 0)

    plan = islice(plan_closed(synthetic_prompts(3, None, 0)), 1000)
    async with asyncio.timeout(120):
        await run_closed(plan, send, lambda: 0.0, Limits(requests=50), progress, concurrency=4)
    assert max(seen) == 4
    assert sorted(one.index for one in progress.records) == list(range(50))


async def test_a_cancelled_run_keeps_what_ended_and_counts_what_did_not() -> None:
    progress, two_done = Progress(), asyncio.Event()

    async def send(planned: Planned) -> Record:
        if planned.index >= 2:
            two_done.set()
            await asyncio.Event().wait()
        return record(planned, 0)

    plan = plan_closed(synthetic_prompts(3, None, 0))
    run = asyncio.create_task(run_closed(plan, send, lambda: 0.0, Limits(), progress, concurrency=3))
    async with asyncio.timeout(120):
        await two_done.wait()
        while progress.in_flight < 3:
            await asyncio.sleep(0)
        run.cancel()
        await asyncio.wait([run])
    assert (len(progress.records), progress.in_flight) == (2, 3)
