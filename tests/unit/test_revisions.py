"""A year of a fleet: bad revisions, upgrades of the operator, canaries, other models. On the simulated cluster."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from r1_operator.api.reasons import Reason
from r1_operator.api.types import R1DeploymentStatus
from r1_operator.lifecycle.actions import CreateGang
from r1_operator.rounds.facts import Served
from r1_simulate.cluster import SETTINGS, SimulatedCluster, ends, reasons, serving_cluster, spec_of


def revisions(cluster: SimulatedCluster) -> list[str]:
    """Of the gangs that serve, sorted."""
    return sorted(g.revision for g in cluster.gangs() if g.name in cluster.serving())


def images(cluster: SimulatedCluster) -> set[str]:
    """Of what serves."""
    return {p["spec"]["containers"][0]["image"] for g in cluster.serving() for p in cluster.machines.of(g)}


def kill(cluster: SimulatedCluster, gang: str) -> None:
    cluster.machines.end(gang, 70, cluster.now, range(9))


def bad_roll(replicas: int = 4, small: int = 6) -> tuple[SimulatedCluster, str]:
    """A roll to a revision that never starts, under way."""
    cluster = serving_cluster(replicas, nodes=1, small=small)
    good = revisions(cluster)[0]
    cluster.machines.bad.add("broken")
    cluster.change(env="broken")
    cluster.settle(6, 5.0)
    assert len(cluster.serving()) == replicas
    return cluster, good


def test_a_replica_that_dies_in_a_roll_comes_back_as_what_it_was() -> None:
    """L5: it came back as the bad revision, and so did what was added."""
    cluster, good = bad_roll()
    kill(cluster, cluster.serving()[0])
    cluster.settle(8, 5.0)
    assert revisions(cluster) == [good] * 4
    cluster.change(replicas=5)
    cluster.settle(8, 5.0)
    assert revisions(cluster) == [good] * 5
    assert Reason.NEW_REVISION_FAILED in reasons(cluster.reconcile())
    cluster.machines.delete(f"{cluster.serving()[0]}-0", 0, cluster.now)  # somebody, or an eviction
    cluster.settle(8, 5.0)
    assert revisions(cluster) == [good] * 5


def test_without_spare_nodes_a_bad_revision_gives_back_what_it_took() -> None:
    """One replica was drained for it; what serves again on those nodes is what served before."""
    cluster = serving_cluster(2, nodes=1, small=2)
    good = revisions(cluster)[0]
    cluster.machines.bad.add("broken")
    cluster.change(env="broken")
    cluster.settle(20, 15.0)
    assert revisions(cluster) == [good] * 2
    created = sum(cluster.created.values())
    cluster.settle(40, 30.0)
    assert revisions(cluster) == [good] * 2, "and it is not drained for again and again"
    assert sum(cluster.created.values()) <= created + 1
    assert Reason.NEW_REVISION_FAILED in reasons(cluster.reconcile())


@pytest.mark.parametrize("end", ["dies", "evicted"])
def test_what_comes_back_has_the_nodes_before_what_is_being_tried(end: str) -> None:
    """The only replica died while the new revision waited for nodes, which then was first in the queue."""
    cluster = serving_cluster(1, nodes=2, small=2)
    good = revisions(cluster)[0]
    cluster.machines.bad.add("broken")
    cluster.change(env="broken")
    cluster.settle(6)
    if end == "dies":
        kill(cluster, "r1-0-0")
    else:
        for index in range(2):
            cluster.machines.delete(f"r1-0-0-{index}", 0, cluster.now)
    cluster.settle(6, 5.0)
    assert revisions(cluster) == [good]


def test_a_change_that_is_taken_back_leaves_nothing_behind() -> None:
    cluster, good = bad_roll()
    before = cluster.serving()
    cluster.change(env="a")
    cluster.settle(6, 5.0)
    assert cluster.serving() == before
    assert {g.revision for g in cluster.gangs()} == {good}
    assert cluster.reconcile().troubles == ()


def test_a_new_revision_is_tried_by_one_before_the_others_follow() -> None:
    cluster = serving_cluster(4, nodes=1, small=8)
    good = revisions(cluster)[0]
    cluster.change(env="b", strategy={"minReadySeconds": 120, "maxSurge": 3})
    cluster.settle(10, 10.0)
    assert revisions(cluster).count(good) == 4
    assert len(revisions(cluster)) == 5
    cluster.settle(4, 10.0)
    assert len(cluster.serving()) >= 4
    cluster.settle(30, 10.0)
    assert good not in revisions(cluster)


def test_several_go_at_a_time_where_the_strategy_says_so() -> None:
    """L19: 100 replicas one by one take a day."""

    def rounds(**strategy: int) -> int:
        cluster = serving_cluster(8, nodes=1, small=12)
        good, count = revisions(cluster)[0], 0
        cluster.change(env="b", strategy={"minReadySeconds": 0, **strategy})
        while good in {g.revision for g in cluster.gangs()}:
            cluster.reconcile()
            assert len(cluster.serving()) >= 8
            cluster.advance(20.0)
            count += 1
        return count

    assert rounds(maxSurge=4) * 2 < rounds(maxSurge=1)


def test_without_free_nodes_as_many_go_as_may_be_missing() -> None:
    cluster = serving_cluster(4, nodes=1, small=4)
    least = 4
    cluster.change(env="b", strategy={"minReadySeconds": 0, "maxSurge": 2, "maxUnavailable": 2})
    for _ in range(60):
        cluster.reconcile()
        least = min(least, len(cluster.serving()))
        cluster.advance(10.0)
    assert least == 2
    assert set(revisions(cluster)) == {cluster.revision()}


def test_the_only_replica_goes_only_when_that_is_said() -> None:
    cluster = serving_cluster(1, nodes=2, small=2)
    cluster.change(env="b")
    cluster.settle(20)
    assert len(cluster.serving()) == 1
    trouble = next(t for t in cluster.reconcile().troubles if t.reason is Reason.NO_NODE_FOR_NEW_REVISION)
    assert "spec.strategy.maxUnavailable 0 keeps them; 1 lets one go first" in trouble.message
    cluster.change(strategy={"minReadySeconds": 0, "maxUnavailable": 1})
    cluster.settle(20)
    assert revisions(cluster) == [cluster.revision()]


def test_no_name_is_used_twice() -> None:
    """L7: after a roll and a scale-up, r1-0-0 was there again, with the old engine.json under it."""
    cluster = serving_cluster(2, nodes=1, small=6)
    for env, replicas in (("b", 2), ("c", 1), ("d", 4), ("d", 0), ("e", 3)):
        cluster.change(env=env, replicas=replicas)
        cluster.settle(30)
    assert max(cluster.created.values()) == 1
    assert len(cluster.serving()) == 3


def test_paused_keeps_heals_and_scales_what_there_is() -> None:
    cluster = serving_cluster(2, nodes=1, small=6)
    good = revisions(cluster)[0]
    cluster.change(env="b", paused=True, replicas=3)
    cluster.settle(10)
    kill(cluster, cluster.serving()[0])
    cluster.settle(10)
    assert revisions(cluster) == [good] * 3
    cluster.change(paused=False)
    cluster.settle(20)
    assert revisions(cluster) == [cluster.revision()] * 3


def test_pausing_takes_back_what_was_being_tried_and_failed() -> None:
    """It counted as one of the replicas, and was started again and again."""
    cluster, good = bad_roll(replicas=2)
    cluster.change(env="c", paused=True, replicas=3)
    cluster.settle(20)
    assert revisions(cluster) == [good] * 3
    assert {v.revision for v in cluster.reconcile().decision.replicas} == {good}


def test_a_paused_resource_that_never_ran_makes_nothing() -> None:
    cluster = SimulatedCluster(spec_of(nodes=1, replicas=2, paused=True))
    cluster.settle(5)
    assert cluster.gangs() == ()
    cluster.change(paused=False)
    cluster.settle(5)
    assert len(cluster.serving()) == 2


# --- another version of the operator ---------------------------------------------------------------------------------
def test_an_upgrade_with_another_default_image_restarts_nobody() -> None:
    """L12: every `helm upgrade` may have restarted every 671B engine of the cluster."""
    cluster = serving_cluster(2, nodes=1, small=4)
    before = cluster.serving()
    cluster.settings = replace(SETTINGS, engine_image="engine:2")
    cluster.settle(10)
    assert cluster.serving() == before
    kill(cluster, before[0])
    cluster.settle(10)
    cluster.change(replicas=3)
    cluster.settle(10)
    assert images(cluster) == {"engine:1"}
    cluster.change(env="b")  # a change of the spec takes the new default along
    cluster.settle(40)
    assert images(cluster) == {"engine:2"}


def test_new_defaults_are_adopted_on_somebodys_word_and_in_turn() -> None:
    cluster = serving_cluster(1, nodes=1, small=4)
    cluster.settings = replace(SETTINGS, engine_image="engine:2", adopts=True)
    cluster.settle(5)
    assert cluster.reconcile().revisions.newer is not None
    assert images(cluster) == {"engine:1"}
    cluster.may_adopt = True
    cluster.settle(20)
    assert images(cluster) == {"engine:2"}
    assert cluster.reconcile().revisions.newer is None
    other = serving_cluster(1, nodes=1, small=4)
    other.settings = replace(SETTINGS, engine_image="engine:2")
    other.change(strategy={"minReadySeconds": 0, "restartedAt": "2026-11-27T00:00:00Z"})
    other.settle(20)
    assert images(other) == {"engine:2"}


def test_fields_of_a_newer_version_restart_nobody_when_the_operator_is_rolled_back() -> None:
    """The older one does not know the field, and would have made another revision of the spec without it."""
    cluster = serving_cluster(2, nodes=1, small=4)
    cluster.spec["engine"]["fromTheFuture"] = 1
    newer = {r: replace(t, asked=copy.deepcopy(t.asked)) for r, t in cluster.templates.items()}
    for template in newer.values():
        template.asked["engine"]["fromTheFuture"] = 1  # type: ignore[index]
    cluster.templates = {
        r: replace(t, asked_hash="of the newer one", config={**t.config, "new": 1}) for r, t in newer.items()
    }
    before = cluster.serving()
    cluster.settle(10)
    assert cluster.serving() == before
    assert Reason.UNKNOWN_FIELDS in reasons(cluster.reconcile())
    kill(cluster, before[0])
    cluster.settle(10)
    assert len(cluster.serving()) == 2


def test_a_status_of_which_a_crd_of_before_keeps_less_costs_nobody() -> None:
    """N−1 CRD: the API server drops the fields that it does not know, each time."""
    cluster = serving_cluster(2, nodes=1, small=4)
    record = cluster._record

    def pruned(round_: Any) -> None:
        record(round_)
        lost = {"rollout": None, "attempt_floor": 0}
        cluster.status = cluster.status.model_copy(update=lost)

    cluster._record = pruned  # type: ignore[method-assign]
    cluster.change(env="b")
    cluster.settle(30)
    assert revisions(cluster) == [cluster.revision()] * 2
    cluster.status = R1DeploymentStatus()
    before = cluster.serving()
    cluster.settle(10)
    assert cluster.serving() == before


# --- the canary ------------------------------------------------------------------------------------------------------
CANARY = {"minReadySeconds": 0, "canary": {"seconds": 300, "maxErrorPercent": 10}}


def on_trial(**canary: Any) -> tuple[SimulatedCluster, str]:
    """Two replicas and a canary that serves; → the cluster and the canary's gang."""
    cluster = serving_cluster(2, nodes=1, small=4)
    cluster.change(env="b", strategy={**CANARY, "canary": {**CANARY["canary"], **canary}})  # type: ignore[dict-item]
    cluster.settle(6, 5.0)
    assert len(cluster.serving()) == 3
    assert cluster.status.rollout is not None
    assert cluster.status.rollout.canary == "Running"
    return cluster, next(g.name for g in cluster.gangs() if g.revision == cluster.revision())


