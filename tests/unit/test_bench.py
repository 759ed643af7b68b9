"""The load test against the engine stand-in, and against servers that misbehave."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from r1_bench.cli import run

from tests.ports import free_port
from tests.standin.launch import PROJECT, Gang, fetch, gang, wait_for
from tests.waiting import PATIENCE_SECONDS


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gang]:
    env = {"R1_STANDIN_START_SECONDS": "0.1", "R1_STANDIN_TOKENS_PER_SECOND": "100"}
    with gang(tmp_path_factory.mktemp("engine"), env=env, drainSeconds=1) as running:
        running.wait_ready()
        yield running


def bench(*flags: str, file: Path) -> tuple[int, dict[str, Any]]:
    code = run([*flags, "--quiet", "--json", str(file)])
    return code, dict(json.loads(file.read_text())) if file.exists() else {}


@pytest.mark.parametrize("load", [("--concurrency", "4"), ("--rate", "40", "--arrivals", "constant")])
def test_thought_and_answer_are_timed_apart(engine: Gang, tmp_path: Path, load: tuple[str, ...]) -> None:
    code, found = bench("--url", engine.url, *load, "--requests", "12", file=tmp_path / "out.json")
    summary = found["summary"]
    assert (code, summary["succeeded"], summary["failed"]) == (0, 12, 0)
    assert (summary["output_tokens"], summary["thought_tokens"]) == (12 * 16, 12 * 8)
    for request in found["requests"]:
        assert request["counted"]
        assert request["first_thought"] < request["first_answer"] < request["ended"]
    # The stand-in makes 100 tokens a second; slower is possible on a busy machine, faster is not.
    assert summary["latencies"]["tpot"]["percentiles"]["p50"] > 0.008


def test_the_report_names_every_figure(engine: Gang, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--url", engine.url, "--concurrency", "2", "--requests", "2", "--slo", "e2e=60", "--quiet"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "first thought token",
        "first answer token",
        "per output token",
        "p99",
        "within the objectives",
        "100.0%",
    ):
        assert words in shown


@contextmanager
def misbehaving(handler: Any) -> Iterator[str]:
    """A server whose chat endpoint is `handler`; its address."""
    port, loop, ready = free_port(), asyncio.new_event_loop(), threading.Event()

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "m"}]})

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_get("/v1/models", models)
        app.router.add_post("/v1/chat/completions", handler)
        runner = web.AppRunner(app, shutdown_timeout=0, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        ready.set()
        return runner

    def serve() -> None:
        runner = loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())

    thread = threading.Thread(target=serve)
    thread.start()
    assert ready.wait(PATIENCE_SECONDS)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _begin(request: web.Request, *deltas: dict[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for delta in deltas:
        await response.write(f"data: {json.dumps({'choices': [{'delta': delta}]})}\n\n".encode())
    return response


async def refuse(_: web.Request) -> web.Response:
    return web.json_response({"error": {"message": "no replica is ready"}}, status=503)


async def break_off(request: web.Request) -> web.StreamResponse:
    response = await _begin(request, {"reasoning_content": "a"}, {"content": "b"})
    assert request.transport is not None
    request.transport.close()
    return response


async def end_early(request: web.Request) -> web.StreamResponse:
    return await _begin(request, {"content": "b"})


async def error_event(request: web.Request) -> web.StreamResponse:
    response = await _begin(request, {"content": "b"})
    await response.write(b'data: {"error": {"message": "worker died"}}\n\ndata: [DONE]\n\n')
    return response


async def hang(request: web.Request) -> web.StreamResponse:
    response = await _begin(request, {"content": "b"})
    await asyncio.sleep(600)
    return response


async def babble(request: web.Request) -> web.StreamResponse:
    response = await _begin(request)
    await response.write(b"data: {nonsense\n\n")
    return response


@pytest.mark.parametrize(
    ("handler", "failure"),
    [
        (refuse, "status: 503 no replica is ready"),
        (break_off, "cut: "),
        (end_early, "cut: the stream ended without [DONE]"),
        (error_event, "cut: worker died"),
        (hang, "timeout: not finished after 0.5 s"),
        (babble, "protocol: unreadable event"),
    ],
)
def test_each_way_to_fail_is_counted_by_its_kind(tmp_path: Path, handler: Any, failure: str) -> None:
    with misbehaving(handler) as url:
        flags = ("--url", url, "--concurrency", "2", "--requests", "3", "--timeout", "0.5" if handler is hang else "60")
        code, found = bench(*flags, file=tmp_path / "out.json")
    assert code == 1
    ((told, count),) = found["summary"]["failures"].items()
    assert told.startswith(failure)
    assert count == 3


async def without_usage(request: web.Request) -> web.StreamResponse:
    response = await _begin(request, {"reasoning_content": "a"}, {"content": "b"}, {"content": "c"})
    await response.write(b"data: [DONE]\n\n")
    return response


def test_without_usage_pieces_are_counted_and_the_report_says_so(tmp_path: Path) -> None:
    with misbehaving(without_usage) as url:
        code, found = bench("--url", url, "--concurrency", "1", "--requests", "2", file=tmp_path / "out.json")
    assert (code, found["summary"]["output_tokens"], found["summary"]["thought_tokens"]) == (0, 6, 2)
    assert "usage" in found["summary"]["warnings"][-1]


@pytest.mark.parametrize(
    ("flags", "code", "told"),
    [
        (["--url", "http://127.0.0.1:1", "--concurrency", "1"], 3, "--url"),
        (["--url", "http://127.0.0.1:1", "--concurrency", "0"], 2, "--concurrency"),
        (["--url", "http://127.0.0.1:1", "--rate", "nan"], 2, "--rate"),
        (["--url", "localhost:1", "--rate", "1"], 2, "--url"),
        (["--url", "http://127.0.0.1:1", "--rate", "1", "--concurrency", "1"], 2, "not allowed"),
        (["--url", "http://127.0.0.1:1", "--rate", "1", "--slo", "latency=1"], 2, "ttft"),
        (["--url", "http://127.0.0.1:1", "--rate", "1", "--ignore-eos"], 2, "--output-tokens"),
        (["--url", "http://127.0.0.1:1", "--rate", "1", "--prompts", "/nowhere.txt"], 2, "/nowhere.txt"),
    ],
)
def test_wrong_flags_and_dead_endpoints_are_told_apart(
    flags: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(flags) == code
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("interrupts", "code", "shown_line", "prompt"),
    [(1, 0, "requests failed", "Count to 20."), (2, 130, "requests unfinished", "Count to 300.")],
    ids=["once-finishes-what-runs", "twice-cuts-it"],
)
def test_ctrl_c_reports_what_was_measured(
    engine: Gang, tmp_path: Path, interrupts: int, code: int, shown_line: str, prompt: str
) -> None:
    file = tmp_path / "out.json"
    command = [sys.executable, "-m", "r1_bench", "--url", engine.url, "--concurrency", "2", "--duration", "60"]
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(f"{prompt}\n")
    before = generated(engine)
    with subprocess.Popen(
        [*command, "--prompts", str(prompts), "--json", str(file)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        wait_for(lambda: engine.agent("/status")[1]["inFlight"] == 2)
        wait_for(lambda: generated(engine) > before + 100)
        process.send_signal(signal.SIGINT)
        while "Stopping: 2 requests" not in process.stderr.readline():
            assert process.poll() is None
        for _ in range(interrupts - 1):
            process.send_signal(signal.SIGINT)
        shown = process.communicate(timeout=PATIENCE_SECONDS)[0]
    summary = json.loads(file.read_text())["summary"]
    assert process.returncode == code
    assert shown_line in shown
    assert (summary["unfinished"] == 0) == (interrupts == 1)
    assert summary["failed"] == 0
    assert interrupts == 2 or summary["succeeded"] >= 2


def generated(engine: Gang) -> float:
    """Tokens the engine has made since it started."""
    lines = fetch(f"{engine.url}/metrics")[1].splitlines()
    return float(next(line for line in lines if line.startswith("sglang:generation_tokens_total")).split()[-1])
