"""Single decisions of the lifecycle, each with the reason why it matters."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from r1_operator.api.reasons import Reason
from r1_operator.lifecycle.actions import CreateGang, EndPods, Why
from r1_operator.lifecycle.decide import SETTLE_SECONDS, next_actions
from r1_operator.lifecycle.gangs import Failure, Gang, GangState, Hang, Heard, Member, Termination
from r1_operator.lifecycle.judging import START_MARGIN_SECONDS, UNREADY_SECONDS, Evidence, judge
from r1_operator.lifecycle.observed import Allowance, Observed, Refusal, Wanted
from r1_operator.lifecycle.records import STABLE_SECONDS, Record

NOW = 1_000_000.0
WANTED = Wanted("r1", 1, "new", 2)
EVERYBODY = frozenset(f"r1-{replica}-{attempt}" for replica in range(6) for attempt in range(3))


@dataclass(frozen=True)
class Room:
    """Placement's answers: how many would fit now, and whose nodes would do."""

    now: int = 0
    instead_of: frozenset[str] = EVERYBODY
    quota: bool = True

    def spare(self) -> int:
        return self.now

    def after(self, gone: Collection[str], count: int) -> bool:
        return bool(set(gone) & self.instead_of)

    def quota_after(self, victim: str) -> bool:
        return self.quota

    def shortage(self) -> str:
        return "needs 2 whole free nodes"


def seen(*gangs: Gang, records: dict[int, Record] | None = None, room: Room | None = None, **fields: Any) -> Observed:
    """What there is; every ready gang is in the rotation unless said otherwise."""
    known = {
        name: fields.pop(name) for name in ("dead_nodes", "heard", "silence", "hangs", "remembers") if name in fields
    }
    evidence = Evidence(600, records=records or {}, **known)
    fields.setdefault("allowance", Allowance(rotation=EVERYBODY))
    return Observed(gangs, evidence, room=room or Room(), **fields)


def failure_of(found: Gang, now: float, **known: Any) -> Failure | None:
    return judge(found, Evidence(600, **known), now).failure


def member(gang: str, index: int, **fields: object) -> Member:
    node = f"{gang}-node-{index}"
    base = Member(
        f"{gang}-{index}", f"uid-{gang}-{index}", index, False, node, node, "10.0.0.1", "Running", True, NOW, NOW
    )
    return replace(base, **fields)  # type: ignore[arg-type]


def gang(replica: int = 0, attempt: int = 0, revision: str = "new", **fields: object) -> Gang:
    name = f"r1-{replica}-{attempt}"
    return Gang(name, replica, attempt, 2, revision, (member(name, 0, **fields), member(name, 1, **fields)))


def gated(replica: int, revision: str = "new") -> Gang:
    return gang(replica, 0, revision, gated=True, node=None, pinned=None, ready=False)


def dead(found: Gang, *codes: int | None, at: float = NOW) -> Gang:
    """The gang with its members ended by these exit codes (None: still running)."""
    members = tuple(
        m
        if code is None
        else replace(m, ready=False, termination=Termination(code, f"Code{code}", "why", at + m.index))
        for m, code in zip(found.members, codes, strict=True)
    )
    return replace(found, members=members)


def ended(decision: object, why: Why) -> set[str]:
    return {a.gang for a in decision.actions if isinstance(a, EndPods) and a.why is why}  # type: ignore[attr-defined]


def created(decision: object) -> list[tuple[int, int, tuple[int, ...]]]:
    return [(a.replica, a.attempt, a.members) for a in decision.actions if isinstance(a, CreateGang)]  # type: ignore[attr-defined]


def test_the_cause_is_blamed_not_what_followed_from_it() -> None:
    consequence_first = dead(gang(), 78, 70)
    earlier = replace(consequence_first.members[1].termination, finished_at=NOW - 5)  # type: ignore[type-var]
    members = (consequence_first.members[0], replace(consequence_first.members[1], termination=earlier))
    failure = failure_of(replace(consequence_first, members=members), NOW)
    assert failure is not None
    assert failure.reason == "Code78"
    assert failure.configuration


