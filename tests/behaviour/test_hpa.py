"""A real HorizontalPodAutoscaler on the scale subresource: it reckons in replicas, not in pods."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.behaviour.world import Deployment, World, names_of, wait_for
from tests.cluster.metrics_api import metrics_api

pytestmark = pytest.mark.cluster

TARGET = {"type": "AverageValue", "averageValue": "100Mi"}
AUTOSCALER = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "r1"},
    "spec": {
        "scaleTargetRef": {"apiVersion": "r1operator.dev/v1alpha1", "kind": "R1Deployment", "name": "r1"},
        "minReplicas": 1,
        "maxReplicas": 9,
        # One step is all it takes, whichever way, and at once: a wrong figure shows itself.
        "behavior": {
            "scaleUp": {"policies": [{"type": "Pods", "value": 9, "periodSeconds": 15}]},
            "scaleDown": {"stabilizationWindowSeconds": 0},
        },
        "metrics": [{"type": "Resource", "resource": {"name": "memory", "target": TARGET}}],
    },
}


@pytest.mark.alone
def test_two_replicas_of_two_nodes_are_two_to_an_autoscaler(world: World, deploy: Callable[..., Deployment]) -> None:
    r1 = deploy(replicas=2)
    r1.await_ready("r1-0-0", "r1-1-0")
    pods = names_of(r1.pods())
    assert len(pods) == 4
    with metrics_api(world.cluster) as metrics:

        def usage() -> Any:
            """Figures of each pod as the autoscaler last saw them, and the replicas that it wants."""
            status = json.loads(r1.kubectl("get", "hpa", "r1", "-o", "json")).get("status", {})
            resources = [
                m.get("resource", {}) for m in status.get("currentMetrics") or ()
            ]  # empty before its first look
            seen = [r.get("current", {}).get("averageValue") for r in resources]
            return seen, status.get("desiredReplicas"), status.get("conditions")

        def reckoned(memory: str) -> int:
            """What the autoscaler wants of the resource once it has seen this figure."""
            metrics.tell(r1.namespace, dict.fromkeys(pods, memory))
            seen = wait_for(f"reckoned with {memory}", usage, until=lambda seen: seen[0] == [memory])
            return int(seen[1])

        r1.kubectl("apply", "-f", "-", stdin=json.dumps(AUTOSCALER))
        assert reckoned("80Mi") == 2
        assert r1.resource()["spec"]["replicas"] == 2
        assert reckoned("120Mi") == 3, "ceil(1.2 x 2 replicas); 5 would be ceil(1.2 x 4 pods)"
        wait_for("a third is asked for", lambda: r1.resource()["spec"]["replicas"], until=lambda n: n == 3)
        r1.kubectl("delete", "hpa", "r1")
