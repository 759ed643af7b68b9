"""Reads what a round is decided on: the cache, what the monitor heard, what carrying out has taught."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from ..api import names
from ..api.parse import parse_status
from ..api.reasons import Reason
from ..cluster import Cache, Client, gone
from ..cluster.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    NETWORK_POLICIES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    R1_DEPLOYMENTS,
    SERVICES,
    JsonObject,
)
from ..lifecycle.gangs import Gang
from ..lifecycle.pods import gangs_of, owned_by
from ..manifests.template import Template, templates_of
from ..placement.nodes import holder_of, pod_requests
from ..rounds.facts import Child, Engines, Facts, Gateways, Nodes
from ..rounds.reading import Settings, Subject, read_subject
from ..rounds.weights import check_weights
from ..status.observation import Finding
from .admissions import Admissions
from .hangs import Hangs
from .inventory import Inventory
from .memory import Memory
from .monitor import Monitor
from .placing import Placer
from .predecessor import of_another
from .questions import Questions
from .queue import Key

_CHILDREN = (SERVICES, CONFIG_MAPS, DEPLOYMENTS, NETWORK_POLICIES, POD_DISRUPTION_BUDGETS)
_DECIDING = (R1_DEPLOYMENTS, PODS, NODES)
"""Kinds on whose news something may be ended."""


class Observer:
    """Puts the facts of one R1Deployment together."""

    def __init__(
        self,
        client: Client,
        cache: Cache,
        inventory: Inventory,
        monitor: Monitor,
        placer: Placer,
        memory: Memory,
        settings: Settings,
        questions: Questions,
        epoch: Callable[[], int | None],
    ) -> None:
        self._questions = questions
        self._client, self._cache, self._inventory = client, cache, inventory
        self._monitor, self._placer, self._memory, self._settings = monitor, placer, memory, settings
        self._hangs, self._admissions, self._epoch = Hangs(client), Admissions(), epoch

    async def observe(self, key: Key, obj: JsonObject, now: float) -> Facts:
        """Everything known now. Asks the API server only what no watch tells, and never fails for want of an answer."""
        subject = read_subject(obj, self._settings)
        uid = subject.metadata.uid
        pods = self._inventory.pods(key, names.COMPONENT_ENGINE)
        ours = [pod for pod in pods if owned_by(pod, uid)]
        live, old = self._children(key, uid)
        gangs = gangs_of(ours)
        templates = templates_of(o for (kind, _), o in live.items() if kind == "ConfigMap" and owned_by(o, uid))
        return Facts(
            subject=subject,
            settings=self._settings,
            gangs=gangs,
            strangers=self._inventory.strangers(key),
            predecessors=tuple(old + _standing(pods, uid)),
            live=live,
            taken=self._memory.taken_by_others(key, now),
            templates=templates,
            changed=self._admissions.changes(key, ours, templates),
            weights=self._weights(subject),
            nodes=await self._nodes(key, gangs, ours),
            engines=await self._engines(key, ours, now),
            gateways=self._gateways(key),
            verdicts=self._placer.verdicts(key),
            refusal=self._memory.refusal(key, subject.metadata.generation),
            watch_age=self._watch_age(),
            relabel=_relabel(subject, ours, templates),
            at=now,
            may_adopt=self._may_adopt(key),
            epoch=self._epoch(),
        )

    def _may_adopt(self, key: Key) -> bool:
        """One R1Deployment after the other takes new defaults over, by name; the next one when all is well again."""
        if not self._settings.adopts or not self._memory.is_first(key):
            return False
        for obj in self._cache.snapshot(R1_DEPLOYMENTS):
            other = (obj["metadata"]["namespace"], obj["metadata"]["name"])
            status, _ = parse_status(obj.get("status"))
            changing = status.update_revision != status.current_revision
            if other != key and status.current_revision and (changing or status.unavailable_replicas):
                return False
        return True

    def _children(self, key: Key, uid: str) -> tuple[dict[Child, JsonObject], list[str]]:
        """Objects under our labels, and those of them that an earlier resource of this name has left."""
        labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_INSTANCE: key[1]}
        live: dict[Child, JsonObject] = {}
        old: list[str] = []
        for resource in _CHILDREN:
            for obj in self._cache.snapshot(resource, key[0], labels):
                child = (resource.kind, obj["metadata"]["name"])
                live[child] = obj
                if of_another(obj, uid):
                    old.append(" ".join(child))
        return live, old

    def _weights(self, subject: Subject) -> Finding:
        spec, plan = subject.spec, subject.plan
        if spec is None or plan is None:
            return Finding("Unknown", Reason.WEIGHTS_UNCHECKED, "not looked at before the spec is valid")
        source = spec.model.weights.persistent_volume_claim
        namespace = subject.metadata.namespace
        claim = self._cache.get(PERSISTENT_VOLUME_CLAIMS, namespace, source.claim_name) if source else None
        return check_weights(spec.model.weights, claim, namespace, plan.nodes_per_replica, spec.most_replicas)

    async def _nodes(self, key: Key, gangs: Sequence[Gang], ours: Sequence[JsonObject]) -> Nodes:
        nodes = self._inventory.nodes()
        known = {node.name for node in nodes}
        missing = {m.node for g in gangs for m in g.members if m.node and not m.over} - known
        return Nodes(
            all=nodes,
            gone=frozenset([name for name in sorted(missing) if await gone(self._client, NODES, None, name)]),
            held=_held(ours),
            ahead=self._placer.ahead_of(key),
            fleet=self._inventory.fleet(),
        )

    async def _engines(self, key: Key, ours: Sequence[JsonObject], now: float) -> Engines:
        return Engines(
            heard=self._monitor.heard(key),
            silence=self._monitor.silence(key),
            loads=self._monitor.loads(key),
            sick=self._monitor.sick_gpus(key),
            fabrics=self._monitor.fabrics(key),
            hangs=await self._hangs.look(ours, now),
            window=self._monitor.window(key),
            minutes=self._monitor.minutes(key),
            start_seconds=self._monitor.start_seconds(key),
            last_start=self._monitor.last_start(key),
            served=self._monitor.served(key),
            answers=self._questions.answers(key),
        )

    def _gateways(self, key: Key) -> Gateways:
        fed = self._memory.of(key).gateway
        return Gateways() if fed is None else Gateways(fed.serving_pods, fed.routed, fed.in_flight or {}, fed.asked)

    def _watch_age(self) -> tuple[str, float]:
        """The kind that the API server has been silent about for longest."""
        ages = {resource.plural: self._cache.age_seconds(resource) for resource in _DECIDING}
        return max(ages.items(), key=lambda item: item[1])


def _relabel(
    subject: Subject, pods: Sequence[JsonObject], templates: Mapping[str, Template]
) -> dict[str, dict[str, str | None]]:
    """People's labels that pods lack, or carry although the spec has them no more: by pod, what to set."""
    if subject.spec is None:
        return {}
    wanted = subject.spec.engine.pod_template.metadata.labels
    found: dict[str, dict[str, str | None]] = {}
    for pod in pods:
        labels = pod["metadata"]["labels"]
        template = templates.get(labels.get(names.LABEL_REVISION, ""))
        first: Mapping[str, str] = template.pod["metadata"]["labels"] if template is not None else {}
        ours = {names.LABEL_MANAGED_BY, names.LABEL_INSTANCE, names.LABEL_COMPONENT}
        old = {k for k in first if k not in wanted and k in labels and k not in ours and not k.startswith(names.GROUP)}
        patch: dict[str, str | None] = {k: v for k, v in wanted.items() if labels.get(k) != v}
        if (patch or old) and "deletionTimestamp" not in pod["metadata"]:
            found[pod["metadata"]["name"]] = patch | dict.fromkeys(sorted(old))
    return found


def _standing(pods: Sequence[JsonObject], uid: str) -> list[str]:
    """Pods of a predecessor that are not on their way out yet; those that drain are in nobody's way."""
    left = [p for p in pods if of_another(p, uid) and "deletionTimestamp" not in p["metadata"]]
    return [f"Pod {p['metadata']['name']}" for p in left]


def _held(pods: Sequence[JsonObject]) -> Mapping[str, Mapping[str, Mapping[str, Fraction]]]:
    """By gang and node: the requests of the pods as they were admitted, whatever we had rendered."""
    held: dict[str, dict[str, Any]] = {}
    for pod in pods:
        node, gang = holder_of(pod), pod["metadata"]["labels"].get(names.LABEL_GANG)
        if node is not None and gang is not None:
            held.setdefault(gang, {})[node] = pod_requests(pod["spec"])
    return held
