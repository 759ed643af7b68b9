"""The PodDisruptionBudget of an R1Deployment's engine pods."""

from __future__ import annotations

from typing import Any

from ..api import names
from .context import Context


def engine_budget(context: Context, min_available: int) -> dict[str, Any]:
    """`min_available`: pods that an eviction must leave, as a round says (`rounds/budget.py`)."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": context.metadata(names.engine_service(context.name), names.COMPONENT_ENGINE),
        "spec": {
            "minAvailable": min_available,
            # What serves nobody is in nobody's way.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": names.base_labels(context.name, names.COMPONENT_ENGINE)},
        },
    }
