"""Whether the weights' volume can be used, as far as the API server tells. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..api.reasons import Reason
from ..api.types import Weights
from ..status.observation import Finding

_SHARED = frozenset({"ReadOnlyMany", "ReadWriteMany"})
_FIELD = "spec.model.weights.persistentVolumeClaim.claimName"


def check_weights(
    weights: Weights, claim: Mapping[str, Any] | None, namespace: str, nodes: int, replicas: int = 1
) -> Finding:
    """`claim`: the PersistentVolumeClaim of that name or None. `nodes`: nodes of one replica. `replicas`: how many
    there may ever be at once."""
    source = weights.persistent_volume_claim
    if source is None:
        return Finding("Unknown", Reason.WEIGHTS_UNCHECKED, "a folder on the nodes; the engines look into it")
    name = source.claim_name
    if claim is None:
        return Finding(
            "False",
            Reason.CLAIM_NOT_FOUND,
            f"{_FIELD}: there is no PersistentVolumeClaim {name!r} in namespace {namespace}; "
            "create it, or name the one that holds the weights. No pod is created before.",
        )
    modes = frozenset((claim.get("spec") or {}).get("accessModes") or ())
    if nodes > 1 and not modes & _SHARED:
        return Finding(
            "False",
            Reason.CLAIM_ACCESS_MODE,
            f"{_FIELD}: claim {name!r} has access modes {', '.join(sorted(modes)) or 'none'}, but {nodes} nodes have "
            "to mount it; use a volume with ReadOnlyMany or ReadWriteMany, or weights on the nodes (hostPath)",
        )
    if replicas > 1 and not modes & _SHARED:
        return Finding(
            "False",
            Reason.CLAIM_ACCESS_MODE,
            f"{_FIELD}: claim {name!r} has access modes {', '.join(sorted(modes)) or 'none'}, so one node "
            f"alone can mount it, but {replicas} replicas need {replicas} nodes; use a volume with ReadOnlyMany or "
            "ReadWriteMany, or weights on the nodes (hostPath)",
        )
    phase = (claim.get("status") or {}).get("phase")
    if phase == "Lost":
        return Finding(
            "False",
            Reason.CLAIM_NOT_BOUND,
            f"{_FIELD}: the volume of claim {name!r} is lost; restore it or name another",
        )
    if phase != "Bound":
        # A class with WaitForFirstConsumer binds only once a pod asks for it, so this holds nothing up.
        # Where one node alone may mount it, a roll must know that before.
        reason = Reason.CLAIM_NOT_BOUND if modes & _SHARED else Reason.CLAIM_ONE_NODE
        return Finding("Unknown", reason, f"claim {name!r} is not bound yet (phase {phase})")
    reason = Reason.WEIGHTS_UNCHECKED if modes & _SHARED else Reason.CLAIM_ONE_NODE
    return Finding("Unknown", reason, f"claim {name!r} is bound; the engines look into it")
