"""One mind, state by state: what a round does in worlds that are unknown, refused, stale, many at once, back and forth.

Names of findings (L1, C2 …) are those of the review of November 2026; docs/design/one-mind.md has the whole table.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from r1_operator.api import names
from r1_operator.api.reasons import Reason
from r1_operator.api.types import R1DeploymentStatus
from r1_operator.lifecycle.actions import CreateGang, EndPods
from r1_operator.placement.place import Request
from r1_operator.rounds.decide import Round, decide, next_look
from r1_operator.rounds.guard import losses
from r1_operator.status.observation import Finding

from tests.simulation.cluster import SimulatedCluster, spec_of

MORE_THAN_ANY_NODE = "999Gi"


def serving(replicas: int = 1, nodes: int = 2, small: int = 4, **fields: Any) -> SimulatedCluster:
    """Everything that is wanted serves."""
    cluster = SimulatedCluster(spec_of(nodes=nodes, replicas=replicas), small, **fields)
    cluster.settle(8, 3.0)
    assert len(cluster.serving()) == replicas
    return cluster


def ends(round_: Round) -> set[str]:
    return {a.gang for a in round_.decision.actions if isinstance(a, EndPods)}


def reasons(round_: Round) -> set[Reason]:
    return {trouble.reason for trouble in round_.troubles}


# --- changes that cannot come true -----------------------------------------------------------------------------------
@pytest.mark.parametrize(("replicas", "small"), [(1, 2), (1, 6), (2, 4), (3, 8)])
def test_a_change_that_fits_no_node_touches_nothing_and_says_why(replicas: int, small: int) -> None:
    """L1: the only replica was taken down for ever."""
    cluster = serving(replicas, small=small)
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
    cluster = serving(1, small=2)
    for node in cluster.machines.nodes.values():
        node["spec"]["unschedulable"] = True
    cluster.change(env="b")
    cluster.settle(20)
    assert len(cluster.serving()) == 1
    assert Reason.NO_NODE_FOR_NEW_REVISION in reasons(cluster.reconcile())


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
    cluster = serving(1, small=2)
    cluster.change(env="b")
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
    cluster = serving(4, small=8)
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
    cluster = serving(3, small=9)
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


def test_a_machine_that_is_off_is_left_for_another_one() -> None:
    cluster = serving(2, small=6)
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
    cluster = serving(1, small=4)
    node = str(cluster.machines.of(cluster.serving()[0])[0]["spec"]["nodeName"])
    cluster.machines.off.add(node)
    cluster.machines.taint_out_of_service(node)
    assert losses(cluster.facts(), cluster.now).dead == {node: "it carries the taint out-of-service"}
    assert ends(cluster.reconcile())


def test_a_node_object_that_is_gone_counts_only_once_that_is_confirmed() -> None:
    """C7: nodes and pods come by two watches, and one of them may be late."""
    cluster = serving(1, small=4)
    gang = cluster.serving()[0]
    node = str(cluster.machines.of(gang)[0]["spec"]["nodeName"])
    cluster.machines.mute.add(gang)
    cluster.told.clear()
    facts = cluster.facts()
    unseen = tuple(n for n in facts.nodes.all if n.name != node)
    late = replace(facts, nodes=replace(facts.nodes, all=unseen, gone=frozenset()))
    assert losses(late, cluster.now).dead == {}
    confirmed = replace(facts, nodes=replace(facts.nodes, all=unseen, gone=frozenset({node})))
    assert losses(confirmed, cluster.now).dead == {node: "the Node object is gone"}


# --- back and forth --------------------------------------------------------------------------------------------------
def test_a_blink_of_all_probes_during_a_roll_drains_nobody() -> None:
    """L3: four old replicas were ended together."""
    cluster = serving(4, nodes=1, small=6)
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
    cluster = serving(2, nodes=1)
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
    cluster = serving(2, nodes=1)
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
    cluster = serving(3, nodes=1)
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
    cluster = serving(3, nodes=1, small=5)
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


# --- refused ---------------------------------------------------------------------------------------------------------
def test_under_a_quota_of_one_and_a_half_gangs_one_is_whole_and_of_the_other_nothing_stays() -> None:
    """C2."""
    cluster = SimulatedCluster(spec_of(nodes=2, replicas=2), small=6, quota=3)
    cluster.settle(20)
    assert len(cluster.serving()) == 1
    assert len(cluster.machines.pods) == 2
    condition = cluster.status.condition("Progressing")
    assert condition is not None
    assert (condition.status, condition.reason) == ("False", "QuotaExceeded")
    assert "raise the quota" in condition.message
    cluster.quota = 4
    cluster.settle(10)
    assert len(cluster.serving()) == 2


def test_a_roll_that_a_quota_refuses_is_told_and_comes_true_by_draining_first() -> None:
    """S1: it said Ready/Updating for ever."""
    cluster = serving(2, nodes=1, small=6)
    cluster.quota = 2
    cluster.change(env="b")
    cluster.reconcile()
    cluster.reconcile()
    assert cluster.status.condition("Degraded").reason == "QuotaExceeded"  # type: ignore[union-attr]
    fewest = 2
    for _ in range(40):
        cluster.advance(6.0)
        cluster.reconcile()
        fewest = min(fewest, len(cluster.serving()))
    assert fewest == 1
    assert {g.revision for g in cluster.gangs()} == {cluster.round.revision}  # type: ignore[union-attr]


def test_while_a_quota_is_too_small_for_the_new_revision_nobody_is_drained() -> None:
    cluster = serving(1, nodes=1, small=6)
    cluster.quota = 1
    cluster.change(env="b", topology={"nodesPerReplica": 2})
    cluster.settle(30)
    assert cluster.serving() == ["r1-0-0"]
    assert Reason.QUOTA_EXCEEDED in reasons(cluster.reconcile())


def test_under_a_broken_spec_a_dead_replica_comes_back_as_what_it_was() -> None:
    """L10: it never came back; and what was made from its old revision must also get nodes."""
    cluster = serving(2, nodes=2, small=6)
    revision = cluster.gangs()[0].revision
    cluster.hold = True
    cluster.machines.end("r1-0-0", 70, cluster.now, [0, 1])
    cluster.settle(15)
    assert len(cluster.serving()) == 2
    assert {g.revision for g in cluster.gangs() if g.name in cluster.serving()} == {revision}


# --- whose is it -----------------------------------------------------------------------------------------------------
def test_a_child_of_that_name_which_is_somebody_elses_is_left_alone() -> None:
    """C6: a user's Service was taken over, and deleted with our resource."""
    cluster = serving(1, nodes=1)
    name = names.gateway_name("r1")
    theirs = {"kind": "Service", "metadata": {"name": name, "labels": {}, "ownerReferences": []}, "spec": {}}
    round_ = decide(replace(cluster.facts(), live={("Service", name): theirs}), cluster.now)
    touched = {(o["kind"], o["metadata"]["name"]) for o in (*round_.children.apply, *round_.children.create)}
    assert ("Service", name) not in touched
    assert round_.troubles[0].reason is Reason.NAME_TAKEN
    assert f"Service {name} exists and belongs to nobody we know" in round_.troubles[0].message


