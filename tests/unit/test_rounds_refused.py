"""One mind: what it does when the API server refuses, when names and pods are somebody else's, and to the rotation."""

from __future__ import annotations

from dataclasses import replace

from r1_operator.api import names
from r1_operator.api.reasons import Reason
from r1_operator.lifecycle.actions import CreateGang
from r1_operator.rounds.decide import decide, next_look
from r1_operator.status.observation import Finding
from r1_simulate.cluster import SimulatedCluster, reasons, serving_cluster, spec_of

MORE_THAN_ANY_NODE = "999Gi"


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
    cluster = serving_cluster(2, nodes=1, small=6)
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
    cluster = serving_cluster(1, nodes=1, small=6)
    cluster.quota = 1
    cluster.change(env="b", topology={"nodesPerReplica": 2})
    cluster.settle(30)
    assert cluster.serving() == ["r1-0-0"]
    assert Reason.QUOTA_EXCEEDED in reasons(cluster.reconcile())


def test_under_a_broken_spec_a_dead_replica_comes_back_as_what_it_was() -> None:
    """L10: it never came back; and what was made from its old revision must also get nodes."""
    cluster = serving_cluster(2, nodes=2, small=6)
    revision = cluster.gangs()[0].revision
    cluster.hold = True
    cluster.machines.end("r1-0-0", 70, cluster.now, [0, 1])
    cluster.settle(15)
    assert len(cluster.serving()) == 2
    assert {g.revision for g in cluster.gangs() if g.name in cluster.serving()} == {revision}


# --- whose is it -----------------------------------------------------------------------------------------------------
def test_a_child_of_that_name_which_is_somebody_elses_is_left_alone() -> None:
    """C6: a user's Service was taken over, and deleted with our resource."""
    cluster = serving_cluster(1, nodes=1)
    name = names.gateway_name("r1")
    theirs = {"kind": "Service", "metadata": {"name": name, "labels": {}, "ownerReferences": []}, "spec": {}}
    round_ = decide(replace(cluster.facts(), live={("Service", name): theirs}), cluster.now)
    touched = {(o["kind"], o["metadata"]["name"]) for o in (*round_.children.apply, *round_.children.create)}
    assert ("Service", name) not in touched
    assert round_.troubles[0].reason is Reason.NAME_TAKEN
    assert f"Service {name} exists and belongs to nobody we know" in round_.troubles[0].message


def test_without_its_own_service_no_gang_is_made_and_without_its_own_settings_no_gateway() -> None:
    cluster = SimulatedCluster(spec_of(nodes=1, replicas=1))
    service = {("Service", names.engine_service("r1")): "Deployment theirs"}
    taken = decide(replace(cluster.facts(), taken=service), cluster.now)
    assert not any(isinstance(a, CreateGang) for a in taken.decision.actions)
    settings = {("ConfigMap", names.gateway_name("r1")): "nobody"}
    round_ = decide(replace(cluster.facts(), taken=settings), cluster.now)
    assert any(isinstance(a, CreateGang) for a in round_.decision.actions)
    assert not any(o["kind"] == "Deployment" for o in round_.children.create), "it would run with their settings"


def test_strangers_with_our_labels_are_told_and_counted_for_nothing() -> None:
    """L14: `gangs_of` took them for ours, ended the real gang and routed users' prompts to them."""
    cluster = serving_cluster(1, nodes=1)
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
        cluster = serving_cluster(replicas, nodes=1, small=small)
        cluster.change(env="b")
        for _ in range(120):
            cluster.reconcile()
            for _ in range(4):
                cluster.advance(0.5)
                assert len(cluster.rotation()) >= replicas, "spare nodes are there: nobody is missing"
        assert {g.revision for g in cluster.gangs()} == {cluster.round.revision}  # type: ignore[union-attr]


def test_a_scale_down_leaves_somebody_in_the_rotation() -> None:
    cluster = serving_cluster(1, nodes=1)
    cluster.change(replicas=2)
    cluster.settle(2, 0.1)
    cluster.change(replicas=1)
    for _ in range(30):
        cluster.reconcile()
        cluster.advance(0.2)
        assert cluster.rotation()


def test_what_is_quiet_for_a_moment_stays_in_the_list_and_for_good_if_it_is_the_last() -> None:
    cluster = serving_cluster(2, nodes=1)
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
    cluster = serving_cluster(1, nodes=1)
    ready = Finding("True", Reason.GATEWAY_READY, "")
    round_ = cluster.reconcile()
    assert next_look(round_, frozenset(), ready) == 1.0
    assert next_look(round_, round_.workers, ready) == 30.0
