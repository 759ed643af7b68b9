"""Keys to reconcile: each at most once at a time, failed ones later and later, timed ones when their time has come."""

from __future__ import annotations

import asyncio

Key = tuple[str, str]
"""Namespace and name of an R1Deployment."""

FIRST_RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 60.0


class WorkQueue:
    """For one event loop. A key that is added while it is being worked on is handed out once more afterwards."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._queued: set[Key] = set()
        self._active: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}

    def add(self, key: Key) -> None:
        """Reconcile soon."""
        if key in self._active:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._ready.put_nowait(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Reconcile in `seconds` at the latest; of several timers of a key the earliest counts."""
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(due, self._fire, key)

    def retry(self, key: Key) -> float:
        """Reconcile after a failure, with exponential back-off. → seconds until then."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        seconds = min(FIRST_RETRY_SECONDS * 2.0 ** min(failures, 20), LONGEST_RETRY_SECONDS)
        self.add_after(key, seconds)
        return seconds

    def forget(self, key: Key) -> None:
        """The key succeeded: its next failure counts as the first."""
        self._failures.pop(key, None)

    async def get(self) -> Key:
        """The next key; `done` must follow."""
        key = await self._ready.get()
        self._queued.discard(key)
        self._active.add(key)
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        return key

    def done(self, key: Key) -> None:
        """Work on the key has ended."""
        self._active.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def depth(self) -> int:
        """Keys that wait for a worker."""
        return len(self._queued)

    def _fire(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)
