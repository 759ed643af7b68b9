"""The judge of the fail-over campaign knows a double write when it sees one."""

from __future__ import annotations

from typing import Any

from tests.campaigns.fencing import double_writes
from tests.cluster.audit import Write

A, B = "test-operator:a", "test-operator:b"


def write(
    at: float,
    user: str,
    verb: str,
    name: str,
    *,
    code: int = 200,
    resource: str = "pods",
    took: float = 0.01,
    **body: Any,
) -> Write:
    return Write(
        at, at + took, user, "", verb, resource, "" if resource == "leases" else "ns", name, "", code, "", body
    )


def lease(at: float, user: str, holder: str) -> Write:
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 15}
    return write(at, user, "update", "r1-operator", resource="leases", spec=spec)


HAND_OVER = [lease(0, A, "a"), lease(5, A, "a"), lease(21, B, "b"), lease(30, B, "")]


def judged(*writes: Write) -> list[tuple[str, float]]:
    in_order = sorted([*HAND_OVER, *writes], key=lambda w: w.answered)
    return [(each.kind, each.write.received) for each in double_writes(in_order, frozenset({A, B}))]


def test_what_each_writes_while_it_leads_is_no_double_write() -> None:
    in_turn = [
        write(1, A, "patch", "p", code=201),
        write(19, A, "patch", "p"),
        write(22, B, "patch", "p"),
        write(22.5, A, "patch", "p", code=403),
        write(23, B, "delete", "p"),
        write(24, B, "patch", "p", code=201),
        write(25, "kubernetes-admin", "delete", "p"),
    ]
    assert judged(*in_turn) == []


def test_a_write_outside_the_lease_is_told() -> None:
    assert judged(write(22, A, "patch", "p")) == [("late", 22)]
    assert judged(write(20.9, A, "patch", "p", took=0.5)) == [("late", 20.9)], "under way when the other took over"
    assert judged(write(20.5, A, "patch", "p")) == [("expired", 20.5)]
    assert judged(write(31, B, "patch", "p")) == [("late", 31)], "after its release nobody leads"
    assert judged(write(1, B, "patch", "p")) == [("late", 1)]


def test_an_object_made_or_deleted_twice_is_told() -> None:
    assert judged(write(1, A, "create", "p", code=201), write(22, B, "create", "p", code=201)) == [("made-twice", 22)]
    assert judged(write(1, A, "delete", "p"), write(22, B, "delete", "p")) == [("deleted-twice", 22)]
    assert judged(write(1, A, "delete", "p"), write(2, A, "create", "p", code=201), write(22, B, "delete", "p")) == []
