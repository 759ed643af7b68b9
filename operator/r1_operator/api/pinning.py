"""How a gated pod is tied to one node: the affinity that placement writes and every later round reads back.

`matchFields: metadata.name` rather than the hostname label, because the label may differ from the node's name. While a
pod is gated its affinity may be narrowed but never moved, so a pin once written is final (Kubernetes, KEP-3838).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def pinned_affinity(node: str) -> dict[str, Any]:
    """`spec.affinity` of a pod that may run on `node` only."""
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


def pinned_node(pod_spec: Mapping[str, Any]) -> str | None:
    """The node that a pod's affinity names in the way `pinned_affinity` writes it, or None."""
    affinity = (pod_spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or []:
        for field in term.get("matchFields") or []:
            if field.get("key") == "metadata.name" and field.get("operator") == "In":
                return str(field["values"][0])
    return None
