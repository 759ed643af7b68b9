"""Remembers what admission made of each pod: pods are looked at in every round, and change once in their lives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..api import names
from ..cluster.resources import JsonObject
from ..manifests.template import Template
from ..rounds.admitted import changed_in_admission
from ..status.observation import Change
from .queue import Key

Compare = Callable[[Mapping[str, Any], Mapping[str, Any]], tuple[Change, ...]]
_Known = tuple[str, Mapping[str, Any], tuple[Change, ...]]


class Admissions:
    """By R1Deployment and uid of the pod: revision and spec as they were compared, and what came of it."""

    def __init__(self, compare: Compare = changed_in_admission) -> None:
        self._compare = compare
        self._known: dict[Key, dict[str, _Known]] = {}

    def changes(
        self, key: Key, pods: Iterable[JsonObject], templates: Mapping[str, Template]
    ) -> dict[str, tuple[Change, ...]]:
        """By name of the pod, where anything was changed: of pods that are not over and whose revision is known. Each
        is compared with its own revision. Pods that are not among these are forgotten."""
        before = self._known.pop(key, {})
        now: dict[str, _Known] = {}
        found: dict[str, tuple[Change, ...]] = {}
        for pod in pods:
            metadata, spec = pod["metadata"], pod["spec"]
            revision = (metadata.get("labels") or {}).get(names.LABEL_REVISION, "")
            if revision not in templates or (pod.get("status") or {}).get("phase") in {"Failed", "Succeeded"}:
                continue
            known = before.get(metadata["uid"])
            if known is None or (revision, spec) != known[:2]:
                known = (revision, spec, self._compare(templates[revision].pod["spec"], spec))
            now[metadata["uid"]] = known
            if known[2]:
                found[metadata["name"]] = known[2]
        if now:
            self._known[key] = now
        return found