def test_a_canary_that_does_well_is_followed() -> None:
    cluster, canary = on_trial()
    cluster.served[canary] = Served(1000, 3, 200.0)
    cluster.settle(40, 15.0)
    assert revisions(cluster) == [cluster.revision()] * 2
    assert cluster.status.rollout is not None
    assert cluster.status.rollout.canary == "Passed"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("errors", "failed 5 of 40 requests; spec.strategy.canary.maxErrorPercent allows 10"),
        ("latency", "took 900 ms to the first byte on average"),
        ("answer", 'answered "5" to "2 + 2?"'),
        ("crash", "RankDied: pod"),
    ],
)
def test_a_canary_that_fails_leaves_nothing_behind(fault: str, words: str) -> None:
    cluster, canary = on_trial(maxFirstTokenMilliseconds=500)
    good = next(r for r in revisions(cluster) if r != cluster.revision())
    if fault == "errors":
        cluster.served[canary] = Served(40, 5)
    elif fault == "latency":
        cluster.served[canary] = Served(40, 0, 900.0)
    elif fault == "answer":
        cluster.answers[canary] = {"2 + 2?": 'answered "5" to "2 + 2?"'}
    else:
        cluster.machines.bad.add("b")
        kill(cluster, canary)
    cluster.settle(20, 15.0)
    assert revisions(cluster) == [good] * 2
    assert {g.revision for g in cluster.gangs()} == {good}
    trouble = next(t for t in cluster.reconcile().troubles if t.reason is Reason.CANARY_ABORTED)
    assert words in trouble.message
    cluster.answers.clear()
    cluster.served.clear()
    cluster.settle(20, 60.0)
    assert revisions(cluster) == [good] * 2, "until the spec changes"
    cluster.change(env="c")
    cluster.settle(60, 15.0)
    assert revisions(cluster) == [cluster.revision()] * 2


