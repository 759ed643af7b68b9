"""The stand-in keeps to the engine pod's seam (docs/design/contracts.md)."""

from __future__ import annotations

import json
import signal
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.standin.launch import fetch, gang, wait_for
from tests.waiting import PATIENCE_SECONDS

FAST = {"R1_STANDIN_START_SECONDS": "0.1", "R1_STANDIN_TOKENS_PER_SECOND": "400"}


def chat(url: str, **fields: Any) -> tuple[int, Any]:
    body = {"model": "standin", "messages": [{"role": "user", "content": "Hello"}], **fields}
    return fetch(f"{url}/v1/chat/completions", body)


def in_background(url: str, content: str) -> tuple[threading.Thread, list[tuple[int, Any]]]:
    answers: list[tuple[int, Any]] = []
    messages = [{"role": "user", "content": content}]
    thread = threading.Thread(target=lambda: answers.append(chat(url, messages=messages)))
    thread.start()
    return thread, answers


def test_a_gang_becomes_ready_answers_and_drains(tmp_path: Path) -> None:
    with gang(tmp_path, nodes=2, env={**FAST, "R1_STANDIN_TOKENS_PER_SECOND": "100"}) as running:
        running.wait_ready()
        status, body = running.agent("/status")
        assert (status, body["stage"], [node["name"] for node in body["nodes"]]) == (200, "Ready", ["node-0", "node-1"])

        status, answer = chat(running.url)
        assert status == 200
        message = answer["choices"][0]["message"]
        assert message["reasoning_content"].startswith("Thinking")
        assert message["content"].startswith("1 2")

        thread, answers = in_background(running.url, "Count to 100.")
        wait_for(lambda: running.agent("/status")[1]["inFlight"] == 1)
        running.processes[1].terminate()  # any member's SIGTERM drains the whole gang
        wait_for(lambda: running.agent("/status")[1]["stage"] == "Draining")
        assert chat(running.url)[0] == 503
        thread.join(timeout=PATIENCE_SECONDS)
        assert answers[0][0] == 200
        assert answers[0][1]["choices"][0]["message"]["content"].endswith(" 100")
        assert [process.wait(timeout=PATIENCE_SECONDS) for process in running.processes] == [0, 0]


def test_a_stream_separates_thought_and_answer_and_ends_with_usage(tmp_path: Path) -> None:
    with gang(tmp_path, env=FAST) as running:
        running.wait_ready()
        body = {
            "model": "standin",
            "messages": [{"role": "user", "content": "Hello"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        request = urllib.request.Request(
            f"{running.url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            lines = [line[6:] for line in answer.read().decode().split("\n") if line.startswith("data: ")]
        assert lines[-1] == "[DONE]"
        chunks = [json.loads(line) for line in lines[:-1]]
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
        assert sum(bool(delta.get("reasoning_content")) for delta in deltas) == 8
        assert sum(bool(delta.get("content")) for delta in deltas) == 8
        assert chunks[-1]["usage"]["completion_tokens"] == 16


def test_load_fills_the_cache_and_queues(tmp_path: Path) -> None:
    env = {**FAST, "R1_STANDIN_TOKENS_PER_SECOND": "200", "R1_STANDIN_KV_TOKENS": "400"}
    with gang(tmp_path, env=env, engineArgs=["--max-running-requests", "1"]) as running:
        running.wait_ready()
        threads = [in_background(running.url, "Count to 300.")[0] for _ in range(2)]

        def load() -> dict[str, Any]:
            return dict(fetch(f"{running.url}/v1/loads")[1]["loads"][0])

        def filled_and_queued() -> bool:  # in one look: a moment later the second may run
            seen = load()
            waits = (seen["num_running_reqs"], seen["num_waiting_reqs"]) == (1, 1)
            return waits and seen["token_usage"] > 0.25 and seen["gen_throughput"] > 0

        wait_for(filled_and_queued)
        assert 'sglang:num_running_reqs{dp_rank="0"' in fetch(f"{running.url}/metrics")[1]
        for thread in threads:
            thread.join(timeout=PATIENCE_SECONDS)
        wait_for(lambda: load()["num_used_tokens"] == 0)


@pytest.mark.parametrize(
    ("fault", "codes"),
    [
        ({"kind": "die"}, (-9, 70)),
        ({"kind": "exit78"}, (78, 70)),
        ({"kind": "hang"}, (71, 70)),
    ],
)
def test_a_fault_of_one_node_ends_the_gang(tmp_path: Path, fault: dict[str, Any], codes: tuple[int, int]) -> None:
    with gang(tmp_path, nodes=2, env={**FAST, "R1_STANDIN_HANG_SECONDS": "0.2"}) as running:
        running.wait_ready()
        running.agent("/fault", 1, fault)
        assert running.processes[1].wait(timeout=PATIENCE_SECONDS) == codes[0]
        assert running.processes[0].wait(timeout=PATIENCE_SECONDS) == codes[1]
        told = running.termination(0)
        assert told["reason"] == "NodeLost"
        assert "node-1" in told["message"]
        assert told["node"] == "node-1", "the lost one, as the real agent names it"


def test_a_frozen_node_is_noticed_by_its_lease(tmp_path: Path) -> None:
    with gang(tmp_path, nodes=2, env={**FAST, "R1_STANDIN_LEASE_SECONDS": "4"}) as running:
        running.wait_ready()
        running.processes[1].send_signal(signal.SIGSTOP)
        assert running.processes[0].wait(timeout=PATIENCE_SECONDS) == 71
        assert running.termination(0)["reason"] == "NodeLost"


def test_a_wrong_configuration_is_exit_78_with_its_reason(tmp_path: Path) -> None:
    with gang(tmp_path, modelPath="/nowhere") as running:
        assert running.processes[0].wait(timeout=PATIENCE_SECONDS) == 78
        assert running.termination(0)["reason"] == "WeightsNotFound"
        assert "/nowhere" in running.termination(0)["message"]


def test_a_start_that_never_completes_names_the_missing_node(tmp_path: Path) -> None:
    with gang(tmp_path, nodes=2, env=FAST, startSeconds=1.5) as running:
        running.processes[1].send_signal(signal.SIGSTOP)
        assert running.processes[0].wait(timeout=PATIENCE_SECONDS) == 72
        assert "node 1" in running.termination(0)["message"]


def test_a_start_that_stands_still_ends_long_before_its_whole_time(tmp_path: Path) -> None:
    env = {**FAST, "R1_STANDIN_FAULT": json.dumps({"kind": "stall", "at": "Weights"})}
    with gang(tmp_path, env=env, stallSeconds=1) as running:
        wait_for(lambda: running.agent("/status")[0] == 200)
        stood_at = running.agent("/status")[1]["progressAt"]
        assert running.processes[0].wait(timeout=10) == 72
        told = running.termination(0)
        assert told["reason"] == "StartStoodStill"
        assert "spec.startup.stallSeconds = 1" in told["message"]
        assert stood_at > 0


def test_a_stuck_request_is_cut_at_the_end_of_the_drain_time(tmp_path: Path) -> None:
    with gang(tmp_path, env=FAST, drainSeconds=0.5) as running:
        running.wait_ready()
        running.agent("/fault", body={"kind": "stuck"})
        thread, answers = in_background(running.url, "Hello")
        wait_for(lambda: running.agent("/status")[1]["inFlight"] == 1)
        running.processes[0].terminate()
        assert running.processes[0].wait(timeout=PATIENCE_SECONDS) == 0
        thread.join(timeout=PATIENCE_SECONDS)
        assert answers[0][0] != 200
