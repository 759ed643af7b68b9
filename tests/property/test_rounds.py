"""The one mind under faults: nodes that fit some specs only, readiness that comes and goes, kubelets and agents that
fall silent, loads and statuses that vanish, quotas, dead watches, clocks that are off, crashes half-way.

*Availability*: what serves never falls below what was wanted by the operator's own doing. *Progress*: a change ends, or
says why it cannot. *Never a part of a gang on GPUs for long*. *No flapping*: once all is quiet, nothing is done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from r1_operator.api import names
from r1_operator.api.reasons import Reason
from r1_operator.api.types import R1DeploymentStatus
from r1_operator.lifecycle.actions import CreateGang, EndPods, Why
from r1_operator.placement.nodes import OUT_OF_SERVICE
from r1_operator.rounds.guard import BREAKER_NODES, BREAKER_SHARE
from r1_simulate.cluster import SimulatedCluster, spec_of

LIMIT = 4
FITS_ALL, FITS_BIG, FITS_NONE = "1Gi", "100Gi", "999Gi"


def a_user_deletes_a_pod(self: Rounds, data: st.DataObject) -> None:
    if pods := sorted(self.cluster.machines.pods):
        name = data.draw(st.sampled_from(pods))
        self.hurt.add(self.identity(name.rsplit("-", 1)[0]))
        self.cluster.machines.delete(name, data.draw(st.sampled_from([None, 0])), self.cluster.now)


def pods_vanish(self: Rounds, data: st.DataObject) -> None:
    """Deleted by force, or collected because their node is no more; what stays of a gang may be over in a moment."""
    if gangs := self.cluster.machines.gangs():
        gang = data.draw(st.sampled_from(gangs))
        self.hurt.add(self.identity(gang))
        for pod in self.cluster.machines.of(gang)[:: data.draw(st.sampled_from([1, -1]))][
            : data.draw(st.integers(1, 2))
        ]:
            self.cluster.machines.pods.pop(pod["metadata"]["name"])


def an_engine_dies(self: Rounds, data: st.DataObject) -> None:
    if gangs := self.cluster.machines.gangs():
        gang = data.draw(st.sampled_from(gangs))
        code, sidecar = data.draw(st.sampled_from([0, 70, 78])), data.draw(st.booleans())
        members = range(9) if data.draw(st.booleans()) else [0]
        self.cluster.machines.end(gang, code, self.cluster.now, members, sidecar=sidecar)
        if not self.cluster.machines.serves(gang):  # on a silent node nobody hears of a death, and none happens here
            self.hurt.add(self.identity(gang))


def some_kubelets_fall_silent(self: Rounds, data: st.DataObject) -> None:
    if nodes := sorted(self.cluster.machines.nodes):
        self.cluster.machines.silent |= set(data.draw(st.lists(st.sampled_from(nodes), max_size=3)))


def all_kubelets_fall_silent(self: Rounds, data: st.DataObject) -> None:
    self.cluster.machines.silent |= set(self.cluster.machines.nodes)


def a_machine_goes_off(self: Rounds, data: st.DataObject) -> None:
    if len(self.cluster.machines.off) < 2 and (nodes := sorted(self.cluster.machines.nodes)):
        name = data.draw(st.sampled_from(nodes))
        self.cluster.machines.off.add(name)
        pods = [p for p in self.cluster.machines.pods.values() if p["spec"].get("nodeName") == name]
        self.hurt |= {self.identity(p["metadata"]["labels"][names.LABEL_GANG]) for p in pods}


def a_dead_machine_is_declared(self: Rounds, data: st.DataObject) -> None:
    for name in sorted(self.cluster.machines.off):
        if data.draw(st.booleans()):
            self.cluster.machines.taint_out_of_service(name)
        else:
            self.cluster.machines.off.discard(name)
            self.cluster.machines.nodes.pop(name)


def all_probes_fail(self: Rounds, data: st.DataObject) -> None:
    self.cluster.machines.unready |= set(self.cluster.machines.gangs())


def some_probes_fail(self: Rounds, data: st.DataObject) -> None:
    if gangs := self.cluster.machines.gangs():
        self.cluster.machines.unready.add(data.draw(st.sampled_from(gangs)))


def the_operator_is_cut_off(self: Rounds, data: st.DataObject) -> None:
    self.cluster.mute_all = True


def loads_vanish(self: Rounds, data: st.DataObject) -> None:
    self.cluster.forgotten_loads = True


def the_status_is_lost(self: Rounds, data: st.DataObject) -> None:
    self.cluster.status = R1DeploymentStatus()
    self.cluster.ran.clear()  # nobody knows any more which names there were


def a_quota(self: Rounds, data: st.DataObject) -> None:
    self.cluster.quota = data.draw(st.sampled_from([0, 3, 6]))


def a_node_is_cordoned(self: Rounds, data: st.DataObject) -> None:
    if nodes := sorted(self.cluster.machines.nodes):
        self.cluster.machines.cordon(data.draw(st.sampled_from(nodes)))


def a_revision_turns_out_bad(self: Rounds, data: st.DataObject) -> None:
    """Only what nothing has served as yet: what serves does not turn bad by itself. A revision is bad by its variable,
    so none of another may have it."""
    cluster, value = self.cluster, self.cluster.spec["engine"]["env"][0]["value"]
    asked = cluster.revision()
    served = {g.revision for g in cluster.gangs() if g.name in cluster.serving()}
    alike = {r for r, t in cluster.templates.items() if {"name": "REVISION", "value": value} in _env(t.pod)} - {asked}
    if not alike and asked not in served | {cluster.status.current_revision}:
        cluster.machines.bad.add(value)


def _env(pod: Mapping[str, Any]) -> list[Any]:
    return list(pod["spec"]["containers"][0]["env"])


def watches_stand_still(self: Rounds, data: st.DataObject) -> None:
    self.cluster.stale = data.draw(st.sampled_from([60.0, 500.0]))


def another_clock(self: Rounds, data: st.DataObject) -> None:
    self.cluster.skew = data.draw(st.sampled_from([-3600.0, 3600.0]))


FAULTS: dict[str, Callable[[Rounds, st.DataObject], None]] = {
    fault.__name__: fault
    for fault in (
        a_user_deletes_a_pod,
        pods_vanish,
        an_engine_dies,
        some_kubelets_fall_silent,
        all_kubelets_fall_silent,
        a_machine_goes_off,
        a_dead_machine_is_declared,
        all_probes_fail,
        some_probes_fail,
        the_operator_is_cut_off,
        loads_vanish,
        the_status_is_lost,
        a_quota,
        a_node_is_cordoned,
        a_revision_turns_out_bad,
        watches_stand_still,
        another_clock,
    )
}


class Rounds(RuleBasedStateMachine):
    """What must hold at every moment, and that it ends where it should once faults stop."""

    @initialize(nodes=st.integers(1, 2), replicas=st.integers(0, LIMIT), spare=st.integers(0, 2), big=st.integers(0, 3))
    def start(self, nodes: int, replicas: int, spare: int, big: int) -> None:
        self.cluster = SimulatedCluster(spec_of(nodes=nodes, replicas=replicas), nodes * LIMIT + spare, big)
        self.hurt: set[str] = set()
        """Gangs that something other than the operator has ended or is about to."""

        self.cluster.settle(4, 3.0)

    # --- the operator ------------------------------------------------------------------------------------------------
    @rule(rounds=st.sampled_from([1, 2, 5, 12]), seconds=st.sampled_from([0.5, 3.0, 12.0, 60.0]))
    def the_operator_works(self, rounds: int, seconds: float) -> None:
        for _ in range(rounds):
            self._reconcile()
            self.cluster.advance(seconds)

    @rule(
        max_surge=st.sampled_from([1, 1, 2]),
        max_unavailable=st.sampled_from([None, 0, 1, 2]),
        min_ready=st.sampled_from([0, 30, 300]),
        paused=st.booleans(),
        spares=st.sampled_from([0, 0, 1]),
    )
    def somebody_changes_the_strategy(
        self, max_surge: int, max_unavailable: int | None, min_ready: int, paused: bool, spares: int
    ) -> None:
        said = {"maxSurge": max_surge, "minReadySeconds": min_ready}
        more = {} if max_unavailable is None else {"maxUnavailable": max_unavailable}
        self.cluster.change(strategy=said | more, paused=paused, spareReplicas=spares)

    @rule(rounds=st.sampled_from([5, 12, 20]))
    def it_works_on(self, rounds: int) -> None:
        """Often enough that what people want is mostly there when the next thing happens."""
        self.the_operator_works(rounds, 3.0)

    def _reconcile(self) -> None:
        before = self._serving()
        round_ = self.cluster.reconcile()
        self._availability(before)
        if self.cluster.stale > 120:
            assert not any(isinstance(a, EndPods) for a in round_.decision.actions)
            assert round_.troubles[0].reason is Reason.STALE_WATCH

    def _serving(self) -> list[str]:
        """Gangs that serve, that nothing but the operator has touched, and that anybody but their users can tell apart
        from dead ones."""
        return [g for g in self.cluster.serving() if self.identity(g) not in self.hurt and not self._looks_dead(g)]

    def _looks_dead(self, gang: str) -> bool:
        """Its kubelet and its agent are silent alike, and so few others with it that its machine may well be off."""
        machines = self.cluster.machines
        holding = set(machines.holders())
        # Of a machine that somebody has declared dead, or has taken out, nobody wonders why it is silent.
        declared = {name for name, node in machines.nodes.items() if OUT_OF_SERVICE in str(node["spec"].get("taints"))}
        wondered = holding & (machines.silent | machines.off) & set(machines.nodes) - declared
        few = len(wondered) <= max(BREAKER_NODES, BREAKER_SHARE * len(holding))
        return (
            few
            and self.cluster.mute_all
            and any(p["spec"].get("nodeName") in machines.silent for p in machines.of(gang))
        )

    def identity(self, gang: str) -> str:
        """Names may come again; uids do not."""
        return str(min(p["metadata"]["uid"] for p in self.cluster.machines.of(gang)))

    def _availability(self, before: list[str]) -> None:
        """Ended by the operator: for fewer replicas that somebody wants, for a roll or a move as many as the strategy
        lets go, nothing else. And what is made is made as what has proven itself."""
        cluster = self.cluster
        round_ = cluster.round
        assert round_ is not None
        after = [g for g in self._serving() if g in before]
        rolled = [g for g in cluster.rolled() if g in before]
        wanted = 0 if cluster.hold and not cluster.status.desired_replicas else round_.scaling.total
        if len(after) < len(before):
            assert len(after) >= min(len(before), wanted) - len(rolled), (before, after, wanted, rolled)
        if rolled and len(after) < min(wanted, len(before)):
            assert len(after) >= wanted - round_.wanted.max_unavailable, "no more than the strategy lets go"
            # Drained for one that waits, gated: it must have its nodes as soon as they are free.
            assert cluster.hold or self._successor_fits(rolled)
        self._old_ones_come_back_as_what_they_were()

    def _old_ones_come_back_as_what_they_were(self) -> None:
        round_ = self.cluster.round
        assert round_ is not None
        wanted = round_.wanted
        if wanted.settled or wanted.hold or wanted.stable not in self.cluster.templates:
            return
        trying = {g.replica for g in self.cluster.gangs() if g.revision == wanted.revision}
        for action in round_.decision.actions:
            if isinstance(action, CreateGang) and action.why in {Why.RESTART, Why.SCALE_UP}:
                assert action.revision != wanted.revision or action.replica in trying or self.cluster.quota is not None
        made = {g.replica for g in self.cluster.gangs() if g.revision == wanted.revision and not g.missing}
        assert len(made) <= max(1, len(trying)), "one gang tries it"

    def _successor_fits(self, victims: list[str]) -> bool:
        cluster, memory = self.cluster, self.cluster.spec["engine"]["resources"]["memory"]
        fitting = {"1Gi": ("s", "b", "new"), "100Gi": ("b",), "999Gi": ()}[memory]
        held = Counter(cluster.machines.holders())
        leaving = {g.name for g in cluster.gangs() if any(m.deleting for m in g.members)} | set(victims)
        mine = {p["spec"].get("nodeName") for g in leaving for p in cluster.machines.of(g)}
        live = [n for n in cluster.machines.nodes if n.startswith(fitting) and self._usable(n)] if fitting else []
        free = [n for n in live if held[n] == 0 or (n in mine and held[n] == 1)]
        return len(free) >= int(cluster.spec["topology"]["nodesPerReplica"])

    def _usable(self, name: str) -> bool:
        if self.cluster.machines.nodes[name]["spec"].get("unschedulable"):
            return False
        conditions = self.cluster.machines.nodes[name]["status"]["conditions"]
        tainted = any(t["key"] == OUT_OF_SERVICE for t in self.cluster.machines.nodes[name]["spec"].get("taints", ()))
        return conditions[0]["status"] == "True" and not tainted

    @rule(writes=st.integers(0, 3))
    def operator_crashes_midway(self, writes: int) -> None:
        before = self._serving()
        self.cluster.reconcile(crash_after=writes)
        self._availability(before)

    # --- people ------------------------------------------------------------------------------------------------------
    @rule(
        replicas=st.none() | st.integers(0, LIMIT),
        env=st.none() | st.sampled_from("abc"),
        memory=st.none() | st.sampled_from([FITS_ALL, FITS_ALL, FITS_BIG, FITS_NONE]),
        hold=st.sampled_from([False, False, True]),
        happens=st.lists(st.sampled_from(sorted(FAULTS)), max_size=2),
        data=st.data(),
    )
    def people_want_something(
        self,
        replicas: int | None,
        env: str | None,
        memory: str | None,
        hold: bool,
        happens: list[str],
        data: st.DataObject,
    ) -> None:
        """Another number, another revision, a broken spec; and something goes wrong in the same moment."""
        wishes = {"replicas": replicas, "env": env, "memory": memory}
        self.cluster.change(**{field: value for field, value in wishes.items() if value is not None})
        self.cluster.hold = hold
        self.things_happen(happens, data)

    @rule(happens=st.lists(st.sampled_from(sorted(FAULTS)), min_size=1, max_size=3), data=st.data())
    def things_happen(self, happens: list[str], data: st.DataObject) -> None:
        """Several at once, as in the worlds that no test has ever been in."""
        for name in happens:
            FAULTS[name](self, data)

    @rule()
    def most_is_mended(self) -> None:
        """Kubelets, probes, the way to the engines, quota, watches and clock are well again; what died is dead."""
        machines = self.cluster.machines
        machines.silent.clear()
        machines.unready.clear()
        self.cluster.mute_all = self.cluster.forgotten_loads = self.cluster.hold = False
        self.cluster.quota, self.cluster.stale, self.cluster.skew = None, 0.0, 0.0
        self.cluster.advance(1.0)

    # --- always ------------------------------------------------------------------------------------------------------
    @invariant()
    def no_node_is_held_twice(self) -> None:
        if hasattr(self, "cluster"):
            assert all(count == 1 for count in Counter(self.cluster.machines.holders()).values())

    @invariant()
    def gangs_are_bounded(self) -> None:
        """What is wanted, one extra for a roll, and what a lowered number has not been reconciled away yet."""
        if hasattr(self, "cluster"):
            alive = {g.replica for g in self.cluster.gangs() if not any(m.deleting or m.finished for m in g.members)}
            assert len(alive) <= LIMIT + 5

    def teardown(self) -> None:
        """Faults stop: it settles on exactly what is wanted where that fits, says why where it does not, and rests."""
        if not hasattr(self, "cluster"):
            return
        self._all_is_well_again()
        broken = self.cluster.spec["engine"]["env"][0]["value"] in self.cluster.machines.bad
        serving = self._serving()
        self.cluster.settle(60, 15.0)
        if broken:
            self._a_bad_revision_costs_nobody(serving)
            return
        round_, replicas = self.cluster.reconcile(), self._wanted()
        assert round_.decision.actions == (), "no flapping"
        made = sum(self.cluster.created.values())
        self.cluster.settle(6, 15.0)
        assert sum(self.cluster.created.values()) == made
        if self.cluster.spec["engine"]["resources"]["memory"] == FITS_ALL:
            assert len(self.cluster.serving()) == replicas
            assert {g.revision for g in self.cluster.gangs() if g.name in self.cluster.serving()} <= {round_.revision}
        else:
            # Whoever served goes on serving, unless it became the new revision or too many.
            assert len(self.cluster.serving()) >= min(len(serving), replicas)
            blocked = round_.decision.blocked or self.cluster.verdicts
            old = {g.revision for g in self.cluster.gangs() if g.name in self.cluster.serving()} - {round_.revision}
            assert blocked or not old, "a change that does not come says why"
        self._nothing_half_on_gpus()

    def _a_bad_revision_costs_nobody(self, serving: list[str]) -> None:
        """It is tried again and again; whoever served serves on, but for as many as the strategy lets go."""
        round_ = self.cluster.reconcile()
        least = min(len(serving), self._wanted()) - round_.wanted.max_unavailable
        assert len(self.cluster.serving()) >= least
        self._nothing_half_on_gpus()

    def _wanted(self) -> int:
        replicas = int(self.cluster.spec["replicas"])
        return replicas + int(self.cluster.spec.get("spareReplicas", 0)) if replicas else 0

    def _all_is_well_again(self) -> None:
        cluster, machines = self.cluster, self.cluster.machines
        for name in list(machines.off):  # what is off stays off, and somebody says so
            machines.off.discard(name)
            machines.nodes.pop(name, None)
        machines.nodes = {n: node for n, node in machines.nodes.items() if not node["spec"].get("taints")}
        for name in machines.nodes:
            machines.cordon(name, off=True)
        cluster.change(paused=False)
        for i in range(6):
            cluster.add_node(f"new{i}")
        machines.silent.clear()
        machines.unready.clear()
        machines.mute.clear()
        cluster.mute_all = cluster.forgotten_loads = cluster.hold = False
        cluster.quota, cluster.stale, cluster.skew = None, 0.0, 0.0
        cluster.advance(1.0)

    def _nothing_half_on_gpus(self) -> None:
        for gang in self.cluster.gangs():
            holding = [m for m in gang.members if m.holds]
            assert not holding or len(holding) == gang.size, gang


TestRounds = Rounds.TestCase
TestRounds.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)
