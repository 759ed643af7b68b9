"""Wanted replicas × observed gangs → next actions.

Rules, in the order of this file:

1. What leaves, leaves whole: one deleted member takes the others along; pods on a lost node are forced out.
2. A failed gang is torn down at once; its finished pods stay for `kubectl logs` until the next failure. Once the
   failure stands in the status, and after a back-off, the replica's next attempt is created. It leaves the rotation at
   the first death; what is blamed, and so when it is tried again, is said when its pods have spoken (SETTLE_SECONDS).
3. Too many replicas: those that serve least go first.
4. Another revision: gangs that do not serve are replaced at once; ready ones one at a time, with one extra replica
   where nodes are free, otherwise drain first. At most one replica is missing for the roll's sake.
5. Too few: new gangs, gated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..api import names
from .actions import Action, CreateGang, Decision, EndPods, PodRef, ReplicaView, Why
from .gangs import Gang, GangState, Member, failure_of, state_of
from .records import Record, delay_before_restart, restarts_of

SETTLE_SECONDS = 5.0
"""The engine ends its whole gang within 2 s of a death, and each pod leaves its own last words. Judging the gang, or
deleting the survivors, before they have spoken would often keep a consequence ("the connection to node 0 closed")
in place of the cause."""
FAILED_GRACE_SECONDS = 15
"""For the survivors of a failed gang: their streams are lost already, the engine only has to let go of its GPUs."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the spec and the autoscaler ask for. `hold`: create and replace nothing (invalid spec, missing weights)."""

    name: str
    replicas: int
    revision: str
    size: int
    start_seconds: float
    hold: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """What there is. `room`: how many gangs of the wanted shape the free nodes could take now."""

    gangs: tuple[Gang, ...]
    records: Mapping[int, Record] = field(default_factory=dict)
    dead_nodes: Mapping[str, str] = field(default_factory=dict)
    loads: Mapping[str, int] = field(default_factory=dict)
    room: int = 0


def next_actions(wanted: Wanted, observed: Observed, now: float) -> Decision:
    """Decide one round. Deterministic; the same cluster gives the same actions until they are carried out."""
    views = _views(wanted, observed, now)
    leaving = [g for g in observed.gangs if _state(g, wanted, observed, now) is GangState.LEAVING]
    actions: list[Action] = []
    for gang in leaving:
        actions += _finish_leaving(gang, observed.dead_nodes)
    actions += _forget(views, observed, wanted, now)

    staying, dropped = _scale_down(views, wanted, observed)
    actions += [a for v in dropped for a in _end(v, Why.SCALE_DOWN, observed.dead_nodes)]
    replaced, roll, surge = _update(staying, wanted, observed, bool(leaving))
    actions += [a for v in replaced for a in _end(v, Why.SUPERSEDED, observed.dead_nodes)]
    actions += [a for v in roll for a in _end(v, Why.UPDATE, observed.dead_nodes)]
    gone = {v.replica for v in (*dropped, *replaced, *roll)}
    staying = [v for v in staying if v.replica not in gone]

    for view in staying:
        if view.state is GangState.FAILED:
            actions += _tear_down(view, observed, now)
    if not wanted.hold:
        actions += _complete(staying)
        actions += _restart(staying, observed, wanted, now)
        actions += _create(staying, replaced, wanted, observed, surge)
    return Decision(
        actions=tuple(actions),
        replicas=tuple(staying),
        leaving=(*leaving, *(v.gang for v in (*dropped, *replaced, *roll) if v.gang is not None)),
        serving=frozenset(v.name for v in staying if v.state is GangState.READY),
        unplaced=_unplaced(staying, wanted),
        look_again_in=_look_again(staying, observed, wanted, now),
    )


def _state(gang: Gang, wanted: Wanted, observed: Observed, now: float) -> GangState:
    return state_of(gang, observed.dead_nodes, wanted.start_seconds, now)


def _views(wanted: Wanted, observed: Observed, now: float) -> list[ReplicaView]:
    """The newest gang of each replica unless it leaves; plus replicas of which only the record of a failure is left."""
    newest: dict[int, Gang] = {}
    for gang in observed.gangs:  # ordered by attempt: the last one wins
        newest[gang.replica] = gang
    views = []
    for replica, gang in newest.items():
        state = _state(gang, wanted, observed, now)
        record = observed.records.get(replica)
        if state is GangState.LEAVING:
            if _recorded(record, gang.attempt) and record is not None:
                views.append(_waiting(wanted.name, record))  # what leaves here is what is left of a failed gang
            continue
        restarts = restarts_of(gang, state, record, now)
        failure, retry_at = None, None
        if _settled(gang, record, now, SETTLE_SECONDS):
            failure = failure_of(gang, observed.dead_nodes, wanted.start_seconds, now)
        if failure is not None:
            since = record.since if _recorded(record, gang.attempt) and record is not None else now
            retry_at = since + delay_before_restart(restarts, failure)
        views.append(ReplicaView(replica, gang.attempt, gang.name, gang, state, failure, restarts, retry_at))
    for replica, record in observed.records.items():
        if replica not in newest and record.stage == GangState.FAILED:
            views.append(_waiting(wanted.name, record))
    return sorted(views, key=lambda v: v.replica)


