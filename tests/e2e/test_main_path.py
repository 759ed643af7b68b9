"""The main job on real parts: Kubernetes, Helm, Ray, SGLang. The tests run in this order on one deployment."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request

import pytest

from tests.e2e.main_path import START_SECONDS, answered, ask, questions, scale_with_load
from tests.e2e.site import Answer, Site, chat_body, kill_in_pod, post
from tests.waiting import wait_for

LONG_ANSWER = 400
"""Characters from which an answer is left to the test of the plain forward pass: here it would take a minute each."""

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]


def test_before_a_replica_is_ready_the_gateway_says_so_at_once(refused_while_starting: Answer) -> None:
    assert refused_while_starting.status == 503
    assert int(refused_while_starting.headers["retry-after"]) > 0
    assert json.loads(refused_while_starting.body)["error"]["message"]


def test_every_question_is_answered_in_words_with_the_thought_apart(url: str) -> None:
    answered(url, 200)
    wrong = [
        (known["question"], reply)
        for known in questions()
        if len(known["answer"]) < LONG_ANSWER
        for reply in [ask(url, known["question"])]
        if (reply.thought, reply.answer, reply.finish_reason) != (known["thought"], known["answer"], "stop")
    ]
    assert not wrong


def test_the_status_tells_plan_load_and_stage(ready: Site) -> None:
    status = ready.status()
    plan = status["plan"]
    assert (plan["nodesPerReplica"], plan["tensorParallel"], plan["attentionDataParallel"]) == (2, 2, 2)
    assert [r["stage"] for r in status["replicaStatuses"]] == ["Ready"]
    nodes = {pod["spec"]["nodeName"] for pod in ready.pods()}
    assert len(nodes) == 2
    assert set(status["replicaStatuses"][0]["nodes"]) == nodes


def test_a_bad_request_is_answered_in_json(url: str) -> None:
    wrong_model = post(f"{url}/v1/chat/completions", chat_body("What is 2 + 2?", model="nobody"))
    assert wrong_model.status in {400, 404}
    assert "error" in json.loads(wrong_model.body)


def test_load_adds_a_replica_and_its_end_drains_one_without_losing_a_request(ready: Site, url: str) -> None:
    scaled = scale_with_load(ready, url, print)
    for report in (scaled.during_load, scaled.during_drain):
        summary = report["summary"]
        assert summary["succeeded"] > 0
        assert (summary["failed"], summary["unfinished"]) == (0, 0), summary
    assert scaled.up.startswith("KvUsageHigh: ")
    assert scaled.down.startswith("LoadLow: ")
    assert ready.resource()["spec"]["replicas"] == 1, "the decision belongs into status, never into spec"
    reasons = {event["reason"] for event in ready.events()}
    assert {"ScaledUp", "ScaledDown", "ReplicaReady"} <= reasons


def test_a_dead_rank_ends_its_streams_leaves_rotation_and_serves_again(ready: Site, url: str) -> None:
    before = ready.wait_ready(1, START_SECONDS, print)["replicaStatuses"][0]["name"]
    victim = next(p for p in ready.pods() if p["metadata"]["labels"]["r1operator.dev/node-index"] == "1")
    cut = _long_stream(url)
    killed, _ = kill_in_pod(ready, victim["metadata"]["name"], "sglang::scheduler")
    assert killed == 1
    cut.join(timeout=120)
    assert not cut.is_alive(), "the open stream hangs although a rank is dead"
    answered(url, 503)
    again = wait_for(
        "another attempt",
        lambda: [r["name"] for r in ready.status()["replicaStatuses"]],
        240,
        until=lambda names: names and before not in names,
    )
    ready.wait_ready(1, START_SECONDS, print)
    answered(url, 200)
    assert ask(url, "Which is larger, 9.8 or 9.11?").answer == "9.8"
    failed = [event["message"] for event in ready.events() if event["reason"] == "GangFailed"]
    assert any(before in message for message in failed), (again, failed)


def test_deleting_it_leaves_nothing(ready: Site) -> None:
    ready.kubectl("delete", "r1d", ready.name, "--timeout=240s")
    kinds = "pods,services,endpointslices,deployments,replicasets,configmaps,secrets"
    wait_for(
        "nothing left",
        lambda: ready.kubectl(
            "get", kinds, "--selector", f"app.kubernetes.io/instance={ready.name}", "--output", "name"
        ),
        240,
        until=lambda left: not left.strip(),
    )


def _long_stream(url: str) -> threading.Thread:
    """A stream that is running when this returns; the thread ends when the stream does, whichever way."""
    body = chat_body("What is 2 + 2?", stream=True, max_tokens=800, ignore_eos=True)
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    response = urllib.request.urlopen(request, timeout=300)
    assert response.readline()

    def read() -> None:
        try:
            for _ in response:
                pass
        except (OSError, urllib.error.URLError, ValueError):
            pass

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread
