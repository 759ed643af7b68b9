"""`spec.autoscaling.mode`: who decides, and what is told where nobody follows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from r1_operator.autoscaling.history import fold
from r1_operator.autoscaling.window import ReplicaLoad, Sample
from r1_operator.cli.explain_command import told
from r1_operator.status.transitions import events
from r1_simulate.cluster import SimulatedCluster, spec_of

from tests.unit.test_explain_command import resource


def scaled(mode: str, **more: Any) -> SimulatedCluster:
    return SimulatedCluster(spec_of(autoscaling={"mode": mode, "minReplicas": 1, "maxReplicas": 4}, **more))


def watched(cluster: SimulatedCluster, seconds: int, load: Callable[[str, int], ReplicaLoad]) -> list[str]:
    """Its replicas have this load, by gang and seconds from now; → reasons of the events that come of it."""
    said: list[str] = []
    for second in range(0, seconds, 5):
        if each := tuple(load(gang, second) for gang in cluster.serving()):
            cluster.window = (*cluster.window, Sample(cluster.now, each))
        cluster.minutes = fold(cluster.minutes, cluster.window, cluster.now)
        before = cluster.status
        cluster.reconcile()
        said += [str(event.reason) for event in events(before, cluster.status)]
        cluster.advance(5.0)
    return said


def full_for(cluster: SimulatedCluster, seconds: int) -> list[str]:
    return watched(cluster, seconds, lambda gang, second: ReplicaLoad(0.99, 400.0, 8, 4, ended=second, name=gang))


def idle_for(cluster: SimulatedCluster, seconds: int) -> list[str]:
    return watched(cluster, seconds, lambda gang, _: ReplicaLoad(0.0, 0.0, 0, 0, ended=5, name=gang))


def test_a_recommendation_is_told_and_not_followed() -> None:
    cluster = scaled("Recommend", replicas=1)
    cluster.settle(4)
    said = full_for(cluster, 120)
    assert "ScalingRecommended" in said
    assert "ScaledUp" not in said
    assert len(cluster.serving()) == 1
    assert cluster.status.desired_replicas == 1
    assert cluster.status.autoscaling is not None
    assert cluster.status.autoscaling.desired_replicas >= 2
    assert "replicas recommended, 1 of 1 ready" in told(resource(cluster), [])
    cluster.change(replicas=3)
    cluster.settle(4)
    assert len(cluster.serving()) == 3, "spec.replicas is what there is to be"


def test_from_recommending_to_deciding_it_begins_with_what_was_asked_for() -> None:
    """What it would have liked for hours is not what it does in its first round."""
    cluster = scaled("Recommend", replicas=3)
    cluster.settle(4)
    assert len(cluster.serving()) == 3
    cluster.change(autoscaling={"mode": "Automatic", "minReplicas": 1, "maxReplicas": 4})
    assert cluster.reconcile().scaling.in_force == 3
    cluster.settle(2)
    assert len(cluster.serving()) == 3


def test_nobody_asks_so_none_runs_and_the_next_request_wakes_one() -> None:
    cluster = SimulatedCluster(
        spec_of(autoscaling={"minReplicas": 0, "maxReplicas": 4, "idleSeconds": 60, "startupSeconds": 30})
    )
    cluster.settle(4)
    assert len(cluster.serving()) == 1, "it begins with what is asked for"
    said = idle_for(cluster, 120)
    assert "ScaledDown" in said
    cluster.settle(20)
    assert cluster.gangs() == ()
    ready = next(c for c in cluster.status.conditions if c.type == "Ready")
    assert (ready.status, ready.reason) == ("True", "ScaledToZero")
    assert "the next request wakes one" in ready.message
    assert "0 replicas wanted, 0 of 0 ready" in told(resource(cluster), [])
    assert cluster.reconcile().scaling.retry_after == 30
    cluster.asked = 3.0
    assert "ScaledUp" in idle_for(cluster, 10)
    cluster.asked = None
    cluster.settle(8)
    assert len(cluster.serving()) == 1


def test_what_sleeps_is_woken_for_a_new_minimum_and_not_for_what_it_once_began_with() -> None:
    sleepy = {"minReplicas": 0, "maxReplicas": 4, "idleSeconds": 60, "startupSeconds": 30}
    cluster = SimulatedCluster(spec_of(autoscaling=sleepy, replicas=3))
    cluster.settle(8)
    cluster.change(autoscaling=sleepy | {"maxReplicas": 1})
    cluster.settle(20)
    idle_for(cluster, 120)
    cluster.settle(20)
    assert cluster.gangs() == ()
    cluster.change(autoscaling=sleepy | {"minReplicas": 2})
    cluster.settle(12)
    assert len(cluster.serving()) == 2
