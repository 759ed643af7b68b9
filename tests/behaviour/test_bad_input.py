"""What is wrong is said where users look, and the rest goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.behaviour.operator_process import CHECKOUT
from tests.behaviour.world import Deployment, names_of, wait_for
from tests.cluster.cluster import ClusterError

pytestmark = pytest.mark.cluster

Deploy = Callable[..., Deployment]


def test_an_apply_is_refused_with_the_field_reason_and_remedy(deploy: Deploy) -> None:
    for wrong, told in (
        ({"replica": 2}, 'unknown field "spec.replica"'),
        ({"replicas": "two"}, "spec.replicas"),
        (
            {"topology": {"tensorParallel": 3, "nodesPerReplica": 2}},
            "tensorParallel is not a multiple of nodesPerReplica",
        ),
        ({"engine": {"args": ["--tp-size", "4"]}}, "set the field of spec.topology or spec.limits instead"),
    ):
        with pytest.raises(ClusterError, match=re.escape(told)):
            deploy(**wrong)


def test_unplannable_spec_is_refused_with_its_field(deploy: Deploy) -> None:
    r1 = deploy(hardware="H100x9", topology={"nodesPerReplica": 1})
    told = r1.await_condition("SpecValid", "False", "PlanRefused")
    assert told["message"].startswith("spec.hardware: ")
    assert r1.condition("Ready")["reason"] == "PlanRefused"
    # Hardware and topology contradict each other.
    r1.apply(topology={"nodesPerReplica": 2, "tensorParallel": 8})
    told = wait_for("told", lambda: r1.condition("SpecValid"), until=lambda c: "tensorParallel" in c["message"])
    assert told["message"].startswith("spec.topology.tensorParallel: 8 ranks on 2 node(s) of 1 GPUs")
    assert "set 2" in told["message"]
    assert r1.pods() == []
    r1.apply(topology={"nodesPerReplica": 1})
    r1.await_ready("r1-0-0")


def test_missing_claim_is_named_and_creates_no_pod(deploy: Deploy) -> None:
    weights = {"persistentVolumeClaim": {"claimName": "r1-weights"}}
    model = {"name": "r1-operator/tiny-r1", "servedName": "tiny-r1", "weights": weights}
    r1 = deploy(model=model, topology={"nodesPerReplica": 1})
    told = r1.await_condition("WeightsReady", "False", "ClaimNotFound")
    assert told["message"].startswith("spec.model.weights.persistentVolumeClaim.claimName: ")
    assert "'r1-weights'" in told["message"]
    assert r1.pods() == []
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "r1-weights"},
        "spec": {"accessModes": ["ReadOnlyMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    r1.kubectl("apply", "-f", "-", stdin=json.dumps(claim))
    wait_for("pods, at once", r1.pods, until=lambda pods: len(pods) == 1)


def test_refused_argument_is_told_and_not_tried_in_a_loop(deploy: Deploy) -> None:
    r1 = deploy(env={"R1_STANDIN_FAULT": '{"kind": "exit78", "at": "Weights", "node": 0}'})
    other = deploy(topology={"nodesPerReplica": 1})
    # The other node's "connection to node 0 closed" may be known a moment earlier than its cause.
    told = wait_for(
        "the cause", lambda: r1.condition("Ready").get("message", ""), until=lambda m: "ArgumentRefused: " in m
    )
    assert r1.condition("Ready")["reason"] == "StartFailed"
    assert "spec.engine.args" in told
    assert "next attempt at" in r1.status()["replicaStatuses"][0]["message"]
    r1.await_event("GangFailed")
    blamed = [event for event in r1.events() if event.startswith("GangFailed")]
    assert all("ArgumentRefused" in event for event in blamed), "a consequence was blamed"
    other.await_ready("r1-0-0")
    assert {name.rsplit("-", 1)[0] for name in names_of(r1.pods())} == {"r1-0-0"}
    # A corrected spec is tried at once.
    r1.apply()
    wait_for("a gang of the new spec", r1.gangs, until=lambda gangs: gangs.get("r1-0-1") == "Ready")


def test_wrong_weights_are_told(deploy: Deploy) -> None:
    no_tokenizer = CHECKOUT / "tests" / "behaviour" / "no_tokenizer"
    for path, reason, named in (
        (Path("/nowhere"), "WeightsNotFound", "spec.model.weights"),
        (no_tokenizer, "TokenizerNotFound", "/models/tokenizer.json"),
    ):
        model = {"name": "r1-operator/tiny-r1", "servedName": "tiny-r1", "weights": {"hostPath": {"path": str(path)}}}
        r1 = deploy(env={"R1_STANDIN_CHECK_WEIGHTS": "1"}, topology={"nodesPerReplica": 1}, model=model)
        told = r1.await_condition("WeightsReady", "False", "WeightsInvalid")
        assert reason in told["message"]
        assert named in told["message"]
