"""`r1 rollout` and `r1 nodes`: what they print, and what they write."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from r1_operator.api.types import R1DeploymentStatus
from r1_operator.cli.nodes_command import rows_of
from r1_operator.cli.rollout_command import differences, same_spec, stands, undo_operations
from r1_operator.manifests.template import Template
from r1_operator.placement.blame import Held
from r1_operator.rounds.asked import asked_of

SPEC: dict[str, Any] = {
    "model": {"name": "deepseek-ai/DeepSeek-R1", "weights": {"hostPath": {"path": "/models"}}},
    "hardware": "H100x8",
    "replicas": 2,
    "engine": {"env": [{"name": "A", "value": "1"}], "podTemplate": {"metadata": {"labels": {"team": "a"}}}},
}


def template(revision: str, made_at: str, spec: dict[str, Any], image: str = "engine:1") -> Template:
    pod = {"spec": {"containers": [{"image": image}]}}
    return Template(revision, 2, "nvidia.com/gpu", pod, {}, asked_of(spec), made_at=made_at)


def patched(spec: dict[str, Any], operations: list[dict[str, Any]]) -> dict[str, Any]:
    """JSON Patch of whole fields, as the API server does it."""
    spec = copy.deepcopy(spec)
    for operation in operations:
        *path, last = operation["path"].removeprefix("/spec/").split("/")
        holder = spec
        for part in path:
            holder = holder[part]
        if operation["op"] == "remove":
            del holder[last]
        else:
            holder[last] = operation["value"]
    return spec


def test_an_undo_asks_for_what_was_asked_and_leaves_the_rest() -> None:
    before = template("old", "1", SPEC)
    now = copy.deepcopy(SPEC)
    now["engine"] = {"image": "bad", "podTemplate": {"metadata": {"labels": {"team": "b"}}}}
    now |= {"limits": {"contextLength": 4096}, "replicas": 5, "strategy": {"maxSurge": 2, "restartedAt": "then"}}
    after = template("new", "2", now)
    assert differences(before, after) == ["engine.env", "engine.image", "limits", "strategy"]
    back = patched(now, undo_operations(now, before, [before, after]))
    assert asked_of(back) == before.asked
    assert (back["replicas"], back["strategy"]) == (5, {"maxSurge": 2})
    assert back["engine"]["podTemplate"]["metadata"]["labels"] == {"team": "b"}, "people's labels are no revision's"
    assert undo_operations(back, before, [before, after]) == []


def test_an_undo_is_of_the_spec_that_was_seen_whatever_became_of_the_status() -> None:
    """An operator that wrote the status in that moment made it fail: "due to an error in our request"."""
    seen = {"metadata": {"generation": 7, "resourceVersion": "1001"}, "spec": SPEC}
    assert same_spec(seen) == {"op": "test", "path": "/metadata/generation", "value": 7}


def test_an_undo_of_new_defaults_names_the_image() -> None:
    """The spec asked for the same both times; the kept revision of it is the later one."""
    before, after = template("old", "1", SPEC), template("new", "2", SPEC, "engine:2")
    back = patched(SPEC, undo_operations(SPEC, before, [before, after]))
    assert back["engine"]["image"] == "engine:1"


def condition(status: str, reason: str, message: str = "m") -> dict[str, Any]:
    return {"type": "Progressing", "status": status, "reason": reason, "message": message, "lastTransitionTime": "x"}


@pytest.mark.parametrize(
    ("told", "words", "done"),
    [
        (condition("True", "NewReplicasAvailable"), "2 of 2 replicas run revision abc and are ready", True),
        (condition("True", "Updating"), "2 of 2 replicas run revision abc", None),
        (condition("False", "NoNodeForNewRevision", "no node"), "NoNodeForNewRevision: no node", None),
        (condition("False", "CanaryAborted", "wrong answer"), "CanaryAborted: wrong answer", False),
    ],
)
def test_how_a_change_stands(told: dict[str, Any], words: str, done: bool | None) -> None:
    given = {"observedGeneration": 3, "desiredReplicas": 2, "updatedReplicas": 2, "updateRevision": "abc"}
    status = R1DeploymentStatus.model_validate({**given, "conditions": [told]})
    text, through = stands({"metadata": {"name": "r1", "generation": 3}, "spec": {}}, status)
    assert words in text
    assert through is done
    waits, through = stands({"metadata": {"name": "r1", "generation": 4}}, status)
    assert ("waits for the operator" in waits, through) == (True, None)


def test_nodes_are_listed_with_what_runs_there_and_what_is_held_against_them() -> None:
    def node(name: str, gpus: str, **spec: Any) -> dict[str, Any]:
        status = {"allocatable": {"nvidia.com/gpu": gpus}, "conditions": [{"type": "Ready", "status": "True"}]}
        return {"metadata": {"name": name}, "spec": spec, "status": status}

    pod = {
        "metadata": {"namespace": "llm", "labels": {"r1operator.dev/gang": "r1-0-0"}},
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running"},
    }
    held = {"n2": Held(2, 1000.0, "GpuUnhealthy", "GPU 3: Xid 79"), "n9": Held(1, 0.0, "NodeLost", "gone")}
    nodes = (node("cpu", "0"), node("n1", "8", unschedulable=True), node("n2", "8"))
    assert rows_of(nodes, (pod,), held, 4700.0)[1:] == [
        ("n1", "8", "llm/r1-0-0", "", "", "it is cordoned"),
        ("n2", "8", "", "2", "1970-01-01T02:16:40Z", "GpuUnhealthy: GPU 3: Xid 79"),
        ("n9", "0", "", "1", "", "the Node object is gone; NodeLost: gone"),
    ]
    assert replace(held["n2"], count=1).until == 4600.0
