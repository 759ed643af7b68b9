"""Waiting for the CustomResourceDefinition."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from r1_operator.api.names import CRD_NAME

from tests.waiting import PATIENCE_SECONDS, wait_for


def await_crd(kubectl: Callable[..., str]) -> None:
    """Until the API server serves R1Deployments. `kubectl wait` fails at once where the definition has no conditions
    yet, as in the moment after it was made."""

    def conditions() -> list[dict[str, Any]]:
        status = json.loads(kubectl("get", "crd", CRD_NAME, "-o", "json")).get("status") or {}
        return list(status.get("conditions") or [])

    def established(seen: list[dict[str, Any]]) -> bool:
        return any((c["type"], c["status"]) == ("Established", "True") for c in seen)

    wait_for("the definition is established", conditions, PATIENCE_SECONDS, until=established)
