"""Gangs of two nodes on real Ray and real SGLang: they start, answer, drain, and end together whatever fails.

Every fault ends a gang, and a start of SGLang is what costs here. So one gang answers, is questioned and drains; a
fault that does not need SGLang breaks a gang that only started as far as needed; rarer faults run with R1_SLOW=1.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.gang import TINY_MODEL, TWO_RANKS, Gang
from tests.engine.words import wrong_answers
from tests.proxies import proxied

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(900),
]
slow = pytest.mark.skipif(os.environ.get("R1_SLOW") != "1", reason="rarer fault; runs with R1_SLOW=1")

LONG = 3000  # tokens; far more than any test waits for


class Stream:
    """A streaming completion in a thread of its own: how many events came, and how it ended ("" while it runs)."""

    def __init__(self, gang: Gang, tokens: int, rank: int | None = None) -> None:
        self.events, self.end = 0, ""
        self._url, self._tokens, self._rank = f"{gang.url}/generate", tokens, rank
        self._headers = gang.headers
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        sampling = {"max_new_tokens": self._tokens, "temperature": 0, "ignore_eos": True}
        body: dict[str, Any] = {"text": "Count: 1 2 3", "sampling_params": sampling, "stream": True}
        if self._rank is not None:
            body["routed_dp_rank"] = self._rank
        request = urllib.request.Request(self._url, json.dumps(body).encode(), self._headers)
        done = False
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                for line in response:
                    self.events += line.startswith(b"data: {")
                    done = done or line.startswith(b"data: [DONE]")
            self.end = "done" if done else "broken off"
        except Exception as error:
            self.end = f"error: {type(error).__name__}"


@pytest.fixture
def gang() -> Iterator[Gang]:
    with Gang() as gang:
        gang.wait_ready()
        yield gang


# Where nobody listens: what asks it fails, and says so.
PROXIES = proxied("http://127.0.0.1:9")


def stages_until_ready(gang: Gang) -> list[str]:
    """What node 0 says on its way, each stage once."""
    seen: list[str] = []

    def note_stage() -> bool:
        gang.assert_alive()
        stage = gang.status().get("stage")
        if stage and stage not in seen:
            seen.append(stage)
        return stage == "Ready"

    gang.wait("node 0 is ready", note_stage, 240)
    return seen


def test_a_gang_starts_answers_and_drains() -> None:
    with Gang(config={"drainSeconds": 60, "kernelCache": "/tmp/kernels/CPUx1/image"}, environment=PROXIES) as gang:
        seen = stages_until_ready(gang)
        gang.wait("node 1 is ready", lambda: gang.get(1, "/ready")[0] == 200, 60)
        status = gang.status()
        assert seen == [stage for stage in ("Ray", "Weights", "WarmUp", "Ready") if stage in seen]
        assert {"Ray", "Weights", "Ready"} <= set(seen)
        assert set(status["timings"]) == {"ray", "weights", "warmUp"}
        assert [(node["index"], node["name"], node["stage"]) for node in status["nodes"]] == [
            (0, "machine-0", "Ready"),
            (1, "machine-1", "Ready"),
        ]
        assert status["gpus"]["available"] is False
        assert "GPU" in status["gpus"]["message"] or "NVML" in status["gpus"]["message"]
        print("timings", status["timings"])
        for pod in gang.pods:  # what `ray_start` leaves out, by Ray's internals, is really left out
            assert pod.finds("raylet/raylet")
            assert not pod.finds("dashboard/dashboard.py")
            assert not pod.finds("ray.util.client.server")

        message = gang.chat("Which is larger, 9.8 or 9.11?")
        assert message["reasoning_content"].strip()
        assert "9.8" in message["content"]

        for pod in gang.pods:  # the pod's log says so, and SGLang makes its own folders there
            assert "Compiled kernels are kept in /tmp/kernels/CPUx1/image" in pod.log.read_text()
            assert (gang.directory / f"node-{pod.index}" / "tmp/kernels/CPUx1/image/inductor").is_dir()

        # With a GPU SGLang asks its own server before it serves, and ends when it cannot; here it only warns.
        assert "ProxyError" not in gang.pods[0].log.read_text()

        # What two nodes with attention DP 2 x EP 2 say; the other layouts are in test_tiny_model.
        assert wrong_answers(gang) == []

        # A stranger is refused by Ray and by the agents alike: neither has the token.
        assert gang.get(0, "/gang")[0] == 401
        agent = f"http://{gang.pods[0].address}:8500"
        assert [gang.post(f"{agent}/drain", {}, key=key)[0] for key in ("", "guess", gang.key)] == [401, 401, 401]
        # And by SGLang's server, but for its figures, and for what the gateway vouches for.
        assert [gang.get(0, path, 30000)[0] for path in ("/server_info", "/v1/models")] == [401, 401]
        assert [gang.get(0, path, 30000)[0] for path in ("/health", "/v1/loads", "/metrics")] == [200, 200, 200]
        chat = (f"{gang.url}/v1/chat/completions", {"model": "deepseek-r1", "messages": [], "max_tokens": 1})
        assert [gang.post(*chat, key=key)[0] for key in ("", "users")] == [401, 401]
        assert gang.vouch("users") == 200
        assert gang.post(*chat, key="users")[0] not in (0, 401)
        assert gang.post(f"{gang.url}/flush_cache", {}, key="users")[0] == 401

        # SIGTERM to the member that serves nothing drains the gang through node 0.
        streams = [Stream(gang, 60, rank) for rank in (0, 1)]
        gang.wait("both stream", lambda: all(stream.events > 3 for stream in streams), 120)
        assert gang.status()["inFlight"] == 2
        gang.terminate(1)
        gang.wait("draining", lambda: gang.get(0, "/ready")[0] == 503, 60)
        code, answer = gang.post(f"{gang.url}/v1/chat/completions", {"model": "deepseek-r1", "messages": []})
        assert (code, answer["error"]["type"]) == (503, "draining")
        assert gang.wait_ended(180) == [0, 0]
        assert [stream.end for stream in streams] == ["done", "done"]
        assert gang.causes() == [{}, {}]


def end_by(
    gang: Gang, fault: Callable[[], None], code: int, words: str, within: float, *, streams: bool = True
) -> list[float]:
    """Breaks the gang with open streams; all pods must end with `code` for the same reason. Returns when each ended."""
    open_streams = [Stream(gang, LONG, rank) for rank in (0, 1)] if streams else []
    gang.wait("both stream", lambda: all(stream.events > 3 for stream in open_streams), 120)
    began = time.monotonic()
    fault()
    codes = gang.wait_ended(within)
    causes = gang.causes()
    assert codes == [code] * len(codes), causes
    assert words in causes[0]["message"], causes
    for stream in open_streams:
        stream.thread.join(60)
        assert stream.end not in ("", "done")
    took = [round(pod.ended_at - began, 2) for pod in gang.pods if pod.ended_at]
    print(f"{causes[0]['reason']}: {causes[0]['message']} — pods ended after {took} s")
    return took


def same_cause(gang: Gang) -> None:
    first, second = gang.causes()
    assert first == second


def test_a_gang_with_ipv6_alone_answers_and_a_killed_rank_ends_it_and_its_streams() -> None:
    with Gang(family=6) as gang:
        gang.wait_ready()
        assert "9.8" in gang.chat("Which is larger, 9.8 or 9.11?")["content"]
        end_by(gang, lambda: gang.kill(1, "sglang::scheduler"), 70, "node 1 (machine-1): sglang::scheduler", 60)
        same_cause(gang)


@pytest.fixture
def starting() -> Iterator[Gang]:
    """A gang that Ray has placed and whose servers still start: agents, links and Ray are complete, SGLang is not.

    On two cores with three suites the part that died first may be reported seconds after those that it took along.
    """
    with Gang(environment={"R1_SETTLE_SECONDS": "15"}) as gang:
        gang.wait("the servers start", lambda: gang.status().get("stage") == "Weights", 240)
        yield gang


def test_a_killed_raylet_ends_the_gang(starting: Gang) -> None:
    fault = lambda: starting.kill(1, "raylet/raylet")  # noqa: E731
    end_by(starting, fault, 70, "node 1 (machine-1): raylet ended", 60, streams=False)
    same_cause(starting)


@pytest.fixture
def joined() -> Iterator[Gang]:
    """A gang whose agents know each other; all that watches pods and network is complete."""
    with Gang() as gang:
        gang.wait("node 1 joins", lambda: len(gang.status().get("nodes", ())) == 2, 180)
        yield gang


def cut_network(gang: Gang, *, streams: bool) -> None:
    end_by(gang, lambda: gang.cut(1), 70, "node 1 (machine-1): nothing heard from its agent", 90, streams=streams)
    assert "node 0" in gang.causes()[1]["message"]


def test_a_cut_network_ends_both_sides(joined: Gang) -> None:
    cut_network(joined, streams=False)


@slow
def test_a_cut_network_ends_a_serving_gang(gang: Gang) -> None:
    cut_network(gang, streams=True)


def test_a_lost_pod_ends_the_others(joined: Gang) -> None:
    joined.pods[1].process.kill()
    assert joined.wait_ended(180)[0] == 70
    assert "node 1 (machine-1): its agent closed the connection" in joined.causes()[0]["message"]


def test_ray_is_started_again_when_its_first_start_fails(joined: Gang) -> None:
    joined.wait("the raylet starts", lambda: joined.pods[0].finds("raylet/raylet"), 180)
    joined.kill(0, "gcs_server")
    joined.wait("the servers start", lambda: joined.status().get("stage") == "Weights", 300)
    joined.assert_alive()
    assert "Ray did not start (attempt 1 of 3)" in joined.pods[0].log.read_text()


def test_a_frozen_rank_ends_the_idle_gang(gang: Gang) -> None:
    end_by(gang, lambda: gang.freeze(1, "sglang::scheduler"), 71, "No token from DP rank(s)", 90, streams=False)
    same_cause(gang)


@slow
@pytest.mark.parametrize(
    ("node", "title", "words"),
    [
        (1, "sglang::scheduler", "No token from DP rank(s)"),
        (0, "r1_engine.serve", "node 0 (machine-0): the server has not answered"),
    ],
)
def test_a_frozen_process_ends_a_serving_gang(gang: Gang, node: int, title: str, words: str) -> None:
    end_by(gang, lambda: gang.freeze(node, title), 71, words, 90)
    same_cause(gang)


COMPILE = """
import pathlib, subprocess, sys, threading, time
def compile():
    while not pathlib.Path("/mnt/model/compile").exists():
        time.sleep(0.1)
    subprocess.run(["/mnt/model/ptxas", "20"])
