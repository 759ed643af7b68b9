"""The autoscaler on real objects: up under load, held without data, down when the load has gone."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.behaviour.asking import ask
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


def test_it_sleeps_while_nobody_asks_and_the_next_request_wakes_it(deploy: Callable[..., Deployment]) -> None:
    scaling = {"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 10, "startupSeconds": 90}
    r1 = deploy(autoscaling=scaling, topology={"nodesPerReplica": 1})
    wait_for("it serves", r1.gangs, until=lambda gangs: "Ready" in gangs.values())
    wait_for("nobody asks, so none is left", r1.pods, until=lambda pods: pods == [])
    r1.await_event("ScaledDown", "ScaledDown: Idle: nobody has asked for 10 s")
    told = r1.await_condition("Ready", "True", "ScaledToZero")["message"]
    assert "the next request wakes one" in told
    assert r1.status()["desiredReplicas"] == 0
    url, refused = r1.gateway(), list[str]()

    def answered() -> str:
        try:
            return ask(url)
        except RuntimeError as error:
            refused.append(str(error))
            return ""

    wait_for("who asks on is served in the end", answered)
    # The router itself answers for the moment that it takes to know the waiting room, and in which it makes room for
    # the replica: everybody else is told how long it takes.
    assert any("503: " in each and "Scaled to zero; a replica is being started" in each for each in refused), refused
    assert all(each.startswith("503: ") for each in refused), refused
    r1.await_event("ScaledUp", "ScaledUp: Woken: a request found no replica")
    assert r1.status()["desiredReplicas"] == 1