def _waiting(name: str, record: Record) -> ReplicaView:
    """A failed replica of which no pod is left to judge."""
    retry_at = record.since + delay_before_restart(record.restarts, None)
    gang = names.gang_name(name, record.replica, record.attempt)
    return ReplicaView(record.replica, record.attempt, gang, None, GangState.FAILED, None, record.restarts, retry_at)


def _recorded(record: Record | None, attempt: int) -> bool:
    return record is not None and record.attempt == attempt and record.stage == GangState.FAILED


# --- leaving and failed ----------------------------------------------------------------------------------------------
def _finish_leaving(gang: Gang, dead_nodes: Mapping[str, str]) -> list[Action]:
    forced = [m for m in gang.members if m.node in dead_nodes]
    pending = [m for m in gang.members if not m.deleting and m.node not in dead_nodes]
    return [
        *_end_pods(gang, forced, 0, Why.LEAVING, "its node is lost"),
        *_end_pods(gang, pending, None, Why.LEAVING, "another pod of its gang is being deleted"),
    ]


def _tear_down(view: ReplicaView, observed: Observed, now: float) -> list[Action]:
    if view.gang is None or view.failure is None:
        return []
    dead_nodes = observed.dead_nodes
    alive = [m for m in view.gang.members if not m.finished]
    forced = [m for m in alive if m.node in dead_nodes]
    pending = [m for m in alive if m.node not in dead_nodes and not m.deleting]
    return [
        *_end_pods(view.gang, forced, 0, Why.FAILED, view.failure.message),
        *_end_pods(view.gang, pending, FAILED_GRACE_SECONDS, Why.FAILED, view.failure.message),
    ]


def _settled(gang: Gang, record: Record | None, now: float, patience: float) -> bool:
    """Every pod of a failed gang has said why it ended, or there has been time enough since the first did."""
    if all(m.finished for m in gang.members):
        return True
    if not any(m.finished for m in gang.members):
        return True  # nobody died: a lost node, a deleted pod, a start that took too long
    return record is not None and _recorded(record, gang.attempt) and now - record.since >= patience


def _forget(views: Sequence[ReplicaView], observed: Observed, wanted: Wanted, now: float) -> list[Action]:
    """Older attempts: only the finished pods of the last failed one are kept, for its logs."""
    current = {v.replica: v.attempt for v in views}
    older: dict[int, list[Gang]] = defaultdict(list)
    for gang in observed.gangs:
        if gang.attempt != current.get(gang.replica) and _state(gang, wanted, observed, now) is not GangState.LEAVING:
            older[gang.replica].append(gang)
    actions: list[Action] = []
    for replica, gangs in older.items():
        keep = gangs[-1] if replica in current else None
        for gang in gangs:
            lost = [m for m in gang.members if m.node in observed.dead_nodes]  # nobody can read its logs there
            ended = [m for m in gang.members if not (m.deleting or m in lost or (gang is keep and m.finished))]
            actions += _end_pods(gang, ended, FAILED_GRACE_SECONDS, Why.SUPERSEDED, "a later attempt took its place")
            actions += _end_pods(gang, lost, 0, Why.SUPERSEDED, "its node is lost")
    return actions


def _end(view: ReplicaView, why: Why, dead_nodes: Mapping[str, str]) -> list[Action]:
    if view.gang is None:
        return []
    message = {Why.SCALE_DOWN: "fewer replicas are wanted"}.get(why, f"revision {view.gang.revision} is outdated")
    forced = [m for m in view.gang.members if m.node in dead_nodes]
    rest = [m for m in view.gang.members if m.node not in dead_nodes and not m.deleting]
    # Whoever may have taken a request drains in its own time; the others have nothing to finish.
    grace = None if view.state in {GangState.READY, GangState.STARTING} else FAILED_GRACE_SECONDS
    return [
        *_end_pods(view.gang, forced, 0, why, message),
        *_end_pods(view.gang, rest, grace, why, message),
    ]


def _end_pods(gang: Gang, members: Iterable[Member], grace: int | None, why: Why, message: str) -> list[Action]:
    pods = tuple(PodRef(m.name, m.uid) for m in members)
    return [EndPods(gang.name, pods, grace, why, message)] if pods else []


# --- how many --------------------------------------------------------------------------------------------------------
_GOES_FIRST = {GangState.GATED: 0, GangState.FAILED: 1, GangState.STARTING: 2, GangState.UNREADY: 3, GangState.READY: 4}