def test_few_requests_tell_nothing() -> None:
    cluster, canary = on_trial(maxFirstTokenMilliseconds=500)
    cluster.served[canary] = Served(2, 2, 10_000.0)
    cluster.settle(4, 5.0)
    assert len(cluster.serving()) == 3


def test_a_change_that_does_not_come_is_told_when_its_time_is_over() -> None:
    cluster, _ = bad_roll()
    cluster.change(strategy={"minReadySeconds": 0, "progressDeadlineSeconds": 600})
    cluster.settle(4, 5.0)
    assert Reason.PROGRESS_DEADLINE_EXCEEDED not in reasons(cluster.reconcile())
    cluster.settle(50, 15.0)
    assert Reason.PROGRESS_DEADLINE_EXCEEDED in reasons(cluster.reconcile())


# --- another model ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("nodes", [8, 5, 4])
def test_two_models_never_answer_behind_one_name(nodes: int) -> None:
    cluster = serving_cluster(4, nodes=1, small=nodes)
    model = {"name": "r1-operator/tiny-r1", "weights": {"hostPath": {"path": "/models/fine-tune"}}}
    more = {"maxUnavailable": 2} if nodes < 8 else {}
    cluster.change(model=model, strategy={"minReadySeconds": 0, **more})
    least = 4
    for _ in range(80):
        round_ = cluster.reconcile()
        told = {g.revision for g in cluster.gangs() if g.url in round_.workers}
        assert len(told) <= 1, "never a mix"
        least = min(least, len(round_.workers))
        cluster.advance(10.0)
    assert set(revisions(cluster)) == {cluster.revision()}
    assert len(cluster.serving()) == 4
    assert least >= (4 if nodes == 8 else 2)


def test_a_round_ends_nobody_for_what_was_not_read() -> None:
    cluster = serving_cluster(2, nodes=1, small=4)
    cluster.change(env="b")
    cluster.stale = 500.0
    assert ends(cluster.reconcile()) == set()
    assert all(a.revision for a in cluster.reconcile().decision.actions if isinstance(a, CreateGang))
