"""The gateway with the real router in front of stand-ins for engines: what users see while replicas come and go."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import signal
import sys
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.integration.gateway.launch import MODEL, TOKEN, Gateway, bearer, gateway, until
from tests.standin.launch import Gang, fetch, gang
from tests.waiting import PATIENCE_SECONDS


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gang]:
    """A replica of two attention-DP ranks that outlives single tests."""
    with gang(tmp_path_factory.mktemp("replica"), attentionDataParallel=2) as running:
        running.wait_ready()
        yield running


def answer_of(events: list[str], name: str) -> str:
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events if event != "[DONE]"]
    return "".join(delta.get(name) or "" for delta in deltas)


@asynccontextmanager
async def users(target: Gateway, count: int) -> AsyncIterator[list[tuple[int, str]]]:
    """That many users ask one question after the other; → (200, "") or status and body of every answer, at the end."""
    answers: list[tuple[int, str]] = []
    stop = asyncio.Event()

    async def ask_on() -> None:
        while not stop.is_set():
            # Each question is another, or the router would send all to the replica that has the first in its cache.
            answer = await target.ask(f"{uuid.uuid4()}: count to {len(answers) % 5 + 1}")
            answers.append((answer.status, "" if answer.status == 200 else answer.body))
            if answer.status == 503:
                assert int(answer.headers["Retry-After"]) > 0
                await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask_on()) for _ in range(count)]
        try:
            yield answers
            stop.set()
        finally:
            if not stop.is_set():
                for task in tasks:
                    task.cancel()


async def test_no_replica_is_a_503_and_a_wrong_model_a_404(tmp_path: Path) -> None:
    async with gateway(tmp_path) as target:
        await target.serve()
        answer = await target.ask()
        assert (answer.status, answer.error["code"]) == (503, "no_available_workers")
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.headers["Content-Type"].startswith("application/json")
        wrong = await target.ask(model="gpt-4")
        assert (wrong.status, wrong.error["code"]) == (404, "model_not_found")


async def test_streams_the_thought_in_its_own_field_over_all_ranks(tmp_path: Path, replica: Gang) -> None:
    async with gateway(tmp_path) as target:
        await target.serve(replica.url)
        events = await target.stream(4)
        assert events[-1] == "[DONE]"
        assert answer_of(events, "content") == "1 2 3 4"
        assert answer_of(events, "reasoning_content").startswith("Thinking")
        before = _requests_by_rank(replica)
        await asyncio.gather(*(target.ask(f"{uuid.uuid4()} count to 30") for index in range(8)))
        assert all(after > earlier for earlier, after in zip(before, _requests_by_rank(replica), strict=True))


def _requests_by_rank(replica: Gang) -> list[float]:
    """Tokens that each rank has made."""
    text = urllib.request.urlopen(f"{replica.url}/metrics").read().decode()
    found = re.findall(r'sglang:generation_tokens_total\{[^}]*dp_rank="(\d)"[^}]*\} ([\d.e+]+)', text)
    return [float(value) for _, value in sorted(found)]


async def test_dead_replica_costs_no_request_while_another_lives(tmp_path: Path, replica: Gang) -> None:
    async with gateway(tmp_path) as target:
        with gang(tmp_path / "doomed", attentionDataParallel=2) as doomed:
            doomed.wait_ready()
            await target.serve(replica.url, doomed.url)
            async with users(target, 6) as answers:
                await until(lambda: _both_work(target))
                doomed.processes[0].kill()
                await until(lambda: _left(target, doomed.url))
        assert len(answers) > 10
        assert [answer for answer in answers if answer[0] != 200] == []


async def _both_work(target: Gateway) -> bool:
    reports = (await target.sync(*target.wanted)).reports["127.0.0.1"]
    return len(reports) == 2 and all(report.in_flight for report in reports)


async def _left(target: Gateway, url: str) -> bool:
    reports = (await target.sync(*target.wanted)).reports["127.0.0.1"]
    return any(report.url == url and report.state == "Unhealthy" for report in reports)


async def test_last_replica_dies_mid_stream(tmp_path: Path) -> None:
    async with gateway(tmp_path) as target:
        with gang(tmp_path / "doomed", attentionDataParallel=2) as doomed:
            doomed.wait_ready()
            await target.serve(doomed.url)
            started = asyncio.Event()
            stream = asyncio.create_task(target.stream(1000, started))
            async with users(target, 4) as answers:
                await started.wait()
                doomed.processes[0].kill()
                events = await stream
                await until(lambda: _left(target, doomed.url))
        assert "error" in json.loads(events[-2]), "a cut stream says so"
        assert events[-1] == "[DONE]"
        assert {status for status, _ in answers} <= {200, 503}, [a for a in answers if a[0] not in (200, 503)]

        with gang(tmp_path / "next", attentionDataParallel=2) as following:
            following.wait_ready()
            await target.sync(following.url)
            assert (await target.ask()).status == 200


async def test_a_gateway_stays_in_the_service_when_its_only_replica_dies_at_once(tmp_path: Path) -> None:
    """Within the seconds that a new gateway waits for its replicas: the 503 must come from somewhere."""
    async with gateway(tmp_path) as target:
        with gang(tmp_path / "doomed", attentionDataParallel=2) as doomed:
            await asyncio.to_thread(doomed.wait_ready)
            await target.serve(doomed.url)
            doomed.processes[0].kill()
            await until(lambda: _left(target, doomed.url))
            assert await target.ready()
            assert (await target.ask()).status == 503


async def test_removed_replica_finishes_its_streams_and_gets_no_request(tmp_path: Path, replica: Gang) -> None:
    async with gateway(tmp_path) as target:
        await target.serve(replica.url)
        started = asyncio.Event()
        stream = asyncio.create_task(target.stream(60, started))
        await started.wait()
        result = await target.sync()
        assert not result.routed(replica.url)
        assert result.in_flight(replica.url) == 1
        assert (await target.ask()).status == 503
        assert answer_of(await stream, "content").endswith(" 60")
        # Back again although the router keeps it listed as draining for a while.
        await until(lambda: _serves(target, replica.url))


async def _serves(target: Gateway, url: str) -> bool:
    await target.sync(url)
    return (await target.ask()).status == 200


async def test_scale_down_under_load_loses_no_request(tmp_path: Path, replica: Gang) -> None:
    """Out of the rotation first, then drained: the order the operator keeps."""
    async with gateway(tmp_path) as target:
        with gang(tmp_path / "leaving", attentionDataParallel=2) as leaving:
            leaving.wait_ready()
            await target.serve(replica.url, leaving.url)
            async with users(target, 6) as answers:
                await until(lambda: _both_work(target))
                result = await target.sync(replica.url)
                assert not result.routed(leaving.url)
                assert (await asyncio.to_thread(leaving.agent, "/drain", body={}))[0] == 200
                leaving.processes[0].terminate()
                assert await asyncio.to_thread(leaving.processes[0].wait, 20) == 0
        assert [answer for answer in answers if answer[0] != 200] == []


async def test_api_key_is_asked_for_and_opens_no_admin_door(tmp_path: Path, replica: Gang) -> None:
    async with gateway(tmp_path, api_key="users-key") as target:
        await target.serve(replica.url)
        for key in (None, "wrong", TOKEN):
            answer = await target.ask(key=key)
            assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
        assert (await target.ask(key="users-key")).status == 200
        doors = [("GET", target.port), ("POST", target.port), ("GET", target.admin_port), ("PUT", target.admin_port)]
        for key in (None, "users-key"):
            for method, port in doors:
                url = f"http://127.0.0.1:{port}/workers"
                async with target.session.request(method, url, json={"workers": []}, headers=bearer(key)) as answer:
                    assert answer.status == 401, (key, method, port)
        assert (await target.ask(key="users-key")).status == 200


async def test_restarted_gateway_is_unready_until_it_is_told(tmp_path: Path, replica: Gang) -> None:
    async with gateway(tmp_path) as target:
        await target.serve(replica.url)
        await target.kill()
        await target.start()
        await until(target._answers)
        await target.sync(replica.url)
        await until(target.ready)
        assert (await target.ask()).status == 200


async def test_only_the_operators_token_feeds(tmp_path: Path, replica: Gang) -> None:
    async with gateway(tmp_path) as target:
        await target.serve(replica.url)
        digest = hashlib.sha256(TOKEN.encode()).hexdigest()
        for target.token in ("guess", digest):  # the hash stands in the ConfigMap, for everybody to read
            refused = await target.sync(replica.url)
            assert "status 401" in refused.failures["127.0.0.1"].why


@pytest.mark.parametrize("users_key", [None, "users-key"])
async def test_engines_take_requests_of_the_gateway_alone(tmp_path: Path, users_key: str | None) -> None:
    (tmp_path / "gang").mkdir()
    with gang(tmp_path / "gang", attentionDataParallel=2, key="engine-key") as closed:
        closed.wait_ready()
        body = {"model": MODEL, "messages": [{"role": "user", "content": "count to 3"}]}
        async with gateway(tmp_path, users_key, "engine-key") as target:
            await target.serve(closed.url)
            assert (await target.ask(key=users_key)).status == 200
            assert (await target.ask(key=users_key or "whatever an SDK sends")).status == 200
            if users_key:
                assert (await target.ask(key="guess")).status == 401
            chat = f"{closed.url}/v1/chat/completions"
            assert (await asyncio.to_thread(fetch, chat, body))[0] == 401
            assert (await asyncio.to_thread(fetch, chat, body, users_key and "guess"))[0] == 401
            assert (await asyncio.to_thread(fetch, f"{closed.url}/server_info"))[0] == 401
            assert (await asyncio.to_thread(fetch, f"{closed.url}/v1/loads"))[0] == 200
        log = (tmp_path / "log").read_text()
        assert "engine-key" not in log
        assert "users-key" not in log


async def test_an_engine_of_another_secret_gets_no_request_and_holds_nobody_up(tmp_path: Path, replica: Gang) -> None:
    (tmp_path / "gang").mkdir()
    with gang(tmp_path / "gang", attentionDataParallel=2, key="another") as strange:
        strange.wait_ready()
        async with gateway(tmp_path, engine_key="engine-key") as target:
            await target.serve(replica.url, strange.url)  # the first asks for no key, as an engine of an older version
            for _ in range(8):
                assert (await target.ask(f"{uuid.uuid4()}: count to 2")).status == 200
            states = {r.url: r.state for r in (await target.sync(*target.wanted)).reports["127.0.0.1"]}
            assert states == {replica.url: "Routing", strange.url: "Registering"}


async def test_gateway_without_an_operator_serves_with_the_list_it_was_made_with(tmp_path: Path, replica: Gang) -> None:
    async with gateway(tmp_path) as target:
        await target.start([replica.url])
        await until(target.ready)
        assert (await target.ask()).status == 200


async def test_terminated_gateway_leaves_the_service_first_and_cuts_no_stream(tmp_path: Path, replica: Gang) -> None:
    async with gateway(tmp_path) as target:
        await target.serve(replica.url)
        started = asyncio.Event()
        stream = asyncio.create_task(target.stream(120, started))
        await started.wait()
        target.terminate()

        async def unready() -> bool:
            return not await target.ready()

        await until(unready)
        assert (await target.ask()).status == 200, "connections that were on their way are still served"
        assert answer_of(await stream, "content").endswith(" 120")
        assert await asyncio.wait_for(target.process.wait(), PATIENCE_SECONDS) == 0


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


async def test_router_that_dies_takes_the_gateway_along(tmp_path: Path) -> None:
    async with gateway(tmp_path) as target:
        await target.serve()
        os.kill(_child(target.process.pid), signal.SIGKILL)
        assert await asyncio.wait_for(target.process.wait(), PATIENCE_SECONDS) == 1


HASH = f'"adminTokenSha256": "{"0" * 64}"'


@pytest.mark.parametrize(
    ("config", "key", "named"),
    [
        ("{}", "k", "servedName"),
        ('{"servedName": "m", "port": "8000"}', "k", "port"),
        ("{", "k", "gateway.json"),
        ('{"servedName": "m"}', "k", "adminTokenSha256"),
        (f'{{"servedName": "m", {HASH}}}', "", "key: empty"),
    ],
)
async def test_bad_configuration_is_named(tmp_path: Path, config: str, key: str, named: str) -> None:
    (tmp_path / "gateway.json").write_text(config)
    (tmp_path / "key").write_text(key)
    options = ["--config", str(tmp_path / "gateway.json"), "--engine-key-file", str(tmp_path / "key")]
    command = [sys.executable, "-m", "r1_gateway", *options]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, errors = await process.communicate()
    assert process.returncode == 78
    assert named in errors.decode()