def test_a_survivor_that_was_gone_first_is_not_blamed_for_what_it_saw() -> None:
    head, other = dead(gang(), 70, 70).members
    saw = replace(other.termination, reason="NodeLost", finished_at=NOW - 1)  # type: ignore[type-var]
    assert failure_of(replace(gang(), members=(head, replace(other, termination=saw))), NOW).reason == "Code70"  # type: ignore[union-attr]


def test_who_lost_node_0_speaks_against_the_machine_of_node_0() -> None:
    """A power cut: the survivor tells, and its own machine was avoided for an hour."""
    head, other = dead(gang(), None, 70).members
    saw = replace(other.termination, reason="NodeLost", node=other.node)  # type: ignore[type-var]
    failure = failure_of(replace(gang(), members=(head, replace(other, termination=saw))), NOW)
    assert failure is not None
    assert failure.node == head.node != other.node


def test_survivors_may_speak_before_they_are_deleted() -> None:
    found = dead(gang(), None, 70)
    first = next_actions(WANTED, seen(found), NOW)
    assert ended(first, Why.FAILED) == set()
    record = {0: Record(0, 0, 0, "Failed", NOW)}
    later = next_actions(WANTED, seen(found, records=record), NOW + SETTLE_SECONDS)
    assert ended(later, Why.FAILED) == {"r1-0-0"}


def test_nothing_is_blamed_before_the_pods_have_spoken() -> None:
    """A peer's "node 0 is gone" (70, tried again in 1 s) often arrives before its cause (78, tried again in 60 s)."""
    record = {0: Record(0, 0, 0, "Failed", NOW)}

    def look(*codes: int | None, after: float) -> tuple[str | None, float | None, bool]:
        decision = next_actions(WANTED, seen(dead(gang(), *codes), records=record), NOW + after)
        view = decision.replicas[0]
        assert decision.serving == frozenset(), "the rotation does not wait"
        return (view.failure.reason if view.failure else None), view.retry_at, decision.look_again_in is not None

    assert look(None, 70, after=1) == (None, None, True)
    assert look(78, 70, after=1) == ("Code78", NOW + 60, True)
    assert look(None, 70, after=SETTLE_SECONDS) == ("Code70", NOW + 1, True)


def test_a_failure_is_written_down_before_it_is_acted_upon() -> None:
    found = dead(gang(), 70, 70)
    assert created(next_actions(WANTED, seen(found), NOW + 100)) == []
    record = {0: Record(0, 0, 0, "Failed", NOW)}
    assert created(next_actions(WANTED, seen(found, records=record), NOW + 100)) == [(0, 1, (0, 1))]


def test_back_off_grows_with_restarts_and_starts_high_for_configuration_errors() -> None:
    def waits(restarts: int, code: int) -> float:
        record = {0: Record(0, 0, restarts, "Failed", NOW)}
        view = next_actions(WANTED, seen(dead(gang(), code, code), records=record), NOW).replicas[0]
        assert view.retry_at is not None
        return view.retry_at - NOW

    assert [waits(n, 70) for n in (0, 1, 2, 3, 20)] == [1, 10, 20, 40, 300]
    assert [waits(n, 78) for n in (0, 1, 20)] == [60, 120, 300]


def test_a_replica_that_was_stable_counts_its_restarts_anew() -> None:
    ran = {0: Record(0, 0, 5, "Ready", NOW - STABLE_SECONDS)}
    assert next_actions(WANTED, seen(dead(gang(), 70, 70), records=ran), NOW).replicas[0].restarts == 0
    flapped = {0: Record(0, 0, 5, "Ready", NOW - 30)}
    assert next_actions(WANTED, seen(dead(gang(), 70, 70), records=flapped), NOW).replicas[0].restarts == 5


def test_back_off_survives_the_loss_of_all_pods() -> None:
    record = {0: Record(0, 3, 4, "Failed", NOW)}
    assert created(next_actions(WANTED, seen(records=record), NOW + 60)) == []
    assert created(next_actions(WANTED, seen(records=record), NOW + 81)) == [(0, 4, (0, 1))]


def test_interrupted_creation_is_completed_under_the_same_name() -> None:
    half = gated(0)
    half = replace(half, members=half.members[:1])
    assert created(next_actions(WANTED, seen(half), NOW)) == [(0, 0, (1,))]


