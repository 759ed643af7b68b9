"""`decide(facts, now) → Round`: the one place where everything that is known comes together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..api.reasons import Reason
from ..lifecycle.actions import CreateGang, Decision
from ..lifecycle.decide import next_actions
from ..lifecycle.gangs import Gang, GangState
from ..lifecycle.judging import Evidence, Verdict, judge
from ..lifecycle.observed import Nowhere, Observed, Refusal, Room, Wanted
from ..lifecycle.records import records_of
from ..manifests.template import Template, shape_of
from ..placement.blame import Blame
from ..placement.place import Shape
from ..status.observation import Finding, Trial
from ..status.wording import some_of
from . import canary, refusals
from .blaming import blames
from .budget import budget
from .children import Children, children, gangs_may_start, name_taken, taken_names
from .facts import Facts
from .guard import Losses, allowance, losses, unheard
from .moving import moving
from .revisions import Revisions, revisions
from .room import PlacementRoom
from .routing import answering, served_name, workers
from .scaling import Scaling, scale

BUSY_SECONDS = 5.0
"""Look again after this long while something is under way or the autoscaler watches the load."""
IDLE_SECONDS = 30.0
SOON_SECONDS = 1.0
"""While nothing can be done before others have done their part."""

_NAME_TAKEN = Refusal("a name is taken", float("inf"))
"""No gang may start while this lasts; `name_taken` says why."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A whole gated gang that wants nodes. `missed`: fewer replicas serve than are wanted. `on_trial`: of a revision
    that nobody knows to serve: what comes back as what it was has the nodes before it."""

    gang: Gang
    shape: Shape
    missed: bool = True
    on_trial: bool = False


@dataclass(frozen=True, slots=True)
class Round:
    """What is to be done and told. Carried out in the order of the fields: what may cost a request comes after the
    gateways have been told. `templates`: revisions that gangs of this round are made from. `blames`: nodes that this
    round's failures speak against."""

    wanted: Wanted
    scaling: Scaling
    decision: Decision
    children: Children
    workers: frozenset[str]
    waiting: tuple[Waiting, ...]
    templates: Mapping[str, Template]
    weights: Finding
    troubles: tuple[Finding, ...]
    revisions: Revisions = field(default_factory=Revisions)
    trial: Trial | None = None
    blames: tuple[Blame, ...] = ()
    old_news: bool = False
    """Decided on a watch that stands still: what seems gone may be there."""

    @property
    def revision(self) -> str | None:
        """The one that is wanted."""
        return self.revisions.wanted.revision if self.revisions.wanted is not None else None


def decide(facts: Facts, now: float) -> Round:
    """One round. Deterministic: the same facts give the same round until it has been carried out."""
    lost = losses(facts, now)
    evidence = _evidence(facts, lost, now)
    verdicts = {gang.name: judge(gang, evidence, now) for gang in facts.gangs}
    scaling = scale(facts, verdicts, now)
    weights = facts.weights or Finding("Unknown", Reason.WEIGHTS_UNCHECKED, "not looked at before the spec is valid")
    found = revisions(facts, verdicts, evidence, now)
    tried = canary.trial(facts, found, verdicts, evidence, now)
    found = found.taken_back(facts.templates) if tried is not None and tried.state == "Aborted" else found
    wanted = _wanted(facts, scaling, found, weights)
    taken = taken_names(facts)
    observed = _observed(facts, evidence, verdicts, scaling, found.wanted, gangs_may_start(facts.name, taken))
    decision = next_actions(wanted, observed, now)
    templates = dict(facts.templates) | {t.revision: t for t in (found.wanted, found.asked) if t is not None}
    now_answer = answering(facts, decision, found, templates, wanted.replicas)
    to = workers(facts, decision, now_answer)
    context, kept = facts.subject.context, None if wanted.hold else found.asked
    name = served_name(found, now_answer, templates, context.spec.model.served_as if context is not None else "")
    around = children(facts, taken, kept, to, budget(decision, wanted), name)
    stands = canary.told(facts, found, tried, _updated(decision, wanted), wanted.replicas, now)
    return Round(
        wanted=wanted,
        scaling=scaling,
        decision=decision,
        children=around,
        workers=to,
        waiting=_waiting(facts, decision, templates, wanted),
        templates=templates,
        weights=weights,
        troubles=_troubles(facts, lost, observed, decision, around, stands),
        revisions=found,
        trial=tried,
        blames=blames(facts, decision, wanted),
        old_news=bool(observed.allowance.nothing),
    )


def _updated(decision: Decision, wanted: Wanted) -> int:
    return sum(v.state is GangState.READY and v.revision == wanted.revision for v in decision.replicas)


def _waiting(
    facts: Facts, decision: Decision, templates: Mapping[str, Template], wanted: Wanted
) -> tuple[Waiting, ...]:
    """Each wants nodes for what it was made as: the spec of the moment may be another, or none that can be planned."""
    known = [g for g in decision.unplaced if g.revision in templates]
    missed, label = len(decision.serving) < wanted.replicas, facts.settings.fabric_label
    waiting = [Waiting(g, shape_of(templates[g.revision], label), missed, g.revision in wanted.on_trial) for g in known]
    return tuple(sorted(waiting, key=lambda w: w.on_trial))


def _evidence(facts: Facts, lost: Losses, now: float) -> Evidence:
    startup = facts.subject.spec.startup if facts.subject.spec is not None else None
    return Evidence(
        start_seconds=startup.seconds if startup is not None else float("inf"),
        stall_seconds=startup.may_stand_still if startup is not None else float("inf"),
        records=records_of(facts.subject.status.replica_statuses, now),
        remembers=facts.remembers,
        dead_nodes=lost.dead,
        heard=facts.engines.heard,
        silence=unheard(facts),
        drain_seconds=facts.subject.spec.drain.seconds if facts.subject.spec is not None else float("inf"),
        hangs=facts.engines.hangs,
    )


