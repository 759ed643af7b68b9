"""Nodes and the pods on them, as the API server returns them → what placement reckons with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from ..api import names
from ..api.pinning import pinned_node
from ..api.timestamps import unix_time
from .blame import NEVER_UNLESS_ALONE
from .quantity import parse_quantity

OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"

Json = Mapping[str, Any]
Amounts = Mapping[str, Fraction]


@dataclass(frozen=True, slots=True)
class Taint:
    """A taint that keeps pods away (PreferNoSchedule is left out)."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class Node:
    """One node. `used`: requests of all pods that hold it or are pinned to it."""

    name: str
    labels: Mapping[str, str]
    allocatable: Amounts
    used: Amounts
    ready: bool
    unschedulable: bool
    taints: tuple[Taint, ...]
    silent_since: float | None = None
    """Unix seconds since when it is not Ready, and in the words of `silent_why`; None while it is Ready."""
    silent_why: str = ""
    avoid: int = 0
    """How much other nodes are to be preferred: failures held against it, or a condition of the site's choice."""
    out_of_service: bool = False
    """Somebody has put Kubernetes' own taint there: the machine is off, whatever ran on it runs no more."""

    def without(self, requests: Amounts) -> Node:
        """The node as it would be if a pod with these requests went."""
        rest = {resource: amount - requests.get(resource, Fraction(0)) for resource, amount in self.used.items()}
        return replace(self, used=rest)

    def free(self, resource: str) -> Fraction:
        """Allocatable minus used, in the resource's base unit; 0 if the node has none."""
        return self.allocatable.get(resource, Fraction(0)) - self.used.get(resource, Fraction(0))


def nodes_of(nodes: Iterable[Json], pods: Iterable[Json]) -> tuple[Node, ...]:
    """Join nodes with the requests of the pods that hold them, by name. A pod that ended holds nothing."""
    used: dict[str, dict[str, Fraction]] = defaultdict(lambda: defaultdict(Fraction))
    for pod in pods:
        holder = holder_of(pod)
        if holder is not None:
            for resource, amount in pod_requests(pod["spec"]).items():
                used[holder][resource] += amount
    return tuple(sorted((node_of(n, used[n["metadata"]["name"]]) for n in nodes), key=lambda n: n.name))


def holder_of(pod: Json) -> str | None:
    """The node whose devices a pod holds: bound to it, or ours, pinned and no longer gated (about to be bound)."""
    if (pod.get("status") or {}).get("phase") in {"Failed", "Succeeded"}:
        return None
    spec = pod["spec"]
    if spec.get("nodeName"):
        return str(spec["nodeName"])
    labels = pod["metadata"].get("labels") or {}
    if spec.get("schedulingGates") or names.LABEL_GANG not in labels:
        return None
    return pinned_node(spec)


def pod_requests(spec: Json) -> dict[str, Fraction]:
    """Requests of a pod as the scheduler counts them: sum of its containers or its largest init step, plus overhead;
    what is asked for at the level of the pod takes the place of the sum."""
    total: dict[str, Fraction] = defaultdict(Fraction)
    sidecars: dict[str, Fraction] = defaultdict(Fraction)
    for container in spec.get("containers") or []:
        for resource, amount in _requests(container).items():
            total[resource] += amount
    peak: dict[str, Fraction] = {}
    for container in spec.get("initContainers") or []:
        wanted = _requests(container)
        if container.get("restartPolicy") == "Always":
            for resource, amount in wanted.items():
                sidecars[resource] += amount
        for resource, amount in wanted.items():
            extra = Fraction(0) if container.get("restartPolicy") == "Always" else sidecars[resource]
            peak[resource] = max(peak.get(resource, Fraction(0)), amount + extra)
    for resource, amount in sidecars.items():
        total[resource] += amount
    for resource, amount in peak.items():
        total[resource] = max(total[resource], amount)
    total.update(_requests(spec))
    for resource, text in (spec.get("overhead") or {}).items():
        total[resource] += parse_quantity(text)
    return dict(total)


def _requests(holder: Json) -> dict[str, Fraction]:
    """`resources` of a container or of a pod."""
    resources = holder.get("resources") or {}
    return {
        k: parse_quantity(v) for k, v in ((resources.get("limits") or {}) | (resources.get("requests") or {})).items()
    }


def node_of(node: Json, used: Amounts, bad_conditions: Collection[str] = ()) -> Node:
    """One node as the API server returns it, of which `used` is in use. One of `bad_conditions` that is True speaks
    against it."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    ready = _ready(status)
    is_ready = ready.get("status") == "True"
    taints = spec.get("taints") or []
    since = unix_time(ready.get("lastTransitionTime"))
    return Node(
        name=node["metadata"]["name"],
        labels=node["metadata"].get("labels") or {},
        allocatable={k: parse_quantity(v) for k, v in (status.get("allocatable") or {}).items()},
        used=dict(used),
        ready=is_ready,
        unschedulable=bool(spec.get("unschedulable")),
        taints=tuple(
            Taint(t["key"], t.get("value") or "", t["effect"])
            for t in taints
            if t["effect"] in {"NoSchedule", "NoExecute"}
        ),
        silent_since=None if is_ready else since,
        silent_why="" if is_ready else str(ready.get("reason", "no reason given")),
        avoid=NEVER_UNLESS_ALONE if unwell(status, bad_conditions) else 0,
        out_of_service=any(t["key"] == OUT_OF_SERVICE for t in taints),
    )


def unwell(status: Json, bad_conditions: Collection[str]) -> str | None:
    """A condition that says that something is wrong with the node, with its message."""
    for condition in status.get("conditions") or ():
        if condition["type"] in bad_conditions and condition.get("status") == "True":
            return f"{condition['type']}: {condition.get('message') or condition.get('reason') or 'no message'}"
    return None


def _ready(status: Json) -> Json:
    conditions: Sequence[Json] = status.get("conditions") or []
    return next((c for c in conditions if c["type"] == "Ready"), {})
