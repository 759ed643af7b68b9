"""Who is let in, on the real control plane: engines ask for a key, agents for a token, folders lie where they may."""

from __future__ import annotations

import json

from tests.behaviour.world import Deployment, Deployments, World, wait_for

ONE_NODE = {"nodesPerReplica": 1}
Deploy = Deployments


def code(world: World, *request: str) -> str:
    """Status code of curl's request from another address of the cluster's network."""
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *request]
    return str(world.cluster.exec_inside(command, capture_output=True).stdout)


def secret_of(r1: Deployment) -> str:
    """Name of the Secret that the pods of its gangs mount."""
    (pod,) = r1.pods()
    return next(v["secret"]["secretName"] for v in pod["spec"]["volumes"] if "secret" in v)


def test_engines_let_in_the_gateway_and_nobody_without_the_key(world: World, deploy: Deploy) -> None:
    r1 = deploy(topology=ONE_NODE)
    r1.await_ready("r1-0-0")
    engine = r1.pod("r1-0-0-0")["status"]["podIP"]
    body = json.dumps({"model": "tiny-r1", "messages": [{"role": "user", "content": "count to 2"}]})
    post = ("-H", "Content-Type: application/json", "-d", body)
    chat = f"http://{engine}:30000/v1/chat/completions"
    asked = (*post, f"{r1.service()}/v1/chat/completions")
    wait_for("the gateway serves", lambda: code(world, *asked), until="200".__eq__)
    assert code(world, *post, chat) == "401"
    assert code(world, f"http://{engine}:30000/server_info") == "401"
    assert code(world, f"http://{engine}:30000/v1/loads") == "200"  # the operator reads it, and knows no key
    drain = ("-X", "POST", f"http://{engine}:8500/drain")
    assert code(world, *drain) == code(world, "-H", "Authorization: Bearer guess", *drain) == "401"
    assert code(world, *asked) == "200"  # nobody drained it
    r1.await_ready("r1-0-0")

    policies = json.loads(r1.kubectl("get", "networkpolicies", "-o", "json"))["items"]
    assert sorted(p["metadata"]["name"] for p in policies) == ["r1-engine", "r1-gateway"]
    assert {o["kind"] for p in policies for o in p["metadata"]["ownerReferences"]} == {"R1Deployment"}

    assert json.loads(r1.kubectl("get", "secret", secret_of(r1), "-o", "json"))["immutable"]
    r1.kubectl("delete", "r1d", "r1", "--wait=false")
    wait_for("all of it is gone", r1.left, until=lambda left: left == [])


def test_folders_of_a_node_outside_the_allowed_ones_are_refused(deploy: Deploy) -> None:
    weights = {"hostPath": {"path": "/etc"}}
    r1 = deploy(topology=ONE_NODE, model={"name": "r1-operator/tiny-r1", "servedName": "tiny-r1", "weights": weights})
    told = r1.await_condition("SpecValid", "False", "PlanRefused")
    assert "spec.model.weights.hostPath.path: /etc lies below no prefix that this cluster allows" in told["message"]
    assert "hostPaths.allowedPrefixes" in told["message"]
    assert r1.pods() == []
