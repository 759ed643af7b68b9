"""The lifecycle under random faults, scaling, rolls and crashes of the operator."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from r1_operator.lifecycle.actions import EndPods, Why
from r1_operator.lifecycle.decide import SETTLE_SECONDS, Wanted
from r1_operator.lifecycle.gangs import GangState

from tests.property.simulated_cluster import SimulatedCluster

LIMIT = 4


class Lifecycle(RuleBasedStateMachine):
    """What must hold at every moment, and that it ends where it should once faults stop."""

    @initialize(size=st.integers(1, 3), replicas=st.integers(0, LIMIT), spare=st.integers(0, 3))
    def start(self, size: int, replicas: int, spare: int) -> None:
        wanted = Wanted("r1", replicas, "a", size, 3600)
        self.cluster = SimulatedCluster({f"n{i}" for i in range(size * LIMIT + spare)}, wanted)

    @rule()
    def reconcile(self) -> None:
        ready = len(self.cluster.ready())
        decision = self.cluster.reconcile()
        self._nothing_of_a_failed_gang_runs_on()
        self._no_more_than_wanted()
        rolled = {a.gang for a in decision.actions if isinstance(a, EndPods) and a.why is Why.UPDATE}
        assert len(rolled) <= 1
        if rolled:
            assert ready - 1 >= min(self.cluster.wanted.replicas, LIMIT) - 1

    def _nothing_of_a_failed_gang_runs_on(self) -> None:
        records = self.cluster.records()
        for gang in self.cluster.gangs():
            record = records.get(gang.replica)
            if record is None or self.cluster.now - record.since < SETTLE_SECONDS:
                continue  # its members may still say why they end
            if self.cluster.state_of(gang) is GangState.FAILED:
                assert all(m.finished or m.deleting for m in gang.members), gang

    def _no_more_than_wanted(self) -> None:
        wanted = self.cluster.wanted
        staying = [g for g in self.cluster.gangs() if self.cluster.state_of(g) not in _ON_THE_WAY_OUT]
        rolls = any(g.revision != wanted.revision for g in staying) and not wanted.hold
        assert len(staying) <= wanted.replicas + rolls

    @rule(writes=st.integers(0, 5))
    def operator_crashes_midway(self, writes: int) -> None:
        self.cluster.reconcile(crash_after=writes)

    @rule(seconds=st.sampled_from([1.0, 5.0, 20.0, 100.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.cluster.advance(seconds)

    @rule(replicas=st.integers(0, LIMIT))
    def scale(self, replicas: int) -> None:
        self.cluster.wanted = replace(self.cluster.wanted, replicas=replicas)

    @rule(revision=st.sampled_from("abc"))
    def change_spec(self, revision: str) -> None:
        self.cluster.wanted = replace(self.cluster.wanted, revision=revision)

    @rule(hold=st.booleans())
    def break_or_mend_spec(self, hold: bool) -> None:
        self.cluster.wanted = replace(self.cluster.wanted, hold=hold)

    @precondition(lambda self: self.cluster.pods)
    @rule(data=st.data(), code=st.sampled_from([0, 70, 71, 72, 78]), peers_follow=st.booleans())
    def a_member_dies(self, data: st.DataObject, code: int, peers_follow: bool) -> None:
        self.cluster.kill(data.draw(st.sampled_from(sorted(self.cluster.pods))), code, peers_follow=peers_follow)

    @precondition(lambda self: self.cluster.pods)
    @rule(data=st.data(), grace=st.sampled_from([None, 0]))
    def a_user_deletes_a_pod(self, data: st.DataObject, grace: float | None) -> None:
        self.cluster.remove(data.draw(st.sampled_from(sorted(self.cluster.pods))), grace)

    @precondition(lambda self: len(self.cluster.dead) < 2)
    @rule(data=st.data())
    def a_node_is_lost(self, data: st.DataObject) -> None:
        self.cluster.lose_node(data.draw(st.sampled_from(sorted(self.cluster.nodes))))

    @rule()
    def nodes_return(self) -> None:
        self.cluster.dead.clear()

    @invariant()
    def one_attempt_of_a_replica_holds_nodes(self) -> None:
        if not hasattr(self, "cluster"):
            return
        holding = Counter(
            g.replica
            for g in self.cluster.gangs()
            if any(m.holds for m in g.members)
            and self.cluster.state_of(g) is not GangState.FAILED
            and not any(m.deleting for m in g.members)
        )
        assert all(count == 1 for count in holding.values()), holding

    @invariant()
    def no_node_is_held_twice(self) -> None:
        if hasattr(self, "cluster"):
            held = Counter(m.holds for _, m in self.cluster.pods.values() if m.holds)
            assert all(count == 1 for count in held.values()), held

    @invariant()
    def gangs_are_bounded(self) -> None:
        if hasattr(self, "cluster"):
            staying = [g for g in self.cluster.gangs() if self.cluster.state_of(g) not in _ON_THE_WAY_OUT]
            # What is wanted, one extra for a roll, and what a lowered count has not been reconciled away yet.
            assert len(staying) <= LIMIT + 1

    def teardown(self) -> None:
        """Faults stop: it must settle on exactly the wanted replicas, all ready, and then do nothing more."""
        if not hasattr(self, "cluster"):
            return
        cluster = self.cluster
        cluster.nodes |= {f"new{i}" for i in range(6)}  # what is lost stays lost
        cluster.wanted = replace(cluster.wanted, hold=False)
        for _ in range(80):
            cluster.reconcile()
            cluster.advance(40.0)
        ready = cluster.ready()
        assert len(ready) == cluster.wanted.replicas
        assert {g.revision for g in ready} <= {cluster.wanted.revision}
        assert all(m.node not in cluster.dead for _, m in cluster.pods.values())
        assert cluster.reconcile().actions == ()


_ON_THE_WAY_OUT = {GangState.FAILED, GangState.LEAVING}

TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