def _scale_down(
    views: Sequence[ReplicaView], wanted: Wanted, observed: Observed
) -> tuple[list[ReplicaView], list[ReplicaView]]:
    rolling = any(_outdated(v, wanted) and v.state is GangState.READY for v in views)
    excess = len(views) - wanted.replicas - (1 if rolling and wanted.replicas > 0 else 0)
    if excess <= 0:
        return list(views), []

    def order(view: ReplicaView) -> tuple[int, bool, int, int]:
        load = observed.loads.get(view.name, 0)
        return _GOES_FIRST[view.state], not _outdated(view, wanted), load, -view.replica

    victims = sorted(views, key=order)[:excess]
    return [v for v in views if v not in victims], victims


def _outdated(view: ReplicaView, wanted: Wanted) -> bool:
    return not wanted.hold and view.gang is not None and view.gang.revision != wanted.revision


def _update(
    views: Sequence[ReplicaView], wanted: Wanted, observed: Observed, anything_leaves: bool
) -> tuple[list[ReplicaView], list[ReplicaView], int]:
    """→ (replaced at once, ready ones to drain now, extra replicas to create now)."""
    outdated = [v for v in views if _outdated(v, wanted)]
    idle = [v for v in outdated if v.state is not GangState.READY]
    old = [v for v in outdated if v.state is GangState.READY]
    if not old or idle:
        return idle, [], 0
    new = [v for v in views if not _outdated(v, wanted)]
    pending = [v for v in new if v.state is not GangState.READY]
    ready = len(views) - len(pending)
    first = min(old, key=lambda v: (observed.loads.get(v.name, 0), v.replica))
    if len(views) > wanted.replicas and not pending:
        return [], [first], 0
    # Drain first only if nodes are short, and only while nothing else is missing.
    gated = sum(1 for v in new if v.state is GangState.GATED)
    may_miss_one = ready >= wanted.replicas and not anything_leaves
    if pending:
        return [], ([first] if gated > observed.room and may_miss_one else []), 0
    if anything_leaves:
        return [], [], 0
    if observed.room > 0:
        return [], [], 1
    return [], ([first] if may_miss_one else []), 0


# --- creation --------------------------------------------------------------------------------------------------------
def _complete(views: Sequence[ReplicaView]) -> list[Action]:
    """Gangs whose creation was interrupted: no member had started, so the missing ones may still come."""
    return [
        CreateGang(v.replica, v.attempt, v.gang.missing, Why.COMPLETE)
        for v in views
        if v.gang is not None and v.state is GangState.GATED and v.gang.missing
    ]


def _restart(views: Sequence[ReplicaView], observed: Observed, wanted: Wanted, now: float) -> list[Action]:
    actions: list[Action] = []
    for view in views:
        if view.state is not GangState.FAILED or view.retry_at is None or now < view.retry_at:
            continue
        if not _recorded(observed.records.get(view.replica), view.attempt):
            continue  # first the status says so, then we act: see records.py
        record = observed.records.get(view.replica)
        if view.gang is not None and not _settled(view.gang, record, now, FAILED_GRACE_SECONDS):
            continue
        message = view.failure.message if view.failure else "its pods are gone"
        attempt = _next_attempt(view.replica, observed)
        actions.append(CreateGang(view.replica, attempt, tuple(range(wanted.size)), Why.RESTART, message))
    return actions


def _create(
    staying: Sequence[ReplicaView], replaced: Sequence[ReplicaView], wanted: Wanted, observed: Observed, surge: int
) -> list[Action]:
    taken = {v.replica for v in staying}
    preferred = [v.replica for v in replaced]
    count = wanted.replicas + surge - len(staying)
    actions: list[Action] = []
    why = Why.UPDATE if surge or replaced else Why.SCALE_UP
    for _ in range(max(0, count)):
        replica = next((r for r in preferred if r not in taken), None)
        if replica is None:
            replica = next(r for r in range(len(taken) + 1) if r not in taken)
        taken.add(replica)
        actions.append(CreateGang(replica, _next_attempt(replica, observed), tuple(range(wanted.size)), why))
    return actions


def _next_attempt(replica: int, observed: Observed) -> int:
    known = [g.attempt for g in observed.gangs if g.replica == replica]
    record = observed.records.get(replica)
    if record is not None:
        known.append(record.attempt)
    return max(known, default=-1) + 1


def _unplaced(views: Sequence[ReplicaView], wanted: Wanted) -> tuple[Gang, ...]:
    gated = [v.gang for v in views if v.gang and v.state is GangState.GATED and not v.gang.missing]
    return tuple(sorted(gated, key=lambda g: (min(m.created_at for m in g.members), g.name)))


def _look_again(views: Sequence[ReplicaView], observed: Observed, wanted: Wanted, now: float) -> float | None:
    if wanted.hold:
        return None
    waits = [max(1.0, v.retry_at - now) for v in views if v.retry_at is not None]
    waits += [1.0 for v in views if v.undecided]
    return min(waits, default=None)
