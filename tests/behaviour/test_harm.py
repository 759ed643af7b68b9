"""Leave alone what serves: whatever goes wrong, or is asked for that cannot be, nothing that works gets worse."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from tests.behaviour.traffic import AT_ONCE, traffic
from tests.behaviour.world import NODES, Deployment, World, names_of, wait_for
from tests.cluster.admission import SIDECAR, inject_sidecar, limit
from tests.cluster.audit import audit_writes
from tests.cluster.kubelets import silence_kubelets

pytestmark = pytest.mark.cluster

Deploy = Callable[..., Deployment]

ONE_NODE = {"nodesPerReplica": 1}
NODE_LOST_SECONDS = 10
"""Of a node's silence, after Kubernetes has noticed it: the operator's own default."""


def holding(r1: Deployment) -> set[str]:
    """Engine pods that hold a node."""
    return set(r1.nodes())


def test_image_that_does_not_exist_is_told_and_holds_no_node(deploy: Deploy) -> None:
    r1 = deploy(engine={"image": "r1-standin:gone"}, topology=ONE_NODE)
    told = r1.await_condition("Progressing", "False", "ImagePullBackOff")
    assert "r1-0-0" in told["message"]
    assert "spec.engine.image" in told["message"]
    wait_for("the node is let go", lambda: holding(r1), until=lambda pods: not pods)
    assert r1.condition("Progressing")["reason"] == "ImagePullBackOff", "and the reason still told"
    r1.apply(topology=ONE_NODE)
    r1.await_ready("r1-0-1")


def test_change_that_fits_no_node_leaves_the_old_replica_serving(deploy: Deploy) -> None:
    r1 = deploy(env=AT_ONCE, topology=ONE_NODE)
    r1.await_ready("r1-0-0")
    (serves,) = r1.pods()
    with traffic(r1, pause=0.05) as answers:
        r1.apply(env=AT_ONCE, engine={"resources": {"memory": "9000Gi"}}, topology=ONE_NODE)
        told = r1.await_condition("Progressing", "False", "NoNodeForNewRevision")
        assert "too little memory" in told["message"]
        assert "add or free nodes, or take the change back" in told["message"]
        wanted = answers.good + 1000  # some rounds of the operator later
        wait_for("answers all along", lambda: answers.good, until=lambda good: good >= wanted)
        assert r1.gangs() == {"r1-0-0": "Ready", "r1-1-0": "Gated"}
        assert r1.condition("Available")["status"] == "True"
        assert holding(r1) == {"r1-0-0-0"}
        r1.apply(env=AT_ONCE, topology=ONE_NODE)
        r1.await_ready("r1-0-0")
    assert answers.lost == []
    assert [pod["metadata"]["uid"] for pod in r1.pods()] == [serves["metadata"]["uid"]]


def test_quota_of_one_and_a_half_gangs_lets_one_whole_gang_serve(world: World, deploy: Deploy) -> None:
    r1 = deploy.in_own_namespace()
    limit(world.cluster, r1.namespace, {"requests.nvidia.com/gpu": "3"})
    r1.apply(replicas=2)
    told = r1.await_condition("Progressing", "False", "QuotaExceeded")
    assert "exceeded quota: quota, requested: requests.nvidia.com/gpu=1" in told["message"]
    assert "raise the quota, lower spec.replicas, or free what others use of it" in told["message"]
    (whole,) = wait_for("one serves", r1.gangs, until=lambda gangs: list(gangs.values()) == ["Ready"])
    pods = [f"{whole}-0", f"{whole}-1"]
    wait_for("nothing is left of the other", lambda: names_of(r1.pods()), until=lambda names: names == pods)
    limit(world.cluster, r1.namespace, {"requests.nvidia.com/gpu": "4"})
    # The other's attempt depends on how often it was tried meanwhile.
    wait_for("both serve", r1.gangs, until=lambda gangs: list(gangs.values()) == ["Ready", "Ready"])
    r1.await_condition("Ready", "True")


def test_roll_under_a_quota_of_one_gang_is_told_and_drains_first(world: World, deploy: Deploy) -> None:
    r1 = deploy.in_own_namespace()
    limit(world.cluster, r1.namespace, {"requests.nvidia.com/gpu": "1"})
    r1.apply(topology=ONE_NODE)
    r1.await_ready("r1-0-0")
    allowed = {"minReadySeconds": 2, "maxUnavailable": 1}  # the only one goes when that is said
    old = r1.status()["currentRevision"]
    r1.apply(env={"ANOTHER": "1"}, topology=ONE_NODE, strategy=allowed)
    wait_for("the new one serves", r1.status, until=lambda status: status["currentRevision"] != old)
    # Its attempt's number depends on whether the old one's record had gone before it was made.
    wait_for("it alone", r1.gangs, until=lambda gangs: list(gangs.values()) == ["Ready"])
    r1.await_event("QuotaExceeded", "used: requests.nvidia.com/gpu=1, limited: requests.nvidia.com/gpu=1")


def test_injected_sidecar_hides_no_end_of_the_engine(world: World, deploy: Deploy) -> None:
    r1 = deploy.in_own_namespace()
    with inject_sidecar(world.cluster, r1.namespace, {"app.kubernetes.io/component": "engine"}):
        r1.apply()
        r1.await_ready("r1-0-0")
        assert all(len(pod["spec"]["containers"]) == 2 for pod in r1.pods())
        told = r1.await_condition("PodsAsAsked", "False", "ChangedInAdmission")["message"]
        assert told.startswith(f"r1-0-0-0 (and 1 more) was changed in admission: container {SIDECAR} was added")
        assert r1.condition("Degraded")["reason"] != "ChangedInAdmission", "it may be meant to be there"
        # Of ends within one second, the only unit that Kubernetes knows, node 0's counts as the first.
        r1.fault("r1-0-0-0", "exit70")
        r1.await_ready("r1-0-1")
        blamed = r1.await_event("GangFailed")
        assert blamed.startswith("GangFailed: r1-0-0: PartDied: pod r1-0-0-0 on node ")
        assert "a rank died (injected)" in blamed
        assert [event for event in r1.events() if event.startswith("GangFailed")] == [blamed]
        wait_for("nodes let go", lambda: holding(r1), until=lambda pods: pods == {"r1-0-1-0", "r1-0-1-1"})


def stray_of(pod: dict[str, Any]) -> dict[str, Any]:
    """A pod that could serve in the place of this one: whoever made it, our resource does not own it."""
    labels = {**pod["metadata"]["labels"], "r1operator.dev/gang": "r1-0-99", "r1operator.dev/attempt": "99"}
    spec = {key: value for key, value in pod["spec"].items() if key not in ("nodeName", "hostname", "affinity")}
    spec["containers"][0]["resources"] = {}
    metadata = {"name": "r1-0-99-0", "namespace": pod["metadata"]["namespace"], "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def test_stray_pod_with_our_labels_neither_ends_a_gang_nor_gets_requests(deploy: Deploy) -> None:
    r1 = deploy(env=AT_ONCE, topology=ONE_NODE)
    r1.await_ready("r1-0-0")
    (ours,) = r1.pods()
    r1.kubectl("create", "-f", "-", stdin=json.dumps(stray_of(ours)))
    try:
        r1.kubectl("wait", "pod/r1-0-99-0", "--for=condition=Ready", "--timeout=180s")
        told = r1.await_condition("Degraded", "True", "ForeignPods")
        assert "r1-0-99-0: carries the labels of our engine pods, but is not owned" in told["message"]
        with traffic(r1) as answers:
            wait_for("many answers", lambda: answers.good, until=lambda good: good >= 200)
        assert answers.lost == []
        assert r1.prompted("r1-0-99-0") == 0
        assert r1.prompted("r1-0-0-0") > 0
        assert r1.gangs() == {"r1-0-0": "Ready"}
        assert r1.condition("Ready")["status"] == "True"
    finally:
        r1.kubectl("delete", "pod", "r1-0-99-0", "--wait=false", "--grace-period=1")
    r1.await_condition("Degraded", "False", "AsExpected")
    assert [pod["metadata"]["uid"] for pod in r1.pods()] == [ours["metadata"]["uid"]]


@pytest.mark.alone
def test_silence_of_all_kubelets_ends_nothing(world: World, deploy: Deploy) -> None:
    r1 = deploy(env=AT_ONCE)
    r1.await_ready("r1-0-0")
    wait_for("two gateways", r1.serving_gateways, until=lambda names: len(names) == 2)
    # Kubernetes itself takes what runs on such nodes out of Services; whoever knows a gateway's address goes on.
    urls = [f"http://{pod['status']['podIP']}:8000" for pod in r1.pods("gateway")]
    nodes = [f"n{number}" for number in range(1, NODES + 1)]
    before = {pod["metadata"]["uid"] for pod in r1.pods()}
    with traffic(r1, *urls, pause=0.05) as answers:
        with silence_kubelets(world.cluster, *nodes):
            seconds = NODE_LOST_SECONDS + 5
            wait_for("all are silent for long", lambda: silence(world), until=lambda least: least >= seconds)
            assert not any(is_ready(pod) for pod in r1.pods())
            # On a busy machine the first is silent long before the last: a gateway may be evicted, and told first.
            said = "not Ready, but what runs there answers and is left alone"
            wait_for("it is told", lambda: r1.condition("Degraded"), until=lambda c: said in c["message"])
            assert r1.gangs() == {"r1-0-0": "Ready"}
            assert r1.routed() == {"r1-0-0"}
        r1.await_ready("r1-0-0")
    assert answers.lost == []
    assert {pod["metadata"]["uid"] for pod in r1.pods()} == before
    writes = [w for w in audit_writes(world.cluster) if w.namespace == r1.namespace and w.resource == "pods"]
    ours = [w for w in writes if w.verb == "delete" and w.user == world.operator.user]
    engines = [w for w in writes if w.verb == "delete" and w.name.startswith("r1-0-")]
    assert (ours, engines) == ([], [])


def is_ready(pod: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))


def silence(world: World) -> float:
    """Seconds for which Kubernetes has called every node silent."""
    found = []
    for node in world.reader.get("/api/v1/nodes")["items"]:
        (ready,) = (c for c in node["status"]["conditions"] if c["type"] == "Ready")
        since = datetime.fromisoformat(ready["lastTransitionTime"]).timestamp()
        found.append(0.0 if ready["status"] == "True" else time.time() - since)
    return min(found)


USERS_SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "r1-gateway"},
    "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
}
USERS_SETTINGS = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "r1-gateway"},
    "data": {"key": "theirs"},
}
USERS_OBJECTS = (("service", "r1-gateway"), ("configmap", "r1-gateway"))
"""Made by somebody under names that we would use."""


def test_users_objects_with_our_names_stay_the_users(world: World, deploy: Deploy) -> None:
    r1 = deploy.in_own_namespace()
    r1.kubectl("create", "-f", "-", stdin=json.dumps(USERS_SERVICE))
    r1.kubectl("create", "-f", "-", stdin=json.dumps(USERS_SETTINGS))

    def theirs() -> list[Any]:
        return [json.loads(r1.kubectl("get", *named, "-o", "json")) for named in USERS_OBJECTS]

    before = theirs()
    r1.apply(topology=ONE_NODE)
    told = r1.await_condition("Progressing", "False", "NameTaken")
    assert told["message"].startswith("ConfigMap r1-gateway exists and belongs to nobody we know")
    assert "Rename or delete it, or give this R1Deployment another name (and 1 more)" in told["message"]
    r1.kubectl("delete", "r1d", "r1", "--wait=false")
    wait_for("ours are gone", r1.left, until=lambda left: left == [])
    assert theirs() == before

    r1.apply(topology=ONE_NODE)
    r1.await_condition("Progressing", "False", "NameTaken")
    r1.kubectl("delete", "configmap", "r1-gateway")
    said = "Service r1-gateway exists and belongs to nobody we know"
    wait_for("the other one is told", lambda: r1.condition("Progressing"), until=lambda c: said in c["message"])
    assert theirs()[:1] == before[:1]
    r1.kubectl("delete", "service", "r1-gateway")
    r1.await_ready("r1-0-0")
