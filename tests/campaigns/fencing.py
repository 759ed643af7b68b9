"""Who wrote while somebody else led: judged from the audit log of the API server, by its clock alone. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from r1_operator.api.names import LEASE_NAME

from tests.cluster.audit import Write

_FOREVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class DoubleWrite:
    """A write that must not be: `kind` is late, expired, made-twice or deleted-twice."""

    kind: str
    write: Write
    told: str


@dataclass(frozen=True, slots=True)
class Hold:
    """The lease is the user's from `since` until `until`; without a further renewal it ends at `expires`."""

    user: str
    since: float
    until: float
    expires: float


def holds(writes: Iterable[Write]) -> list[Hold]:
    """Every stretch of time in which the lease was somebody's, a renewal beginning another one.

    It is the next one's from the moment its take-over reached the API server, and nobody's once it is released.
    """
    found: list[Hold] = []
    leases = [w for w in writes if w.resource == "leases" and w.name == LEASE_NAME and w.accepted]
    for write, after in zip(leases, [*leases[1:], None], strict=True):
        spec = write.body.get("spec") or {}
        if spec.get("holderIdentity"):
            until = _FOREVER if after is None else after.received
            found.append(Hold(write.user, write.received, until, write.answered + float(spec["leaseDurationSeconds"])))
    return found


def double_writes(writes: Sequence[Write], operators: frozenset[str]) -> list[DoubleWrite]:
    """What the operators (their users) wrote and must not have.

    Only accepted writes count, and the lease is not among them. Such a write is
    late: for some of the time between its arrival and its answer the lease was another operator's, or nobody's;
    expired: it was answered when the writer's last renewal was older than the lease's duration (another operator that
        had been there would have been leading);
    made-twice: it made an object that an operator had made and nobody had deleted, finalized or collected since;
    deleted-twice: it deleted a pod in a life in which the other operator had deleted it.
    """
    held = holds(writes)
    own = [w for w in writes if w.user in operators and w.accepted and w.resource != "leases"]
    return [*_unfenced(own, held), *_made_twice(writes, operators), *_deleted_twice(writes, operators)]


def _unfenced(own: Iterable[Write], held: Sequence[Hold]) -> Iterable[DoubleWrite]:
    for write in own:
        mine = [hold for hold in held if hold.user == write.user and hold.since <= write.answered]
        last = mine[-1] if mine else None
        others = [h for h in held if h.user != write.user and h.since <= write.answered and write.received < h.until]
        if others:
            late = write.answered - others[0].since
            yield DoubleWrite("late", write, f"{others[0].user} led, for {late:.3f} s when it was answered")
        elif last is None or not any(hold.since <= write.received < hold.until for hold in mine):
            yield DoubleWrite("late", write, "nobody led")
        elif write.answered > last.expires:
            yield DoubleWrite("expired", write, f"{write.answered - last.expires:.3f} s after the lease had expired")


def _made_twice(writes: Iterable[Write], operators: frozenset[str]) -> Iterable[DoubleWrite]:
    made: dict[tuple[str, str, str], Write] = {}
    for write in _of_objects(writes):
        if write.verb == "delete":
            made.pop(write.target, None)
        elif write.user in operators and write.code == 201:
            before = made.get(write.target)
            if before is not None:
                yield DoubleWrite(
                    "made-twice", write, f"made by {before.user} {write.received - before.received:.1f} s ago"
                )
            made[write.target] = write


def _deleted_twice(writes: Iterable[Write], operators: frozenset[str]) -> Iterable[DoubleWrite]:
    deleted: dict[tuple[str, str, str], Write] = {}
    for write in _of_objects(writes):
        if write.code == 201:
            deleted.pop(write.target, None)
        elif write.verb == "delete" and write.resource == "pods" and write.user in operators:
            before = deleted.setdefault(write.target, write)
            if before.user != write.user and before.uid == write.uid:
                yield DoubleWrite("deleted-twice", write, f"deleted by {before.user}")


def _of_objects(writes: Iterable[Write]) -> Iterable[Write]:
    return (w for w in writes if w.accepted and not w.subresource and w.resource != "leases")
