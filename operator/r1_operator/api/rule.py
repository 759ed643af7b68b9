"""What one rule across fields is: as CEL for the API server and as a predicate for Python, with one message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .fields import ApiModel


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule. `self` in the CEL and the predicate's argument are the same value: an object of `scope`, or with
    `each` one item of that list field of it."""

    scope: type[ApiModel]
    holds: Callable[[Any], bool]
    message: str
    remedy: str
    cel: str = ""
    """Empty: CEL cannot say it. The API server takes what breaks it, and the resource's SpecValid tells."""
    field: str = ""
    """camelCase field of the scope that is at fault; empty = the object itself."""
    each: str = ""

    @property
    def text(self) -> str:
        """What the API server prints."""
        return f"{self.message}; {self.remedy}"


@dataclass(frozen=True)
class Problem:
    """What is wrong with an input, where, and what to do."""

    field: str
    message: str
    remedy: str
    location: tuple[int | str, ...] = ()
    """Of a field that is not known at all: the way to it, so that it can be left out."""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}; {self.remedy}"


def if_set(*fields: str, then: str) -> str:
    """CEL that holds where one of the optional fields is absent, and otherwise says `then`."""
    return " || ".join([*(f"!has(self.{field})" for field in fields), then])


def cel_list(values: tuple[str, ...]) -> str:
    return "[" + ", ".join(f"'{value}'" for value in values) + "]"
