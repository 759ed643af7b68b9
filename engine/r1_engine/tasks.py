"""Background work of an agent: held while it runs, and never lost in silence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any


async def overslept(seconds: float) -> float:
    """Sleeps; returns by how many seconds it woke too late, because this process did not get to run."""
    due = time.monotonic() + seconds
    await asyncio.sleep(seconds)
    return max(0.0, time.monotonic() - due)


class Tasks:
    """Starts coroutines in the background; `failed` is called with the error of one that raises."""

    def __init__(self, failed: Callable[[BaseException], None]) -> None:
        self._failed = failed
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)
