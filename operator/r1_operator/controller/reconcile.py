"""Reconcile one R1Deployment: observe → plan → decide → place → act → status."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..api import names
from ..api.reasons import Reason
from ..api.timestamps import unix_time
from ..api.types import to_wire
from ..autoscaling.decide import Decision as ScalingDecision
from ..autoscaling.decide import ScalingState
from ..autoscaling.decide import decide as decide_scaling
from ..cluster import Cache, Client, Events, resource_of
from ..cluster.resources import NODES, PERSISTENT_VOLUME_CLAIMS, PODS, R1_DEPLOYMENTS, SECRETS, JsonObject
from ..lifecycle.actions import CreateGang, Decision, EndPods
from ..lifecycle.decide import Observed, Wanted, next_actions
from ..lifecycle.gangs import Gang
from ..lifecycle.pods import gangs_of
from ..lifecycle.records import records_of
from ..manifests.differs import differs
from ..manifests.engine_pod import shape_of
from ..manifests.engine_service import engine_service
from ..manifests.gateway import gateway_objects, gateway_secret
from ..manifests.ray_secret import ray_secret
from ..placement.nodes import dead_nodes
from ..placement.place import Placement, Shape, Unplaceable
from ..status.derive import derive
from ..status.observation import Finding, Observation, Reading
from ..status.transitions import events
from ..telemetry.metrics import Metrics
from .acting import Actor
from .api_keys import ApiKeys
from .figures import count, publish
from .gateway import NOT_FED, GatewayRound, feed, gateway_pods, gateway_token
from .monitor import Monitor
from .placing import Placer
from .ports import Gateways
from .predecessor import still_in_the_way
from .queue import Key
from .reading import Settings, Subject, read_subject
from .rounds import BUSY_SECONDS, SOON_SECONDS, describe, force, next_look, undo, wanted_of, workers_of
from .steps import Steps
from .weights import check_weights

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 60.0
_OUT_OF_ROTATION = frozenset({"Draining", "Failed"})


class ReconcileFailed(Exception):
    """One or more steps failed; the status says which."""


@dataclass(frozen=True, slots=True)
class _Scaling:
    """What the autoscaler says now, and what is in force: its last word that stands in the status."""

    in_force: int
    decision: ScalingDecision | None = None
    last_up: float | None = None
    last_down: float | None = None


class Reconciler:
    """Holds the means; each reconcile is independent of the others."""

    def __init__(
        self,
        client: Client,
        cache: Cache,
        events: Events,
        monitor: Monitor,
        gateways: Gateways,
        metrics: Metrics,
        settings: Settings,
        clock: Callable[[], float],
    ) -> None:
        self._client, self._cache, self._events = client, cache, events
        self._monitor, self._gateways, self._settings, self._clock = monitor, gateways, settings, clock
        self._metrics = metrics
        self._placer = Placer(client, cache)
        self._actor = Actor(client, cache)
        self._api_keys = ApiKeys(client, clock)

    async def reconcile(self, key: Key) -> float | None:
        """One round. → seconds until the next one if nothing happens. Raises ReconcileFailed in the end."""
        obj = self._cache.get(R1_DEPLOYMENTS, *key)
        steps = Steps(f"{key[0]}/{key[1]}")
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            self._metrics.forget(key)
            self._api_keys.forget(key)
            left = await self._sweep_after_deletion(key, steps)
            return self._after(steps, BUSY_SECONDS if left else None)
        now = self._clock()
        subject = read_subject(obj, self._settings)
        pods = self._cache.snapshot(PODS, key[0], names.base_labels(key[1], names.COMPONENT_ENGINE))
        if in_the_way := still_in_the_way(self._cache, key, subject.metadata.uid, pods):
            await self._tell_of_predecessor(obj, subject, in_the_way, steps, now)
            return self._after(steps, SOON_SECONDS)
        gangs = gangs_of(pods)
        weights = self._check_weights(subject)
        scaling = self._scale(subject, gangs, key, now)
        shape = shape_of(subject.context, self._settings.fabric_label) if subject.context else None
        wanted = wanted_of(subject, scaling.in_force, weights)
        decision = next_actions(wanted, self._observed(subject, gangs, wanted, shape, key, now), now)

        await self._apply_children(subject, decision, steps)
        gateway = await self._feed_gateway(subject, decision, key, steps)
        await self._act(subject, decision, wanted.revision, gateway, steps)
        placements = await self._place(decision, shape, key, steps)
        observation = Observation(
            generation=subject.metadata.generation,
            spec=subject.spec,
            selector=names.engine_selector(key[1]),
            desired=scaling.in_force,
            spec_valid=subject.valid,
            weights=weights,
            gateway=gateway.finding,
            routed=None if gateway.routed is None or not gateway.serving_pods else len(gateway.routed),
            plan=subject.plan,
            decision=decision,
            revision=wanted.revision if subject.context else None,
            unplaceable=tuple(p for p in placements if isinstance(p, Unplaceable)),
            readings={g: Reading(r.stage, r.message) for g, r in self._monitor.readings(key).items()},
            sick_gpus=self._monitor.sick_gpus(key),
            load=next(iter(self._monitor.window(key)[-1:]), None),
            scaling=scaling.decision,
            last_scale_up=scaling.last_up,
            last_scale_down=scaling.last_down,
            errors=tuple(steps.errors),
        )
        await self._tell(obj, subject, observation, steps, now)
        return self._after(steps, next_look(observation, decision))

    # --- observe -----------------------------------------------------------------------------------------------------
    def _observed(
        self, subject: Subject, gangs: Sequence[Gang], wanted: Wanted, shape: Shape | None, key: Key, now: float
    ) -> Observed:
        holders = {m.node for g in gangs for m in g.members if m.node and not m.finished}
        outdated = not wanted.hold and any(g.revision != wanted.revision for g in gangs)
        return Observed(
            gangs=tuple(gangs),
            records=records_of(subject.status.replica_statuses),
            dead_nodes=dead_nodes(self._cache.snapshot(NODES), holders, self._settings.node_lost_seconds, now),
            loads=self._monitor.loads(key),
            # Only a roll asks for room, and the sum over all pods of the cluster is not free.
            room=self._placer.room(shape) if outdated and shape is not None else 0,
        )

    def _check_weights(self, subject: Subject) -> Finding:
        if subject.spec is None or subject.plan is None:
            return Finding("Unknown", Reason.WEIGHTS_UNCHECKED, "not looked at before the spec is valid")
        source = subject.spec.model.weights.persistent_volume_claim
        namespace = subject.metadata.namespace
        claim = self._cache.get(PERSISTENT_VOLUME_CLAIMS, namespace, source.claim_name) if source else None
        return check_weights(subject.spec.model.weights, claim, namespace, subject.plan.nodes_per_replica)

    def _scale(self, subject: Subject, gangs: Sequence[Gang], key: Key, now: float) -> _Scaling:
        """The autoscaler's word counts once it stands in the status; so it survives this process."""
        spec, before = subject.spec, subject.status.autoscaling
        if spec is None:
            return _Scaling(subject.status.desired_replicas)
        config = spec.autoscaling
        if config is None or spec.replicas == 0:
            return _Scaling(spec.replicas)
        current = before.desired_replicas if before and before.desired_replicas > 0 else spec.replicas
        last_up = unix_time(before.last_scale_up) if before else None
        last_down = unix_time(before.last_scale_down) if before else None
        alive = [g for g in gangs if not any(m.deleting or m.finished for m in g.members)]
        ready = [g for g in alive if not g.missing and all(m.ready for m in g.members)]
        starting = [g for g in alive if g not in ready]
        state = ScalingState(
            desired=current,
            ready=len(ready),
            starting=len(starting),
            starting_since=min((m.created_at for g in starting for m in g.members), default=None),
            start_seconds=self._monitor.start_seconds(key),
            last_up=last_up,
            last_down=last_down,
        )
        decision = decide_scaling(config, self._monitor.window(key), state, now)
        in_force = min(max(current, config.min_replicas), config.max_replicas)
        if decision.desired > in_force:
            last_up = now
        elif decision.desired < in_force:
            last_down = now
        return _Scaling(in_force, decision, last_up, last_down)

    # --- act ---------------------------------------------------------------------------------------------------------
    async def _apply_children(self, subject: Subject, decision: Decision, steps: Steps) -> None:
        context = subject.context
        if context is None:
            return
        tokens = [(names.ray_secret(context.name), ray_secret), (names.gateway_name(context.name), gateway_secret)]
        for name, render in tokens:
            if self._cache.get(SECRETS, context.namespace, name) is None:
                with steps.step("secret"):
                    await self._actor.create(render(context, secrets.token_hex(32)))
        routed = frozenset(worker.url for worker in workers_of(decision, decision.serving))
        wanted = [engine_service(context), *gateway_objects(context, routed)]
        stale = [obj for obj in wanted if differs(obj, self._live(obj))]
        await steps.all("apply", [self._apply(obj) for obj in stale])

    def _live(self, obj: JsonObject) -> JsonObject | None:
        metadata = obj["metadata"]
        return self._cache.get(resource_of(obj), metadata["namespace"], metadata["name"])

    async def _apply(self, obj: JsonObject) -> None:
        self._cache.remember(await self._client.apply(obj))

    async def _feed_gateway(self, subject: Subject, decision: Decision, key: Key, steps: Steps) -> GatewayRound:
        with steps.step("gateway"):
            token = gateway_token(self._cache, key)
            wanted = workers_of(decision, self._routable(decision, key))
            fed = await feed(self._gateways, gateway_pods(self._cache, key, subject.metadata.uid), wanted, token)
            named = subject.spec.gateway.api_key_secret if subject.spec else None
            missing = await self._api_keys.missing(key, named)
            return fed if missing is None else replace(fed, finding=missing)
        return NOT_FED

    def _routable(self, decision: Decision, key: Key) -> frozenset[str]:
        """Serving gangs, but for those whose own agent says otherwise: it knows before the kubelet's probe does."""
        readings = self._monitor.readings(key)
        out = {gang for gang, reading in readings.items() if reading.stage in _OUT_OF_ROTATION}
        return decision.serving - out

    async def _act(
        self, subject: Subject, decision: Decision, revision: str, gateway: GatewayRound, steps: Steps
    ) -> None:
        namespace, context = subject.metadata.namespace, subject.context
        urls = {view.name: [w.url for w in workers_of(decision, [view.name])] for view in decision.replicas}
        for action in decision.actions:
            log.info("%s: %s", steps.key, describe(action))
            if isinstance(action, EndPods):
                if action.drains and any(gateway.may_be_sent_to(url) for url in urls.get(action.gang, ())):
                    log.warning("%s: %s waits until the gateway is told", steps.key, action.gang)
                    continue
                await steps.all(f"end {action.gang}", self._actor.end_pods(namespace, action))
        creations = [a for a in decision.actions if isinstance(a, CreateGang)]
        if context is not None:
            await steps.all("create", [self._actor.create_gang(context, revision, a) for a in creations])
        name = subject.metadata.name
        created = [names.gang_name(name, a.replica, a.attempt) for a in creations]
        await steps.all("sweep", self._actor.sweep(namespace, name, created))

    async def _place(
        self, decision: Decision, shape: Shape | None, key: Key, steps: Steps
    ) -> tuple[Placement | Unplaceable, ...]:
        if shape is None:
            return ()
        with steps.step("place"):
            fitting = [g for g in decision.unplaced if g.size == shape.size]
            results = await self._placer.place(key[0], fitting, shape)
            for gang, result in zip(fitting, results, strict=True):
                if isinstance(result, Unplaceable) and result.broken_pins:
                    # Pins cannot be moved: the next attempt is free to go elsewhere.
                    await steps.all(f"undo {gang.name}", self._actor.end_pods(key[0], undo(gang, result)))
            return results
        return ()

    async def _sweep_after_deletion(self, key: Key, steps: Steps) -> bool:
        """The garbage collector removes what is owned; where the kubelet is gone, we confirm. → whether any is left"""
        pods = self._cache.snapshot(PODS, key[0], names.base_labels(key[1], names.COMPONENT_ENGINE))
        gangs = gangs_of(pods)
        holders = {m.node for g in gangs for m in g.members if m.node}
        nodes = self._cache.snapshot(NODES)
        dead = dead_nodes(nodes, holders, self._settings.node_lost_seconds, self._clock())
        for gang in gangs:
            lost = [m for m in gang.members if m.node in dead and m.deleting]
            await steps.all(f"force {gang.name}", self._actor.end_pods(key[0], force(gang, lost)))
        return bool(gangs)

    # --- tell --------------------------------------------------------------------------------------------------------
    async def _tell(
        self, obj: JsonObject, subject: Subject, observation: Observation, steps: Steps, now: float
    ) -> None:
        with steps.step("status"):
            status = derive(subject.status, observation, now)
            meta = subject.metadata
            key = (meta.namespace, meta.name)
            publish(self._metrics, key, status, observation.load)
            if status == subject.status:
                return
            written = await self._client.apply_status(meta.namespace, meta.name, to_wire(status))
            self._cache.remember(written)
            count(self._metrics, key, subject.status, status)
            for event in events(subject.status, status):
                self._events.emit(obj, event.reason, event.message, type=event.type)

    async def _tell_of_predecessor(
        self, obj: JsonObject, subject: Subject, in_the_way: Sequence[str], steps: Steps, now: float
    ) -> None:
        """The garbage collector needs a second, half a minute just after the CRD was made; longer is for the user."""
        log.debug("%s: waits until the garbage collector has taken %s", steps.key, ", ".join(in_the_way))
        meta = subject.metadata
        if now - (unix_time(meta.creation_timestamp) or now) < _PATIENCE_SECONDS:
            return
        observation = Observation(
            generation=meta.generation,
            spec=subject.spec,
            selector=names.engine_selector(meta.name),
            desired=subject.status.desired_replicas,
            spec_valid=subject.valid,
            weights=Finding("Unknown", Reason.WEIGHTS_UNCHECKED, "not looked at yet"),
            gateway=Finding("Unknown", Reason.GATEWAY_STARTING, "not looked at yet"),
            plan=subject.plan,
            errors=(
                f"left of an earlier R1Deployment of this name, whose uid they carry: {', '.join(in_the_way)}; "
                "wait for the garbage collector, or delete them",
            ),
        )
        await self._tell(obj, subject, observation, steps, now)

    @staticmethod
    def _after(steps: Steps, next_look: float | None) -> float | None:
        if steps.errors:
            raise ReconcileFailed("; ".join(steps.errors))
        return next_look
