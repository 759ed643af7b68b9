"""Does what a round says, in the order that loses no request: children, gateways, ends, new gangs, placement."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..api import names
from ..lifecycle.actions import Action, CreateGang, EndPods, Why
from ..manifests.template import loose_of
from ..rounds.children import Json, child_of
from ..rounds.decide import Round
from ..rounds.facts import Facts
from .acting import Actor, GangRefused, NameTaken
from .feeding import GatewayFeeder
from .gateway import NOT_FED, GatewayRound
from .memory import Memory
from .placing import Placer
from .queue import Key
from .steps import Steps

log = logging.getLogger(__name__)

CREATE_SECONDS = 20.0
_VOLUNTARY = frozenset({Why.UPDATE, Why.MOVE, Why.SCALE_DOWN})
KEPT_REVISIONS = 10
"""Of those that nothing runs as: what `r1 rollout undo` may go back to."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a round. `again`: the next one should come at once, with what was learned or for what is left."""

    gateway: GatewayRound
    errors: tuple[str, ...] = ()
    again: bool = False


class Hands:
    """Carries rounds out. What fails is noted in the steps; the rest is done all the same."""

    def __init__(self, actor: Actor, feeder: GatewayFeeder, placer: Placer, memory: Memory) -> None:
        self._actor, self._feeder, self._placer, self._memory = actor, feeder, placer, memory

    async def carry_out(self, key: Key, facts: Facts, round_: Round, steps: Steps, now: float) -> Outcome:
        """All of a round but its telling."""
        before = self._memory.of(key)
        await self._children(key, facts, round_, steps, now)
        gateway = await self._feed(key, facts, round_, steps)
        await self._end(key, facts, round_, gateway, steps)
        finished = await self._create(key, facts, round_, steps, now)
        await self._sweep(facts, round_, steps)
        await steps.all("label", [self._actor.label(key[0], pod, patch) for pod, patch in facts.relabel.items()])
        self._placer.submit(key, round_.waiting)
        taught = self._memory.of(key) != replace(before, gateway=gateway)
        return Outcome(gateway, tuple(steps.errors), again=taught or not finished)

    def remember(self, key: Key, round_: Round) -> None:
        """It has been told: the next one may take new defaults over."""
        self._memory.outdated(key, round_.revisions.newer is not None)

    def forget(self, key: Key) -> None:
        """The R1Deployment is gone."""
        self._memory.forget(key)
        self._placer.submit(key, ())

    async def _children(self, key: Key, facts: Facts, round_: Round, steps: Steps, now: float) -> None:
        context, todo = facts.subject.context, round_.children
        if context is None:
            return
        uid = facts.subject.metadata.uid
        starts = any(isinstance(action, CreateGang) for action in round_.decision.actions)
        await self._secrets(key, todo.secrets, starts, steps, now)
        made = todo.create
        results = await asyncio.gather(*(self._actor.create_or_apply(o, uid) for o in made), return_exceptions=True)
        for result in results:
            if isinstance(result, NameTaken):
                self._memory.taken(key, result.child, result.whose, now)
            elif isinstance(result, Exception):
                steps.note("create", result)
        await steps.all("remove", [self._actor.remove(o) for o in todo.remove])
        await steps.all("apply", [self._actor.apply(o, facts.live[child_of(o)]) for o in todo.apply])

    async def _secrets(self, key: Key, secrets: Sequence[Json], starts: bool, steps: Steps, now: float) -> None:
        """Before each gang `starts`, and then so often that one which was deleted is back soon: with the same content,
        it is derived. A pod without it waits, for the kubelet tries again only after up to two minutes."""
        for obj in secrets:
            name = str(obj["metadata"]["name"])
            if starts or self._memory.secret_due(key, name, now):
                with steps.step(f"create Secret {name}"):
                    await self._actor.create_unread(obj)
                    self._memory.secret_made(key, name, now)

    async def _feed(self, key: Key, facts: Facts, round_: Round, steps: Steps) -> GatewayRound:
        with steps.step("gateway"):
            fed = await self._feeder.feed(key, facts.subject, round_.workers, round_.scaling.retry_after)
            self._memory.fed(key, fed)
            return fed
        return NOT_FED

    async def _end(self, key: Key, facts: Facts, round_: Round, gateway: GatewayRound, steps: Steps) -> None:
        ends = [a for a in round_.decision.actions if isinstance(a, EndPods)]
        spec = facts.subject.spec
        grace = loose_of(spec).grace_seconds if spec is not None else None  # the present limit, not that of the start
        going = [a for a in ends if not self._must_wait(a, facts, round_, gateway, steps)]
        for action in going:
            log.info("%s: %s", steps.key, describe(action))
        await asyncio.gather(
            *(steps.all(f"end {action.gang}", self._actor.end_pods(key[0], action, grace)) for action in going)
        )

    def _must_wait(self, action: EndPods, facts: Facts, round_: Round, gateway: GatewayRound, steps: Steps) -> bool:
        """Whether a request might still be sent there, or nobody else would take one."""
        if not action.drains:
            return False
        url = next((g.url for g in facts.gangs if g.name == action.gang), None) or ""
        if gateway.may_be_sent_to(url):
            log.warning("%s: %s waits until no gateway sends requests to it", steps.key, action.gang)
            return True
        nobody = gateway.serving_pods > 0 and not (round_.workers & (gateway.routed or frozenset()))
        if action.why in _VOLUNTARY and round_.workers and nobody:
            log.warning("%s: %s waits until another replica is in the rotation", steps.key, action.gang)
            return True
        return False

    async def _create(self, key: Key, facts: Facts, round_: Round, steps: Steps, now: float) -> bool:
        """One gang after the other: what a quota has left must not end as two halves. → whether all was tried

        Not all of a hundred in one round where the API server is slow: one that lasts for minutes counts as hanging.
        """
        began, spec = time.monotonic(), facts.subject.spec
        loose = loose_of(spec) if spec is not None else None
        for action in round_.decision.actions:
            if not isinstance(action, CreateGang):
                continue
            if time.monotonic() - began > CREATE_SECONDS:
                return False
            template = round_.templates.get(action.revision)
            if template is None:
                continue
            log.info("%s: %s", steps.key, describe(action))
            try:
                await self._actor.create_gang(template, facts.subject.metadata.uid, action, loose)
                self._memory.created(key)
            except GangRefused as refused:
                # No error of ours: the next round knows, tells, and waits.
                log.warning("%s: %s", steps.key, refused.error)
                self._memory.refused(key, facts.subject.metadata.generation, refused.error, now)
                return True
            except NameTaken as taken:
                self._memory.taken(key, taken.child, taken.whose, now)
            except Exception as error:
                steps.note("create", error)
        return True

    async def _sweep(self, facts: Facts, round_: Round, steps: Steps) -> None:
        if round_.old_news:
            return  # a gang that seems gone may be there
        name = facts.name
        creations = [a for a in round_.decision.actions if isinstance(a, CreateGang)]
        gangs = {g.name for g in facts.gangs} | {names.gang_name(name, a.replica, a.attempt) for a in creations}
        revisions = {g.revision for g in facts.gangs} | {a.revision for a in creations} | _kept(facts, round_)
        maps = [obj for (kind, _), obj in facts.live.items() if kind == "ConfigMap"]
        calls = self._actor.sweep(maps, facts.subject.metadata.uid, gangs, {r for r in revisions if r})
        await steps.all("sweep", calls)


def _kept(facts: Facts, round_: Round) -> set[str]:
    """Revisions to keep although nothing may run as them at the moment."""
    found, status = round_.revisions, facts.subject.status
    named = {t.revision for t in (found.wanted, found.asked) if t is not None} | {found.stable}
    named |= {status.current_revision, status.update_revision}
    records = {r.revision for r in status.replica_statuses}  # what has failed comes back as what it was
    by_age = sorted(facts.templates.values(), key=lambda t: (t.made_at, t.revision), reverse=True)
    return named | records | {t.revision for t in by_age[:KEPT_REVISIONS]}


def describe(action: Action) -> str:
    """An action as one line of the log."""
    if isinstance(action, CreateGang):
        members = ", ".join(map(str, action.members))
        what = f"create replica {action.replica} attempt {action.attempt}, pods {members}, revision {action.revision}"
        return f"{action.why}: {what} {action.message}"
    grace = "their own grace period" if action.grace_seconds is None else f"{action.grace_seconds} s"
    pods = ", ".join(pod.name for pod in action.pods)
    return f"{action.why}: end {pods} within {grace}: {action.message}"
