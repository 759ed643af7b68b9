"""What is wrong is said where users look, and the rest goes on."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.behaviour.world import Deployment, World, names_of, wait_for

pytestmark = pytest.mark.cluster

Deploy = Callable[..., Deployment]


def test_unplannable_spec_is_refused_with_its_field(deploy: Deploy) -> None:
    r1 = deploy(hardware="H100x9")
    told = r1.await_condition("SpecValid", "False", "PlanRefused")
    assert told["message"].startswith("spec.hardware: ")
    assert r1.condition("Ready")["reason"] == "PlanRefused"
    assert r1.pods() == []
    r1.apply()
    r1.await_ready("r1-0-0")


def test_missing_claim_is_named_and_creates_no_pod(deploy: Deploy) -> None:
    weights = {"persistentVolumeClaim": {"claimName": "r1-weights"}}
    r1 = deploy(model={"name": "r1-operator/tiny-r1", "servedName": "tiny-r1", "weights": weights})
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
    wait_for("pods, at once", r1.pods, until=lambda pods: len(pods) == 2)


def test_refused_argument_is_told_and_not_tried_in_a_loop(world: World, deploy: Deploy) -> None:
    r1 = deploy(env={"R1_STANDIN_FAULT": '{"kind": "exit78", "at": "Weights", "node": 0}'})
    other = deploy()
    r1.await_condition("Ready", "False", "StartFailed")
    # The other node's "connection to node 0 closed" may be known a moment earlier than its cause.
    told = wait_for("the cause", lambda: r1.condition("Ready")["message"], until=lambda m: "ArgumentRefused: " in m)
    assert "spec.engine.args" in told
    other.await_ready("r1-0-0")
    assert {name.rsplit("-", 1)[0] for name in names_of(r1.pods())} == {"r1-0-0"}
    # A corrected spec is tried at once.
    r1.apply()
    wait_for("a gang of the new spec", r1.gangs, until=lambda gangs: gangs.get("r1-0-1") == "Ready")


def test_wrong_weights_path_is_told(deploy: Deploy) -> None:
    r1 = deploy(
        env={"R1_STANDIN_CHECK_WEIGHTS": "1"},
        model={
            "name": "r1-operator/tiny-r1",
            "servedName": "tiny-r1",
            "weights": {"hostPath": {"path": "/nowhere"}},
        },
    )
    told = r1.await_condition("WeightsReady", "False", "WeightsInvalid")
    assert "WeightsNotFound" in told["message"]
    assert "spec.model.weights" in told["message"]