if "r1_engine.serve" in sys.orig_argv:
    threading.Thread(target=compile, daemon=True).start()
"""


@slow
def test_a_compiler_on_another_node_excuses_a_silence(tmp_path: Path) -> None:
    for file in TINY_MODEL.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "sitecustomize.py").write_text(COMPILE)
    (tmp_path / "ptxas").symlink_to("/bin/sleep")
    with Gang(models={1: tmp_path}, environment={"PYTHONPATH": "/mnt/model"}) as gang:
        gang.wait_ready()
        began = time.monotonic()
        (tmp_path / "compile").touch()
        gang.freeze(1, "sglang::scheduler")
        assert gang.wait_ended(180) == [71, 71]
        assert time.monotonic() - began > 20 + 8, "the silence was not excused"


@slow
def test_a_stuck_request_is_cut_at_the_end_of_the_drain() -> None:
    with Gang(config={"drainSeconds": 2}) as gang:
        gang.wait_ready()
        stream = Stream(gang, LONG)
        gang.wait("it streams", lambda: stream.events > 3, 120)
        gang.terminate(0)
        assert gang.wait_ended(60) == [0, 0]
        stream.thread.join(60)
        assert stream.end not in ("", "done")


@slow
@pytest.mark.parametrize(
    ("node", "title", "words"),
    [
        (0, "sglang::scheduler", "node 0 (machine-0): sglang::scheduler"),
        (0, "r1_engine.serve", "node 0 (machine-0): server"),
        (0, "sglang::detokenizer", "node 0 (machine-0): sglang::detokenizer"),
        (1, "ray::NodeActor", "node 1 (machine-1)"),
        (0, "r1_engine.driver", "the Ray driver ended"),
        (0, "gcs_server", "node 0 (machine-0): gcs_server ended"),
        (1, "raylet/raylet", "node 1 (machine-1): raylet ended"),
    ],
)
def test_any_dead_part_ends_the_gang(gang: Gang, node: int, title: str, words: str) -> None:
    end_by(gang, lambda: gang.kill(node, title), 70, words, 60)
    same_cause(gang)


# ── starts that must fail, and soon ──────────────────────────────────────────────────────────────────────────────────


def test_a_model_directory_without_weights_on_one_node_is_refused(tmp_path: Path) -> None:
    for file in TINY_MODEL.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).symlink_to(file)
    with Gang(models={1: tmp_path}) as gang:
        assert gang.wait_ended(180) == [78, 78]
        same_cause(gang)
        cause = gang.causes()[0]
        assert cause["reason"] == "WeightsMissing"
        assert "node 1 (machine-1): /mnt/model: holds no *.safetensors files" in cause["message"]
        assert "spec.model.weights" in cause["message"]


def test_a_refused_argument_is_named() -> None:
    with Gang(engine_args=[*TWO_RANKS, "--enable-deepep-moe"]) as gang:
        assert gang.wait_ended(240) == [78, 78]
        same_cause(gang)
        cause = gang.causes()[0]
        assert cause["reason"] == "EngineArgumentRefused"
        assert "--enable-deepep-moe" in cause["message"]


def test_a_node_that_never_comes_is_named() -> None:
    with Gang(absent=[1], config={"stallSeconds": 8}) as gang:
        assert gang.wait_ended(180) == [72]
        assert gang.causes()[0]["reason"] == "NodeNeverCame"
        assert "(spec.startup.stallSeconds = 8): node 1 never came" in gang.causes()[0]["message"]


def dead_volume(directory: Path) -> Path:
    """The tiny model with a pipe for its weights that nobody writes: to open it blocks, as on a dead network volume."""
    shutil.copytree(TINY_MODEL, directory / "dead", ignore=shutil.ignore_patterns("*.safetensors"))
    os.mkfifo(directory / "dead" / "model.safetensors")
    return directory / "dead"


def test_a_start_that_stands_still_ends_although_a_thread_of_the_agent_never_does(tmp_path: Path) -> None:
    with Gang(nodes=1, engine_args=(), model=dead_volume(tmp_path), config={"stallSeconds": 5}) as gang:
        assert gang.wait_ended(180) == [72]
        cause = gang.causes()[0]
        assert (cause["reason"], cause["node"]) == ("StartStoodStill", "machine-0")
        assert "(spec.startup.stallSeconds = 5): node 0 (machine-0) is still in stage Ray: Checking" in cause["message"]


@slow
def test_a_load_that_hangs_ends_the_start_and_its_node_is_named(tmp_path: Path) -> None:
    with Gang(models={1: dead_volume(tmp_path)}, config={"stallSeconds": 20}) as gang:
        gang.wait("weights are loaded", lambda: gang.status().get("stage") == "Weights", 120)
        assert gang.wait_ended(200) == [72, 72]
        same_cause(gang)
        cause = gang.causes()[0]
        print(cause["message"])
        assert (cause["reason"], cause["node"]) == ("StartStoodStill", "machine-1")
        assert "(spec.startup.stallSeconds = 20): node 1 (machine-1) is still in stage Weights" in cause["message"]


def test_another_token_is_refused() -> None:
    with Gang(tokens={1: "not-the-gangs"}) as gang:
        assert gang.wait("node 1 ends", lambda: gang.pods[1].process.poll(), 180) == 78
        assert "Node 0 has another token" in gang.causes()[1]["message"]
