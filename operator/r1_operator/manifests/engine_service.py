"""Headless Service that gives the pods of every gang their DNS names."""

from __future__ import annotations

from typing import Any

from ..api import names
from .context import Context


def engine_service(context: Context) -> dict[str, Any]:
    """Addresses are published before readiness: Ray has to find its head while nothing is ready yet."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": context.metadata(names.engine_service(context.name), names.COMPONENT_ENGINE),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": names.base_labels(context.name, names.COMPONENT_ENGINE),
            "ports": [
                {"name": "http", "port": names.PORT_ENGINE_HTTP, "targetPort": names.PORT_ENGINE_HTTP},
                {"name": "agent", "port": names.PORT_ENGINE_AGENT, "targetPort": names.PORT_ENGINE_AGENT},
            ],
        },
    }
