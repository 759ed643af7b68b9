"""A kind of fault: what is done, and what may come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.campaigns.faults.fleet import Fleet, Hit

Act = Callable[[Fleet], Iterator[Hit]]
"""Does it, and yields what it hits; goes on when all is as before, and heals."""


@dataclass(frozen=True, slots=True)
class Kind:
    """`remains`, `cuts` and `refuses` as in `measure.Outcome`. `engine`: standin, or real (Ray and SGLang)."""

    group: str
    name: str
    act: Act
    remains: bool
    cuts: bool
    engine: str
    refuses: bool = False


ALL: list[Kind] = []


def kind(
    group: str, name: str, *, remains: bool = True, cuts: bool = False, engine: str = "standin", refuses: bool = False
) -> Callable[[Act], Act]:
    """Adds a kind to the campaign."""

    def add(act: Act) -> Act:
        ALL.append(Kind(group, name, act, remains, cuts, engine, refuses))
        return act

    return add
