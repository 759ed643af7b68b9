"""What was seen of a cluster, and what a check says of it. Frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..placement.place import DEFAULT_FABRIC_LABEL
from ..rounds.reading import Subject

Json = Mapping[str, Any]
Level = Literal["ok", "warn", "FAIL"]


@dataclass(frozen=True, slots=True)
class Checked:
    """One line: what was looked at, what was found, and what to do about it where it is not as it should be."""

    what: str
    level: Level
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Looked:
    """A cluster as the API server tells of it. None: it could not be looked at, `refused` says why.

    `subject`: the R1Deployment that is to come, parsed and planned. `rehearsal`: what the API server answered to one of
    its pods, as a dry run; empty: it would be taken.
    """

    subject: Subject
    namespace: Json | None = None
    crd: Json | None = None
    operators: tuple[Json, ...] = ()
    nodes: tuple[Json, ...] = ()
    pods: tuple[Json, ...] = ()
    quotas: tuple[Json, ...] = ()
    claims: Mapping[str, Json] = field(default_factory=dict)
    secrets: Mapping[str, bool] = field(default_factory=dict)
    """Those that are named: whether they are there."""
    rehearsal: str = ""
    refused: tuple[str, ...] = ()
    """What may not be looked at, with the API server's words."""
    fabric_label: str = DEFAULT_FABRIC_LABEL
