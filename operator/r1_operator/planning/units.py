"""Bytes as people read them."""

from __future__ import annotations

GIB = 2**30
MIB = 2**20


def gib(count: float) -> str:
    """`count` bytes as GiB with two digits, e.g. `55.13 GiB`."""
    return f"{count / GIB:.2f} GiB"


def pad(value: int, multiple: int) -> int:
    """`value` rounded up to a multiple."""
    return -(-value // multiple) * multiple
