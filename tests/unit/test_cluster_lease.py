"""Terms of leadership against a Lease kept in memory: epochs, a Lease that is deleted, time left for writes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from r1_operator.cluster import ApiError, Lease, LeaseLost


class Shelf:
    """Stands in for the client: one Lease with optimistic locking."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.versions = self.reads = 0
        self.down = self.unreadable = False
        self.settled = True

    async def get(self, *_: Any, timeout: float) -> dict[str, Any]:
        self.reads += 1
        if self.unreadable:
            raise ApiError(500, "InternalError", "no")
        self._answer()
        if self.lease is None:
            raise ApiError(404, "NotFound", "no lease")
        return self.lease

    async def update(self, lease: dict[str, Any], *, timeout: float) -> dict[str, Any]:
        self._answer()
        if self.lease is None:
            raise ApiError(404, "NotFound", "no lease")
        if lease["metadata"] != self.lease["metadata"]:
            raise ApiError(409, "Conflict", "changed")
        return self._keep(lease)

    async def create(self, lease: dict[str, Any]) -> dict[str, Any]:
        self._answer()
        if self.lease is not None:
            raise ApiError(409, "AlreadyExists", "there")
        return self._keep(lease)

    async def settle(self, seconds: float) -> bool:
        return self.settled

    def _answer(self) -> None:
        if self.down:
            raise ApiError(0, "Unreachable", "down")

    def _keep(self, lease: dict[str, Any]) -> dict[str, Any]:
        self.versions += 1
        metadata = {"namespace": "ns", "name": "l", "uid": "u", "resourceVersion": str(self.versions)}
        self.lease = {"metadata": metadata, "spec": dict(lease["spec"])}
        return self.lease

    @property
    def spec(self) -> dict[str, Any]:
        assert self.lease is not None
        return self.lease["spec"]


class World:
    def __init__(self) -> None:
        self.now, self.shelf = 0.0, Shelf()

    def candidate(self, identity: str) -> Lease:
        return Lease(self.shelf, "ns", "l", identity, retry_seconds=0.01, clock=lambda: self.now)  # type: ignore[arg-type]

    async def leads(self, lease: Lease) -> asyncio.Task[None]:
        """The task in which it leads, once it does."""
        task = asyncio.create_task(lease.lead(asyncio.Event().wait))  # type: ignore[arg-type]
        await until(lambda: lease.held() or task.done())
        return task


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_each_term_has_a_higher_number_also_after_a_restart_by_the_same_name() -> None:
    world, epochs = World(), []
    for identity in ("a", "b", "b", "a"):
        lease = world.candidate(identity)
        task = await world.leads(lease)
        epochs.append(lease.epoch)
        assert world.shelf.spec["leaseTransitions"] == lease.epoch
        await end(task)
    assert epochs == [0, 1, 2, 3]


async def test_a_lease_that_is_deleted_does_not_let_a_follower_in_early() -> None:
    world = World()
    leader, follower = world.candidate("a"), world.candidate("b")
    leading = await world.leads(leader)
    world.now += 1
    following = asyncio.create_task(follower.lead(asyncio.Event().wait))  # type: ignore[arg-type]
    await until(lambda: follower.holder == "a")
    await end(leading)
    world.shelf._keep({"spec": {**world.shelf.spec, "holderIdentity": "c", "leaseDurationSeconds": 15}})
    await until(lambda: follower.holder == "c")
    world.shelf.lease = None  # c leads on: it has not noticed yet
    reads = world.shelf.reads
    await until(lambda: world.shelf.reads > reads + 3)
    assert not follower.held()
    world.now += 15
    await until(follower.held)
    assert follower.epoch == 1, "higher than any it has seen, though the new object counts from 0"
    await end(following)


async def test_the_leader_makes_a_deleted_lease_anew_under_its_own_number() -> None:
    world = World()
    await end(await world.leads(world.candidate("a")))
    lease = world.candidate("b")
    task = await world.leads(lease)
    world.shelf.lease = None
    await until(lambda: world.shelf.lease)
    assert (world.shelf.spec["holderIdentity"], world.shelf.spec["leaseTransitions"], lease.epoch) == ("b", 1, 1)
    await end(task)


async def test_a_leader_whose_lease_counts_anew_catches_up_with_what_was_heard() -> None:
    world = World()
    lease = world.candidate("a")
    task = await world.leads(lease)
    assert await lease.advance(41) == 42
    assert await lease.advance(41) == 42, "once is enough"
    assert world.shelf.spec["leaseTransitions"] == 42
    assert await lease.advance(2**31) == 42, "no figure of a broken gateway ends up in the Lease"
    world.shelf.down = True
    assert await lease.advance(42) == 42, "said by nobody before the API server has it"
    world.shelf.down = False
    await until(lambda: lease.epoch == 43)
    await end(task)


async def test_who_does_not_lead_any_more_cannot_raise_the_number() -> None:
    world = World()
    lease = world.candidate("a")
    task = await world.leads(lease)
    world.shelf._keep({"spec": {**world.shelf.spec, "holderIdentity": "b", "leaseTransitions": 1}})
    with pytest.raises(LeaseLost, match="b holds it"):
        await lease.advance(7)
    assert world.shelf.spec["leaseTransitions"] == 1
    with pytest.raises(LeaseLost):
        await task


async def test_whoever_led_in_between_ends_a_term() -> None:
    """Somebody took the lease and let it go again: what this process decided meanwhile counts no more."""
    world = World()
    task = await world.leads(world.candidate("a"))
    world.shelf._keep({"spec": {**world.shelf.spec, "holderIdentity": "", "leaseTransitions": 1}})
    with pytest.raises(LeaseLost):
        await task


async def test_an_api_server_that_fails_after_a_conflict_is_not_a_lost_lease() -> None:
    world = World()
    lease = world.candidate("a")
    task = await world.leads(lease)
    world.shelf.unreadable = True
    world.shelf._keep({"spec": world.shelf.spec})  # somebody annotated it: the next renewal is a conflict
    reads = world.shelf.reads
    await until(lambda: world.shelf.reads > reads + 2)
    assert lease.held()
    assert not task.done()
    world.shelf.unreadable = False
    version = world.shelf.versions
    await until(lambda: world.shelf.versions > version)
    await end(task)


async def test_a_write_may_take_until_a_little_before_a_successor_may_act() -> None:
    world = World()
    lease = world.candidate("a")
    assert lease.write_seconds() == 0
    task = await world.leads(lease)
    world.shelf.down = True
    assert lease.write_seconds() == 14
    world.now += 9.5
    assert lease.write_seconds() == 4.5
    world.now += 0.5
    assert lease.write_seconds() == 0, "not held"
    with pytest.raises(LeaseLost):
        await task


async def test_a_lease_is_not_let_go_while_a_write_may_still_take_effect() -> None:
    world = World()
    world.shelf.settled = False
    await end(await world.leads(world.candidate("a")))
    assert world.shelf.spec["holderIdentity"] == "a"
