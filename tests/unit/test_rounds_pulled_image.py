"""An image that cannot be pulled: told all along, its nodes let go while nobody mends it, and then tried at once."""

from __future__ import annotations

from tests.simulation.cluster import SimulatedCluster, spec_of


def told(cluster: SimulatedCluster) -> tuple[str, str, str]:
    condition = cluster.status.condition("Progressing")
    assert condition is not None
    return condition.status, condition.reason, condition.message


def without_image() -> SimulatedCluster:
    """Its first attempt has just been given up."""
    cluster = SimulatedCluster(spec_of(nodes=2))
    cluster.machines.images_gone = True
    while not cluster.status.replica_statuses or cluster.status.replica_statuses[0].stage != "Failed":
        cluster.reconcile()
        cluster.advance(5.0)
    cluster.reconcile()
    return cluster


def test_why_a_gang_failed_is_told_and_waited_for_also_when_its_pods_are_gone() -> None:
    """Pods that never ran vanish when deleted: the next attempt came after 1 s, and the reason was told as long."""
    cluster = without_image()
    cluster.advance(20.0)
    for _ in range(7):
        cluster.reconcile()
        assert cluster.machines.pods == {}, "the nodes are let go"
        status, reason, message = told(cluster)
        assert (status, reason) == ("False", "ImagePullBackOff")
        assert "check spec.engine.image" in message
        cluster.advance(5.0)
    cluster.settle(4)
    assert cluster.machines.holders(), "once a minute it is worth another try"
    assert told(cluster)[:2] == ("False", "ImagePullBackOff"), "which is no news"


def test_a_corrected_spec_is_tried_at_once() -> None:
    cluster = without_image()
    cluster.advance(1.0)
    cluster.machines.images_gone = False
    cluster.change(env="corrected")
    cluster.settle(3)
    assert cluster.serving() == ["r1-0-1"]
