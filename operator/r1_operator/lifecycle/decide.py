"""Wanted replicas × observed gangs → next actions.

Rules, in the order of this file:

1. What leaves, leaves whole: one deleted member takes the others along; pods on a lost node are forced out.
2. A failed gang is torn down at once; its finished pods stay for `kubectl logs` until the next failure. Once the
   failure stands in the status, and after a back-off, the replica's next attempt is created. It leaves the rotation at
   the first death; what is blamed, and so when it is tried again, is said when its pods have spoken (SETTLE_SECONDS).
3. Too many replicas, another revision: see rollout.py.
4. Too few: new gangs, gated. A gang of which a part was refused is taken back whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from ..api import names
from .actions import Action, CreateGang, Decision, EndPods, PodRef, ReplicaView, Why
from .gangs import Gang, GangState, Member
from .judging import Verdict, judge, remembered
from .observed import Observed, Refusal, Wanted
from .records import Record, delay_before_restart, restarts_of
from .rollout import TRIES, Roll, goal, restarts_as, roll, scale_down, why_it_goes

SETTLE_SECONDS = 5.0
"""The engine ends its whole gang within 2 s of a death, and each pod leaves its own last words. Judging the gang, or
deleting the survivors, before they have spoken would often keep a consequence ("the connection to node 0 closed")
in place of the cause."""
FAILED_GRACE_SECONDS = 15
"""For the survivors of a failed gang: their streams are lost already, the engine only has to let go of its GPUs."""

Verdicts = Mapping[str, Verdict]


def next_actions(wanted: Wanted, observed: Observed, now: float) -> Decision:
    """Decide one round. Deterministic; the same cluster gives the same actions until they are carried out."""
    verdicts = {gang.name: judge(gang, observed.evidence, now) for gang in observed.gangs}
    views = _views(wanted, observed, verdicts, now)
    leaving = [g for g in observed.gangs if verdicts[g.name].state is GangState.LEAVING]
    staying, dropped = scale_down(views, wanted, observed)
    plan = roll(staying, wanted, observed, leaving)
    sent = [(v, Why.SCALE_DOWN) for v in dropped]
    sent += [(v, Why.SUPERSEDED) for v in plan.replaced] + [(v, why_it_goes(v, wanted)) for v in plan.drained]
    gone = {v.replica for v, _ in sent}
    staying = [v for v in staying if v.replica not in gone]

    actions: list[Action] = []
    if not observed.allowance.nothing:
        dead = observed.evidence.dead_nodes
        actions += [a for gang in leaving for a in _finish_leaving(gang, dead)]
        actions += _forget(views, observed, verdicts)
        actions += [a for view, why in sent for a in _end(view, why, observed)]
        actions += [a for v in staying if v.state is GangState.FAILED for a in _tear_down(v, observed, now)]
        actions += _take_back(staying, observed, now)
    creations = _creations(staying, plan, wanted, observed, now)
    refused = _refused(observed, now)
    actions += [] if refused else creations
    return Decision(
        actions=tuple(actions),
        replicas=tuple(staying),
        leaving=(*leaving, *(v.gang for v, _ in sent if v.gang is not None)),
        serving=frozenset(v.name for v in staying if v.state is GangState.READY),
        unplaced=_unplaced(staying, observed),
        look_again_in=_look_again(staying, observed.refusal if creations else None, now),
        held_back=refused and bool(creations),
        blocked=plan.blocked,
    )


def _views(wanted: Wanted, observed: Observed, verdicts: Verdicts, now: float) -> list[ReplicaView]:
    """The newest gang of each replica unless it leaves; plus replicas of which only the record of a failure is left."""
    newest: dict[int, Gang] = {}
    for gang in observed.gangs:  # ordered by attempt: the last one wins
        newest[gang.replica] = gang
    records = observed.evidence.records
    views = []
    for replica, gang in newest.items():
        verdict, record = verdicts[gang.name], records.get(replica)
        if record is not None and record.attempt > gang.attempt and verdict.state in _OVER:
            # Of the last attempt nothing is left; this older one is there for its logs.
            views += [_waiting(wanted, record)] if record.stage == GangState.FAILED else []
            continue
        if verdict.state is GangState.LEAVING:
            if _recorded(record, gang.attempt) and record is not None:
                views.append(_waiting(wanted, record))  # what leaves here is what is left of a failed gang
            continue
        restarts = restarts_of(gang, verdict.state, record, now)
        failure = verdict.failure if _settled(gang, record, now, SETTLE_SECONDS) else None
        retry_at = None
        if failure is not None:
            since = record.since if _recorded(record, gang.attempt) and record is not None else now
            retry_at = since + delay_before_restart(restarts, failure)
        state, name = verdict.state, gang.name
        view = ReplicaView(replica, gang.attempt, name, gang, state, failure, restarts, retry_at, gang.revision)
        views.append(view)
    for replica, record in records.items():
        if replica not in newest and record.stage == GangState.FAILED:
            views.append(_waiting(wanted, record))
    return sorted(views, key=lambda v: v.replica)


_OVER = frozenset({GangState.FAILED, GangState.LEAVING})


def _waiting(wanted: Wanted, record: Record) -> ReplicaView:
    """A failed replica of which no pod is left to judge. Another revision is tried at once."""
    failure, restarts = remembered(record), record.restarts
    another = wanted.settled and record.revision not in {"", wanted.revision}
    retry_at = record.since + (0.0 if another else delay_before_restart(restarts, failure))
    gang = names.gang_name(wanted.name, record.replica, record.attempt)
    state, revision = GangState.FAILED, record.revision
    return ReplicaView(record.replica, record.attempt, gang, None, state, failure, restarts, retry_at, revision)


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
    """End what is left of a failed gang. Pods that are over stay for their logs. One whose engine has ended is over in
    a moment; if it is not, somebody else's container runs on there and holds the GPUs, so it goes."""
    if view.gang is None or view.failure is None:
        return []
    dead_nodes, record = observed.evidence.dead_nodes, observed.evidence.records.get(view.replica)
    late = record is not None and _recorded(record, view.attempt) and now - record.since >= FAILED_GRACE_SECONDS
    alive = [m for m in view.gang.members if not m.over]
    forced = [m for m in alive if m.node in dead_nodes]
    pending = [m for m in alive if m.node not in dead_nodes and not m.deleting and (late or not m.finished)]
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


