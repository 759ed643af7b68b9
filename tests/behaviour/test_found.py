"""An engine that finds other GPUs than planned for ends with exit 78; the resource says what, where and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.behaviour.world import Deployment

pytestmark = pytest.mark.cluster

A100 = (
    "GPUs: profile H100x8 is planned, and this node has 8 × NVIDIA-A100-SXM4-80GB, and not NVIDIA-H100-80GB-HBM3. "
    "Set spec.hardware to the profile of these GPUs"
)


def test_other_gpus_than_planned_are_told_with_node_and_remedy(deploy: Callable[..., Deployment]) -> None:
    fault = json.dumps({"kind": "exit", "code": 78, "reason": "HardwareMismatch", "message": A100})
    r1 = deploy(topology={"nodesPerReplica": 1}, env={"R1_STANDIN_FAULT": fault})
    told = r1.await_condition("Ready", "False", "HardwareMismatch")["message"]
    (node,) = r1.status()["replicaStatuses"][0]["nodes"]
    assert f"on node {node}: {A100}" in told
    for condition in ("Degraded", "Progressing"):
        assert r1.condition(condition)["reason"] == "HardwareMismatch"
    assert r1.condition("WeightsReady")["status"] != "False", "the weights were blamed"
    r1.await_event("GangFailed", f"on node {node}: {A100}")
