"""Tells what a round found and did: status, events, metrics."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from ..api import names
from ..api.reasons import Reason
from ..api.timestamps import unix_time
from ..api.types import Metadata, PlanStatus, to_wire
from ..cluster import ApiError, Cache, Client, Events
from ..cluster.resources import JsonObject
from ..rounds.decide import Round
from ..rounds.facts import Facts
from ..status.derive import derive
from ..status.observation import Finding, Observation, Reading
from ..status.transitions import events
from ..telemetry.metrics import Metrics
from .carry_out import Outcome
from .figures import count, publish
from .older_schema import Path, undeclared, without
from .steps import Steps

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 60.0


class Teller:
    """Writes the status when it says something new."""

    def __init__(self, client: Client, cache: Cache, events: Events, metrics: Metrics) -> None:
        self._client, self._cache, self._events, self._metrics = client, cache, events, metrics
        self._undeclared: frozenset[Path] = frozenset()

    async def tell(
        self, obj: JsonObject, facts: Facts, round_: Round, outcome: Outcome, steps: Steps, now: float
    ) -> None:
        """The status of a round that was carried out."""
        await self._write(obj, facts, _observation(facts, round_, outcome), steps, now)

    async def tell_of_predecessor(self, obj: JsonObject, facts: Facts, steps: Steps, now: float) -> None:
        """The garbage collector needs a second, half a minute just after the CRD was made; longer is for the user."""
        in_the_way: Sequence[str] = facts.predecessors
        log.debug("%s: waits until the garbage collector has taken %s", steps.key, ", ".join(in_the_way))
        meta = facts.subject.metadata
        if now - (unix_time(meta.creation_timestamp) or now) < _PATIENCE_SECONDS:
            return
        observation = Observation(
            generation=meta.generation,
            spec=facts.subject.spec,
            selector=names.engine_selector(meta.name),
            desired=facts.subject.status.desired_replicas,
            spares=facts.subject.status.spare_replicas,
            spec_valid=facts.subject.valid,
            weights=Finding("Unknown", Reason.WEIGHTS_UNCHECKED, "not looked at yet"),
            gateway=Finding("Unknown", Reason.GATEWAY_STARTING, "not looked at yet"),
            plan=facts.subject.plan,
            errors=(
                f"left of an earlier R1Deployment of this name, whose uid they carry: {', '.join(in_the_way)}; "
                "wait for the garbage collector, or delete them",
            ),
        )
        await self._write(obj, facts, observation, steps, now)

    async def _write(self, obj: JsonObject, facts: Facts, observation: Observation, steps: Steps, now: float) -> None:
        with steps.step("status"):
            before, meta = facts.subject.status, facts.subject.metadata
            status = derive(before, observation, now)
            key = (meta.namespace, meta.name)
            publish(self._metrics, key, status, observation)
            if status is before and not facts.subject.unread:
                return
            try:
                # What this round knew of the resource is what it may overwrite: not the word of a later leader.
                written = await self._apply(meta, to_wire(status))
            except ApiError as error:
                if error.not_found:
                    return  # deleted meanwhile: there is nobody to tell
                raise
            self._cache.remember(written)
            count(self._metrics, key, before, status)
            for event in events(before, status, observation):
                self._events.emit(obj, event.reason, event.message, type=event.type)

    async def _apply(self, meta: Metadata, status: JsonObject) -> dict[str, Any]:
        """Raises ApiError. What the CRD of the cluster does not have is left out."""
        try:
            return await self._client.apply_status(
                meta.namespace, meta.name, without(status, self._undeclared), resource_version=meta.resource_version
            )
        except ApiError as error:
            more = undeclared(error) - self._undeclared
            if not more:
                raise
            fields = ", ".join(".".join(("status", *path)) for path in sorted(more))
            log.warning("%s: not in the CRD of this cluster, left out; upgrade the CRD", fields)
            self._undeclared |= more
        return await self._apply(meta, status)


def _observation(facts: Facts, round_: Round, outcome: Outcome) -> Observation:
    subject, engines = facts.subject, facts.engines
    decision, gateway = round_.decision, outcome.gateway
    waiting = {v.name for v in decision.replicas}
    return Observation(
        generation=subject.metadata.generation,
        spec=subject.spec,
        selector=names.engine_selector(facts.name),
        desired=round_.scaling.in_force,
        spares=round_.scaling.spares,
        spec_valid=subject.valid,
        weights=round_.weights,
        gateway=gateway.finding,
        routed=len(round_.workers & gateway.routed) if gateway.serving_pods and gateway.routed is not None else None,
        plan=subject.plan,
        layout=_layout(round_),
        trial=round_.trial,
        decision=decision,
        revision=round_.revision,
        unplaceable=tuple(u for gang, u in facts.verdicts.items() if gang in waiting and not u.broken_pins),
        readings={gang: Reading(heard.stage, heard.message) for gang, heard in engines.heard.items()},
        sick_gpus=engines.sick,
        fabrics=engines.fabrics,
        last_start=engines.last_start,
        changed=facts.changed,
        load=next(iter(engines.window[-1:]), None),
        scaling=round_.scaling.decision,
        last_scale_up=round_.scaling.last_up,
        last_scale_down=round_.scaling.last_down,
        errors=outcome.errors,
        troubles=round_.troubles,
    )


def _layout(round_: Round) -> PlanStatus | None:
    """Of the revision that is wanted: a later planner may choose another one for the same spec."""
    wanted = round_.revisions.wanted
    if wanted is None or not wanted.plan:
        return None
    try:
        return PlanStatus.model_validate(wanted.plan)
    except ValidationError:
        return None  # kept by another version
