"""Leader election by a Lease: at most one operator acts.

What keeps two from acting at once: time is measured by the monotonic clock of each process, from the moment a renewal
was *sent*; a leader gives up `deadline_seconds` after the last renewal that succeeded; a follower takes over
`lease_seconds` after it *saw* the last change; every call has a time-out of its own, shorter than the deadline; and
`Client.write_guard = lease.held` refuses writes at the moment they are made, in case the process was frozen meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from r1_operator.cluster.client import Client
from r1_operator.cluster.errors import ApiError
from r1_operator.cluster.resources import LEASES

log = logging.getLogger(__name__)


class LeaseLost(Exception):
    """This process leads no more; another one may. Stop acting (the work has been cancelled) and exit or start over."""


class Lease:
    """One candidate. `identity` is unique per pod (its name): a restarted container takes its lease back at once."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        identity: str,
        *,
        lease_seconds: float = 15.0,
        deadline_seconds: float = 10.0,
        retry_seconds: float = 2.0,
        call_seconds: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not call_seconds < deadline_seconds < lease_seconds:
            raise ValueError(
                "lease: call_seconds < deadline_seconds < lease_seconds must hold, or two could lead at once"
            )
        self.identity = identity
        self._client, self._namespace, self._name = client, namespace, name
        self._lease_seconds, self._deadline_seconds = lease_seconds, deadline_seconds
        self._retry_seconds, self._call_seconds = retry_seconds, call_seconds
        self._clock = clock
        self._held_until = float("-inf")
        self._current: dict[str, Any] | None = None  # the Lease object as last read or written
        self._seen: tuple[object, float] = (None, float("-inf"))  # its version, and when we first saw that

    def held(self) -> bool:
        """True while this process may act."""
        return self._clock() < self._held_until

    @property
    def holder(self) -> str | None:
        """Who leads, as far as this process knows."""
        return _spec(self._current).get("holderIdentity") or None

    async def lead(self, work: Callable[[], Awaitable[None]]) -> None:
        """Wait for the lease, run `work` while it is held, release it at the end.

        Returns when `work` returns, raises what it raises. When the lease is lost, cancels `work`, waits for it to end
        (for at most the time in which nobody else can lead) and raises LeaseLost. When cancelled, ends `work` first and
        releases the lease last, so that the next leader need not wait.
        """
        await self._acquire()
        log.info("lease %s/%s: %s leads", self._namespace, self._name, self.identity)
        task = asyncio.ensure_future(work())
        try:
            await self._renew_while(task)
            await task
        finally:
            await self._end(task)
            if self.held():
                await self._release()
            self._held_until = float("-inf")

    async def _acquire(self) -> None:
        while not await self._attempt():
            await asyncio.sleep(self._retry_seconds * random.uniform(1.0, 1.2))

    async def _renew_while(self, task: asyncio.Future[None]) -> None:
        while True:
            pause = self._retry_seconds * random.uniform(0.8, 1.0)
            await asyncio.wait({task}, timeout=min(pause, max(0.0, self._held_until - self._clock())))
            if task.done():
                return
            renewed = await self._attempt()
            if not renewed and not self._leading():
                raise LeaseLost(f"{self.holder} holds it")
            if not self.held():
                raise LeaseLost(f"not renewed for {self._deadline_seconds:g} s: the API server did not answer in time")

    async def _end(self, task: asyncio.Future[None]) -> None:
        if task.done():
            return
        lost = not self.held()
        if lost:
            self._held_until = float("-inf")
        task.cancel()
        patience = self._lease_seconds - self._deadline_seconds if lost else None
        done, _ = await asyncio.wait({task}, timeout=patience)
        if not done:
            log.error("lease %s: the work did not end within %g s of its cancellation", self._name, patience)

    async def _attempt(self) -> bool:
        """Take or renew the lease once. False when somebody else holds it or the API server could not be asked."""
        sent = self._clock()
        remaining = self._held_until - sent
        budget = min(self._call_seconds, remaining) if remaining > 0 else self._call_seconds
        try:
            async with asyncio.timeout(budget):
                written = await self._write_if_free()
        except (ApiError, TimeoutError) as error:
            log.warning("lease %s/%s: %s", self._namespace, self._name, error or "timed out")
            return False
        if written:
            self._held_until = sent + self._deadline_seconds
        elif not self._leading():
            self._held_until = float("-inf")
        return written

    async def _write_if_free(self) -> bool:
        for _ in range(2):
            if self._current is None or not self._leading():
                await self._read()
            if not self._free():
                return False
            try:
                self._note(await self._write(self._next()))
                return True
            except ApiError as error:
                # Somebody was faster, or an earlier write of ours did arrive although its answer did not: look again.
                if not error.conflict and not error.already_exists and not error.not_found:
                    raise
                self._current = None
        return False

    def _leading(self) -> bool:
        return self.holder == self.identity

    def _free(self) -> bool:
        if self._current is None or self.holder is None or self._leading():
            return True
        duration = float(_spec(self._current).get("leaseDurationSeconds") or self._lease_seconds)
        return self._clock() >= self._seen[1] + duration

    def _next(self) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")  # for people; nobody decides by it
        spec = {
            **_spec(self._current),
            "holderIdentity": self.identity,
            "leaseDurationSeconds": round(self._lease_seconds),
            "renewTime": now,
        }
        if not self._leading():
            spec["acquireTime"] = now
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + (self._current is not None)
        return spec

    async def _read(self) -> None:
        try:
            self._note(await self._client.get(LEASES, self._namespace, self._name, timeout=self._call_seconds))
        except ApiError as error:
            if not error.not_found:
                raise
            self._current = None

    async def _write(self, spec: dict[str, Any]) -> dict[str, Any]:
        if self._current is not None:
            return await self._client.update({**self._current, "spec": spec}, timeout=self._call_seconds)
        metadata = {"namespace": self._namespace, "name": self._name}
        return await self._client.create(
            {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata, "spec": spec}
        )

    def _note(self, lease: dict[str, Any]) -> None:
        self._current = lease
        version = (lease["metadata"]["uid"], lease["metadata"]["resourceVersion"])
        if version != self._seen[0]:
            self._seen = (version, self._clock())

    async def _release(self) -> None:
        self._held_until = float("-inf")
        spec = {**_spec(self._current), "holderIdentity": "", "leaseDurationSeconds": 1}
        try:
            async with asyncio.timeout(self._call_seconds):
                await self._write(spec)
        except (ApiError, TimeoutError) as error:
            log.warning("lease %s/%s: not released: %s", self._namespace, self._name, error)


def _spec(lease: dict[str, Any] | None) -> dict[str, Any]:
    return dict((lease or {}).get("spec") or {})
