"""Single decisions of the lifecycle, each with the reason why it matters."""

from __future__ import annotations

from dataclasses import replace

from r1_operator.lifecycle.actions import CreateGang, EndPods, Why
from r1_operator.lifecycle.decide import SETTLE_SECONDS, Observed, Wanted, next_actions
from r1_operator.lifecycle.gangs import Gang, GangState, Member, Termination, failure_of, state_of
from r1_operator.lifecycle.pods import gangs_of
from r1_operator.lifecycle.records import STABLE_SECONDS, Record

NOW = 1_000_000.0
WANTED = Wanted("r1", 1, "new", 2, 600)


def member(gang: str, index: int, **fields: object) -> Member:
    node = f"{gang}-node-{index}"
    base = Member(
        f"{gang}-{index}", f"uid-{gang}-{index}", index, False, node, node, "10.0.0.1", "Running", True, NOW, 0
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
    failure = failure_of(replace(consequence_first, members=members), {}, 600, NOW)
    assert failure is not None
    assert failure.reason == "Code78"
    assert failure.configuration


def test_survivors_may_speak_before_they_are_deleted() -> None:
    found = dead(gang(), None, 70)
    first = next_actions(WANTED, Observed((found,)), NOW)
    assert ended(first, Why.FAILED) == set()
    record = {0: Record(0, 0, 0, "Failed", NOW)}
    later = next_actions(WANTED, Observed((found,), record), NOW + SETTLE_SECONDS)
    assert ended(later, Why.FAILED) == {"r1-0-0"}


def test_nothing_is_blamed_before_the_pods_have_spoken() -> None:
    """A peer's "node 0 is gone" (70, tried again in 1 s) often arrives before its cause (78, tried again in 60 s)."""
    record = {0: Record(0, 0, 0, "Failed", NOW)}

    def look(*codes: int | None, after: float) -> tuple[str | None, float | None, bool]:
        decision = next_actions(WANTED, Observed((dead(gang(), *codes),), record), NOW + after)
        view = decision.replicas[0]
        assert decision.serving == frozenset(), "the rotation does not wait"
        return (view.failure.reason if view.failure else None), view.retry_at, decision.look_again_in is not None

    assert look(None, 70, after=1) == (None, None, True)
    assert look(78, 70, after=1) == ("Code78", NOW + 60, True)
    assert look(None, 70, after=SETTLE_SECONDS) == ("Code70", NOW + 1, True)


def test_a_failure_is_written_down_before_it_is_acted_upon() -> None:
    found = dead(gang(), 70, 70)
    assert created(next_actions(WANTED, Observed((found,)), NOW + 100)) == []
    record = {0: Record(0, 0, 0, "Failed", NOW)}
    assert created(next_actions(WANTED, Observed((found,), record), NOW + 100)) == [(0, 1, (0, 1))]


def test_back_off_grows_with_restarts_and_starts_high_for_configuration_errors() -> None:
    def waits(restarts: int, code: int) -> float:
        record = {0: Record(0, 0, restarts, "Failed", NOW)}
        view = next_actions(WANTED, Observed((dead(gang(), code, code),), record), NOW).replicas[0]
        assert view.retry_at is not None
        return view.retry_at - NOW

    assert [waits(n, 70) for n in (0, 1, 2, 3, 20)] == [1, 10, 20, 40, 300]
    assert [waits(n, 78) for n in (0, 1, 20)] == [60, 120, 300]


def test_a_replica_that_was_stable_counts_its_restarts_anew() -> None:
    ran = {0: Record(0, 0, 5, "Ready", NOW - STABLE_SECONDS)}
    assert next_actions(WANTED, Observed((dead(gang(), 70, 70),), ran), NOW).replicas[0].restarts == 0
    flapped = {0: Record(0, 0, 5, "Ready", NOW - 30)}
    assert next_actions(WANTED, Observed((dead(gang(), 70, 70),), flapped), NOW).replicas[0].restarts == 5


def test_back_off_survives_the_loss_of_all_pods() -> None:
    record = {0: Record(0, 3, 4, "Failed", NOW)}
    assert created(next_actions(WANTED, Observed((), record), NOW + 60)) == []
    assert created(next_actions(WANTED, Observed((), record), NOW + 81)) == [(0, 4, (0, 1))]


def test_interrupted_creation_is_completed_under_the_same_name() -> None:
    half = gated(0)
    half = replace(half, members=half.members[:1])
    assert created(next_actions(WANTED, Observed((half,)), NOW)) == [(0, 0, (1,))]


def test_a_gang_on_a_lost_node_is_forced_out_there_only() -> None:
    found = gang()
    lost = {"r1-0-0-node-1": "the Node object is gone"}
    actions = next_actions(WANTED, Observed((found,), dead_nodes=lost), NOW).actions
    assert [(a.pods[0].name, a.grace_seconds) for a in actions if isinstance(a, EndPods)] == [
        ("r1-0-0-1", 0),
        ("r1-0-0-0", 15),
    ]


def test_an_evicted_member_takes_its_gang_along_and_is_replaced_at_once() -> None:
    found = gang()
    members = (found.members[0], replace(found.members[1], delete_deadline=NOW + 300))
    decision = next_actions(WANTED, Observed((replace(found, members=members),)), NOW)
    assert ended(decision, Why.LEAVING) == {"r1-0-0"}
    assert created(decision) == [(0, 1, (0, 1))]
    assert decision.serving == frozenset()


def test_scale_down_takes_what_serves_least() -> None:
    waiting, starting = gated(0), gang(1, ready=False)
    busy, calm, newest = gang(2), gang(3), gang(4)
    seen = Observed((waiting, starting, busy, calm, newest), loads={"r1-2-0": 9, "r1-3-0": 1, "r1-4-0": 1})
    order = []
    for replicas in range(4, -1, -1):
        decision = next_actions(replace(WANTED, replicas=replicas), seen, NOW)
        order.append(ended(decision, Why.SCALE_DOWN) - {g for gone in order for g in gone})
    assert order == [{"r1-0-0"}, {"r1-1-0"}, {"r1-4-0"}, {"r1-3-0"}, {"r1-2-0"}]


def test_a_roll_adds_one_first_where_nodes_are_free() -> None:
    old = (gang(0, 0, "old"), gang(1, 0, "old"))
    wanted = replace(WANTED, replicas=2)
    surge = next_actions(wanted, Observed(old, room=1), NOW)
    assert created(surge) == [(2, 0, (0, 1))]
    assert ended(surge, Why.UPDATE) == set()
    starting = next_actions(wanted, Observed((*old, gang(2, ready=False)), room=0), NOW)
    assert starting.actions == ()
    done = next_actions(wanted, Observed((*old, gang(2)), room=0), NOW)
    assert ended(done, Why.UPDATE) == {"r1-0-0"}
    assert done.serving == {"r1-1-0", "r1-2-0"}


def test_a_roll_without_free_nodes_takes_one_away_and_waits() -> None:
    old = (gang(0, 0, "old"), gang(1, 0, "old"))
    wanted = replace(WANTED, replicas=2)
    first = next_actions(wanted, Observed(old, room=0), NOW)
    assert ended(first, Why.UPDATE) == {"r1-0-0"}
    assert created(first) == [(0, 1, (0, 1))]
    leaving = replace(old[0], members=tuple(replace(m, delete_deadline=NOW) for m in old[0].members))
    meanwhile = next_actions(wanted, Observed((leaving, old[1], replace(gated(0), attempt=1)), room=0), NOW)
    assert ended(meanwhile, Why.UPDATE) == set()


def test_an_invalid_spec_leaves_what_serves_alone() -> None:
    held = replace(WANTED, replicas=2, revision="", hold=True)
    assert next_actions(held, Observed((gang(0, 0, "old"),)), NOW).actions == ()


def test_a_gang_that_no_longer_fits_its_nodes_fails_so_that_it_is_placed_anew() -> None:
    found = gang(ready=False, node=None, unschedulable="0/2 nodes are available", changed_at=NOW - 31)
    assert state_of(found, {}, 600, NOW - 10) is GangState.STARTING
    failure = failure_of(found, {}, 600, NOW)
    assert failure is not None
    assert failure.reason == "NodeTaken"


def test_last_words_are_read_from_the_termination_log() -> None:
    words = '{"reason": "TokenizerNotFound", "message": "no tokenizer.json; copy it", "node": "n7"}'
    pod = {
        "metadata": {
            "name": "r1-0-0-0",
            "uid": "u",
            "creationTimestamp": "2026-11-25T13:00:00Z",
            "labels": {
                "app.kubernetes.io/component": "engine",
                "r1operator.dev/gang": "r1-0-0",
                "r1operator.dev/node-index": "0",
                "r1operator.dev/nodes": "1",
            },
        },
        "spec": {"nodeName": "n7"},
        "status": {
            "phase": "Failed",
            "containerStatuses": [
                {
                    "name": "engine",
                    "state": {"terminated": {"exitCode": 78, "message": words, "finishedAt": "2026-11-25T13:01:00Z"}},
                }
            ],
        },
    }
    failure = failure_of(gangs_of([pod])[0], {}, 600, NOW)
    assert failure is not None
    assert failure.reason == "TokenizerNotFound"
    assert failure.message == "pod r1-0-0-0 on node n7: no tokenizer.json; copy it (node n7)"
