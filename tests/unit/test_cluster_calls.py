"""How calls are made: limits, Retry-After, and the fence around writes. Against a connection in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from r1_operator.cluster import ApiError, Client
from r1_operator.cluster.resources import CONFIG_MAPS

CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "ns", "name": "a"}}
LEASE = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"namespace": "ns", "name": "a"}}


@dataclass
class Answer:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    async def read(self) -> bytes:
        return json.dumps(CONFIG_MAP if self.status == 200 else {"message": "no"}).encode()


class Wire:
    """Stands in for `Connection`: what is asked, how many at once, and answers that wait until they are let go."""

    delivery_seconds = 4.0

    def __init__(self, *answers: Answer, hold: bool = False) -> None:
        self.answers, self.asked, self.timeouts = list(answers), [], []
        self.now = self.most = self.done = 0
        self.go = asyncio.Event()
        if not hold:
            self.go.set()

    @asynccontextmanager
    async def request(
        self, method: str, url: str, *, timeout: aiohttp.ClientTimeout, **_: Any
    ) -> AsyncIterator[Answer]:
        self.asked.append((method, parse_qs(urlsplit(url).query)))
        self.timeouts.append(timeout)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            async with asyncio.timeout(timeout.total):
                await self.go.wait()
            yield self.answers.pop(0) if self.answers else Answer()
            self.done += 1
        finally:
            self.now -= 1

    async def close(self) -> None: ...


def client(wire: Wire, **settings: Any) -> Client:
    return Client(wire, **settings)  # type: ignore[arg-type]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def test_a_thousand_writes_go_out_few_at_a_time_and_the_lease_passes_them() -> None:
    wire = Wire(hold=True)
    kube = client(wire, parallel_writes=16)
    writes = [asyncio.create_task(kube.create(CONFIG_MAP)) for _ in range(200)]
    await until(lambda: wire.now == 16)
    renewal = asyncio.create_task(kube.update(LEASE))
    await until(lambda: wire.asked[-1][0] == "PUT")
    wire.go.set()
    await asyncio.gather(renewal, *writes)
    assert (wire.most, wire.done) == (17, 201)


@pytest.mark.parametrize("status", [429, 503])
async def test_waits_as_long_as_the_server_asks(status: int) -> None:
    wire = Wire(Answer(status, {"Retry-After": "0"}), Answer(status, {"Retry-After": "0"}))
    assert await client(wire).create(CONFIG_MAP) == CONFIG_MAP
    assert len(wire.asked) == 3


@pytest.mark.parametrize(
    ("answer", "tries"),
    [
        (Answer(429, {"Retry-After": "60"}), 1),  # longer than the call may take
        (Answer(503), 1),  # the server does not say that it did nothing
        (Answer(500, {"Retry-After": "0"}), 1),
        (Answer(429, {"Retry-After": "0"}), 4),
    ],
)
async def test_but_not_for_ever(answer: Answer, tries: int) -> None:
    wire = Wire(*[answer] * 10)
    with pytest.raises(ApiError) as raised:
        await client(wire).create(CONFIG_MAP)
    assert (raised.value.status, len(wire.asked)) == (answer.status, tries)


async def test_the_fence_is_asked_again_before_each_try() -> None:
    wire = Wire(Answer(429, {"Retry-After": "0"}))
    kube, left = client(wire), iter([10.0, 10.0, 0.0])
    kube.fence_writes(lambda: next(left))
    with pytest.raises(ApiError, match="NotLeader"):
        await kube.create(CONFIG_MAP)
    assert len(wire.asked) == 1


async def test_writes_that_wait_for_their_turn_are_refused_when_the_lease_is_lost() -> None:
    wire, left = Wire(hold=True), [14.0]
    kube = client(wire, parallel_writes=1)
    kube.fence_writes(lambda: left[0])
    writes = [asyncio.create_task(kube.create(CONFIG_MAP)) for _ in range(3)]
    await until(lambda: wire.now == 1)
    left[0] = 0.0
    wire.go.set()
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [getattr(result, "reason", "written") for result in results] == ["written", "NotLeader", "NotLeader"]


@pytest.mark.parametrize("left", [4.5, 9.0, 14.0])
async def test_no_write_outlasts_the_lease(left: float) -> None:
    """On its way, then in the server's hands: both together end before somebody else may lead."""
    wire = Wire()
    kube = client(wire, call_seconds=10.0)
    kube.fence_writes(lambda: left)
    await kube.create(CONFIG_MAP)
    (_, query), (timeout,) = wire.asked[0], wire.timeouts
    handling = float(query["timeout"][0].removesuffix("ms")) / 1000
    assert wire.delivery_seconds + handling <= left
    assert timeout.total <= min(left, 10.0)
    assert timeout.connect <= wire.delivery_seconds / 2


async def test_a_read_is_not_fenced() -> None:
    wire = Wire()
    kube = client(wire)
    kube.fence_writes(lambda: 0.0)
    await kube.list(CONFIG_MAPS, "ns")
    assert "timeout" not in wire.asked[0][1]


async def test_a_write_that_was_sent_is_seen_through_though_its_caller_gives_up() -> None:
    wire = Wire(hold=True)
    kube = client(wire)
    kube.fence_writes(lambda: 14.0)
    caller = asyncio.create_task(kube.create(CONFIG_MAP))
    await until(lambda: wire.now == 1)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    settling = asyncio.create_task(kube.settle(10))
    await asyncio.sleep(0)
    assert not settling.done()
    wire.go.set()
    assert await settling, "the lease may be let go: the write is over"
    assert wire.done == 1


async def test_a_write_of_unknown_fate_keeps_the_lease_from_being_let_go() -> None:
    wire = Wire(hold=True)
    kube = client(wire, call_seconds=0.05)
    kube.fence_writes(lambda: 14.0)
    with pytest.raises(ApiError, match="Timeout"):
        await kube.create(CONFIG_MAP)
    assert not await kube.settle(3)
