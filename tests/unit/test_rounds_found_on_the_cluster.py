"""One mind: faults that its behaviour on the real control plane has shown (tests/behaviour/test_harm.py)."""

from __future__ import annotations

from r1_operator.api.reasons import Reason
from r1_simulate.cluster import SimulatedCluster, reasons, serving_cluster, spec_of


# --- an image that cannot be pulled ----------------------------------------------------------------------------------
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


# --- silent kubelets -------------------------------------------------------------------------------------------------
def test_nodes_that_are_silent_while_their_engines_answer_are_named() -> None:
    """All that was said was that no gateway is ready."""
    cluster = serving_cluster(2)
    cluster.machines.silent |= set(cluster.machines.nodes)
    for _ in range(4):
        cluster.advance(5.0)
        round_ = cluster.reconcile()
    assert Reason.NODES_SILENT in reasons(round_)
    condition = cluster.status.condition("Degraded")
    assert condition is not None
    assert condition.message.startswith(
        "s0, s1, s2 and 1 more: not Ready, but what runs there answers and is left alone"
    )
    cluster.machines.silent.clear()
    cluster.settle(3)
    assert reasons(cluster.reconcile()) == set()


def test_a_gang_of_which_nothing_is_left_is_not_forgotten_for_an_older_one_that_is_over() -> None:
    """Its node was deleted, so its pods were collected; the finished pods of the attempt before were still there, and
    its name was used a second time."""
    cluster = serving_cluster(1, nodes=1, small=4)
    cluster.machines.end("r1-0-0", 70, cluster.now, [0])
    cluster.settle(12, 3.0)
    assert cluster.serving() == ["r1-0-1"]
    assert "r1-0-0" in cluster.machines.gangs(), "kept for its log"
    cluster.machines.end("r1-0-1", 70, cluster.now, [0])
    cluster.reconcile()
    for pod in cluster.machines.of("r1-0-1"):
        cluster.machines.pods.pop(pod["metadata"]["name"])
    cluster.settle(40, 3.0)
    assert cluster.serving() == ["r1-0-2"]


def test_a_name_is_not_used_twice_while_an_older_attempt_of_the_replica_drains() -> None:
    """Found by the fleet simulator: up and down and up again within one long drain made r1-1-1 a second time."""
    cluster = serving_cluster(2, small=8)
    cluster.change(drain={"seconds": 3000})
    for replicas in (1, 2, 1, 2):
        cluster.change(replicas=replicas)
        cluster.settle(2, 2.0)
    assert cluster.created.most_common(1)[0][1] == 1, cluster.created
    cluster.settle(8, 3.0)
    assert len(cluster.serving()) == 2
