"""Scaled to zero behind the real router: who asks is noted and told when to ask again, and served once a replica is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from r1_operator.telemetry.gateway import SyncResult

from tests.integration.gateway.launch import Answer, Gateway, gateway, until
from tests.standin.launch import Gang, gang


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gang]:
    with gang(tmp_path_factory.mktemp("replica"), attentionDataParallel=2) as running:
        running.wait_ready()
        yield running


async def asleep(target: Gateway, seconds: int) -> Answer:
    """An answer of the waiting room, once the router knows it."""
    answers: list[Answer] = []

    async def says_so() -> bool:
        answers.append(await target.ask())
        return answers[-1].status == 503 and answers[-1].error["code"] == "scaled_to_zero"

    await target.sync(retry_after=seconds)
    await until(says_so)
    return answers[-1]


async def test_who_asks_while_replicas_sleep_is_noted_and_told_when_to_come_back(tmp_path: Path, replica: Gang) -> None:
    async with gateway(tmp_path, api_key="users-key") as target:
        await target.serve()
        await target.sync(retry_after=540)

        async def seen() -> SyncResult:
            return await target.sync(retry_after=540)

        # Who may not ask, and who asks for another model, wakes nobody.
        for key, model in ((None, "standin"), ("wrong", "standin"), ("users-key", "another")):
            assert (await target.ask(key=key, model=model)).status in (401, 404)
        assert (await seen()).asked is None

        async def noted() -> bool:
            answer = await target.ask(key="users-key")
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) in (1, *range(480, 541))
            return answer.error["code"] == "scaled_to_zero"

        await until(noted)
        asked = (await seen()).asked
        assert asked is not None
        assert asked < 30

        # It comes: with the first answer it is in the rotation, and the waiting room out of it.
        await until(lambda: _routes(target, replica.url))
        for _ in range(20):
            assert (await target.ask(key="users-key")).status == 200
        later = (await target.sync(replica.url, retry_after=10)).asked
        assert later is not None
        assert later >= asked


async def test_it_sleeps_again_and_wakes_again(tmp_path: Path, replica: Gang) -> None:
    async with gateway(tmp_path) as target:
        await target.serve(replica.url)
        for seconds in (300, 600):
            answer = await asleep(target, seconds)
            assert seconds - 60 <= int(answer.headers["Retry-After"]) <= seconds
            await until(lambda: _routes(target, replica.url))
            assert (await target.ask()).status == 200


async def test_without_sleep_the_router_answers_at_once(tmp_path: Path, replica: Gang) -> None:
    async with gateway(tmp_path) as target:
        await target.serve()
        answer = await target.ask()
        assert (answer.status, answer.error["code"]) == (503, "no_available_workers")
        assert (await target.sync()).asked is None


async def _routes(target: Gateway, url: str) -> bool:
    return any(
        r.state == "Routing" for reports in (await target.sync(url, retry_after=10)).reports.values() for r in reports
    )
