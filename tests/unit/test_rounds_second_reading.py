"""States that no test had been in: a leader's first round, a spec without a plan, old news, two rolls at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from unittest.mock import Mock

from r1_operator.autoscaling.history import fold
from r1_operator.autoscaling.window import ReplicaLoad, Sample
from r1_operator.controller.placing import Placer
from r1_operator.lifecycle.actions import EndPods
from r1_operator.lifecycle.gangs import Heard
from r1_operator.rounds.decide import Round, Waiting, decide
from r1_operator.rounds.facts import Facts, Gateways
from r1_simulate.cluster import SimulatedCluster, spec_of


def serving(*, nodes: int, replicas: int = 1, size: int = 1) -> SimulatedCluster:
    cluster = SimulatedCluster(spec_of(nodes=size, replicas=replicas), nodes)
    cluster.settle(8)
    assert len(cluster.serving()) == replicas
    return cluster


def ended(round_: Round) -> list[str]:
    return [action.gang for action in round_.decision.actions if isinstance(action, EndPods)]


def test_a_leader_that_has_asked_nobody_yet_calls_no_node_lost() -> None:
    """After a fail-over the agents of a fleet whose kubelets were silent had said nothing, and that counted as a no."""
    cluster = serving(nodes=8, replicas=4)
    cluster.machines.silent.add(cluster.machines.pods["r1-0-0-0"]["spec"]["nodeName"])
    cluster.settle(8)
    facts = cluster.facts()
    silence = dict.fromkeys(facts.engines.silence, 0.3)
    for heard_so_far in ({}, silence):
        new = replace(facts.engines, heard={}, silence=heard_so_far, loads={})
        assert ended(decide(replace(facts, engines=new, gateways=Gateways()), cluster.now)) == []


def test_what_comes_back_under_a_spec_that_cannot_be_planned_gets_nodes() -> None:
    """L10: it was created as what it was, and then waited for nodes until somebody mended the spec."""
    cluster = serving(nodes=6, size=2)
    cluster.hold = True
    cluster.machines.end("r1-0-0", 70, cluster.now, [0, 1])
    cluster.settle(30)
    assert cluster.serving() == ["r1-0-1"]


def test_a_gang_of_another_size_comes_back_in_its_own() -> None:
    cluster = serving(nodes=6, size=2)
    cluster.hold = True
    node = cluster.machines.pods["r1-0-0-0"]["spec"]["nodeName"]
    cluster.machines.off.add(node)
    cluster.machines.taint_out_of_service(node)
    cluster.settle(1)
    cluster.machines.pods.clear()  # nobody is left to tell how many they were
    cluster.advance(2)
    cluster.reconcile()
    assert len(cluster.machines.of("r1-0-1")) == 2


def test_a_replica_that_every_gateway_reaches_is_not_given_up_for_a_port_that_is_shut() -> None:
    """A NetworkPolicy that shuts port 8500 for kubelets and operator alike ended a whole fleet after five minutes."""
    cluster = serving(nodes=8, replicas=4)
    cluster.machines.unready |= set(cluster.machines.gangs())
    cluster.machines.mute |= set(cluster.machines.gangs())
    cluster.settle(120)
    assert cluster.serving() == ["r1-0-0", "r1-1-0", "r1-2-0", "r1-3-0"]
    assert len(cluster.rotation()) == 4


def test_on_old_news_nothing_is_called_lost_and_nothing_is_made_in_its_place() -> None:
    """The next attempt of a replica that only seemed lost ended the one that served, once the watch was back."""
    cluster = serving(nodes=6, replicas=2)
    cluster.machines.silent.add(cluster.machines.pods["r1-0-0-0"]["spec"]["nodeName"])
    cluster.settle(6)
    cluster.mute_all, cluster.stale = True, 500.0
    cluster.settle(12)
    assert cluster.machines.gangs() == ["r1-0-0", "r1-1-0"]
    cluster.mute_all, cluster.stale = False, 0.0
    cluster.machines.silent.clear()
    cluster.settle(3, 1.0)
    assert cluster.serving() == ["r1-0-0", "r1-1-0"]


def test_a_mended_spec_reaches_a_replica_that_says_it_drains() -> None:
    """`POST /drain`, from anybody: out of rotation, not silent, and no roll began for want of a ready old replica."""
    cluster = serving(nodes=3)
    cluster.machines.unready.add("r1-0-0")
    facts = cluster.facts

    def draining() -> Facts:
        found = facts()
        heard = {g: Heard("Draining", "") if g == "r1-0-0" else said for g, said in found.engines.heard.items()}
        return replace(found, engines=replace(found.engines, heard=heard))

    cluster.facts = draining  # type: ignore[method-assign]
    cluster.settle(5)
    cluster.change(env="b")
    cluster.settle(30)
    assert cluster.machines.gangs() == ["r1-1-0"]


def test_two_that_roll_on_full_nodes_do_not_wait_for_each_other() -> None:
    """Each counted the other's waiting gang as ahead of its own, so neither drained a replica, for ever."""
    notify: Callable[[tuple[str, str]], None] = Mock()
    inventory = Mock()
    inventory.pods.return_value = ()
    placer = Placer(Mock(), Mock(), inventory, notify)
    waiting: list[Waiting] = []
    for seconds in (0.0, 5.0):
        cluster = serving(nodes=2, replicas=2)
        cluster.advance(seconds)
        cluster.change(env="b")
        waiting.append(decide_once(cluster))
    placer.submit(("a", "r1"), waiting[:1])
    placer.submit(("b", "r1"), waiting[1:])
    assert placer.ahead_of(("a", "r1")) == ()
    assert [request.gang for request in placer.ahead_of(("b", "r1"))] == ["r1-2-0"]
    assert len(placer.ahead_of(("c", "r1"))) == 2


