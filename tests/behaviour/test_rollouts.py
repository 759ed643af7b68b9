"""Revisions: good ones, bad ones, canaries, other operators and other CRDs. What serves goes on serving."""

from __future__ import annotations

import copy
import json
import signal
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.behaviour.asking import answers
from tests.behaviour.traffic import AT_ONCE, traffic
from tests.behaviour.world import CRD, Deployment, World, wait_for
from tests.crd import await_crd

pytestmark = pytest.mark.cluster

Deploy = Callable[..., Deployment]

ONE_NODE = {"nodesPerReplica": 1}
TWO_NODES_IN_ALL = {
    "hardware": "two",
    "hardwareProfile": {
        "name": "two",
        "extends": "CPUx1",
        "nodeLabels": [{"key": "kubernetes.io/hostname", "values": ["n2", "n3"]}],
    },
}
BROKEN = {"R1_STANDIN_FAULT": '{"kind": "exit70", "at": "Ray"}'}


def serving_revisions(r1: Deployment) -> list[str]:
    entries = r1.status().get("replicaStatuses", ())
    return sorted(entry["revision"] for entry in entries if entry["stage"] == "Ready")


def _failures(events: list[str]) -> int:
    return sum(event.startswith("GangFailed") for event in events)


def images(r1: Deployment) -> set[str]:
    return {pod["spec"]["containers"][0]["image"] for pod in r1.pods()}


@pytest.mark.alone
def test_without_spare_nodes_a_roll_drains_one_and_a_bad_one_gives_it_back(deploy: Deploy) -> None:
    r1 = deploy(env=AT_ONCE, topology=ONE_NODE, replicas=2, **TWO_NODES_IN_ALL)
    r1.await_ready("r1-0-0", "r1-1-0")
    with traffic(r1, pause=0.02) as users:
        r1.apply(env={**AT_ONCE, "ANOTHER": "1"}, topology=ONE_NODE, replicas=2, **TWO_NODES_IN_ALL)
        print(r1.r1("rollout", "status", "r1"))
        good = r1.status()["updateRevision"]
        assert serving_revisions(r1) == [good] * 2
        r1.apply(env={**AT_ONCE, **BROKEN}, topology=ONE_NODE, replicas=2, **TWO_NODES_IN_ALL)
        r1.await_condition("Progressing", "False", "NewRevisionFailed")
        wait_for("it fails for the second time", r1.events, until=lambda events: _failures(events) >= 2)
        wait_for("both serve as before", lambda: serving_revisions(r1), until=lambda seen: seen == [good] * 2)
        history = r1.r1("rollout", "history", "r1")
        assert "engine.env" in history, history
        print(history, r1.r1("rollout", "undo", "r1"))
        r1.await_condition("Ready", "True", "Ready")
        assert {r["revision"] for r in r1.status()["replicaStatuses"]} == {good}
    assert users.lost == []


def test_a_replica_that_dies_in_a_roll_comes_back_as_what_it_was_and_paused_is_paused(deploy: Deploy) -> None:
    r1 = deploy(topology=ONE_NODE, replicas=1)
    r1.await_ready("r1-0-0")
    good = r1.status()["currentRevision"]
    r1.apply(env=BROKEN, topology=ONE_NODE, replicas=1)
    wait_for("the new one fails", r1.gangs, until=lambda gangs: "Failed" in gangs.values())
    r1.fault("r1-0-0-0", "exit70")
    wait_for("it is back", lambda: r1.gangs().get("r1-0-1"), until=lambda stage: stage == "Ready")
    assert serving_revisions(r1) == [good]
    r1.apply(env={"ANOTHER": "1"}, topology=ONE_NODE, replicas=1, paused=True)
    wait_for("what failed has gone", lambda: set(r1.gangs()), until=lambda gangs: len(gangs) <= 2)
    r1.kubectl("scale", "r1d", "r1", "--replicas=2")
    wait_for("one more of the same", lambda: serving_revisions(r1), until=lambda seen: seen == [good] * 2)
    r1.r1("rollout", "resume", "r1")
    r1.r1("rollout", "status", "r1")
    assert serving_revisions(r1) == [r1.status()["updateRevision"]] * 2 != [good] * 2


def test_a_canary_that_answers_wrongly_is_taken_back(deploy: Deploy) -> None:
    check_canary(deploy, "answer")


def test_a_canary_that_fails_requests_is_taken_back(deploy: Deploy) -> None:
    check_canary(deploy, "errors")


