"""What of a spec says what an engine is. The rest changes while it runs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ..api import names
from ..api.types import R1DeploymentSpec

ASKED = ("model", "hardware", "hardwareProfile", "objective", "slo", "topology", "limits", "engine")
"""Fields of the spec that say what an engine is. `strategy.restartedAt` is one more."""


def asked_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What of a spec, as the API server holds it, says what an engine is."""
    asked = copy.deepcopy({key: spec[key] for key in ASKED if key in spec})
    metadata = asked.get("engine", {}).get("podTemplate", {}).get("metadata", {})
    metadata.pop("labels", None)  # people's own: they change in place
    if restarted := (spec.get("strategy") or {}).get("restartedAt"):
        asked["strategy"] = {"restartedAt": restarted}
    return asked


def asked_hash(spec: R1DeploymentSpec) -> str:
    """The same as this version understands it. What equals its default is left out: another version may have fields
    that this one lacks, and the API server may fill them in."""
    said = spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    return names.content_hash(asked_of(said))
