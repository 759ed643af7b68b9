"""One mind, state by state: what a round does in worlds that are unknown, refused, stale, many at once, back and forth.

Names of findings (L1, C2 …) are those of the review of November 2026; docs/design/one-mind.md has the whole table.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from r1_operator.api.reasons import Reason
from r1_operator.api.types import R1DeploymentStatus
from r1_operator.placement.place import Request
from r1_operator.rounds.decide import decide
from r1_operator.rounds.guard import losses
from r1_simulate.cluster import SimulatedCluster, ends, reasons, serving_cluster, spec_of

MORE_THAN_ANY_NODE = "999Gi"


# --- changes that cannot come true -----------------------------------------------------------------------------------
@pytest.mark.parametrize(("replicas", "small"), [(1, 2), (1, 6), (2, 4), (3, 8)])
def test_a_change_that_fits_no_node_touches_nothing_and_says_why(replicas: int, small: int) -> None:
    """L1: the only replica was taken down for ever."""
    cluster = serving_cluster(replicas, small=small)
    before = cluster.serving()
    cluster.change(memory=MORE_THAN_ANY_NODE)
    for _ in range(100):
        assert not ends(cluster.reconcile())
        cluster.advance(60.0)
    assert cluster.serving() == before
    round_ = cluster.reconcile()
    assert Reason.NO_NODE_FOR_NEW_REVISION in reasons(round_)
    assert "too little memory" in round_.troubles[0].message
    condition = cluster.status.condition("Progressing")
    assert condition is not None
    assert (condition.status, condition.reason) == ("False", "NoNodeForNewRevision")
    waiting = [g for g in cluster.gangs() if g.name not in before]
    assert all(member.holds is None for gang in waiting for member in gang.members), "what waits holds no node"
    cluster.change(memory="1Gi")
    cluster.settle(5)
    assert cluster.serving() == before
    assert {g.name for g in cluster.gangs()} == set(before)


def test_cordoned_under_its_feet_the_only_replica_is_left_alone() -> None:
    """L1: the nodes it runs on are cordoned, so a new revision would not come back there."""
    cluster = serving_cluster(1, small=2)
    for node in cluster.machines.nodes.values():
        node["spec"]["unschedulable"] = True
    cluster.change(env="b")
    cluster.settle(20)
    assert len(cluster.serving()) == 1
    assert Reason.NO_NODE_FOR_MOVE in reasons(cluster.reconcile())


def test_the_victim_is_one_whose_nodes_would_do() -> None:
    """L2: by load alone the wrong one was drained, and its nodes stood idle for ever."""
    cluster = SimulatedCluster(spec_of(nodes=1, replicas=2), small=1, big=1)
    cluster.settle(8, 3.0)
    on_big = next(g for g in cluster.serving() if cluster.machines.of(g)[0]["spec"]["nodeName"].startswith("b"))
    cluster.change(memory="100Gi")
    drained: list[str] = []
    for _ in range(30):
        cluster.reconcile()
        drained += cluster.rolled()
        cluster.advance(10.0)
    assert drained == [on_big], "and the other one stays what it is: no second big node is there"
    assert len(cluster.serving()) == 2
    assert Reason.NO_NODE_FOR_NEW_REVISION in reasons(cluster.reconcile())


def test_somebody_else_in_the_queue_would_take_the_nodes_first() -> None:
    cluster = serving_cluster(1, small=2)
    cluster.change(env="b", strategy={"maxUnavailable": 1})
    cluster.reconcile()
    facts = cluster.facts()
    (waits,) = decide(facts, cluster.now).waiting
    crowded = replace(facts, nodes=replace(facts.nodes, ahead=(Request("theirs", waits.shape),)))
    assert ends(decide(facts, cluster.now)) != set()
    assert ends(decide(crowded, cluster.now)) == set()


# --- silence ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seconds", [60.0, 400.0, 7200.0])
def test_kubelets_that_fall_silent_cost_nobody_anything(seconds: float) -> None:
    """L4: one minute of silence between control plane and kubelets ended a whole fleet that served on."""
    cluster = serving_cluster(4, small=8)
    before, rotation = cluster.serving(), cluster.rotation()
    cluster.machines.silent |= set(cluster.machines.nodes)
    for _ in range(20):
        cluster.advance(seconds / 20)
        assert not cluster.reconcile().decision.actions
        assert cluster.rotation() == rotation
    assert cluster.serving() == before
    cluster.machines.silent.clear()
    cluster.settle(10)
    assert cluster.serving() == before


def test_cut_off_from_most_nodes_it_forces_nothing_and_says_so() -> None:
    """The kubelets and the engines are silent alike: it is the operator that has lost its way."""
    cluster = serving_cluster(3, small=9)
    before = cluster.serving()
    cluster.machines.silent |= {n for n in cluster.machines.nodes if n != "s8"}
    cluster.mute_all = True
    for _ in range(10):
        cluster.advance(30.0)
        round_ = cluster.reconcile()
        assert not ends(round_)
    assert Reason.NODE_LOSS_SUSPENDED in reasons(round_)
    assert "6 of the 6 nodes that hold replicas are silent together" in round_.troubles[0].message
    assert cluster.serving() == before


def test_an_operator_that_reaches_no_engine_takes_no_silent_node_for_dead() -> None:
    """Two silent nodes of eight may well be off; but not even the engines on the other six answer."""
    cluster = serving_cluster(4, small=8)
    before = cluster.serving()
    lost = {p["spec"]["nodeName"] for p in cluster.machines.of(before[0])}
    cluster.machines.silent |= lost
    cluster.mute_all = True
    for _ in range(10):
        cluster.advance(30.0)
        round_ = cluster.reconcile()
        assert not ends(round_)
    assert Reason.NODE_LOSS_SUSPENDED in reasons(round_)
    cluster.mute_all = False
    cluster.machines.mute.add(before[0])
    cluster.told.clear()
    cluster.settle(10)
    assert before[0] not in cluster.serving(), "the others answer: it is that one which is gone"
    assert len(cluster.serving()) >= 3


def test_a_machine_that_is_off_is_left_for_another_one() -> None:
    cluster = serving_cluster(2, small=6)
    lost = cluster.serving()[0]
    node = str(cluster.machines.of(lost)[0]["spec"]["nodeName"])
    cluster.machines.off.add(node)
    cluster.advance(5.0)
    assert not ends(cluster.reconcile()), "a node that is late is not lost"
    cluster.advance(30.0)
    cluster.settle(10)
    assert len(cluster.serving()) == 2
    assert node not in cluster.machines.holders()


def test_the_out_of_service_taint_needs_no_waiting() -> None:
    cluster = serving_cluster(1, small=4)
    node = str(cluster.machines.of(cluster.serving()[0])[0]["spec"]["nodeName"])
    cluster.machines.off.add(node)
    cluster.machines.taint_out_of_service(node)
    assert losses(cluster.facts(), cluster.now).dead == {node: "it carries the taint out-of-service"}
    assert ends(cluster.reconcile())


def test_a_node_object_that_is_gone_counts_only_once_that_is_confirmed() -> None:
    """C7: nodes and pods come by two watches, and one of them may be late."""
    cluster = serving_cluster(1, small=4)
    gang = cluster.serving()[0]
    node = str(cluster.machines.of(gang)[0]["spec"]["nodeName"])
    cluster.machines.mute.add(gang)
    cluster.told.clear()
    cluster.advance(30.0)
    facts = cluster.facts()
    unseen = tuple(n for n in facts.nodes.all if n.name != node)
    late = replace(facts, nodes=replace(facts.nodes, all=unseen, gone=frozenset()))
    assert losses(late, cluster.now).dead == {}
    confirmed = replace(facts, nodes=replace(facts.nodes, all=unseen, gone=frozenset({node})))
    assert losses(confirmed, cluster.now).dead == {node: "the Node object is gone"}


# --- back and forth --------------------------------------------------------------------------------------------------
def test_a_blink_of_all_probes_during_a_roll_drains_nobody() -> None:
    """L3: four old replicas were ended together."""
    cluster = serving_cluster(4, nodes=1, small=6)
    cluster.change(env="b")
    cluster.reconcile()
    cluster.machines.unready |= set(cluster.serving())
    cluster.mute_all = True  # and the agents are not heard either
    cluster.advance(8.0)
    for _ in range(5):
        assert not ends(cluster.reconcile())
        cluster.advance(2.0)
    cluster.machines.unready.clear()
    cluster.mute_all = False
    cluster.settle(80)
    assert len(cluster.serving()) == 4
    assert {g.revision for g in cluster.gangs()} == {cluster.round.revision}  # type: ignore[union-attr]


def test_a_replica_that_flaps_is_not_replaced_for_it() -> None:
    """L18: each flap of Ready restarted the clock of a start."""
    cluster = serving_cluster(2, nodes=1)
    for _ in range(50):
        cluster.machines.unready ^= {"r1-0-0"}
        cluster.advance(7.0)
        assert not cluster.reconcile().decision.actions
    assert cluster.serving() == ["r1-0-0", "r1-1-0"]


# --- unknown ---------------------------------------------------------------------------------------------------------
def test_a_status_that_is_lost_ends_nobody() -> None:
    """L11: 20 replicas of an autoscaler became spec.replicas = 1 in one round."""
    cluster = SimulatedCluster(spec_of(nodes=1, replicas=1, autoscaling={"maxReplicas": 40}), small=24)
    cluster.settle(3, 3.0)
    assert cluster.status.autoscaling is not None
    wants = cluster.status.autoscaling.model_copy(update={"desired_replicas": 20})
    cluster.status = cluster.status.model_copy(update={"autoscaling": wants})
    cluster.settle(8, 3.0)
    assert len(cluster.serving()) == 20
    for lost in (R1DeploymentStatus(), R1DeploymentStatus(observed_generation=-1)):
        cluster.status = lost
        round_ = cluster.reconcile()
        assert not ends(round_)
        assert Reason.STATUS_NOT_READ in reasons(round_)
        cluster.settle(5)
        assert len(cluster.serving()) == 20


def test_nothing_is_ended_on_a_watch_that_stands_still() -> None:
    """C7: `age_seconds` existed and was used nowhere."""
    cluster = serving_cluster(2, nodes=1)
    cluster.machines.end("r1-0-0", 70, cluster.now, [0])
    cluster.change(replicas=1)
    cluster.settle(2)
    cluster.machines.end("r1-1-0", 70, cluster.now, [0])
    cluster.stale = 300.0
    for _ in range(20):
        round_ = cluster.reconcile()
        assert not ends(round_)
        cluster.advance(10.0)
    assert round_.troubles[0].reason is Reason.STALE_WATCH
    assert "pods for 300 s" in round_.troubles[0].message


def test_a_load_that_could_not_be_read_drains_nobody_for_being_idle() -> None:
    """L6."""
    cluster = serving_cluster(3, nodes=1)
    cluster.forgotten_loads = True
    facts = cluster.facts()
    known = replace(facts, engines=replace(facts.engines, loads={"r1-1-0": 3, "r1-2-0": 4}))
    cluster.change(replicas=2)
    known = replace(known, subject=cluster.subject())
    assert ends(decide(known, cluster.now)) == {"r1-1-0"}
    busy = replace(known, gateways=replace(known.gateways, in_flight={cluster.url("r1-1-0"): 200}))
    assert ends(decide(busy, cluster.now)) == {"r1-2-0"}, "what the gateways have on the way counts, too"


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
def test_a_leader_whose_clock_is_off_by_an_hour_changes_nothing(skew: float) -> None:
    """L13."""
    cluster = serving_cluster(3, nodes=1, small=5)
    before = cluster.serving()
    cluster.skew = skew
    cluster.settle(10)
    assert cluster.serving() == before
    cluster.skew = 0.0
    cluster.machines.end("r1-1-0", 70, cluster.now, [0])
    cluster.reconcile()
    cluster.skew = skew
    cluster.settle(8)
    assert len(cluster.serving()) == 3, "a failure is tried again after seconds, not after an hour"