def decide_once(cluster: SimulatedCluster) -> Waiting:
    """The extra gang that a roll has created, and that finds no node."""
    cluster.reconcile()
    return cluster.reconcile().waiting[0]


def test_a_replica_that_never_finds_a_node_holds_up_no_step_down() -> None:
    """A2: it counted as starting, and four idle replicas were kept for it for ever."""
    scaling = {"minReplicas": 1, "maxReplicas": 5}
    cluster = SimulatedCluster(spec_of(replicas=5, autoscaling=scaling), 4)
    cluster.settle(10)
    assert len(cluster.serving()) == 4
    facts = cluster.facts

    def idle() -> Facts:
        found = facts()
        loads = tuple(ReplicaLoad(0.0, 0.0, 0, 0) for _ in cluster.serving())
        window = tuple(Sample(cluster.now - 900 + 5 * i, loads) for i in range(181))
        minutes = fold((), window, cluster.now)
        return replace(found, engines=replace(found.engines, window=window, minutes=minutes))

    cluster.facts = idle  # type: ignore[method-assign]
    cluster.settle(200)
    assert len(cluster.serving()) == 1


def test_all_silent_together_for_long_is_no_reason_to_end_them_together() -> None:
    """Probes fail, no agent and no gateway is heard: after 305 s three of three were given up at once."""
    for gateways_answer in (False, True):
        cluster = serving(nodes=6, replicas=3, size=1)
        cluster.machines.unready |= set(cluster.serving())
        cluster.machines.mute |= set(cluster.serving())
        cluster.mute_all = not gateways_answer
        cluster.told.clear()
        for _ in range(30):
            assert ended(cluster.reconcile()) == []
            cluster.told.clear()
            cluster.advance(30.0)
        assert len(cluster.serving()) == 3


def test_one_that_stays_silent_among_others_that_answer_is_given_up() -> None:
    cluster = serving(nodes=6, replicas=3, size=1)
    cluster.machines.unready.add("r1-0-0")
    cluster.machines.mute.add("r1-0-0")
    for _ in range(30):
        cluster.reconcile()
        cluster.told.pop(cluster.url("r1-0-0"), None)
        cluster.advance(30.0)
    assert "r1-0-0" not in cluster.serving()
    assert len(cluster.serving()) == 3


def test_under_a_quota_that_was_lowered_below_its_use_nobody_is_drained_for_a_roll() -> None:
    """Its successor would be refused for ever."""
    cluster = serving(nodes=6, replicas=2, size=1)
    cluster.quota = 1
    cluster.change(env="b")
    for _ in range(40):
        assert ended(cluster.reconcile()) == []
        cluster.advance(10.0)
    assert len(cluster.serving()) == 2


def test_what_is_evicted_under_a_broken_spec_comes_back_as_the_others_are() -> None:
    cluster = serving(nodes=6, replicas=2, size=1)
    cluster.hold = True
    cluster.machines.delete("r1-0-0-0", 0, cluster.now)
    cluster.settle(10)
    assert len(cluster.serving()) == 2
