"""A CRD that is older than this operator: server-side apply refuses a status with fields that it does not declare.

Without a status nothing heals, for a failure stands there before it is acted upon. So what the API server does not know
is left out, and tried again by the next process.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from ..cluster import ApiError

Path = tuple[str, ...]

_UNDECLARED = re.compile(r"\.status\.([^\s:]+): field not declared in schema")


def undeclared(error: ApiError) -> frozenset[Path]:
    """Fields of the status that the API server's schema lacks, by what it says; items of lists alike."""
    found = (re.sub(r"\[[^\]]*\]", "", path) for path in _UNDECLARED.findall(error.message))
    return frozenset(tuple(path.split(".")) for path in found)


def without(status: Mapping[str, Any], fields: Collection[Path]) -> dict[str, Any]:
    """The status with none of these fields."""
    for path in fields:
        status = _cut(status, path)
    return dict(status)


def _cut(value: Any, path: Path) -> Any:
    if isinstance(value, list):
        return [_cut(item, path) for item in value]
    if not isinstance(value, Mapping) or path[0] not in value:
        return value
    rest = {key: item for key, item in value.items() if key != path[0]}
    return rest if len(path) == 1 else {**value, path[0]: _cut(value[path[0]], path[1:])}
