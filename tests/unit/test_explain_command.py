"""`r1 explain` on what the operator's own rounds have written."""

from __future__ import annotations

from typing import Any

from r1_operator.autoscaling.history import fold
from r1_operator.autoscaling.window import ReplicaLoad, Sample
from r1_operator.cli.explain_command import told
from r1_operator.cli.main import main
from r1_simulate.cluster import SimulatedCluster, spec_of


def resource(cluster: SimulatedCluster) -> dict[str, Any]:
    return {
        "apiVersion": "r1operator.dev/v1alpha1",
        "kind": "R1Deployment",
        "metadata": {"name": "r1", "namespace": "ns", "uid": "uid-r1"},
        "spec": cluster.spec,
        "status": cluster.status.model_dump(by_alias=True, exclude_none=True, mode="json"),
    }


def loaded(busy: float) -> SimulatedCluster:
    """One replica under a steady load for ten minutes, and the operator's word on it."""
    cluster = SimulatedCluster(spec_of(autoscaling={"minReplicas": 1, "maxReplicas": 4}))
    cluster.settle(4)
    for second in range(0, 600, 5):
        one = ReplicaLoad(busy, 500.0 * busy, round(20 * busy), 0, ended=second, name="r1-0-0")
        cluster.window = (*cluster.window, Sample(cluster.now, (one,)))
        cluster.minutes = fold(cluster.minutes, cluster.window, cluster.now)
        cluster.reconcile()
        cluster.advance(5.0)
    return cluster


def test_it_says_what_is_needed_forecast_and_carried_and_why_nothing_more_is_done() -> None:
    text = told(resource(loaded(0.5)), [])
    assert "1 replica wanted, 1 of 1 ready" in text
    assert "WithinTargets: " in text
    assert "needs" in text
    assert "in 10 min, up to" in text
    assert "1 to 4 replicas" in text
    assert text.endswith("no step that is remembered")


def test_it_lists_the_steps_of_this_resource_alone() -> None:
    def event(uid: str, reason: str, at: str, message: str) -> dict[str, Any]:
        return {
            "metadata": {"name": at},
            "involvedObject": {"uid": uid},
            "reason": reason,
            "lastTimestamp": at,
            "message": message,
        }

    events = [
        event("uid-r1", "ScaledDown", "2026-11-27T12:00:00Z", "LoadLow: from 2 to 1 replica"),
        event("uid-r1", "ScaledUp", "2026-11-27T11:00:00Z", "ForecastHigh: from 1 to 2 replicas"),
        event("uid-other", "ScaledUp", "2026-11-27T11:30:00Z", "somebody else's"),
        event("uid-r1", "GangPlaced", "2026-11-27T11:30:00Z", "on n1"),
    ]
    cluster = loaded(1.0)
    text = told(resource(cluster), events)
    assert text.index("ForecastHigh: from 1 to 2") < text.index("LoadLow: from 2 to 1")
    assert "somebody else's" not in text
    assert "on n1" not in text
    assert cluster.status.autoscaling is not None
    assert cluster.status.autoscaling.desired_replicas == 2
    assert "last step up" in text


def test_it_says_so_where_nobody_scales() -> None:
    cluster = SimulatedCluster(spec_of(replicas=2))
    assert told(resource(cluster), []).endswith("nothing scales it without spec.autoscaling")
    cluster = SimulatedCluster(spec_of(autoscaling={"minReplicas": 1, "maxReplicas": 4}))
    assert told(resource(cluster), []).endswith("has said nothing yet")
    assert main(["explain"]) == 2