def check_canary(deploy: Deploy, fault: str) -> None:
    questions = [{"ask": "What is the capital of France?", "expect": "Paris"}]
    canary = {"seconds": 3600, "maxErrorPercent": 10, "questions": questions if fault == "answer" else []}
    r1 = deploy(env=AT_ONCE, topology=ONE_NODE)
    r1.await_ready("r1-0-0")
    good = r1.status()["currentRevision"]
    refuses = {"R1_STANDIN_FAULT": '{"kind": "refuse", "at": "Ready"}'} if fault == "errors" else {"ANOTHER": "1"}
    strategy = {"minReadySeconds": 2, "canary": canary}
    r1.apply(env={**AT_ONCE, **refuses}, topology=ONE_NODE, strategy=strategy)

    def seen() -> dict[str, Any]:
        routed = r1.routed()
        if fault == "errors" and len(routed) == 2:
            for _ in range(8):  # one question again and again would go to the replica that has it in its cache
                answers(r1.gateway(), uuid.uuid4().hex * 8)
        status = r1.status()
        return {"routed": routed, **{k: status.get(k) for k in ("rollout", "replicaStatuses", "conditions")}}

    wait_for("it is taken back", seen, until=lambda now: (now["rollout"] or {}).get("canary") == "Aborted")
    r1.await_condition("Progressing", "False", "CanaryAborted")
    told = r1.condition("Progressing")
    words = 'which lacks "Paris"' if fault == "answer" else "spec.strategy.canary.maxErrorPercent allows 10"
    assert words in told["message"], told
    wait_for("nothing is left of it", r1.gangs, until=lambda gangs: gangs == {"r1-0-0": "Ready"})
    assert serving_revisions(r1) == [good]
    assert r1.status()["rollout"]["canary"] == "Aborted"
    # The abort is told for as long as the spec asks for what was aborted, not only while something of it is left.
    r1.kubectl("annotate", "r1d", "r1", "--overwrite", "look=again")
    wait_for("a round", lambda: r1.condition("Ready"), until=lambda ready: ready.get("status") == "True")
    assert r1.condition("Progressing")["reason"] == "CanaryAborted"


def without(crd: dict[str, Any], *paths: str) -> dict[str, Any]:
    """The CRD as a release of before had it."""
    crd = copy.deepcopy(crd)
    root = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    for path in paths:
        part, *fields = path.split(".")
        schema = root[part]
        for field in fields[:-1]:
            schema = schema["properties"][field]
        del schema["properties"][fields[-1]]
    return crd


@pytest.mark.alone
def test_an_upgrade_and_crds_of_other_versions_restart_nobody_and_keep_healing(world: World, deploy: Deploy) -> None:
    """A new default image, an N−1 CRD, an object of N+1: what runs is the same, and what dies comes back."""
    r1 = deploy(topology=ONE_NODE)
    r1.await_ready("r1-0-0")
    uid = r1.pods()[0]["metadata"]["uid"]
    crd = yaml.safe_load(CRD.read_text())
    operator = world.operator
    try:
        operator.engine_image = "r1-standin:next"
        operator.restart(signal.SIGTERM)
        _await_rounds(world, r1)
        assert [pod["metadata"]["uid"] for pod in r1.pods()] == [uid]
        older = without(crd, "spec.strategy", "spec.paused", "status.rollout", "status.attemptFloor")
        _apply_crd(world, older)
        r1.fault("r1-0-0-0", "exit70")
        r1.await_ready("r1-0-1")
        newer = copy.deepcopy(crd)
        root = newer["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
        root["spec"]["properties"]["engine"]["properties"]["fromTheFuture"] = {"type": "string"}
        root["status"]["properties"]["fromTheFuture"] = {"type": "string"}
        _apply_crd(world, newer)
        patch = json.dumps({"status": {"fromTheFuture": "x"}})
        r1.kubectl("patch", "r1d", "r1", "--subresource=status", "--type=merge", "-p", patch)
        _await_rounds(world, r1)
        assert r1.gangs() == {"r1-0-1": "Ready"}
        assert images(r1) == {"r1-standin:dev"}, "healed as what it was"
        r1.r1("rollout", "restart", "r1")
        wait_for("new defaults on somebody's word", lambda: "r1-standin:next" in images(r1))
    finally:
        operator.engine_image = "r1-standin:dev"
        operator.restart(signal.SIGTERM)
        _apply_crd(world, crd)


def _apply_crd(world: World, crd: dict[str, Any]) -> None:
    world.cluster.kubectl("replace", "-f", "-", stdin=json.dumps(crd))
    await_crd(world.cluster.kubectl)


def _await_rounds(world: World, r1: Deployment) -> None:
    """Some rounds of this operator on this resource."""

    def rounds() -> float:
        return world.operator.metric(r"^r1_operator_reconcile_seconds_count")

    wait_for("the operator is back", lambda: _answer(rounds), until=lambda count: count >= 1)
    before = rounds()
    r1.kubectl("annotate", "r1d", "r1", "--overwrite", f"look={before}")
    wait_for("it looks", rounds, until=lambda count: count > before)


def _answer(probe: Callable[[], float]) -> float:
    try:
        return probe()
    except Exception:
        return 0.0
