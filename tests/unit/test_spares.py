"""Hot spares: replicas more than are wanted, without which nothing is missing yet. On the simulated cluster."""

from __future__ import annotations

from dataclasses import replace

from r1_operator.api.types import Autoscaling, R1DeploymentStatus, Strategy
from r1_operator.autoscaling.decide import ScalingState, decide
from r1_operator.autoscaling.window import ReplicaLoad, Sample
from r1_simulate.cluster import SimulatedCluster, spec_of


def with_spares(replicas: int, spares: int, small: int = 6) -> SimulatedCluster:
    cluster = SimulatedCluster(spec_of(replicas=replicas, spareReplicas=spares), small)
    cluster.settle(8, 3.0)
    return cluster


def counts(status: R1DeploymentStatus) -> tuple[int, int, int, str]:
    return status.desired_replicas, status.spare_replicas, status.ready_replicas, status.ready


def test_a_spare_serves_and_what_fails_leaves_enough() -> None:
    cluster = with_spares(1, 1)
    assert counts(cluster.status) == (1, 1, 2, "2/2")
    assert len(cluster.reconcile().workers) == 2, "it serves like the others"
    victim = cluster.serving()[0]
    cluster.machines.end(victim, 70, cluster.now, [0])
    cluster.reconcile()
    assert len(cluster.serving()) == 1, "as many as are wanted"
    cluster.settle(20, 3.0)
    assert counts(cluster.status) == (1, 1, 2, "2/2")


def test_zero_replicas_have_no_spare_and_a_spare_is_given_up_like_any_other() -> None:
    cluster = with_spares(2, 1)
    cluster.change(replicas=0)
    cluster.settle(20, 5.0)
    assert cluster.serving() == []
    assert counts(cluster.status) == (0, 0, 0, "0/0")
    cluster.change(replicas=1, spareReplicas=0)
    cluster.settle(20, 5.0)
    assert len(cluster.serving()) == 1


def test_a_change_without_free_nodes_takes_the_spare_first() -> None:
    """Of a single replica nothing may be missing; with a spare, one may."""
    cluster = with_spares(1, 1, small=2)
    cluster.change(env="b")
    fewest = 2
    for _ in range(80):
        cluster.reconcile()
        cluster.advance(3.0)
        fewest = min(fewest, len(cluster.serving()))
    assert fewest == 1
    assert {g.revision for g in cluster.gangs()} == {cluster.revision()}
    assert len(cluster.serving()) == 2


def test_what_may_be_missing_is_what_somebody_says() -> None:
    assert [Strategy().may_be_missing(n, s) for n, s in ((1, 0), (1, 1), (2, 0), (2, 2))] == [0, 1, 1, 2]
    assert Strategy(max_unavailable=0).may_be_missing(2, 2) == 0


def test_a_number_that_was_never_written_is_what_runs_without_the_spares() -> None:
    """The autoscaler of an operator that has lost its status must not take the spare for a step up."""
    cluster = with_spares(2, 1)
    cluster.change(autoscaling={"minReplicas": 1, "maxReplicas": 8})
    assert cluster.reconcile().scaling.in_force == 2
    assert cluster.reconcile().scaling.total == 3


def test_the_autoscaler_counts_without_them() -> None:
    """One replica at a time for a queue, whatever is there to spare."""
    config = Autoscaling(min_replicas=1, max_replicas=8)
    busy = ReplicaLoad(kv_usage=0.2, tokens_per_second=10.0, running=4, waiting=50)
    window = [Sample(1000.0 + 5 * i, (busy,) * 3, 0) for i in range(60)]
    state = ScalingState(desired=2, ready=3, spares=1)
    assert decide(config, (), window, state, 1295.0).desired == 3
    assert decide(config, (), window, replace(state, desired=3, spares=0), 1295.0).desired == 4
