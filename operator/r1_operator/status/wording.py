"""Texts of a status: bounded, harmless in a terminal, and new only where their words are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

ELLIPSIS = "…"

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]+")
"""An engine's last words may hold anything, also what moves a terminal's cursor. Line ends and tabs stay."""
_FIGURE = re.compile(r"(?<![\w.:/-])\d+(?:[.,]\d+)*%?(?![\w/]|[.:-]\w)")
"""A number that stands by itself: `3 of 10`, `42%`, `1.5`; not those of `r1-0-0`, `10.0.0.1`, or of a time of day."""
_WIDTHS = {'"': 2, "\\": 2, "\n": 2, "\t": 2, "<": 6, ">": 6, "&": 6}
"""Bytes of what JSON escapes."""


def shorten(text: str, limit: int) -> str:
    """`text`, or its beginning and an ellipsis, in at most `limit` bytes as JSON, cut between characters."""
    head = text[: 4 * limit]  # last words may be of any length
    head = _CONTROL.sub(" ", head).encode("utf-8", "replace").decode()  # a lone surrogate is no text
    if len(text) <= 4 * limit and wire_bytes(head) <= limit:
        return head
    room, kept = limit - wire_bytes(ELLIPSIS), 0
    for character in head:
        room -= _WIDTHS.get(character) or len(character.encode())
        if room < 0:
            break
        kept += 1
    return head[:kept] + ELLIPSIS


def wire_bytes(text: str) -> int:
    """Bytes of the text in JSON as Go writes it, which escapes what has a meaning in HTML, too."""
    return len(text.encode()) + sum((width - 1) * text.count(character) for character, width in _WIDTHS.items())


def within(texts: Iterable[str], each: int, total: int) -> tuple[str, ...]:
    """The first of the texts, each in at most `each` bytes, all together in at most `total`; cut ones say so."""
    kept: list[str] = []
    for text in texts:
        short = shorten(text, each)
        total -= wire_bytes(short) + 3
        if total < wire_bytes(ELLIPSIS) + 3:
            return (*kept, ELLIPSIS)
        kept.append(short)
    return tuple(kept)


def same_words(one: str, other: str) -> bool:
    """Whether two texts differ in their figures at most."""
    return one == other or _FIGURE.sub("#", one) == _FIGURE.sub("#", other)


def some_of(names: Sequence[str], shown: int = 3) -> str:
    """The first of many names, and how many more there are."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
