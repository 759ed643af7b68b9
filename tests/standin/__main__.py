"""`python -m tests.standin`: run one stand-in pod until it drains (exit 0) or fails (70, 71, 72, 78)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

from tests.standin.agent import agent_app
from tests.standin.faults import inject
from tests.standin.gang import Head, follow_head
from tests.standin.openai_api import engine_app, serving
from tests.standin.pod import NEVER_READY, End, Pod
from tests.standin.settings import CONFIGURATION, ConfigurationError, Settings, limits_now, read_settings

log = logging.getLogger("standin")


async def start(pod: Pod, head: Head | None, servers: AsyncExitStack) -> None:
    """Go through the stages Ray, Weights, WarmUp, Ready as an engine does."""
    chosen = pod.settings
    for stage, seconds in chosen.stage_seconds().items():
        begin = time.monotonic()
        pod.enter(stage, f"{stage} of a stand-in, {seconds:g} s")
        log.info("stage %s", stage)
        fault = chosen.fault
        if fault and fault.get("at", "Weights") == stage:
            inject(pod, fault)
        if stage == "WarmUp":
            await servers.enter_async_context(serving(engine_app(pod), chosen.address, chosen.ports["http"]))
        await _go_forward(pod, seconds)
        if stage == "WarmUp" and chosen.kernel_cache is not None:
            try:
                _compile(chosen, chosen.kernel_cache)
            except OSError as error:  # costs time, and no start
                log.warning("%s: %s", chosen.kernel_cache, error)
        if stage == "Ray":
            await _join(pod, head)
        pod.timings[stage[0].lower() + stage[1:]] = round(time.monotonic() - begin, 3)
    if not pod.draining:
        pod.enter("Ready", "serving")
        log.info("ready")
        if chosen.fault and chosen.fault.get("at") == "Ready":
            await asyncio.sleep(float(chosen.fault.get("after", 0)))
            inject(pod, chosen.fault)


def _compile(chosen: Settings, cache: Path) -> None:
    """Leaves kernels where none are, and tells in the folder who made and who found them."""
    cache.mkdir(parents=True, exist_ok=True)
    kernels, found = cache / "kernels", (cache / "kernels").exists()
    kernels.touch()
    with (cache / "told").open("a") as told:
        told.write(f"{chosen.replica}-{chosen.attempt}-{chosen.node_index} {'found' if found else 'made'}\n")


async def _go_forward(pod: Pod, seconds: float) -> None:
    """A stage's work: some of it is done all the time, unless a fault stops it for good."""
    own, end = pod.members[pod.settings.node_index], time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 or pod.stalled:
        if not pod.stalled:
            own.progressAt = time.time()
        await asyncio.sleep(0.05 if pod.stalled else min(0.05, left))


async def _limit_start(pod: Pod, head: Head | None) -> None:
    """Ends the start that stands still or takes too long, as the engine does."""
    chosen, began = pod.settings, time.time()
    while pod.stage not in ("Ready", "Draining"):
        await asyncio.sleep(0.05)
        still = time.time() - pod.progress_at
        part = (head.missing() if head else "") or f"node {chosen.node_index} ({chosen.node_name})"
        start_limit, stall_limit, _ = limits_now(chosen)
        if time.time() - began >= start_limit:
            message = f"not ready {start_limit:g} s after the start: stage {pod.stage}, waiting for {part}"
            pod.end(NEVER_READY, "StartTimedOut", message)
        elif still >= stall_limit:
            stood = f"The start stood still for {still:.0f} s (spec.startup.stallSeconds = {stall_limit:g})"
            pod.end(NEVER_READY, "StartStoodStill", f"{stood}: {part} is still in stage {pod.stage}")


async def _join(pod: Pod, head: Head | None) -> None:
    if head is not None:
        pod.message = head.missing() and f"waiting for {head.missing()}"
        await head.all_joined.wait()
    while not pod.is_head and not pod.head_stage:
        await asyncio.sleep(0.02)


async def drain_and_end(pod: Pod, head: Head | None) -> None:
    """After SIGTERM: node 0 finishes what is in flight, the others stay until it says so."""
    await pod.terminating.wait()
    log.info("draining, %d requests in flight", pod.in_flight)
    pod.drain()
    if head is None:
        if not pod.head_stage:  # never joined: nobody waits for this node
            pod.end(0, "Drained", "terminated before it joined")
        pod.changed.set()
        return
    began = time.monotonic()
    while pod.in_flight and time.monotonic() - began < limits_now(pod.settings)[2]:
        await asyncio.sleep(0.02)
    if pod.in_flight:
        log.warning("%d requests cut at the end of the drain time", pod.in_flight)
    await head.say_done()
    pod.end(0, "Drained", "all requests finished")


async def run(settings: Settings) -> End:
    pod = Pod(settings)
    head = Head(pod) if pod.is_head else None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, pod.terminating.set)

    async with AsyncExitStack() as servers:
        await servers.enter_async_context(serving(agent_app(pod), settings.address, settings.ports["agent"]))
        jobs = [
            asyncio.create_task(head.serve() if head else follow_head(pod)),
            asyncio.create_task(start(pod, head, servers)),
            asyncio.create_task(_limit_start(pod, head)),
            asyncio.create_task(pod.generate()),
            asyncio.create_task(drain_and_end(pod, head)),
        ]
        for job in jobs:
            job.add_done_callback(lambda done: _crash(pod, done))
        end = await pod.ended
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
    return end


def _crash(pod: Pod, job: asyncio.Task[None]) -> None:
    """A job of the stand-in itself failed: say so rather than hang."""
    if not job.cancelled() and (error := job.exception()) is not None:
        log.error("stand-in failed", exc_info=error)
        pod.end(70, "StandInFailed", f"{type(error).__name__}: {error}")


def write_termination_log(file: Path, end: End, node: str) -> None:
    line = json.dumps({"reason": end.reason, "message": end.message, "node": end.node or node})
    with contextlib.suppress(OSError):  # outside a container there is no such file
        file.write_text(line + "\n")


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    root = Path(os.environ.get("R1_STANDIN_ROOT", "/"))
    try:
        settings = read_settings(os.environ)
    except ConfigurationError as error:
        log.error("%s", error)
        end = End(CONFIGURATION, error.reason, str(error))
        write_termination_log(root / "dev/termination-log", end, os.environ.get("NODE_NAME", ""))
        return CONFIGURATION
    end = asyncio.run(run(settings))
    log.info("exit %d: %s: %s", end.code, end.reason, end.message)
    if end.code:
        write_termination_log(settings.termination_log, end, settings.node_name)
    return end.code


if __name__ == "__main__":
    sys.exit(main())