def _wanted(facts: Facts, scaling: Scaling, found: Revisions, weights: Finding) -> Wanted:
    """What the lifecycle is asked for. Without a plan, or without weights, nothing is added or replaced."""
    template, spec = found.wanted, facts.subject.spec
    if template is None or spec is None:
        return Wanted(facts.name, scaling.total, "", 1, hold=True, stable=found.stable)
    strategy, before = spec.strategy, facts.templates.get(found.stable)
    # Two models never answer under one name: the new one's replicas stand by until there are enough of them.
    another = before is not None and before.served != template.served
    return Wanted(
        name=facts.name,
        replicas=scaling.total,
        revision=template.revision,
        size=template.size,
        hold=weights.status == "False",
        alone=weights.reason == Reason.CLAIM_ONE_NODE,
        stable=found.stable,
        proven=found.proven,
        may_try=not spec.paused,
        max_surge=max(strategy.max_surge, scaling.total if another else 0),
        max_unavailable=strategy.may_be_missing(scaling.in_force, scaling.spares),
    )


def _observed(
    facts: Facts,
    evidence: Evidence,
    verdicts: Mapping[str, Verdict],
    scaling: Scaling,
    template: Template | None,
    may_start: bool,
) -> Observed:
    room: Room = Nowhere()
    if template is not None:
        shape = shape_of(template, facts.settings.fabric_label)
        room = PlacementRoom(shape, facts.nodes.all, facts.nodes.held, facts.nodes.ahead)
    return Observed(
        gangs=facts.gangs,
        evidence=evidence,
        loads=_loads(facts),
        room=room,
        allowance=allowance(facts, verdicts, scaling.by_user),
        refusal=facts.refusal if may_start else _NAME_TAKEN,
        moving=moving(facts),
        broken={gang: verdict.message for gang, verdict in facts.verdicts.items() if verdict.broken_pins},
        attempt_floor=facts.subject.status.attempt_floor,
        templates={revision: template.size for revision, template in facts.templates.items()},
    )


def _loads(facts: Facts) -> Mapping[str, int]:
    """Requests of each gang: by the engine's own account, and at least what the gateways have running there."""
    found = dict(facts.engines.loads)
    for gang in facts.gangs:
        if gang.url is not None and gang.name in found:
            found[gang.name] = max(found[gang.name], facts.gateways.in_flight.get(gang.url, 0))
    return found


def _troubles(
    facts: Facts,
    lost: Losses,
    observed: Observed,
    decision: Decision,
    around: Children,
    stands: list[Finding],
) -> tuple[Finding, ...]:
    """What stands between the wish and its coming true, worst first."""
    found: list[Finding | None] = [
        Finding("False", Reason.STALE_WATCH, observed.allowance.nothing) if observed.allowance.nothing else None,
        lost.suspended,
        lost.left_alone,
        name_taken(around.taken),
        _refused(observed.refusal) if _creates(decision) and observed.refusal is not _NAME_TAKEN else None,
        Finding("False", decision.blocked.reason, decision.blocked.message) if decision.blocked else None,
        *stands,
        _strangers(facts.strangers),
        _unread(facts),
    ]
    return tuple(finding for finding in found if finding is not None)


def _creates(decision: Decision) -> bool:
    """Whether anything is to be created: what was refused and is not wanted any more is nobody's trouble."""
    return decision.held_back or any(isinstance(action, CreateGang) for action in decision.actions)


def _refused(refusal: Refusal | None) -> Finding | None:
    if refusal is None:
        return None
    if refusal.quota:
        remedy = "no gang is left half made; raise the quota, lower spec.replicas, or free what others use of it"
        return Finding("False", Reason.QUOTA_EXCEEDED, f"{refusal.message}; {remedy}")
    remedy = refusals.remedy(refusal.message)
    return Finding("False", Reason.CREATE_REFUSED, f"{refusal.message}; no gang is left half made; {remedy}")


def _strangers(pods: tuple[str, ...]) -> Finding | None:
    if not pods:
        return None
    message = (
        f"{some_of(pods)}: carries the labels of our engine pods, but is not owned by this R1Deployment; it is left out"
    )
    return Finding("False", Reason.FOREIGN_PODS, f"{message}. Take the labels off, or delete it")


def _unread(facts: Facts) -> Finding | None:
    subject = facts.subject
    if subject.unknown:
        fields = ", ".join(subject.unknown[:5])
        message = f"{fields}: not known to this version of the operator, which goes on without; upgrade the operator"
        return Finding("False", Reason.UNKNOWN_FIELDS, message)
    if not facts.remembers:
        message = "the status was lost or written by another version; what runs is kept as it is and told anew"
        return Finding("False", Reason.STATUS_NOT_READ, message)
    return None


def next_look(round_: Round, rotation: frozenset[str] | None, gateway: Finding) -> float:
    """Seconds until the next round if nothing happens before. `rotation`: what the gateways said in this round."""
    decision = round_.decision
    busy = (
        round_.scaling.decision is not None
        or bool(decision.leaving)
        or bool(round_.troubles)
        or len(decision.serving) != round_.wanted.replicas
        or len(decision.replicas) != round_.wanted.replicas
        or gateway.status != "True"
    )
    usual = BUSY_SECONDS if busy else IDLE_SECONDS
    if rotation is not None and len(round_.workers & rotation) < min(len(round_.workers), round_.wanted.replicas):
        usual = SOON_SECONDS  # the router's own look at a replica that is new to it takes a second
    return usual if decision.look_again_in is None else min(usual, decision.look_again_in)
