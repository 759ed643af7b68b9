"""The autoscaler on real objects: up under load, held without data, down when the load has gone."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.behaviour.world import Deployment, wait_for

pytestmark = pytest.mark.cluster


def test_replicas_follow_the_load_and_spec_stays(deploy: Callable[..., Deployment]) -> None:
    scaling = {"minReplicas": 1, "maxReplicas": 2, "scaleUpCooldownSeconds": 0, "scaleDownCooldownSeconds": 5}
    r1 = deploy(autoscaling=scaling, topology={"nodesPerReplica": 1})
    r1.await_ready("r1-0-0")
    r1.await_condition("Autoscaling", "True")

    r1.fault("r1-0-0-0", "load", kvUsage=0.97, tokensPerSecond=100, running=8, waiting=0)
    wait_for("scaled up", r1.gangs, until=lambda g: g == {"r1-0-0": "Ready", "r1-1-0": "Ready"})
    assert r1.status()["desiredReplicas"] == 2
    assert r1.kubectl("get", "r1d", "r1", "-o", "jsonpath={.spec.replicas}") == "1"
    told = re.compile(r"ScaledUp: (KvUsageHigh|ForecastHigh): .*KV cache.*: from 1 to 2 replicas")
    assert told.match(event := r1.await_event("ScaledUp")), event

    r1.fault("r1-0-0-0", "silent")
    told = r1.await_condition("Autoscaling", "False", "MissingMetrics")
    assert "1 of 2 ready replicas did not report their load" in told["message"]
    assert r1.status()["desiredReplicas"] == 2

    r1.fault("r1-0-0-0", "clear")
    wait_for("scaled down", r1.gangs, until=lambda g: len(g) == 1)
    r1.await_event("ScaledDown", "ScaledDown: LoadLow: ")