def _forget(views: Sequence[ReplicaView], observed: Observed, verdicts: Verdicts) -> list[Action]:
    """Older attempts: only the finished pods of the last failed one are kept, for its logs."""
    current = {v.replica: v.attempt for v in views}
    dead = observed.evidence.dead_nodes
    older: dict[int, list[Gang]] = defaultdict(list)
    for gang in observed.gangs:
        if gang.attempt != current.get(gang.replica) and verdicts[gang.name].state is not GangState.LEAVING:
            older[gang.replica].append(gang)
    actions: list[Action] = []
    for replica, gangs in older.items():
        keep = gangs[-1] if replica in current else None
        for gang in gangs:
            lost = [m for m in gang.members if m.node in dead]  # nobody can read its logs there
            ended = [m for m in gang.members if not (m.deleting or m in lost or (gang is keep and m.over))]
            actions += _end_pods(gang, ended, FAILED_GRACE_SECONDS, Why.SUPERSEDED, "a later attempt took its place")
            actions += _end_pods(gang, lost, 0, Why.SUPERSEDED, "its node is lost")
    return actions


def _take_back(views: Sequence[ReplicaView], observed: Observed, now: float) -> list[Action]:
    """Gangs that cannot come true: a part of it was refused, or is promised nodes that are no longer free."""
    actions: list[Action] = []
    for view in views:
        if view.gang is None or view.state is not GangState.GATED:
            continue
        broken = observed.broken.get(view.name)
        if broken is None and view.gang.missing and _refused(observed, now) and observed.refusal is not None:
            broken = observed.refusal.message
        if broken is not None:
            pending = [m for m in view.gang.members if not m.deleting]
            actions += _end_pods(view.gang, pending, 0, Why.TAKEN_BACK, broken)
    return actions


def _end(view: ReplicaView, why: Why, observed: Observed) -> list[Action]:
    if view.gang is None:
        return []
    dead_nodes, moving = observed.evidence.dead_nodes, observed.moving.get(view.name, "")
    known = {Why.SCALE_DOWN: "fewer replicas are wanted", Why.MOVE: moving}
    message = known.get(why) or moving or f"revision {view.gang.revision} is outdated"
    forced = [m for m in view.gang.members if m.node in dead_nodes]
    rest = [m for m in view.gang.members if m.node not in dead_nodes and not m.deleting]
    # Whoever may have taken a request drains in its own time; the others have nothing to finish.
    grace = FAILED_GRACE_SECONDS if view.state in {GangState.GATED, GangState.FAILED} else None
    return [
        *_end_pods(view.gang, forced, 0, why, message),
        *_end_pods(view.gang, rest, grace, why, message),
    ]


def _end_pods(gang: Gang, members: Iterable[Member], grace: int | None, why: Why, message: str) -> list[Action]:
    pods = tuple(PodRef(m.name, m.uid) for m in members)
    return [EndPods(gang.name, pods, grace, why, message)] if pods else []


# --- creation --------------------------------------------------------------------------------------------------------
def _refused(observed: Observed, now: float) -> bool:
    return observed.refusal is not None and now < observed.refusal.until


def _creations(
    staying: Sequence[ReplicaView], plan: Roll, wanted: Wanted, observed: Observed, now: float
) -> list[Action]:
    """Those first that are missed most: what was begun, what failed, what is wanted, what rolls."""
    created: list[Action] = _complete(staying, wanted, observed)
    if not observed.allowance.nothing:  # on old news, what seems lost may serve: its next attempt would end it
        created += _restart(staying, wanted, observed, now)
    return [*created, *_create(staying, plan, wanted, observed)]


