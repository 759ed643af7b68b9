"""Nodes that are to be left, nodes that are better not taken, and who is let go when. On the simulated cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from r1_operator.api.reasons import Reason
from r1_operator.placement.blame import (
    FADES_SECONDS,
    FIRST_SECONDS,
    LONGEST_SECONDS,
    Blame,
    Held,
    faded,
    from_texts,
    held_against,
    levels,
    to_text,
)
from r1_operator.placement.nodes import node_of
from r1_operator.placement.place import Placement, Request, Shape, Unplaceable, place
from r1_operator.rounds.facts import Facts
from r1_simulate.cluster import SimulatedCluster, reasons, serving_cluster, spec_of


def where(cluster: SimulatedCluster, gang: str) -> set[str]:
    return {p["spec"]["nodeName"] for p in cluster.machines.of(gang)}


def in_use(cluster: SimulatedCluster) -> set[str]:
    return {node for gang in cluster.serving() for node in where(cluster, gang)}


def budget(cluster: SimulatedCluster) -> int:
    """Pods that an eviction must leave."""
    made = (*cluster.reconcile().children.create, *cluster.reconcile().children.apply)
    found = [o for o in made if o["kind"] == "PodDisruptionBudget" and o["metadata"]["name"] == "r1-engine"]
    return int(found[0]["spec"]["minAvailable"])


# --- maintenance -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_cordoned_node_is_left_for_another_first(replicas: int) -> None:
    """L17: a cordon did nothing, and the drain after it took a replica away for a whole start."""
    cluster = serving_cluster(replicas, nodes=1, small=replicas + 1)
    (node,) = where(cluster, "r1-0-0")
    cluster.machines.cordon(node)
    for _ in range(20):
        cluster.reconcile()
        assert len(cluster.serving()) >= replicas, "replacement first"
        cluster.advance(10.0)
    assert node not in in_use(cluster)
    assert len(cluster.serving()) == replicas
    assert cluster.reconcile().troubles == ()


@pytest.mark.parametrize("taint", ["ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted"])
def test_so_is_one_that_an_autoscaler_is_about_to_take(taint: str) -> None:
    cluster = serving_cluster(1, nodes=2, small=4)
    node = min(where(cluster, "r1-0-0"))
    cluster.machines.nodes[node]["spec"]["taints"] = [{"key": taint, "effect": "NoSchedule"}]
    cluster.settle(20)
    assert node not in in_use(cluster)
    assert len(cluster.serving()) == 1


def test_without_a_free_node_nothing_moves_and_one_of_several_may_be_evicted() -> None:
    cluster = serving_cluster(2, nodes=1, small=2)
    assert budget(cluster) == 2, "none, while nothing is known of a move"
    (node,) = where(cluster, "r1-0-0")
    cluster.machines.cordon(node)
    cluster.settle(10)
    assert len(cluster.serving()) == 2
    trouble = next(t for t in cluster.reconcile().troubles if t.reason is Reason.NO_NODE_FOR_MOVE)
    assert f"node {node}: it is cordoned" in trouble.message
    assert budget(cluster) == 1, "one pod, whose gang goes with it"
    cluster.machines.delete("r1-0-0-0", None, cluster.now)  # the eviction
    assert budget(cluster) == 1, "the other one stays"
    cluster.machines.cordon(node, off=True)
    cluster.settle(20)
    assert len(cluster.serving()) == 2
    assert cluster.reconcile().troubles == ()


def test_the_only_replica_is_never_let_go_unless_that_is_said() -> None:
    cluster = serving_cluster(1, nodes=2, small=2)
    for name in cluster.machines.nodes:
        cluster.machines.cordon(name)
    cluster.settle(10)
    assert (len(cluster.serving()), budget(cluster)) == (1, 2)
    cluster.change(strategy={"maxUnavailable": 1})
    cluster.settle(3)
    assert budget(cluster) == 1


def test_two_nodes_that_are_drained_at_once_cost_one_replica_at_a_time() -> None:
    """L17: two `kubectl drain`s evicted both replicas."""
    cluster = serving_cluster(2, nodes=1, small=3)
    for gang in ("r1-0-0", "r1-1-0"):
        cluster.machines.cordon(*where(cluster, gang))
    for _ in range(30):
        cluster.reconcile()
        assert len(cluster.serving()) >= 2
        cluster.advance(10.0)
    # One has moved to the only free node; the other one has none, and says so.
    assert Reason.NO_NODE_FOR_MOVE in reasons(cluster.reconcile())
    cluster.add_node("new")
    cluster.settle(20)
    assert len(cluster.serving()) == 2
    assert in_use(cluster) == {"s2", "new"}


def test_a_move_does_not_wait_for_a_revision_that_fails() -> None:
    cluster = serving_cluster(2, nodes=1, small=4)
    good = cluster.gangs()[0].revision
    cluster.machines.bad.add("broken")
    cluster.change(env="broken")
    cluster.settle(10)
    (node,) = where(cluster, "r1-0-0")
    cluster.machines.cordon(node)
    cluster.settle(20)
    assert node not in in_use(cluster)
    assert [g.revision for g in cluster.gangs() if g.name in cluster.serving()] == [good, good]


def test_with_a_broken_spec_maintenance_goes_on() -> None:
    cluster = serving_cluster(1, nodes=1, small=2)
    cluster.hold = True
    (node,) = where(cluster, "r1-0-0")
    cluster.machines.cordon(node)
    cluster.settle(20)
    assert node not in in_use(cluster)
    assert len(cluster.serving()) == 1


# --- blame -----------------------------------------------------------------------------------------------------------
def fail_on(cluster: SimulatedCluster, node: str, rounds: int = 40) -> list[set[str]]:
    """Every engine that starts on this node ends; → where each attempt was."""
    attempts: dict[str, set[str]] = {}
    for _ in range(rounds):
        cluster.reconcile()
        cluster.advance(5.0)
        for gang in cluster.machines.gangs():
            nodes = {p["spec"].get("nodeName") for p in cluster.machines.of(gang)}
            if node in nodes and cluster.machines.serves(gang):
                cluster.machines.end(gang, 70, cluster.now, [0])
            if None not in nodes:
                attempts[gang] = nodes  # type: ignore[assignment]
    return list(attempts.values())


def test_a_node_on_which_everything_fails_is_not_taken_again() -> None:
    """L8, N-11: three attempts, three times the same two nodes, with two others idle."""
    cluster = serving_cluster(1, nodes=1, small=3)
    (bad,) = where(cluster, "r1-0-0")
    attempts = fail_on(cluster, bad)
    assert attempts[0] == {bad}
    assert bad not in set().union(*attempts[1:])
    assert len(cluster.serving()) == 1
    assert cluster.held[bad].count == 1
    assert "RankDied" in cluster.held[bad].reason


def test_it_is_taken_when_there_is_no_other() -> None:
    cluster = serving_cluster(1, nodes=1, small=1)
    cluster.machines.end("r1-0-0", 70, cluster.now, [0])
    cluster.settle(10)
    assert cluster.held["s0"].count == 1
    assert len(cluster.serving()) == 1


def test_a_gpu_that_is_unhealthy_while_its_gang_serves_counts_against_its_node() -> None:
    """What NVML says (ECC, rows, NVLink, Xid) comes by the agents; the next gang goes elsewhere."""
    cluster = serving_cluster(1, nodes=1, small=3)
    (sick,) = where(cluster, "r1-0-0")
    facts = cluster.facts

    def with_a_sick_gpu() -> Facts:
        found = facts()
        said = {"r1-0-0": (f"{sick}: GPU 3: row remapping is pending",)}
        return replace(found, engines=replace(found.engines, sick=said))

    cluster.facts = with_a_sick_gpu  # type: ignore[method-assign]
    cluster.settle(5)
    assert len(cluster.serving()) == 1, "nothing is ended for it"
    assert (cluster.held[sick].count, cluster.held[sick].reason) == (1, "GpuUnhealthy")
    cluster.machines.end("r1-0-0", 70, cluster.now, [0])
    cluster.settle(8)
    assert in_use(cluster)
    assert sick not in in_use(cluster)


def test_a_bad_revision_is_no_nodes_fault() -> None:
    cluster = serving_cluster(2, nodes=1, small=4)
    cluster.machines.bad.add("broken")
    cluster.change(env="broken")
    cluster.settle(30)
    assert cluster.held == {}


def blame(key: str, at: float = 0.0) -> Blame:
    return Blame("n1", key, "GpuUnhealthy", "GPU 3: Xid 79", at)


def test_blame_grows_with_each_failure_and_fades() -> None:
    held, times = None, []
    for number in range(7):
        held = held_against(held, blame(str(number)), 0.0)
        times.append(held.until)
    assert times[:3] == [FIRST_SECONDS, 2 * FIRST_SECONDS, 4 * FIRST_SECONDS]
    assert times[-1] == LONGEST_SECONDS
    assert held_against(held, blame("6"), 0.0) == held, "each counts once"
    after_a_week = held_against(held, blame("again", 7 * FADES_SECONDS), 7 * FADES_SECONDS)
    assert after_a_week.count == 1
    assert levels({"n1": after_a_week}, after_a_week.until) == {}
    assert faded({"n1": after_a_week}, after_a_week.at + FADES_SECONDS) == {}


def test_what_is_held_against_nodes_is_kept_as_people_can_read_it() -> None:
    held = Held(2, 1_000_000.0, "GpuUnhealthy", "GPU 3: Xid 79", ("a", "b"))
    text = to_text(held)
    assert '"avoidedUntil": "1970-01-12T15:46:40Z"' in text
    assert from_texts({"n1": text, "n2": "{", "n3": '{"failures": "many"}'}) == {"n1": held}


def test_a_clock_that_was_ahead_blames_nobody_for_ever() -> None:
    ahead = Held(1, 1e9, "x", "", ("a",))
    assert faded({"n1": ahead}, 0.0)["n1"].at == 0.0


# --- placement -------------------------------------------------------------------------------------------------------
def node(name: str, fabric: str = "", avoid: int = 0, used: bool = False) -> Any:
    raw = {"metadata": {"name": name, "labels": {"r1operator.dev/fabric": fabric}}}
    ready = [{"type": "Ready", "status": "True"}]
    found = node_of({**raw, "status": {"allocatable": {"gpu": "8"}, "conditions": ready}}, {"gpu": 8} if used else {})  # type: ignore[dict-item]
    return replace(found, avoid=avoid)


def shape(size: int) -> Shape:
    return Shape(size, "gpu", {"gpu": 8})  # type: ignore[dict-item]


def test_a_domain_whose_nodes_are_well_comes_before_the_one_that_fits_best() -> None:
    nodes = [node("a1", "a", avoid=1), node("a2", "a"), node("b1", "b"), node("b2", "b"), node("b3", "b")]
    (placed,) = place([Request("g", shape(2))], nodes)
    assert isinstance(placed, Placement)
    assert placed.nodes == ("b1", "b2")


def test_a_node_condition_of_the_sites_choice_counts() -> None:
    conditions = [{"type": "Ready", "status": "True"}, {"type": "GpuBroken", "status": "True", "message": "Xid 79"}]
    raw = {"metadata": {"name": "n"}, "status": {"conditions": conditions}}
    assert node_of(raw, {}).avoid == 0
    assert node_of(raw, {}, {"GpuBroken"}).avoid > 100


def test_a_large_gang_does_not_starve_behind_small_ones() -> None:
    """L9: nine nodes were waited for, and eight gangs of one node took what came free, again and again."""
    nodes = [node(f"n{i}", used=i > 1) for i in range(4)]
    waits = Request("large", shape(3), reserves=True)
    large, small = place([waits, Request("small", shape(1))], nodes)
    assert isinstance(large, Unplaceable)
    assert isinstance(small, Unplaceable), "the two free ones are kept"
    assert "promised to a replica before it" in small.message
    _young, small = place([replace(waits, reserves=False), Request("small", shape(1))], nodes)
    assert isinstance(small, Placement)
    _never, small = place([Request("huge", shape(9), reserves=True), Request("small", shape(1))], nodes)
    assert isinstance(small, Placement), "what could never be keeps nothing"


def test_half_of_the_nodes_go_and_the_fleet_moves_over() -> None:
    cluster = SimulatedCluster(spec_of(nodes=1, replicas=3, strategy={"minReadySeconds": 0, "maxSurge": 2}), small=6)
    cluster.settle(8, 3.0)
    old = in_use(cluster)
    for name in old:
        cluster.machines.cordon(name)
    for _ in range(30):
        cluster.reconcile()
        assert len(cluster.serving()) >= 3
        cluster.advance(10.0)
    assert not in_use(cluster) & old


def test_what_a_gpu_says_of_itself_stays_the_reason_of_what_follows() -> None:
    """`r1 nodes` showed the engine's death, and not the GPU that had been lost before it."""
    sick = held_against(None, Blame("n5", "a", "GpuUnhealthy", "GPU 0: GPU is lost", 1000.0), 1000.0)
    dead = held_against(sick, Blame("n5", "b", "EngineDied", "a rank ended", 1010.0), 1010.0)
    assert (dead.count, dead.reason, dead.message, dead.at) == (2, "GpuUnhealthy", "GPU 0: GPU is lost", 1010.0)
    later = held_against(sick, Blame("n5", "c", "EngineDied", "a rank ended", sick.until + 1), sick.until + 1)
    assert later.reason == "EngineDied"
