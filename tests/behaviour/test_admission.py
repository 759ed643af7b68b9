"""What the namespace's policies refuse is told with the field and the remedy, holds no node, and ends in serving."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.behaviour.world import Deployments, wait_for

Deploy = Deployments
ONE_NODE = {"nodesPerReplica": 1}
LEVEL = "pod-security.kubernetes.io/enforce"


def _with(words: str) -> Callable[[str], bool]:
    return lambda message: words in message


def test_a_namespace_of_pod_security_baseline_is_told_and_let_go_on(deploy: Deploy) -> None:
    r1 = deploy.in_own_namespace()
    r1.kubectl("label", "namespace", r1.namespace, f"{LEVEL}=baseline")
    r1.apply(topology=ONE_NODE)
    told = r1.await_condition("Progressing", "False", "CreateRefused")["message"]
    assert 'violates PodSecurity "baseline' in told
    assert "hostPath" in told
    assert LEVEL in told, "no remedy"
    assert r1.pods() == []
    r1.kubectl("label", "namespace", r1.namespace, f"{LEVEL}-")
    wait_for("it serves", lambda: list(r1.gangs().values()), until=["Ready"].__eq__)
    r1.await_condition("Degraded", "False")


def test_a_limit_range_is_told_with_the_field_and_kept(deploy: Deploy) -> None:
    r1 = deploy.in_own_namespace()
    least = {
        "type": "Container",
        "min": {"cpu": "500m"},
        "defaultRequest": {"cpu": "500m"},
        "default": {"memory": "2Gi"},
    }
    range_ = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "least"}, "spec": {"limits": [least]}}
    r1.kubectl("apply", "-f", "-", stdin=json.dumps(range_))
    r1.apply(topology=ONE_NODE)
    told = r1.await_condition("Progressing", "False", "CreateRefused")["message"]
    assert "minimum cpu usage per Container is 500m, but request is 100m" in told
    assert "spec.engine.resources" in told, "no remedy"
    assert r1.pods() == []
    enough = {"resources": {"requests": {"cpu": "500m"}}}
    r1.apply(topology=ONE_NODE, engine=enough, gateway=enough)
    wait_for("it serves", lambda: list(r1.gangs().values()), until=["Ready"].__eq__)
    for kind, status in (("PodsAsAsked", "False"), ("Degraded", "True")):
        changed = r1.await_condition(kind, status, "ChangedInAdmission")["message"]
        assert "limits.memory of the engine is 2Gi, not absent" in changed
        assert "set spec.engine.resources.memory" in changed, "no remedy"
    # What one asks for oneself is nobody's change.
    r1.apply(topology=ONE_NODE, engine={"resources": {**enough["resources"], "memory": "2Gi"}}, gateway=enough)
    r1.await_condition("Degraded", "False")
    assert r1.condition("PodsAsAsked") == {}


def test_classes_and_accounts_that_do_not_exist_are_told_with_their_fields(deploy: Deploy) -> None:
    r1 = deploy.in_own_namespace()
    for field in ("priorityClassName", "runtimeClassName", "serviceAccountName"):
        r1.apply(topology=ONE_NODE, engine={"podTemplate": {"spec": {field: "missing"}}})
        wanted = f"correct spec.engine.podTemplate.spec.{field}"
        wait_for(f"told of {field}", lambda: r1.condition("Progressing").get("message", ""), until=_with(wanted))
    assert r1.pods() == []
    r1.apply(topology=ONE_NODE)
    wait_for("it serves", lambda: list(r1.gangs().values()), until=["Ready"].__eq__)
