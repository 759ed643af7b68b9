"""Leader election by a Lease: at most one operator acts.

What keeps two from acting at once: time is measured by each process's own clock since boot, which counts while a
machine is suspended, too, from the moment a renewal was *sent*; a leader gives up `deadline_seconds` after the last
renewal that succeeded; a follower takes over `lease_seconds` after it *saw* the last change, even if the Lease object
is deleted meanwhile; every call has a time-out of its own, shorter than the deadline; `Client.fence_writes` bounds each
write by `write_seconds`; a lease is let go only when no write can take effect any more; and a process that was frozen
for longer than its lease is ended by the kernel before it does anything (`deadman`).

Each term has a number, the `epoch` (`leaseTransitions`): who is told of it can refuse what an earlier leader says.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from r1_operator.cluster.client import Client
from r1_operator.cluster.clock import boot_seconds
from r1_operator.cluster.errors import ApiError
from r1_operator.cluster.resources import LEASES

log = logging.getLogger(__name__)

_DRIFT = 0.2  # of the time between a leader's end and a successor's start, kept free: clocks do not run alike
_LAST_EPOCH = 2**31 - 1  # what the field of the API holds


class LeaseLost(Exception):
    """This process leads no more; another one may. Stop acting (the work has been cancelled) and exit or start over."""


class Lease:
    """One candidate. `identity` is unique per pod (its name): a restarted container takes its lease back at once.

    `on_term` is told at each renewal in how many seconds nothing of this process may happen any more, and 0 when it
    has ended its work in order (`deadman.end_process_in`).
    """

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
        clock: Callable[[], float] = boot_seconds,
        on_term: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        if not call_seconds < deadline_seconds < lease_seconds:
            raise ValueError(
                "lease: call_seconds < deadline_seconds < lease_seconds must hold, or two could lead at once"
            )
        self.identity = identity
        self._client, self._namespace, self._name = client, namespace, name
        self._lease_seconds, self._deadline_seconds = lease_seconds, deadline_seconds
        self._retry_seconds, self._call_seconds = retry_seconds, call_seconds
        self._clock, self._on_term = clock, on_term
        self._held_until = float("-inf")
        self._current: dict[str, Any] | None = None  # the Lease object as last read or written
        self._seen: object = None  # its version
        self._others_until = float("-inf")  # before then somebody else may lead
        self._leads = False  # from taking the lease until its loss or release
        self._epoch = 0
        self._least = 0  # the epoch that `advance` asks for
        self._highest = -1  # of all epochs seen
        self._turn = asyncio.Lock()

    def held(self) -> bool:
        """True while this process may act."""
        return self._clock() < self._held_until

    def write_seconds(self) -> float:
        """How long a write sent now may take: until a little before a successor may act. 0 when not held."""
        left = self._held_until - self._clock()
        return left + (1 - _DRIFT) * (self._lease_seconds - self._deadline_seconds) if left > 0 else 0.0

    @property
    def holder(self) -> str | None:
        """Who leads, as far as this process knows."""
        return _spec(self._current).get("holderIdentity") or None

    @property
    def epoch(self) -> int:
        """The number of this process's term: higher than that of any earlier leader by the same Lease object."""
        return self._epoch

    async def advance(self, at_least: int) -> int:
        """Raise the epoch above `at_least`, which somebody heard from a leader by an earlier Lease object. → the epoch.

        Only the holder can. When the API server cannot be asked the epoch stays as it is, and a later renewal raises
        it. Raises LeaseLost when the lease is not held any more.
        """
        if at_least >= _LAST_EPOCH:
            log.error("lease %s: epoch %d is no epoch, ignored", self._name, at_least)
        elif at_least >= self._epoch:
            self._least = max(self._least, at_least + 1)
            if self.held():
                await self._attempt()
            if not self.held():
                raise LeaseLost(f"{self.holder} holds it")
        return self._epoch

    async def lead(self, work: Callable[[], Awaitable[None]]) -> None:
        """Wait for the lease, run `work` while it is held, release it at the end.

        Returns when `work` returns, raises what it raises. When the lease is lost, cancels `work`, waits for it to end
        (for at most the time in which nobody else can lead) and raises LeaseLost. When cancelled, ends `work` first and
        releases the lease last, so that the next leader need not wait, unless a write might still take effect.
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
            self._leads = False
            if task.done():
                self._on_term(0.0)

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
            if not renewed and self._taken_over():
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
            async with asyncio.timeout(budget), self._turn:
                written = await self._write_if_free()
        except (ApiError, TimeoutError) as error:
            log.warning("lease %s/%s: %s", self._namespace, self._name, error or "timed out")
            return False
        if written:
            self._held_until = sent + self._deadline_seconds
            self._on_term(self.write_seconds())
        elif self._taken_over():
            self._held_until = float("-inf")
        return written

    async def _write_if_free(self) -> bool:
        for _ in range(2):
            if self._current is None or not self._ours():
                await self._read()
            if not self._free():
                return False
            try:
                self._note(await self._write(self._next()))
                self._epoch, self._leads = _epoch(self._current), True
                return True
            except ApiError as error:
                # Somebody was faster, or an earlier write of ours did arrive although its answer did not: look again.
                if not error.conflict and not error.already_exists and not error.not_found:
                    raise
                self._current = None
        return False

    def _ours(self) -> bool:
        """Whether the Lease as last seen is this process's: in its term, or by an earlier process of its identity."""
        newer = self._leads and _epoch(self._current) > max(self._epoch, self._least)
        return self.holder == self.identity and not newer

    def _taken_over(self) -> bool:
        return self._current is not None and not self._ours()

    def _free(self) -> bool:
        if self._leads:  # whoever led in between, and be it for a moment, ended this term
            return not self._taken_over()
        return self._clock() >= self._others_until

    def _next(self) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")  # for people; nobody decides by it
        spec = {
            **_spec(self._current),
            "holderIdentity": self.identity,
            "leaseDurationSeconds": math.ceil(self._lease_seconds),
            "leaseTransitions": max(self._epoch if self._leads else self._highest + 1, self._least),
            "renewTime": now,
        }
        if not self._leads:
            spec["acquireTime"] = now
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
        self._highest = max(self._highest, _epoch(lease))
        version = (lease["metadata"]["uid"], lease["metadata"]["resourceVersion"])
        if version != self._seen:
            self._seen = version
            duration = float(_spec(lease).get("leaseDurationSeconds") or self._lease_seconds)
            others = self.holder not in (None, self.identity)
            self._others_until = self._clock() + duration if others else float("-inf")

    async def _release(self) -> None:
        self._held_until = float("-inf")  # no write starts any more
        if not await self._client.settle(self._call_seconds):
            log.warning("lease %s/%s: left to expire: a write may still be under way", self._namespace, self._name)
            return
        try:
            async with asyncio.timeout(self._call_seconds), self._turn:
                await self._let_go()
        except (ApiError, TimeoutError) as error:
            log.warning("lease %s/%s: not released: %s", self._namespace, self._name, error)

    async def _let_go(self) -> None:
        for _ in range(2):
            if self._current is None or not self._ours():
                return
            try:
                await self._write({**_spec(self._current), "holderIdentity": "", "leaseDurationSeconds": 1})
                return
            except ApiError as error:
                if not error.conflict:
                    raise
                await self._read()  # a renewal that was cut off did arrive


def _spec(lease: dict[str, Any] | None) -> dict[str, Any]:
    return dict((lease or {}).get("spec") or {})


def _epoch(lease: dict[str, Any] | None) -> int:
    return int(_spec(lease).get("leaseTransitions") or 0)
