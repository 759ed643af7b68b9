"""Which replicas go because fewer are wanted, another revision is, or their nodes are to be left. Make before break.

What is to go first gets a successor, gated: that costs nobody a node, and proves that the API server takes such pods at
all. Where nodes are free it starts, and an old one goes when the new one is in the rotation. Where none are, an old one
is drained for it, but only if placement says that the new one would then have nodes, and only as far as
`max_unavailable` goes. Otherwise nothing is touched, and the reason is told.

A new revision is tried by one gang before the others follow. Until it is proven, whatever fails comes back as what it
was, and what is added is added as what has served: see `goal` and `restarts_as`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..api.reasons import Reason
from .actions import Blocked, ReplicaView, Why
from .gangs import Gang, GangState
from .observed import Observed, Wanted

_GOES_FIRST = {
    GangState.GATED: 0,
    GangState.FAILED: 1,
    GangState.STARTING: 2,
    GangState.UNREADY: 3,
    GangState.READY: 4,
}
_SERVED = frozenset({GangState.READY, GangState.UNREADY})
"""What was ready and is not at the moment counts as serving wherever something would be ended."""


TRIES = 2
"""So many failures of a new revision in a row, and no replica is drained for it any more."""


@dataclass(frozen=True, slots=True)
class Roll:
    """What changes in this round. `replaced`: never served anybody, goes at once. `drained`: served, and its successor
    is there or has its nodes for certain. `surge`: extra gangs to create, by revision. `blocked`: why it stands still.
    """

    replaced: tuple[ReplicaView, ...] = ()
    drained: tuple[ReplicaView, ...] = ()
    surge: tuple[str, ...] = ()
    blocked: Blocked | None = None


def outdated(view: ReplicaView, wanted: Wanted) -> bool:
    """Whether it is of another revision than the one that is wanted."""
    return not wanted.hold and view.revision not in {"", wanted.revision}


def why_it_goes(view: ReplicaView, wanted: Wanted) -> Why:
    """UPDATE for another revision, MOVE for other nodes."""
    return Why.UPDATE if outdated(view, wanted) else Why.MOVE


def goal(wanted: Wanted, observed: Observed) -> str | None:
    """What is made where a replica is missing; None: nothing may be."""
    if wanted.settled:
        return wanted.revision
    if wanted.stable in observed.templates:
        return wanted.stable
    running = [g.revision for g in observed.gangs if g.revision in observed.templates]
    if running:
        return max(sorted(set(running)), key=running.count)
    return wanted.revision if wanted.may_try and not wanted.hold else None


def restarts_as(view: ReplicaView, wanted: Wanted, observed: Observed) -> str | None:
    """What a failed replica comes back as: what it was, unless another revision is proven."""
    if wanted.settled or (view.revision == wanted.revision and not wanted.hold):
        return wanted.revision
    return view.revision if view.revision in observed.templates else goal(wanted, observed)


def scale_down(
    views: Sequence[ReplicaView], wanted: Wanted, observed: Observed
) -> tuple[list[ReplicaView], list[ReplicaView]]:
    """→ (those that stay, those that go). The extra gangs of a change are not too many."""
    excess = len(views) - _most(views, wanted, observed)
    if excess <= 0 or observed.allowance.nothing:
        return list(views), []
    victims = sorted(views, key=lambda view: _order(view, wanted, observed))[:excess]
    serving = [v for v in victims if v.state in _SERVED]
    held = serving[observed.allowance.scale_down :]
    if not _rotation_survives(serving[: observed.allowance.scale_down], views, wanted, observed):
        held = serving
    victims = [v for v in victims if v not in held]
    return [v for v in views if v not in victims], victims


def _most(views: Sequence[ReplicaView], wanted: Wanted, observed: Observed) -> int:
    """How many gangs there may be. A move does not wait for a revision that is being tried."""
    if wanted.replicas == 0 or not any(_goes(v, wanted, observed) for v in views):
        return wanted.replicas
    both = not wanted.settled and any(v.name in observed.moving for v in views)
    return wanted.replicas + wanted.max_surge + both


def _goes(view: ReplicaView, wanted: Wanted, observed: Observed) -> bool:
    return outdated(view, wanted) or view.name in observed.moving


def _order(view: ReplicaView, wanted: Wanted, observed: Observed) -> tuple[int, bool, bool, bool, float, int]:
    """What serves least goes first. A load that is not known may be the largest of all."""
    load = float(observed.loads.get(view.name, float("inf")))
    stays, keeps = view.name not in observed.moving, not outdated(view, wanted)
    return _GOES_FIRST[view.state], _in_rotation(view, observed), stays, keeps, load, -view.replica


def _rotation_survives(
    victims: Sequence[ReplicaView], views: Sequence[ReplicaView], wanted: Wanted, observed: Observed
) -> bool:
    """Whether somebody is left in the rotation, of those that are to stay and could be in it. If none is to stay, that
    was asked for."""
    left = [v for v in views if v.state is GangState.READY and v not in victims]
    if not victims or not left or wanted.replicas == 0:
        return True
    return any(_in_rotation(v, observed) for v in left)


def _in_rotation(view: ReplicaView, observed: Observed) -> bool:
    rotation = observed.allowance.rotation
    return rotation is not None and view.name in rotation


# --- a change --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Change:
    """`old` serve and are to go, `coming` are to take their place and do not count yet, `ready` are in the rotation and
    count. `to`: revision of the successors. `most`: how many more gangs there may be."""

    old: Sequence[ReplicaView]
    coming: Sequence[ReplicaView]
    ready: Sequence[ReplicaView]
    leaving: Sequence[str]
    to: str
    most: int
    wanted: Wanted
    observed: Observed

    @property
    def moving(self) -> bool:
        """Nothing but their nodes is wrong with them."""
        return not any(outdated(v, self.wanted) for v in self.old) or self.to != self.wanted.revision

    @property
    def in_order(self) -> list[ReplicaView]:
        return sorted(self.old, key=lambda v: _order(v, self.wanted, self.observed))

    @property
    def on_trial(self) -> bool:
        """Nobody knows yet whether the new revision serves."""
        return self.to == self.wanted.revision and not self.wanted.settled

    def may_drain(self, victim: ReplicaView) -> bool:
        """Whether it may go before another has taken its place."""
        left = sum(v is not victim for v in self.ready)
        return left >= self.wanted.replicas - self.wanted.max_unavailable


def roll(views: Sequence[ReplicaView], wanted: Wanted, observed: Observed, leaving: Sequence[Gang]) -> Roll:
    """What a change does in this round. `views`: without those that go because fewer are wanted."""
    if observed.allowance.nothing or wanted.replicas == 0:
        return Roll()
    going = [v for v in views if _goes(v, wanted, observed) and not _stays(v, wanted, observed)]
    replaced = _replaceable([v for v in going if v.state not in _SERVED], wanted, observed)
    if replaced:
        return Roll(replaced=tuple(replaced))
    # Nobody's successor can wait for one that may never be ready again: it was ready once, and only the roll ends it.
    old = [v for v in going if v.state is GangState.READY] or [v for v in going if v.state in _SERVED]
    if not old:
        return Roll(blocked=_stands(going, observed))
    moving = [v for v in old if v.name in observed.moving]
    if wanted.settled or not moving:
        return _next(_change(old, wanted.revision, views, wanted, observed, leaving))
    # A revision that is only being tried is no reason to stay where nobody is to stay.
    to = goal(wanted, observed)
    first = _next(_change(moving, to, views, wanted, observed, leaving)) if to is not None else Roll()
    rest = [v for v in old if v not in moving and outdated(v, wanted)]
    if first.drained or first.surge or not rest:
        return first
    second = _next(_change(rest, wanted.revision, views, wanted, observed, leaving))
    return replace(second, blocked=second.blocked or first.blocked)


def _stays(view: ReplicaView, wanted: Wanted, observed: Observed) -> bool:
    """Nothing is changed while paused; of the stable revision nothing but what serves makes room for one on trial. What
    was tried before, is wanted no more and serves nobody, goes all the same."""
    if wanted.settled or view.name in observed.moving:
        return False
    tried = bool(wanted.stable) and view.revision not in {wanted.stable, wanted.revision}
    if tried and view.state not in _SERVED and not wanted.hold:
        return False
    return wanted.hold or not wanted.may_try or (view.revision == wanted.stable and view.state not in _SERVED)


def _change(
    old: Sequence[ReplicaView],
    to: str,
    views: Sequence[ReplicaView],
    wanted: Wanted,
    observed: Observed,
    leaving: Sequence[Gang],
) -> _Change:
    known = [v for v in views if v.revision not in wanted.on_trial]
    ready = [v for v in known if v.state is GangState.READY and _in_rotation(v, observed)]
    stay = [v for v in views if v not in old and v.name not in observed.moving and v.revision == to]
    coming = [v for v in stay if v not in ready]
    most = _most(views, wanted, observed) - len(views)
    return _Change(old, coming, ready, [g.name for g in leaving], to, most, wanted, observed)


def _next(change: _Change) -> Roll:
    wanted = change.wanted
    relieved = _relieved(change)
    if relieved:
        return Roll(drained=relieved)
    tries = 1 if change.on_trial else wanted.max_surge
    missing = min(len(change.old), tries) - len(change.coming)
    if missing > 0 and change.most > 0:
        return _begin(change, (change.to,) * min(missing, change.most))
    waiting = [v for v in change.coming if v.state is GangState.GATED]
    # Nobody is drained again and again for what fails: what it had taken goes back to those who serve.
    hopeless = [v for v in waiting if v.restarts >= TRIES] if change.on_trial else []
    if hopeless and change.observed.room.spare() < len(waiting):
        why = f"{hopeless[0].name} of the new revision failed {hopeless[0].restarts} times, and no replica is drained"
        return Roll(blocked=Blocked(Reason.NEW_REVISION_FAILED, f"{why} for it any more; take the change back"))
    return _drain_for(change, len(waiting)) if waiting else Roll(blocked=_fails(change))


def _relieved(change: _Change) -> tuple[ReplicaView, ...]:
    """Those without whom as many as wanted are in the rotation."""
    gone: list[ReplicaView] = []
    for victim in change.in_order:
        left = [v for v in change.ready if v is not victim and v not in gone]
        # During a trial, one that is not in the rotation yet may be about to take another one's place.
        if len(left) >= change.wanted.replicas and (victim in change.ready or not change.on_trial):
            gone.append(victim)
    return tuple(gone)


def _replaceable(idle: Sequence[ReplicaView], wanted: Wanted, observed: Observed) -> list[ReplicaView]:
    """What never served may go at once; but a start that is under way only for one that would have nodes."""
    waits = {GangState.GATED, GangState.FAILED}  # and has no nodes to leave
    free = [
        v for v in idle if v.state in waits and outdated(v, wanted) and (wanted.settled or v.revision != wanted.stable)
    ]
    starting = [v for v in idle if v.state is GangState.STARTING]
    spare = observed.room.spare() if starting else 0
    return free + [v for i, v in enumerate(starting) if i < spare or observed.room.after([v.name], 1)]


def _begin(change: _Change, surge: tuple[str, ...]) -> Roll:
    """Create the extra gangs; where a quota or the volume refuses that, drain one whose share it can take over."""
    wanted, observed, refusal = change.wanted, change.observed, change.observed.refusal
    by_quota = refusal is not None and refusal.quota and not refusal.overdrawn
    if not by_quota and not wanted.alone:
        return Roll(surge=surge)
    # Two cannot run at once: whoever asks for a change of that asks for the outage.
    if not change.leaving and (by_quota or refusal is None):
        allowed = [v for v in change.in_order if wanted.alone or change.may_drain(v)]
        for victim in allowed if len(change.ready) >= wanted.replicas else ():
            takes_over = wanted.alone or observed.room.quota_after(victim.name)
            if takes_over and observed.room.after([victim.name], 1):
                return Roll(drained=(victim,))
        if wanted.alone:
            return Roll(blocked=_no_node(change, f"it {observed.room.shortage()}"))
    return Roll(surge=() if wanted.alone else surge)


def _drain_for(change: _Change, waiting: int) -> Roll:
    """Gangs that are to take the place of others wait for nodes."""
    room, gone = change.observed.room, change.leaving
    if room.spare() >= waiting or (gone and room.after(gone, waiting)):
        return Roll()  # they are about to be placed
    allowed = [v for v in change.in_order if change.may_drain(v)]
    if not allowed and len(change.ready) < change.wanted.replicas:
        if gone:
            return Roll()
        why = f"{len(change.ready)} of {change.wanted.replicas} replicas serve, so none of them is drained for it"
        return Roll(blocked=_no_node(change, f"{why}; it {room.shortage()}"))
    placed = max((n for n in range(waiting) if n == 0 or room.after(gone, n)), default=0)
    fits = [v for v in allowed or change.in_order if room.after([*gone, v.name], placed + 1)]
    if not fits:
        why = f"no replica is drained for it, as it would not run there: it {room.shortage()}"
        return Roll(blocked=_no_node(change, why))
    return Roll(drained=(fits[0],)) if allowed else Roll(blocked=_not_allowed(change))


# --- why it stands still ---------------------------------------------------------------------------------------------
def _no_node(change: _Change, why: str) -> Blocked:
    if change.moving:
        where = "; ".join(change.observed.moving.get(v.name, "") for v in change.old[:1])
        remedy = "add or free nodes, or let the nodes be used again"
        return Blocked(Reason.NO_NODE_FOR_MOVE, f"{where}; no other replica takes its place: {why}; {remedy}")
    return Blocked(Reason.NO_NODE_FOR_NEW_REVISION, f"the new revision has no nodes: {why}; {_REMEDY}")


_REMEDY = "add or free nodes, or take the change back"


def _not_allowed(change: _Change) -> Blocked:
    limit, count = change.wanted.max_unavailable, change.wanted.replicas
    why = (
        f"there is no free node beside the {count} replica{'s' * (count > 1)}, and spec.strategy.maxUnavailable "
        f"{limit} keeps them; {limit + 1} lets one go first, without service from it until the new one has started"
    )
    return _no_node(change, why)


def _fails(change: _Change) -> Blocked | None:
    """A gang of the new revision that failed comes again after its back-off; until then this is why nothing moves."""
    if change.moving:
        return None
    for view in change.coming:
        if view.failure is not None:
            why = f"{view.failure.reason}: {view.failure.message}"
            return Blocked(Reason.NEW_REVISION_FAILED, f"{view.name} of the new revision failed, {why}")
    return None


def _stands(going: Sequence[ReplicaView], observed: Observed) -> Blocked | None:
    starting = [v.name for v in going if v.state is GangState.STARTING]
    if starting:
        lacks = observed.room.shortage()
        why = f"{', '.join(starting)} goes on starting, since the new revision {lacks}"
        return Blocked(Reason.NO_NODE_FOR_NEW_REVISION, f"{why}; {_REMEDY}")
    return None