def test_a_gang_on_a_lost_node_is_forced_out_there_only() -> None:
    found = gang()
    lost = {"r1-0-0-node-1": "the Node object is gone"}
    actions = next_actions(WANTED, seen(found, dead_nodes=lost), NOW).actions
    assert [(a.pods[0].name, a.grace_seconds) for a in actions if isinstance(a, EndPods)] == [
        ("r1-0-0-1", 0),
        ("r1-0-0-0", 15),
    ]


def test_an_evicted_member_takes_its_gang_along_and_is_replaced_at_once() -> None:
    found = gang()
    members = (found.members[0], replace(found.members[1], delete_deadline=NOW + 300))
    decision = next_actions(WANTED, seen(replace(found, members=members)), NOW)
    assert ended(decision, Why.LEAVING) == {"r1-0-0"}
    assert created(decision) == [(0, 1, (0, 1))]
    assert decision.serving == frozenset()


def test_scale_down_takes_what_serves_least() -> None:
    waiting, starting = gated(0), gang(1, ready=False)
    busy, calm, newest = gang(2), gang(3), gang(4)
    all_ = seen(waiting, starting, busy, calm, newest, loads={"r1-2-0": 9, "r1-3-0": 1, "r1-4-0": 1})
    order = []
    for replicas in range(4, -1, -1):
        decision = next_actions(replace(WANTED, replicas=replicas), all_, NOW)
        order.append(ended(decision, Why.SCALE_DOWN) - {g for gone in order for g in gone})
    assert order == [{"r1-0-0"}, {"r1-1-0"}, {"r1-4-0"}, {"r1-3-0"}, {"r1-2-0"}]


def test_a_roll_adds_one_first_and_retires_one_when_that_is_in_the_rotation() -> None:
    old = (gang(0, 0, "old"), gang(1, 0, "old"))
    wanted = replace(WANTED, replicas=2)
    surge = next_actions(wanted, seen(*old, room=Room(1)), NOW)
    assert created(surge) == [(2, 0, (0, 1))]
    assert ended(surge, Why.UPDATE) == set()
    assert next_actions(wanted, seen(*old, gang(2, ready=False)), NOW).actions == ()
    unrouted = Allowance(rotation=frozenset({"r1-0-0", "r1-1-0"}))
    assert next_actions(wanted, seen(*old, gang(2), allowance=unrouted), NOW).actions == ()
    assert next_actions(wanted, seen(*old, gang(2), allowance=Allowance(rotation=None)), NOW).actions == ()
    done = next_actions(wanted, seen(*old, gang(2)), NOW)
    assert len(ended(done, Why.UPDATE)) == 1
    assert len(done.serving) == 2


def test_without_free_nodes_a_roll_drains_one_whose_nodes_its_successor_would_get() -> None:
    """L1, L2: the successor is there first, gated; it proves that the API server takes it, and costs nobody a node."""
    old = (gang(0, 0, "old"), gang(1, 0, "old"))
    wanted = replace(WANTED, replicas=2)
    assert created(next_actions(wanted, seen(*old), NOW)) == [(2, 0, (0, 1))]
    waiting = gated(2)
    fits = next_actions(wanted, seen(*old, waiting, room=Room(0, frozenset({"r1-1-0"}))), NOW)
    assert ended(fits, Why.UPDATE) == {"r1-1-0"}
    nowhere = next_actions(wanted, seen(*old, waiting, room=Room(0, frozenset())), NOW + 86400)
    assert nowhere.actions == ()
    assert nowhere.blocked is not None
    assert nowhere.blocked.reason is Reason.NO_NODE_FOR_NEW_REVISION
    assert "needs 2 whole free nodes" in nowhere.blocked.message
    leaving = replace(old[0], members=tuple(replace(m, delete_deadline=NOW) for m in old[0].members))
    assert ended(next_actions(wanted, seen(leaving, old[1], waiting), NOW), Why.UPDATE) == set()


