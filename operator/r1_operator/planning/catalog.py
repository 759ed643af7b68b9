"""The models the planner knows by name, each with a `config.json` under `models/`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from .model import Model, read_model

TINY = "r1-operator/tiny-r1"
MODELS = Path(__file__).with_name("models")


@cache
def _entries() -> Mapping[str, Mapping[str, str]]:
    text = (MODELS / "catalog.json").read_text(encoding="utf-8")
    return {entry["name"]: entry for entry in json.loads(text)}


def known_models() -> tuple[str, ...]:
    """All names, the full models first."""
    return tuple(_entries())


@cache
def find_model(name: str) -> Model | None:
    """The model of that name, or None."""
    entry = _entries().get(name)
    if entry is None:
        return None
    text = (MODELS / entry["config"]).read_text(encoding="utf-8")
    model = read_model(name, json.loads(text), entry["source"])
    return replace(model, reasoning_parser=entry["reasoningParser"], tool_call_parser=entry.get("toolCallParser"))
