"""JSON object → R1Deployment, or everything that is wrong with it.

The verdict is the API server's: absent and null are the same, unknown fields are refused, and the rules of `rules.py`
are only asked once every field by itself is right.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from .fields import ApiModel, model_in
from .hardware import HardwareProfile
from .names import API_VERSION
from .rule import Problem
from .rules import broken
from .status import R1DeploymentStatus
from .types import R1Deployment

Loaded = TypeVar("Loaded", bound=ApiModel)


def parse(obj: Mapping[str, Any]) -> R1Deployment | list[Problem]:
    """The resource as types, or its problems (at least one). Never raises for bad content.

    A status that cannot be read (written by another version) counts as empty: the operator derives it anew.
    """
    status = obj.get("status")
    wanted = _load(R1Deployment, {key: value for key, value in obj.items() if key != "status"}, "")
    if isinstance(wanted, list):
        return wanted
    if isinstance(status, Mapping):
        seen = _load(R1DeploymentStatus, status, "status")
        if not isinstance(seen, list):
            wanted = wanted.model_copy(update={"status": seen})
    return wanted


def parse_lenient(obj: Mapping[str, Any]) -> tuple[R1Deployment | list[Problem], tuple[str, ...]]:
    """The resource without its status, and the fields of it that this version does not know and does without.

    The API server has accepted them, so they belong to the CRD of another version: after a CRD that came before its
    operator, or an operator that was rolled back, what runs must go on being cared for.
    """
    wanted = without_nulls({key: value for key, value in obj.items() if key != "status"})
    unknown: list[str] = []
    while True:
        loaded = _load(R1Deployment, wanted, "")
        strange = [p for p in loaded if p.location] if isinstance(loaded, list) else []
        if not strange:
            return loaded, tuple(unknown)
        for problem in strange:
            _remove(wanted, problem.location)
            unknown.append(problem.field)


def parse_status(status: object) -> tuple[R1DeploymentStatus, tuple[str, ...]]:
    """The status field by field, entry by entry, and which of them could not be read: what one of another version
    wrote differently must not take the rest along. Never raises."""
    if not isinstance(status, Mapping):
        return R1DeploymentStatus(), ()
    whole = _load(R1DeploymentStatus, status, "status")
    if not isinstance(whole, list):
        return whole, ()
    kept: dict[str, Any] = {}
    unread: list[str] = []
    for name, value in without_nulls(status).items():
        if _reads(name, value):
            kept[name] = value
        elif isinstance(value, list):
            readable = [_reads(name, [entry]) for entry in value]
            kept[name] = [entry for entry, reads in zip(value, readable, strict=True) if reads]
            unread += [f"status.{name}[{i}]" for i, reads in enumerate(readable) if not reads]
        else:
            unread.append(f"status.{name}")
    read = _load(R1DeploymentStatus, kept, "status")
    return (R1DeploymentStatus(), ("status",)) if isinstance(read, list) else (read, tuple(unread))


def _reads(name: str, value: object) -> bool:
    return not isinstance(_load(R1DeploymentStatus, {name: value}, "status"), list)


def _remove(value: Any, location: tuple[int | str, ...]) -> None:
    *path, last = location
    for part in path:
        value = value[part]
    value.pop(last)


def parse_hardware_profile(obj: Mapping[str, Any], path: str = "hardwareProfile") -> HardwareProfile | list[Problem]:
    """One hardware profile, as in `spec.hardwareProfile` or in the chart's values, or its problems."""
    return _load(HardwareProfile, obj, path, documented="spec.hardwareProfile")


def _load(
    model: type[Loaded], obj: Mapping[str, Any], path: str, documented: str | None = None
) -> Loaded | list[Problem]:
    """`documented`: where `kubectl explain r1d` tells of this type, if not at `path`."""
    try:
        # Through JSON text, because only there strict types still take lists for tuples.
        loaded = model.model_validate_json(json.dumps(without_nulls(obj), default=str), strict=True)
    except ValidationError as error:
        explained = path if documented is None else documented
        return [_problem(model, details, path, explained) for details in error.errors(include_url=False)]
    return broken(loaded, path) or loaded


def without_nulls(value: Any) -> Any:
    """Drops null fields of objects, as the API server does for fields that are not nullable (none of ours is)."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [without_nulls(item) for item in value]
    return value


def _problem(model: type[ApiModel], error: ErrorDetails, path: str, explained: str) -> Problem:
    field = _field_path(path, error["loc"])
    kind, context = error["type"], error.get("ctx", {})
    names = (part for part in error["loc"] if isinstance(part, str))
    explain = f"see `kubectl explain {'.'.join(['r1d', *([explained] if explained else []), *names])}`"
    if kind == "missing":
        return Problem(field, "required, but missing", f"add it; {explain}")
    if kind == "extra_forbidden":
        known = _fields_at(model, error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        return Problem(field, "unknown field", remedy, error["loc"])
    if kind == "literal_error":
        return Problem(field, f"{error['input']!r} is not {context['expected']}", _literal_remedy(field))
    return Problem(field, f"{_shown(error['input'])}: {_demand(error['msg'])}", explain)


def _literal_remedy(field: str) -> str:
    return f"use {API_VERSION}" if field == "apiVersion" else "choose one of these words"


def _demand(message: str) -> str:
    return (
        message.replace("Input should be", "must be").replace("String should", "must").replace("Tuple should", "must")
    )


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _field_path(path: str, loc: tuple[int | str, ...]) -> str:
    for part in loc:
        path = f"{path}[{part}]" if isinstance(part, int) else f"{path}.{part}" if path else part
    return path or "the object"


def _fields_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """camelCase fields of the object at `loc` below `model`."""
    for part in loc:
        if isinstance(part, int):
            continue
        info = next((info for name, info in model.model_fields.items() if part in (info.alias, name)), None)
        inner = model_in(info.annotation) if info else None
        if inner is None:
            return []
        model = inner
    return [info.alias or name for name, info in model.model_fields.items()]
