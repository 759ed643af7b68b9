"""What the operator measures, and how it tells."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from r1_operator.status.observation import FabricReport
from r1_operator.telemetry.agent import AgentStatus, order_drain, parse_status, scrape_status
from r1_operator.telemetry.gateway import Worker, sync_workers
from r1_operator.telemetry.http import Failure, ask_all, open_session
from r1_operator.telemetry.loads import EngineLoad, parse_loads, scrape_loads
from r1_operator.telemetry.logs import configure_logging
from r1_operator.telemetry.metrics import Figures, Metrics
from r1_operator.telemetry.server import Heartbeat, health_app, serving

from tests.ports import free_port
from tests.standin.launch import RAY_TOKEN, Gang, gang


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gang]:
    with gang(tmp_path_factory.mktemp("replica"), attentionDataParallel=4) as running:
        running.wait_ready()
        yield running


def rank(index: int, **fields: Any) -> dict[str, Any]:
    whole = {
        "dp_rank": index,
        "num_running_reqs": 3,
        "num_waiting_reqs": 1,
        "num_used_tokens": 500,
        "max_total_num_tokens": 1000,
        "token_usage": 0.5,
        "gen_throughput": 20.5,
    }
    return {**whole, **fields}


def test_load_is_the_sum_over_ranks_and_the_mean_of_their_use() -> None:
    load = parse_loads({"loads": [rank(1, token_usage=0.9), rank(0)]}, at=7.0)
    assert isinstance(load, EngineLoad)
    assert [each.rank for each in load.ranks] == [0, 1]
    assert (load.at, load.running, load.waiting, load.tokens_per_second) == (7.0, 6, 2, 41.0)
    assert (load.kv_tokens_used, load.kv_tokens_total) == (1000, 2000)
    assert (load.kv_usage, load.kv_usage_max) == (pytest.approx(0.7), 0.9)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({}, "loads"),
        ({"loads": []}, "no rank"),
        ({"loads": [{"dp_rank": 0}]}, "num_running_reqs"),
        ({"loads": [rank(0)]}, "1 of 2 ranks"),
        ({"loads": [rank(0), rank(1, max_total_num_tokens=0)]}, "rank 1 has not reported"),
        ({"loads": [rank(0), rank(1, token_usage=None)]}, "TypeError"),
    ],
)
def test_missing_load_is_never_a_zero(answer: dict[str, Any], why: str) -> None:
    load = parse_loads(answer, at=0.0, expected_ranks=2)
    assert isinstance(load, Failure)
    assert why in load.why


async def test_reads_a_replica_and_tells_why_another_did_not_answer(replica: Gang) -> None:
    address = replica.address(0)
    async with open_session() as session:
        loads = await scrape_loads(session, [address, "127.0.1.9"], port=replica.ports["http"])
        stages = await scrape_status(session, [address, "127.0.1.9"], port=replica.ports["agent"])
    load, stage = loads[address], stages[address]
    assert isinstance(load, EngineLoad)
    assert len(load.ranks) == 4
    assert load.kv_tokens_total == 80_000
    assert isinstance(stage, AgentStatus)
    assert stage.stage == "Ready"
    assert set(stage.start) == {"ray", "weights", "warmUp"}
    assert stage.progress_at is not None
    for failed in (loads["127.0.1.9"], stages["127.0.1.9"]):
        assert isinstance(failed, Failure)
        assert "127.0.1.9" in failed.why


async def test_drain_order_is_heard(tmp_path: Path) -> None:
    with gang(tmp_path) as leaving:
        leaving.wait_ready()
        async with open_session() as session:
            for _ in range(2):
                where, port = leaving.address(0), leaving.ports["agent"]
                refused = await order_drain(session, where, token="guess", port=port)
                assert refused is not None
                assert refused.status == 401
                assert await order_drain(session, where, token=RAY_TOKEN, port=port) is None
            stages = await scrape_status(session, [leaving.address(0)], port=leaving.ports["agent"])
    stage = stages[leaving.address(0)]
    assert isinstance(stage, AgentStatus)
    assert stage.stage == "Draining"


def test_start_takes_no_time_before_it_is_over() -> None:
    gpus = {"available": True, "message": "", "devices": [{"index": 0, "healthy": True}]}
    answer = {"stage": "WarmUp", "message": "", "since": 1, "nodeIndex": 0, "nodes": [], "inFlight": 0, "gpus": gpus}
    status = parse_status({**answer, "timings": {"ray": 5.0}})
    assert isinstance(status, AgentStatus)
    assert (status.start, status.progress_at) == ({}, None)
    assert isinstance(parse_status(answer), Failure)


def test_unhealthy_gpus_are_told_with_the_reason() -> None:
    lost = {"index": 5, "healthy": False, "message": "GPU is lost"}
    worn = {"index": 3, "healthy": False, "uncorrectedEccErrors": 2}
    gpus = {"available": True, "message": "unhealthy: 3, 5", "devices": [{"index": 0, "healthy": True}, worn, lost]}
    answer = {"stage": "Ready", "message": "", "since": 1, "nodeIndex": 0, "nodes": [], "inFlight": 0, "timings": {}}
    status = parse_status({**answer, "gpus": gpus})
    assert isinstance(status, AgentStatus)
    assert status.sick_gpus == ("GPU 3: 2 uncorrected ECC errors", "GPU 5: GPU is lost")


def test_what_an_engine_says_of_its_fabric_is_read_also_where_it_says_less_or_more() -> None:
    gpus = {"available": False, "message": "", "devices": []}
    answer = {"stage": "Ray", "message": "", "since": 1, "nodeIndex": 0, "nodes": [], "inFlight": 0, "timings": {}}
    answer |= {"gpus": gpus}

    def fabric(**told: Any) -> FabricReport | None:
        status = parse_status({**answer, **told})
        assert isinstance(status, AgentStatus), status
        return status.fabric

    assert fabric() is fabric(fabric=None) is None
    bad = {"ready": False, "reason": "PortsDown", "message": "mlx5_0:1 DOWN", "nodes": [], "temperature": 40}
    assert fabric(fabric=bad) == FabricReport(False, "PortsDown", "mlx5_0:1 DOWN")
    unsure = fabric(fabric={**bad, "ready": "maybe"})
    assert unsure is not None
    assert unsure.ready is None


async def test_slow_broken_and_foreign_answers_are_failures() -> None:
    never = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await never.wait()
        return web.Response()

    app = web.Application()
    app.router.add_put("/workers", _says('{"workers": [{"url": "u", "state": "Dancing"}]}'))
    app.router.add_get("/status", hang)
    app.router.add_get("/v1/loads", _says("no JSON"))
    async with serving(app, 0, "127.0.0.1") as port, open_session() as session:
        here = ["127.0.0.1"]
        synced = await sync_workers(session, here, frozenset({Worker("u")}), token="t", port=port)
        assert not synced.told
        assert synced.routed("u"), "who was not asked may still route"
        (loads,) = (await scrape_loads(session, here, port=port)).values()
        assert isinstance(loads, Failure)
        (status,) = (await scrape_status(session, here, port=port)).values()
        assert isinstance(status, Failure)
        assert "no answer in time" in status.why
        never.set()


def _says(text: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(text=text)

    return handler


async def test_asks_many_but_not_all_at_once() -> None:
    running, most = 0, 0

    async def ask(address: str) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return address.upper()

    answers = await ask_all([f"a{index}" for index in range(50)], ask, parallel=7)
    assert answers["a13"] == "A13"
    assert most == 7


async def test_health_goes_red_when_a_loop_falls_silent() -> None:
    now = [0.0]
    heart, metrics = Heartbeat(10, clock=lambda: now[0]), Metrics()
    ready: list[str | None] = ["the cache has not synced"]
    app = health_app(metrics.registry, {"reconcile": heart.check}, {"cache": lambda: ready[0]})
    async with serving(app, free_port(), "127.0.0.1") as port, aiohttp.ClientSession() as session:

        async def get(path: str) -> tuple[int, str]:
            async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
                return answer.status, await answer.text()

        assert await get("/readyz") == (503, "cache: the cache has not synced\n")
        ready[0] = None
        assert (await get("/readyz"))[0] == 200
        assert (await get("/healthz"))[0] == 200
        now[0] = 11.0
        assert await get("/healthz") == (503, "reconcile: no sign of life for 11 s\n")
        heart.beat()
        assert (await get("/healthz"))[0] == 200
        assert "r1_operator_leader" in (await get("/metrics"))[1]


def test_what_is_not_known_has_no_series() -> None:
    metrics, key = Metrics(), ("ns", "r1")
    metrics.set_figures(key, Figures(2, 1, 2, tokens_per_second=40.0))
    labels = {"namespace": "ns", "name": "r1"}
    assert metrics.registry.get_sample_value("r1_deployment_tokens_per_second", labels) == 40.0
    assert metrics.registry.get_sample_value("r1_deployment_kv_usage_ratio", labels) is None
    metrics.set_figures(key, Figures(2, 1, 2))
    assert metrics.registry.get_sample_value("r1_deployment_tokens_per_second", labels) is None
    metrics.count_decision(key, "up", "KvUsage")
    metrics.forget(key)
    assert metrics.registry.get_sample_value("r1_deployment_replicas", labels) is None
    decided = {**labels, "direction": "up", "reason": "KvUsage"}
    assert metrics.registry.get_sample_value("r1_operator_scaling_decisions_total", decided) is None


def test_json_log_line_carries_extras_and_traceback() -> None:
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    try:
        try:
            raise RuntimeError("boom")
        except RuntimeError:
            logging.getLogger("x").exception("it %s", "broke", extra={"deployment": "ns/r1"})
        logging.getLogger("x").debug("not shown")
    finally:
        logging.basicConfig(force=True)
    (line,) = stream.getvalue().splitlines()
    told = json.loads(line)
    assert (told["level"], told["message"], told["deployment"]) == ("error", "it broke", "ns/r1")
    assert "boom" in told["traceback"]
    with pytest.raises(ValueError, match="must be debug"):
        configure_logging("loud")
