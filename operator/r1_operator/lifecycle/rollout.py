"""Which replicas go because fewer are wanted, or because another revision is. Make before break.

A roll first creates one extra gang of the new revision, gated: that costs nobody a node, and proves that the API server
takes such pods at all. Where nodes are free it starts, and an old one goes when the new one is in the rotation. Where
none are, one old gang is drained for it, but only if placement says that the new one would then have nodes, and only
while nobody else is missing. Otherwise nothing is touched, and the reason is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..api.reasons import Reason
from .actions import Blocked, ReplicaView
from .gangs import GangState
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


@dataclass(frozen=True, slots=True)
class Roll:
    """What a roll does in this round. `replaced`: never served anybody, goes at once. `drained`: served, and its
    successor is there or has its nodes for certain. `surge`: extra gangs to create. `blocked`: why it stands still."""

    replaced: tuple[ReplicaView, ...] = ()
    drained: tuple[ReplicaView, ...] = ()
    surge: int = 0
    blocked: Blocked | None = None


def outdated(view: ReplicaView, wanted: Wanted) -> bool:
    """Whether its gang is of another revision than the one that is wanted."""
    return not wanted.hold and view.gang is not None and view.gang.revision != wanted.revision


def scale_down(
    views: Sequence[ReplicaView], wanted: Wanted, observed: Observed
) -> tuple[list[ReplicaView], list[ReplicaView]]:
    """→ (those that stay, those that go). The one extra gang of a roll is not too many."""
    rolling = any(outdated(v, wanted) for v in views)
    excess = len(views) - wanted.replicas - (1 if rolling and wanted.replicas > 0 else 0)
    if excess <= 0 or observed.allowance.nothing:
        return list(views), []
    victims = sorted(views, key=lambda view: _order(view, wanted, observed))[:excess]
    serving = [v for v in victims if v.state in _SERVED]
    held = serving[observed.allowance.scale_down :]
    if not _rotation_survives(serving[: observed.allowance.scale_down], views, wanted, observed):
        held = serving
    victims = [v for v in victims if v not in held]
    return [v for v in views if v not in victims], victims


def _order(view: ReplicaView, wanted: Wanted, observed: Observed) -> tuple[int, bool, bool, float, int]:
    """What serves least goes first. A load that is not known may be the largest of all."""
    rotation = observed.allowance.rotation
    routed = rotation is not None and view.name in rotation
    load = float(observed.loads.get(view.name, float("inf")))
    return _GOES_FIRST[view.state], routed, not outdated(view, wanted), load, -view.replica


def _rotation_survives(
    victims: Sequence[ReplicaView], views: Sequence[ReplicaView], wanted: Wanted, observed: Observed
) -> bool:
    """Whether somebody is left in the rotation, of those that are to stay and could be in it. If none is to stay, that
    was asked for."""
    left = [v for v in views if v.state is GangState.READY and v not in victims]
    if not victims or not left or wanted.replicas == 0:
        return True
    rotation = observed.allowance.rotation
    return rotation is not None and any(v.name in rotation for v in left)


def roll(views: Sequence[ReplicaView], wanted: Wanted, observed: Observed, anything_leaves: bool) -> Roll:
    """What a change of revision does in this round. `views`: without those that go because fewer are wanted."""
    old = [v for v in views if outdated(v, wanted)]
    if not old or observed.allowance.nothing:
        return Roll()
    replaced = _replaceable([v for v in old if v.state not in _SERVED], observed)
    if replaced:
        return Roll(replaced=tuple(replaced))
    # Nobody's successor can wait for one that may never be ready again: it was ready once, and only the roll ends it.
    serving_old = [v for v in old if v.state is GangState.READY] or [v for v in old if v.state in _SERVED]
    if not serving_old:
        return Roll(blocked=_waits_for(old, observed))
    new = [v for v in views if not outdated(v, wanted)]
    coming = [v for v in new if v.state is not GangState.READY]
    if any(v.state is not GangState.GATED for v in coming):
        return Roll(blocked=_fails(coming))
    ready = [v for v in views if v.state is GangState.READY and _in_rotation(v, observed)]
    if not coming and len(views) > wanted.replicas:
        return _retire_one(serving_old, ready, wanted, observed)
    if anything_leaves:
        return Roll()
    if not coming:
        return _begin(serving_old, ready, wanted, observed)
    return _drain_for(serving_old, ready, len(coming), wanted, observed)


def _replaceable(idle: Sequence[ReplicaView], observed: Observed) -> list[ReplicaView]:
    """What never served may go at once; but a start that is under way only for one that would have nodes."""
    free = [v for v in idle if v.state in {GangState.GATED, GangState.FAILED}]
    starting = [v for v in idle if v.state is GangState.STARTING]
    spare = observed.room.spare() if starting else 0
    return free + [v for i, v in enumerate(starting) if i < spare or observed.room.after(v.name, 1)]


def _in_rotation(view: ReplicaView, observed: Observed) -> bool:
    rotation = observed.allowance.rotation
    return rotation is not None and view.name in rotation


def _retire_one(old: Sequence[ReplicaView], ready: Sequence[ReplicaView], wanted: Wanted, observed: Observed) -> Roll:
    """The new one serves: one old one goes, if as many as wanted are in the rotation without it."""
    victim = min(old, key=lambda v: _order(v, wanted, observed))
    left = [v for v in ready if v is not victim]
    return Roll(drained=(victim,)) if len(left) >= wanted.replicas else Roll()


def _begin(old: Sequence[ReplicaView], ready: Sequence[ReplicaView], wanted: Wanted, observed: Observed) -> Roll:
    """Create the extra gang; where a quota or the volume refuses that, drain one whose share it can take over."""
    refusal = observed.refusal
    by_quota = refusal is not None and refusal.quota and not refusal.overdrawn
    if not by_quota and not wanted.alone:
        return Roll(surge=1)
    surge = 0 if wanted.alone else 1
    if len(ready) >= wanted.replicas and (by_quota or refusal is None):
        for victim in sorted(old, key=lambda v: _order(v, wanted, observed)):
            takes_over = wanted.alone or observed.room.quota_after(victim.name)
            if takes_over and observed.room.after(victim.name, 1):
                return Roll(drained=(victim,))
        if wanted.alone:
            return Roll(blocked=_no_node(f"the new revision would not run there: it {observed.room.shortage()}"))
    return Roll(surge=surge)


def _drain_for(
    old: Sequence[ReplicaView], ready: Sequence[ReplicaView], waiting: int, wanted: Wanted, observed: Observed
) -> Roll:
    """Gangs of the new revision wait for nodes."""
    if observed.room.spare() >= waiting:
        return Roll()  # they are about to be placed
    if len(ready) < wanted.replicas:
        why = f"{len(ready)} of {wanted.replicas} replicas serve, so none of them is drained for the new revision"
        return Roll(blocked=_no_node(f"{why}, which {observed.room.shortage()}"))
    for victim in sorted(old, key=lambda v: _order(v, wanted, observed)):
        if observed.room.after(victim.name, waiting):
            return Roll(drained=(victim,))
    lacks = observed.room.shortage()
    return Roll(blocked=_no_node(f"no replica is drained for the new revision, which would not run there: it {lacks}"))


def _no_node(why: str) -> Blocked:
    return Blocked(Reason.NO_NODE_FOR_NEW_REVISION, f"{why}; add or free nodes, or take the change back")


def _fails(coming: Sequence[ReplicaView]) -> Blocked | None:
    """A gang of the new revision that failed comes again after its back-off; until then this is why nothing moves."""
    for view in coming:
        if view.failure is not None:
            why = f"{view.failure.reason}: {view.failure.message}"
            return Blocked(Reason.NEW_REVISION_FAILED, f"{view.name} of the new revision failed, {why}")
    return None


def _waits_for(old: Sequence[ReplicaView], observed: Observed) -> Blocked | None:
    starting = [v.name for v in old if v.state is GangState.STARTING]
    if not starting:
        return None
    return _no_node(f"{', '.join(starting)} goes on starting, since the new revision {observed.room.shortage()}")