def test_without_its_own_service_or_secret_no_gang_is_made() -> None:
    cluster = SimulatedCluster(spec_of(nodes=1, replicas=1))
    for kind, name in (("Service", names.engine_service("r1")), ("Secret", names.ray_secret("r1"))):
        taken = decide(replace(cluster.facts(), taken={(kind, name): "Deployment theirs"}), cluster.now)
        assert not any(isinstance(a, CreateGang) for a in taken.decision.actions)
    secret = {("Secret", names.gateway_name("r1")): "nobody"}
    round_ = decide(replace(cluster.facts(), taken=secret), cluster.now)
    assert any(isinstance(a, CreateGang) for a in round_.decision.actions)
    assert not any(o["kind"] == "Deployment" for o in round_.children.create), "it would run with their Secret"


def test_strangers_with_our_labels_are_told_and_counted_for_nothing() -> None:
    """L14: `gangs_of` took them for ours, ended the real gang and routed users' prompts to them."""
    cluster = serving(1, nodes=1)
    stray = cluster.machines.pods["r1-0-0-0"]
    labels = names.engine_pod_labels("r1", 0, 99, 0, "x") | {names.LABEL_NODES: "1"}
    cluster.machines.pods["stray"] = {
        **stray,
        "metadata": {"name": "stray", "namespace": "ns", "uid": "u", "labels": labels},
    }
    assert [g.name for g in cluster.gangs()] == ["r1-0-0"]
    round_ = decide(replace(cluster.facts(), strangers=("stray",)), cluster.now)
    assert not round_.decision.actions
    assert round_.workers == {cluster.url("r1-0-0")}
    assert reasons(round_) == {Reason.FOREIGN_PODS}


# --- the rotation ----------------------------------------------------------------------------------------------------
def test_in_a_roll_the_rotation_is_never_without_a_replica_that_serves() -> None:
    """The list that took the old one out was the one that first named the new one: 1,519 requests were turned away."""
    for replicas, small in ((1, 4), (2, 3), (3, 4)):
        cluster = serving(replicas, nodes=1, small=small)
        cluster.change(env="b")
        for _ in range(120):
            cluster.reconcile()
            for _ in range(4):
                cluster.advance(0.5)
                assert len(cluster.rotation()) >= replicas, "spare nodes are there: nobody is missing"
        assert {g.revision for g in cluster.gangs()} == {cluster.round.revision}  # type: ignore[union-attr]


def test_a_scale_down_leaves_somebody_in_the_rotation() -> None:
    cluster = serving(1, nodes=1)
    cluster.change(replicas=2)
    cluster.settle(2, 0.1)
    cluster.change(replicas=1)
    for _ in range(30):
        cluster.reconcile()
        cluster.advance(0.2)
        assert cluster.rotation()


def test_what_is_quiet_for_a_moment_stays_in_the_list_and_for_good_if_it_is_the_last() -> None:
    cluster = serving(2, nodes=1)
    one, other = cluster.url("r1-0-0"), cluster.url("r1-1-0")
    cluster.machines.unready.add("r1-0-0")
    cluster.machines.mute.add("r1-0-0")
    cluster.settle(3)
    assert cluster.round is not None
    assert cluster.round.workers == {one, other}
    cluster.settle(10)
    assert cluster.round.workers == {other}
    cluster.machines.unready.add("r1-1-0")
    cluster.machines.mute.add("r1-1-0")
    cluster.settle(10)
    assert cluster.round.workers == {one, other}, "the gateways may find one of them alive"


# --- the next look ---------------------------------------------------------------------------------------------------
def test_a_new_replica_is_looked_at_again_soon_until_the_router_has_it() -> None:
    cluster = serving(1, nodes=1)
    ready = Finding("True", Reason.GATEWAY_READY, "")
    round_ = cluster.reconcile()
    assert next_look(round_, frozenset(), ready) == 1.0
    assert next_look(round_, round_.workers, ready) == 30.0
