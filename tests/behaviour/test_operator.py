"""Apply, scale, delete, crash, failure, placement and rolls."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import pytest

from tests.behaviour.asking import answers, ask
from tests.behaviour.traffic import AT_ONCE, traffic
from tests.behaviour.world import NODES, Deployment, World, names_of, wait_for

pytestmark = pytest.mark.cluster

Deploy = Callable[..., Deployment]


def test_node_lost_moves_the_gang(world: World, deploy: Deploy) -> None:
    r1 = deploy(env={"R1_STANDIN_LEASE_SECONDS": "5"})
    r1.await_ready("r1-0-0")
    elsewhere = {p["spec"]["nodeName"] for p in r1.pods("gateway")}
    node = next(n for n in r1.status()["replicaStatuses"][0]["nodes"] if n not in elsewhere)
    world.cluster.kill_node(node)
    try:
        # The kubelet's silence is noticed by Kubernetes after 40 to 50 s, the gang's own lease ends long before.
        r1.await_ready("r1-0-1")
        assert node not in {p["spec"].get("nodeName") for p in r1.pods() if p["metadata"]["name"].startswith("r1-0-1")}
    finally:
        world.cluster.heal_node(node)
        world.cluster.await_nodes(node)


def test_roll_keeps_serving(deploy: Deploy) -> None:
    r1 = deploy(env=AT_ONCE, topology={"nodesPerReplica": 1})
    r1.await_ready("r1-0-0")
    with traffic(r1) as answers:
        r1.apply(env={**AT_ONCE, "ANOTHER": "1"}, topology={"nodesPerReplica": 1})
        wait_for("the new gang alone", r1.gangs, until=lambda g: g == {"r1-1-0": "Ready"})
    assert answers.lost == []


@pytest.mark.alone
def test_apply_serves_and_then_writes_nothing(world: World, deploy: Deploy) -> None:
    r1 = deploy()
    r1.await_ready("r1-0-0")
    assert wait_for("the gateway answers", lambda: answers(r1.gateway()))
    status = r1.status()
    assert status["ready"] == "1/1"
    assert status["gpus"] == 2
    assert len(set(status["replicaStatuses"][0]["nodes"])) == 2
    happened = wait_for("events", r1.events, until=lambda events: any(e.startswith("ReplicaReady") for e in events))
    assert {"Planned", "GangCreated", "GangPlaced"} <= {e.split(":")[0] for e in happened}

    # The load's first figures may still be written; from then on reconciles cost nothing.
    wait_for("load in status", r1.status, until=lambda s: "load" in s)
    writes = world.operator.metric("^r1_operator_api_writes_total.*(apply|create|patch|delete)")
    reconciles = world.operator.metric("^r1_operator_reconcile_seconds_count")
    for value in ("a", "b", "c"):
        world.cluster.kubectl("label", "node", "n1", f"test/poke={value}", "--overwrite")
        wait_for(
            "a reconcile",
            lambda: world.operator.metric("^r1_operator_reconcile_seconds_count"),
            until=lambda now, before=reconciles: now > before,
        )
        reconciles = world.operator.metric("^r1_operator_reconcile_seconds_count")
    assert world.operator.metric("^r1_operator_api_writes_total.*(apply|create|patch|delete)") == writes


def test_scale_up_and_down_loses_no_request(deploy: Deploy) -> None:
    r1 = deploy(env=AT_ONCE)
    r1.await_ready("r1-0-0")
    with traffic(r1) as answers:
        r1.kubectl("scale", "r1d", "r1", "--replicas=2")
        r1.await_ready("r1-0-0", "r1-1-0")
        r1.kubectl("scale", "r1d", "r1", "--replicas=1")
        wait_for("one left", r1.gangs, until=lambda gangs: len(gangs) == 1)
        wait_for("two pods", lambda: names_of(r1.pods()), until=lambda pods: len(pods) == 2)
    assert answers.lost == []
    r1.await_event("ReplicaDraining")


def test_deleted_gateway_pods_lose_no_request(deploy: Deploy) -> None:
    r1 = deploy(env=AT_ONCE, topology={"nodesPerReplica": 1})
    r1.await_ready("r1-0-0")
    both = wait_for("two gateways", r1.serving_gateways, until=lambda names: len(names) == 2)
    with traffic(r1) as answers:
        for gone in sorted(both):
            r1.kubectl("delete", "pod", gone, "--wait=false")
            wait_for("another one", r1.serving_gateways, until=lambda names, gone=gone: len(names - {gone}) == 2)
    assert answers.lost == []


def test_deleted_midway_leaves_nothing(deploy: Deploy) -> None:
    r1 = deploy(env={"R1_STANDIN_START_SECONDS": "60"})
    wait_for("pods run", r1.pods, until=lambda pods: any(p["spec"].get("nodeName") for p in pods))
    r1.kubectl("delete", "r1d", "r1", "--wait=false")
    wait_for("nothing left", r1.left, until=lambda left: left == [])


def test_made_again_at_once_it_serves_with_nothing_of_its_predecessor(deploy: Deploy) -> None:
    r1 = deploy(topology={"nodesPerReplica": 1})
    r1.await_ready("r1-0-0")
    before = r1.uid()
    r1.kubectl("delete", "r1d", "r1", "--wait=false")
    r1.apply(topology={"nodesPerReplica": 1})
    wait_for("a resource of its own", r1.uid, until=lambda uid: uid != before)
    ready = wait_for("it serves", r1.gangs, until=lambda gangs: list(gangs.values()) == ["Ready"])
    r1.await_condition("Ready", "True")
    assert wait_for("the gateway answers", lambda: answers(r1.gateway()))
    wait_for("the old pods gone", lambda: {n[:-2] for n in names_of(r1.pods())}, until=lambda g: g == set(ready))
    assert r1.owners() == {r1.uid()}
    told = [event for event in r1.events() if event.startswith(("GatewaySyncFailed", "GangFailed", "ReconcileFailed"))]
    assert told == []


@pytest.mark.alone
def test_operator_killed_midway_goes_on(world: World, deploy: Deploy) -> None:
    r1 = deploy(env={"R1_STANDIN_START_SECONDS": "5"})
    wait_for("first pods", r1.pods)
    world.operator.restart(signal.SIGKILL)
    r1.await_ready("r1-0-0")
    assert names_of(r1.pods()) == ["r1-0-0-0", "r1-0-0-1"]


def test_member_killed_restarts_the_gang(deploy: Deploy) -> None:
    r1 = deploy()
    r1.await_ready("r1-0-0")
    # Of the Secrets the operator may not read any: those of a gang that starts are there all the same.
    r1.kubectl("delete", "secret", "-l", "app.kubernetes.io/managed-by=r1-operator")
    r1.fault("r1-0-0-1", "exit70")
    r1.await_ready("r1-0-1")
    assert r1.status()["replicaStatuses"][0]["restarts"] == 1
    r1.await_event("GangFailed", "GangFailed: r1-0-0: ")
    # The dead pods stay for their logs, and hold no node.
    assert all(p["status"]["phase"] == "Failed" for p in r1.pods() if p["metadata"]["name"].startswith("r1-0-0-"))
    assert ask(r1.gateway())


def test_with_a_spare_the_end_of_a_replica_is_nobodys_outage(deploy: Deploy) -> None:
    r1 = deploy(env=AT_ONCE, topology={"nodesPerReplica": 1}, spareReplicas=1)
    r1.await_ready("r1-0-0", "r1-1-0")
    assert r1.status()["ready"] == "2/2"
    wait_for("it serves like the other", r1.routed, until=lambda routed: routed == {"r1-0-0", "r1-1-0"})
    since = r1.condition("Ready")["lastTransitionTime"]
    with traffic(r1, pause=0.02) as answers:
        r1.fault("r1-0-0-0", "exit70")
        wait_for("one of two", lambda: r1.status()["ready"], until=lambda ready: ready == "1/2")
        r1.await_ready("r1-0-1", "r1-1-0")
    assert answers.lost == []
    assert r1.condition("Ready")["lastTransitionTime"] == since, "as many as are wanted were ready all the time"


def test_pod_deleted_by_a_user_drains_the_gang_and_is_replaced(deploy: Deploy) -> None:
    r1 = deploy()
    r1.await_ready("r1-0-0")
    running: list[str] = []
    base = r1.gateway()
    with traffic(r1, streams=2) as answers:
        asking = threading.Thread(target=lambda: running.append(ask(base, tokens=200)))
        asking.start()
        wait_for("requests run", lambda: r1.in_flight("r1-0-0-0"), until=lambda count: count >= 3)
        r1.kubectl("delete", "pod", "r1-0-0-1", "--wait=false")
        r1.await_ready("r1-0-1")
        asking.join()
    assert running, "the running request was cut"
    # One replica: requests between the two gangs are turned away, but never broken.
    assert {lost for lost in answers.lost if not lost.startswith("503: ")} == set()
    wait_for("the old pods gone", lambda: names_of(r1.pods()), until=lambda pods: pods == ["r1-0-1-0", "r1-0-1-1"])


@pytest.mark.alone
def test_gang_without_room_waits_whole_and_goes_when_nodes_come(world: World, deploy: Deploy) -> None:
    world.cluster.kubectl("cordon", *CORDONED)
    try:
        _wait_for_room(world, deploy)
    finally:
        world.cluster.kubectl("uncordon", *CORDONED)


CORDONED = [f"n{number}" for number in range(5, NODES + 1)]
"""Two gangs of two fit on the rest."""


def _wait_for_room(world: World, deploy: Deploy) -> None:
    r1 = deploy(replicas=3)
    told = r1.await_condition("GangsPlaced", "False", "InsufficientNodes")
    assert "r1-2-0 needs 2 whole free nodes with 1 nvidia.com/gpu each: 0 are free" in told["message"]
    wait_for("two ready", r1.gangs, until=lambda g: list(g.values()).count("Ready") == 2)
    third = [p for p in r1.pods() if p["metadata"]["name"].startswith("r1-2-0-")]
    assert len(third) == 2
    assert all(p["spec"]["schedulingGates"] and "nodeName" not in p["spec"] for p in third)
    world.cluster.kubectl("uncordon", *CORDONED)
    r1.await_ready("r1-0-0", "r1-1-0", "r1-2-0")
