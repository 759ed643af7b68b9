"""Nodes with what is used on them, and our pods by R1Deployment: kept up to date change by change, so that no round
ever looks through all pods of the cluster."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from fractions import Fraction

from ..api import names
from ..cluster import Cache, Change
from ..cluster.resources import NODES, PODS, JsonObject
from ..lifecycle.pods import owner_of
from ..placement.nodes import Node, holder_of, node_of, pod_requests
from ..rounds.facts import Fleet
from .queue import Key

_OVER = frozenset({"Failed", "Succeeded"})


class Inventory:
    """Follows the cache. Reads never wait."""

    def __init__(self, cache: Cache, bad_conditions: Collection[str] = ()) -> None:
        self._bad_conditions = bad_conditions
        self.avoid: Callable[[], Mapping[str, int]] = dict
        self._raw: dict[str, JsonObject] = {}
        self._built: dict[str, Node] = {}
        self._sorted: tuple[Node, ...] | None = None
        self._used: dict[str, dict[str, Fraction]] = defaultdict(lambda: defaultdict(Fraction))
        self._pods: dict[Key, dict[str, JsonObject]] = defaultdict(dict)
        self._strangers: dict[Key, set[str]] = defaultdict(set)
        self._engines_on: dict[str, dict[tuple[str, str], Key]] = defaultdict(dict)
        cache.subscribe(self.on_change)

    def nodes(self) -> tuple[Node, ...]:
        """All nodes, by name in order, each with how much it is to be avoided."""
        levels = self.avoid()
        if not levels:
            return self._nodes()
        return tuple(replace(n, avoid=n.avoid + levels[n.name]) if n.name in levels else n for n in self._nodes())

    def _nodes(self) -> tuple[Node, ...]:
        if self._sorted is None:
            for name, raw in self._raw.items():
                if name not in self._built:
                    self._built[name] = node_of(raw, self._used.get(name, {}), self._bad_conditions)
            self._sorted = tuple(self._built[name] for name in sorted(self._raw))
        return self._sorted

    def pods(self, key: Key, component: str) -> tuple[JsonObject, ...]:
        """Pods that carry the labels of one R1Deployment's engine or gateway, by name in order; of the engine's only
        those that some R1Deployment owns: this one, or an earlier one of its name."""
        found = self._pods.get(key, {})
        labelled = (found[name] for name in sorted(found))
        return tuple(pod for pod in labelled if pod["metadata"]["labels"].get(names.LABEL_COMPONENT) == component)

    def strangers(self, key: Key) -> tuple[str, ...]:
        """Names of pods that carry the labels of an R1Deployment's engine and are no R1Deployment's."""
        return tuple(sorted(self._strangers.get(key, ())))

    def deployments(self) -> tuple[Key, ...]:
        """R1Deployments of which any pod is left."""
        return tuple(key for key, pods in self._pods.items() if pods)

    def keys_on(self, node: str) -> frozenset[Key]:
        """Whose engine pods are on a node."""
        return frozenset(self._engines_on.get(node, {}).values())

    def fleet(self) -> Fleet:
        """Nodes that hold engine pods of anybody's, and those of them that are silent."""
        holding = frozenset(node for node, pods in self._engines_on.items() if pods)
        ready = {node.name for node in self._nodes() if node.ready}
        return Fleet(holding, holding - ready)

    def on_change(self, change: Change) -> None:
        """Take one change over."""
        if change.resource == NODES:
            name = change.obj["metadata"]["name"]
            self._built.pop(name, None)
            self._sorted = None
            if change.new is None:
                self._raw.pop(name, None)
            else:
                self._raw[name] = change.new
        elif change.resource == PODS:
            if change.old is not None:
                self._count(change.old, -1)
            if change.new is not None:
                self._count(change.new, +1)

    def _count(self, pod: JsonObject, sign: int) -> None:
        holder = holder_of(pod)
        if holder is not None:
            used = self._used[holder]
            for resource, amount in pod_requests(pod["spec"]).items():
                used[resource] += sign * amount
            self._built.pop(holder, None)
            self._sorted = None
        metadata = pod["metadata"]
        labels = metadata.get("labels") or {}
        if labels.get(names.LABEL_MANAGED_BY) != names.MANAGED_BY or names.LABEL_INSTANCE not in labels:
            return
        namespace, name = metadata.get("namespace") or "", metadata["name"]
        key = (namespace, labels[names.LABEL_INSTANCE])
        engine = labels.get(names.LABEL_COMPONENT) == names.COMPONENT_ENGINE
        if engine and owner_of(pod) is None:
            self._strangers[key].add(name) if sign > 0 else self._strangers[key].discard(name)
            return
        node = str((pod.get("spec") or {}).get("nodeName") or "")
        runs = node and (pod.get("status") or {}).get("phase") not in _OVER
        if sign > 0:
            self._pods[key][name] = pod
            if runs and engine:
                self._engines_on[node][namespace, name] = key
        else:
            self._pods[key].pop(name, None)
            if node:
                self._engines_on[node].pop((namespace, name), None)