def _complete(views: Sequence[ReplicaView], wanted: Wanted, observed: Observed) -> list[Action]:
    """Gangs whose creation was interrupted: no member had started, so the missing ones may still come."""
    return [
        CreateGang(v.replica, v.attempt, v.gang.missing, Why.COMPLETE, "", v.gang.revision)
        for v in views
        if v.gang is not None
        and v.state is GangState.GATED
        and v.gang.missing
        and _can_make(v.gang.revision, wanted, observed)
    ]


def _can_make(revision: str, wanted: Wanted, observed: Observed) -> bool:
    return revision in observed.templates or (revision == wanted.revision and not wanted.hold)


def _restart(views: Sequence[ReplicaView], wanted: Wanted, observed: Observed, now: float) -> list[Action]:
    actions: list[Action] = []
    for view in views:
        if view.state is not GangState.FAILED or view.retry_at is None or now < view.retry_at:
            continue
        record = observed.evidence.records.get(view.replica)
        if not _recorded(record, view.attempt):
            continue  # first the status says so, then we act: see records.py
        if view.gang is not None and not _settled(view.gang, record, now, FAILED_GRACE_SECONDS):
            continue
        revision = restarts_as(view, wanted, observed)
        if revision is None:
            continue
        message = view.failure.message if view.failure else "its pods are gone"
        members = _members(revision, wanted, observed)
        attempt = _next_attempt(view.replica, observed)
        actions.append(CreateGang(view.replica, attempt, members, Why.RESTART, message, revision))
    return actions


def _members(revision: str, wanted: Wanted, observed: Observed) -> tuple[int, ...]:
    return tuple(range(wanted.size if revision == wanted.revision else observed.templates[revision]))


def _create(staying: Sequence[ReplicaView], plan: Roll, wanted: Wanted, observed: Observed) -> list[Action]:
    taken = {v.replica for v in staying}
    preferred = [v.replica for v in plan.replaced]
    actions: list[Action] = []
    missing = _missing(staying, wanted, observed)
    for number, revision in enumerate([*missing, *plan.surge]):
        replica = next((r for r in preferred if r not in taken), None)
        why = Why.UPDATE if replica is not None or number >= len(missing) else Why.SCALE_UP
        if replica is None:
            replica = next(r for r in range(len(taken) + 1) if r not in taken)
        taken.add(replica)
        members, attempt = _members(revision, wanted, observed), _next_attempt(replica, observed)
        actions.append(CreateGang(replica, attempt, members, why, "", revision))
    return actions


def _missing(staying: Sequence[ReplicaView], wanted: Wanted, observed: Observed) -> list[str]:
    """What the replicas that are missing are made as. One on trial does not count: should it fail, nobody is missed."""
    revision = goal(wanted, observed)
    if revision is None:
        return []
    if not wanted.alone and (observed.refusal is None or not observed.refusal.quota):
        trial = wanted.on_trial - {revision}
        if wanted.max_unavailable > 0 and any(_waits_first(v) for v in staying if v.revision in trial):
            trial = frozenset()  # somebody may have been drained for it, and his successor would take the nodes
        return [revision] * (wanted.replicas - sum(v.revision not in trial for v in staying))
    # Where no extra gang can be, the one that made room did so for the revision that is tried.
    count = max(0, wanted.replicas - len(staying))
    tries = count > 0 and wanted.may_try and not wanted.hold and all(v.revision != wanted.revision for v in staying)
    return [*([wanted.revision] if tries else []), *[revision] * (count - tries)]


def _waits_first(view: ReplicaView) -> bool:
    return view.state is GangState.GATED and view.restarts < TRIES


def _next_attempt(replica: int, observed: Observed) -> int:
    gangs = [g for g in observed.gangs if g.replica == replica]
    known = [g.attempt for g in gangs]
    record = observed.evidence.records.get(replica)
    if record is not None:
        known.append(record.attempt)
    if not known:
        return observed.attempt_floor
    # While one drains for long, another may have come after it and gone before it: only the floor remembers that one.
    leaving = all(any(m.deleting for m in g.members) for g in gangs)
    return max(max(known) + 1, observed.attempt_floor) if leaving else max(known) + 1


def _unplaced(views: Sequence[ReplicaView], observed: Observed) -> tuple[Gang, ...]:
    gated = [
        v.gang
        for v in views
        if v.gang and v.state is GangState.GATED and not v.gang.missing and v.name not in observed.broken
    ]
    return tuple(sorted(gated, key=lambda g: (min(m.created_at for m in g.members), g.name)))


def _look_again(views: Sequence[ReplicaView], refusal: Refusal | None, now: float) -> float | None:
    waits = [max(1.0, v.retry_at - now) for v in views if v.retry_at is not None]
    waits += [1.0 for v in views if v.undecided]
    if refusal is not None:
        waits.append(max(1.0, refusal.until - now))
    return min(waits, default=None)
