"""Leader election against a real API server: hand-over, black hole, no two leaders at once."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest
from r1_operator.cluster import ApiError, Client, Lease, LeaseLost
from r1_operator.cluster.resources import LEASES

from tests.integration.cluster.apiserver import ApiServer
from tests.waiting import PATIENCE_SECONDS

pytestmark = [pytest.mark.cluster, pytest.mark.asyncio(loop_scope="session")]


def candidate(client: Client, namespace: str, identity: str) -> Lease:
    return Lease(
        client, namespace, "l", identity, lease_seconds=4, deadline_seconds=2.5, retry_seconds=0.4, call_seconds=1
    )


def patient(client: Client, namespace: str, identity: str) -> Lease:
    """Never lost for the slowness of a busy machine."""
    return Lease(client, namespace, "l", identity, lease_seconds=600, deadline_seconds=500, retry_seconds=0.1)


async def test_released_lease_passes_on_before_it_expires(client: Client, namespace: str) -> None:
    first, second = (patient(client, namespace, each) for each in "ab")
    leading, stop = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        leading.set()
        await stop.wait()

    one = asyncio.create_task(first.lead(work))
    await leading.wait()
    leading.clear()
    two = asyncio.create_task(second.lead(work))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while second.holder != "a":
            await asyncio.sleep(0.02)
        assert first.held()
        assert not second.held()
        one.cancel()
        await leading.wait()  # a lease of 600 s that nobody released would not get here
    assert not first.held()
    spec = (await client.get(LEASES, namespace, "l"))["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("b", 1)
    stop.set()
    await two
    assert (await client.get(LEASES, namespace, "l"))["spec"]["holderIdentity"] == ""


async def test_no_two_leaders_when_the_api_server_is_a_black_hole(api_server: ApiServer, namespace: str) -> None:
    spans: list[tuple[str, float, float]] = []
    running: set[str] = set()
    async with await api_server.client() as one, await api_server.client() as two:

        async def compete(lease: Lease) -> None:
            async def work() -> None:
                assert not running, "two lead at once"
                running.add(lease.identity)
                started = time.monotonic()
                try:
                    await asyncio.Event().wait()
                finally:
                    running.discard(lease.identity)
                    spans.append((lease.identity, started, time.monotonic()))

            while True:
                try:
                    await lease.lead(work)
                except LeaseLost:
                    lost.set()

        lost = asyncio.Event()
        tasks = [asyncio.create_task(compete(candidate(c, namespace, n))) for c, n in ((one, "a"), (two, "b"))]
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not running:
                    await asyncio.sleep(0.02)
                api_server.freeze()
                try:
                    await lost.wait()
                    assert not running, "the leader stopped although it could ask nobody"
                finally:
                    api_server.thaw()
                while not running:
                    await asyncio.sleep(0.02)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
    assert not any(isinstance(result, AssertionError) for result in results), results
    ordered = sorted(spans, key=lambda span: span[1])
    assert all(before[2] <= after[1] for before, after in itertools.pairwise(ordered))


async def test_leader_that_was_frozen_cannot_write(client: Client, namespace: str) -> None:
    now = time.monotonic()
    frozen = [0.0]  # a clock that jumps as a SIGSTOP of the process makes it jump
    lease = Lease(client, namespace, "l", "a", clock=lambda: now + frozen[0])
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": namespace, "name": "x"}}
    client.fence_writes(lease.write_seconds)
    with pytest.raises(ApiError, match="NotLeader"):
        await client.create(config_map)

    async def work() -> None:
        await client.create(config_map)
        frozen[0] = 11.0
        await client.create({**config_map, "metadata": {"namespace": namespace, "name": "late"}})

    with pytest.raises(ApiError, match="NotLeader"):
        await lease.lead(work)


async def test_lease_taken_by_force_ends_the_work_at_once(client: Client, namespace: str) -> None:
    lease = patient(client, namespace, "a")
    ended = asyncio.Event()

    async def work() -> None:
        try:
            current = await client.get(LEASES, namespace, "l")
            await client.update({**current, "spec": {**current["spec"], "holderIdentity": "usurper"}})
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(LeaseLost, match="usurper"):
        await lease.lead(work)
    assert ended.is_set()
    assert (await client.get(LEASES, namespace, "l"))["spec"]["holderIdentity"] == "usurper", "not ours to release"