def test_a_blink_during_a_roll_replaces_nobody() -> None:
    """L3: four old gangs whose probes were late once were drained together."""
    blinking = [gang(i, 0, "old", ready=False, changed_at=NOW - 1) for i in range(4)]
    records = {i: Record(i, 0, 0, "Ready", NOW - 9999) for i in range(4)}
    wanted = replace(WANTED, replicas=4)
    decision = next_actions(wanted, seen(*blinking, records=records, room=Room(1)), NOW)
    assert not [a for a in decision.actions if isinstance(a, EndPods)]
    assert {v.state for v in decision.replicas} == {GangState.UNREADY}
    # With one that blinks, no other is taken away either: it counts as missing.
    three = [gang(i, 0, "old") for i in range(3)]
    assert ended(next_actions(wanted, seen(*three, blinking[3], gang(4), records=records), NOW), Why.UPDATE) == set()


def test_an_agent_that_answers_outweighs_the_kubelets_probe() -> None:
    silent = gang(ready=False)
    records = {0: Record(0, 0, 0, "Ready", NOW - 9999)}
    evidence = Evidence(600, records=records, heard={"r1-0-0": Heard("Ready", "")})
    assert judge(silent, evidence, NOW).state is GangState.READY
    starting = replace(evidence, records={0: Record(0, 0, 0, "Weights", NOW - 99)})
    assert judge(silent, starting, NOW).state is GangState.STARTING


def test_what_was_ready_and_stays_silent_is_given_up_after_minutes_not_after_an_hour() -> None:
    """L18. Its clock is that of the status; a flap of Ready does not make it the clock of a start."""
    found, record = gang(ready=False), {0: Record(0, 0, 0, "Unready", NOW)}
    soon = {"records": record, "silence": {"r1-0-0": 1e6}}
    assert failure_of(found, NOW + UNREADY_SECONDS - 1, **soon) is None
    late = failure_of(found, NOW + UNREADY_SECONDS, **soon)
    assert late is not None
    assert late.reason == "StoppedAnswering"
    assert failure_of(found, NOW + 1e5, records=record, silence={"r1-0-0": 2.0}) is None, "its agent answers"


def test_a_load_that_is_not_known_is_not_none() -> None:
    """L6: the replica whose load could not be read, with 256 requests running, was the one that was drained."""
    gangs = [gang(i) for i in range(3)]
    known = {"r1-1-0": 3, "r1-2-0": 4}
    decision = next_actions(replace(WANTED, replicas=2), seen(*gangs, loads=known), NOW)
    assert ended(decision, Why.SCALE_DOWN) == {"r1-1-0"}


def test_the_last_one_in_the_rotation_waits_for_another() -> None:
    allowance = Allowance(rotation=frozenset({"r1-0-0"}))
    gangs, wanted = (gang(0), gang(1)), WANTED
    assert ended(next_actions(wanted, seen(*gangs, allowance=allowance), NOW), Why.SCALE_DOWN) == {"r1-1-0"}
    nobody = Allowance(rotation=frozenset())
    assert ended(next_actions(wanted, seen(*gangs, allowance=nobody), NOW), Why.SCALE_DOWN) == set()
    assert (
        len(ended(next_actions(replace(wanted, replicas=0), seen(*gangs, allowance=nobody), NOW), Why.SCALE_DOWN)) == 2
    )


def test_a_container_that_cannot_be_made_lets_its_nodes_go_within_minutes() -> None:
    """L16: an image that does not exist held two nodes for 65 minutes."""
    found = gang(ready=False, phase="Pending")
    hang = {"uid-r1-0-0-1": Hang("ImagePullBackOff", "ImagePullBackOff: no such image", NOW)}
    assert failure_of(found, NOW + 119, hangs=hang) is None
    failure = failure_of(found, NOW + 120, hangs=hang)
    assert failure is not None
    assert (failure.reason, failure.configuration) == ("ImagePullBackOff", True)
    assert "node r1-0-0-node-1" in failure.message
    assert "check spec.engine.image" in failure.message


def test_a_start_that_stands_still_ends_even_if_its_agent_does_not_end_it() -> None:
    found = gang(ready=False, running_since=NOW)
    limits = Evidence(14400, stall_seconds=900, silence={"r1-0-0": 1300.0})
    assert judge(found, limits, NOW + 900 + START_MARGIN_SECONDS).failure is None
    failure = judge(found, limits, NOW + 901 + START_MARGIN_SECONDS).failure
    assert failure is not None
    assert failure.reason == "StartStalled"
    moving = replace(
        limits, heard={"r1-0-0": Heard("Weights", "12 of 163 shards", NOW + 5000)}, silence={"r1-0-0": 0.1}
    )
    assert judge(found, moving, NOW + 5060).failure is None


