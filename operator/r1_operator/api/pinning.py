"""How a gated pod is tied to one node: the affinity that placement writes and every later round reads back.

`matchFields: metadata.name` rather than the hostname label, because the label may differ from the node's name. While a
pod is gated its affinity may be narrowed but never moved, so a pin once written is final (Kubernetes, KEP-3838).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def pinned_affinity(node: str, affinity: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`spec.affinity` of a pod that may run on `node` only, where it was `affinity` before."""
    pin = {"key": "metadata.name", "operator": "In", "values": [node]}
    pinned = [{**term, "matchFields": [pin]} for term in _terms(affinity)] or [{"matchFields": [pin]}]
    required = {_REQUIRED: {"nodeSelectorTerms": pinned}}
    return {**(affinity or {}), "nodeAffinity": {**((affinity or {}).get("nodeAffinity") or {}), **required}}


def required_values(pod_spec: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Labels of nodes that a pod's affinity asks for, each with the values that will do, as we write it: one term."""
    return {
        expression["key"]: frozenset(expression["values"])
        for term in _terms(pod_spec.get("affinity"))[:1]
        for expression in term.get("matchExpressions") or []
        if expression.get("operator") == "In"
    }


def pinned_node(pod_spec: Mapping[str, Any]) -> str | None:
    """The node that a pod's affinity names in the way `pinned_affinity` writes it, or None."""
    for term in _terms(pod_spec.get("affinity")):
        for field in term.get("matchFields") or []:
            if field.get("key") == "metadata.name" and field.get("operator") == "In":
                return str(field["values"][0])
    return None


def _terms(affinity: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    required = ((affinity or {}).get("nodeAffinity") or {}).get(_REQUIRED) or {}
    return required.get("nodeSelectorTerms") or []
