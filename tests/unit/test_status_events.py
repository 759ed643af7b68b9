"""Events say what happened, once, in words of their own."""

from __future__ import annotations

from itertools import product

import pytest
from r1_operator.api.status import STAGES
from r1_operator.api.types import R1DeploymentStatus, ReplicaStatus
from r1_operator.lifecycle.actions import Decision, EndPods, PodRef, Why
from r1_operator.lifecycle.gangs import Failure, GangState
from r1_operator.placement.place import Unplaceable
from r1_operator.status.derive import derive
from r1_operator.status.transitions import events

from tests.unit.status_rounds import NOW, gang, observed, view

UP = {"Pending", "Ray", "Weights", "WarmUp", "Ready", "Unready"}
WORDS = {
    "GangCreated": "of revision a",
    "GangRestarting": "restart 1 in a row",
    "GangPlaced": "r1-0-0 on n1, n2",
    "ReplicaReady": "is ready",
    "ReplicaUnready": "was ready and is not",
    "GangFailed": "Cause",
    "ReplicaDraining": "leaves",
    "ReplicaRemoved": "is gone",
}
"""Each kind's own words; no other kind may have them."""


def status_of(*entries: ReplicaStatus) -> R1DeploymentStatus:
    return R1DeploymentStatus(replica_statuses=entries)


def entry(stage: str, name: str = "r1-0-0", **fields: object) -> ReplicaStatus:
    message = {"Failed": "Cause: it broke", "Draining": "leaves; running requests may finish"}.get(stage, "")
    facts = {"nodes": ("n1", "n2"), "revision": "a", "since": "2026-11-25T13:00:00Z", "message": message} | fields
    return ReplicaStatus.model_validate({"name": name, "stage": stage} | facts)


def expected(old: str | None, new: str | None) -> list[str]:
    """What a gang's way from one stage to another is told as."""
    if new is None:
        return [] if old is None else ["ReplicaRemoved"]
    told = ["GangCreated"] if old is None and new != "Draining" else []
    told += ["GangPlaced"] if old in {None, "Gated"} and new in UP else []
    entered = {
        "Ready": "ReplicaReady",
        "Unready": "ReplicaUnready",
        "Failed": "GangFailed",
        "Draining": "ReplicaDraining",
    }
    return told + ([entered[new]] if new in entered and new != old else [])


@pytest.mark.parametrize(("old", "new"), list(product((None, *STAGES), repeat=2)))
def test_every_transition_is_told_by_its_own_kind_in_its_own_words(old: str | None, new: str | None) -> None:
    """Seen: `GangCreated: r1-0-1: leaves; running requests may finish`."""
    before, after = (status_of(*([entry(stage)] if stage else [])) for stage in (old, new))
    told = events(before, after)
    assert [event.reason for event in told] == expected(old, new)
    for event in told:
        assert [kind for kind, words in WORDS.items() if words in event.message and kind != "GangPlaced"] == (
            [event.reason] if event.reason != "GangPlaced" else []
        )


def test_a_restart_names_what_it_replaces_and_a_failed_gang_is_not_removed() -> None:
    after = entry("Gated", "r1-0-1", restarts=1, nodes=())
    (told,) = events(status_of(entry("Failed")), status_of(after))
    assert (told.reason, told.message) == (
        "GangRestarting",
        "r1-0-1 of revision a in place of r1-0-0, restart 1 in a row",
    )
    (told,) = events(status_of(entry("Failed")), status_of())
    assert told.reason == "ReplicaRemoved"


def test_a_drain_says_why() -> None:
    serving = derive(R1DeploymentStatus(), observed(view(GangState.READY)), NOW)
    end = EndPods("r1-0-0", (PodRef("r1-0-0-0", "u"),), None, Why.SCALE_DOWN, "fewer replicas are wanted")
    leaves = observed(desired=0, decision=Decision((end,), (), (gang(),), frozenset(), (), None))
    (told,) = events(serving, derive(serving, leaves, NOW), leaves)
    assert (told.reason, told.message) == (
        "ReplicaDraining",
        "r1-0-0 on n1 leaves; its running requests may finish: fewer replicas are wanted",
    )


def test_a_failure_is_told_whole_though_the_status_has_no_room_for_it() -> None:
    words = "pod r1-0-0-0 on node n1: " + "x" * 900 + " the end"
    one = observed(view(GangState.FAILED, Failure("RankDied", words, NOW)))
    status = derive(R1DeploymentStatus(), one, NOW)
    short = status.replica_statuses[0].message
    assert "next attempt at" in short
    assert len(short) <= 256
    told = next(event for event in events(R1DeploymentStatus(), status, one) if event.reason == "GangFailed")
    assert told.message == f"r1-0-0: RankDied: {words}"


def test_each_event_is_told_once() -> None:
    short = observed(view(GangState.GATED), unplaceable=(Unplaceable("r1-0-0", "needs 1 node"),))
    steps = [
        short,
        short,
        observed(view(GangState.STARTING)),
        observed(view(GangState.READY)),
        observed(view(GangState.READY)),
        observed(view(GangState.UNREADY)),
        observed(view(GangState.READY)),
        observed(view(GangState.FAILED)),
        observed(view(GangState.FAILED, Failure("PeerDied", "…", NOW))),
        observed(view(GangState.FAILED, Failure("RankDied", "the cause, seen a moment later", NOW))),
    ]
    status, told = R1DeploymentStatus(), []
    for step in steps:
        before, status = status, derive(status, step, NOW)
        told.append([str(event.reason) for event in events(before, status, step)])
    assert told == [
        ["GangUnplaceable", "GangCreated"],
        [],
        ["GangPlaced"],
        ["ReplicaReady"],
        [],
        ["ReplicaUnready"],
        ["ReplicaReady"],
        [],  # not before it is known why
        ["GangFailed"],
        ["GangFailed"],
    ]