def test_a_sidecar_hides_no_death_and_keeps_no_gpus() -> None:
    """N-05: the pod's phase stays Running as long as anybody's container runs."""
    found = dead(gang(phase="Running"), 70, 70)
    decision = next_actions(WANTED, seen(found, records={0: Record(0, 0, 0, "Failed", NOW)}), NOW + 30)
    assert {p.name for a in decision.actions if isinstance(a, EndPods) for p in a.pods} == {"r1-0-0-0", "r1-0-0-1"}
    over = replace(found, members=tuple(replace(m, phase="Failed") for m in found.members))
    kept = next_actions(WANTED, seen(over, records={0: Record(0, 0, 0, "Failed", NOW)}), NOW + 30)
    assert ended(kept, Why.FAILED) == set()


def test_a_gang_of_which_a_part_is_refused_is_taken_back_whole_and_tried_again_later() -> None:
    """C2: two half gangs held a whole quota for ever."""
    half = replace(gated(0), members=gated(0).members[:1])
    refusal = Refusal("exceeded quota: requests.nvidia.com/gpu", NOW + 30, quota=True)
    refused = next_actions(WANTED, seen(half, refusal=refusal), NOW)
    assert ended(refused, Why.TAKEN_BACK) == {"r1-0-0"}
    assert created(refused) == []
    assert refused.look_again_in == 30
    assert created(next_actions(WANTED, seen(refusal=refusal), NOW + 30)) == [(0, 0, (0, 1))]


def test_a_quota_that_refuses_the_extra_gang_lets_a_roll_drain_first() -> None:
    refusal = Refusal("exceeded quota", NOW + 30, quota=True)
    old, wanted = (gang(0, 0, "old"), gang(1, 0, "old")), replace(WANTED, replicas=2)
    assert len(ended(next_actions(wanted, seen(*old, refusal=refusal), NOW), Why.UPDATE)) == 1
    more = seen(*old, refusal=refusal, room=Room(quota=False))
    assert ended(next_actions(wanted, more, NOW), Why.UPDATE) == set(), "it asks for more than the old one gives back"
    policy = seen(*old, refusal=replace(refusal, quota=False))
    assert ended(next_actions(wanted, policy, NOW), Why.UPDATE) == set(), "no drain makes a policy agree"


def test_nothing_is_ended_on_old_news() -> None:
    blind = Allowance(nothing="the API server has said nothing about pods for 500 s", rotation=EVERYBODY)
    found = dead(gang(0), 70, 70)
    gangs = (found, gang(1, 0, "old"), gang(2))
    records = {0: Record(0, 0, 0, "Failed", NOW - 100)}
    decision = next_actions(replace(WANTED, replicas=1), seen(*gangs, records=records, allowance=blind), NOW)
    assert not [a for a in decision.actions if isinstance(a, EndPods)]


def test_with_a_broken_spec_what_fails_comes_back_as_what_it_was() -> None:
    """L10: a field that the running operator does not know suspended all self-healing."""
    held = replace(WANTED, revision="", hold=True)
    records = {0: Record(0, 0, 0, "Failed", NOW)}
    found = dead(gang(0, 0, "old"), 70, 70)
    again = next_actions(held, seen(found, records=records, templates={"old": 2}), NOW + 30)
    assert [(a.replica, a.attempt, a.revision) for a in again.actions if isinstance(a, CreateGang)] == [(0, 1, "old")]
    assert created(next_actions(held, seen(found, records=records), NOW + 30)) == []


def test_an_invalid_spec_leaves_what_serves_alone() -> None:
    held = replace(WANTED, replicas=2, revision="", hold=True)
    assert next_actions(held, seen(gang(0, 0, "old")), NOW).actions == ()


def test_a_gang_that_no_longer_fits_its_nodes_fails_so_that_it_is_placed_anew() -> None:
    found = gang(ready=False, node=None, unschedulable="0/2 nodes are available", changed_at=NOW - 31)
    assert judge(found, Evidence(600), NOW - 10).state is GangState.STARTING
    failure = failure_of(found, NOW)
    assert failure is not None
    assert failure.reason == "NodeTaken"
