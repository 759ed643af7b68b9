"""What is held against nodes outlives a leader, and whoever clears it is heard."""

from __future__ import annotations

import contextlib
from typing import Any
from unittest.mock import Mock

from r1_operator.cluster import ApiError
from r1_operator.controller.node_book import NodeBook
from r1_operator.placement.blame import Blame, from_texts


class Cluster:
    """The one ConfigMap."""

    def __init__(self) -> None:
        self.data: dict[str, str] | None = None
        self.broken = False

    async def get(self, *_: object) -> dict[str, Any]:
        if self.broken or self.data is None:
            raise ApiError(403 if self.broken else 404, "Forbidden" if self.broken else "NotFound", "no")
        return {"data": dict(self.data)}

    async def create(self, obj: dict[str, Any]) -> None:
        self.data = dict(obj["data"])

    async def patch_merge(self, _resource: object, _namespace: str, _name: str, body: dict[str, Any]) -> None:
        assert self.data is not None
        merged = {**self.data, **body["data"]}
        self.data = {node: text for node, text in merged.items() if text is not None}


def book(cluster: Cluster) -> NodeBook:
    return NodeBook(cluster, "r1-system", Mock(), lambda: 1000.0)  # type: ignore[arg-type]


def blame(key: str) -> Blame:
    return Blame("n1", key, "GpuUnhealthy", "GPU 3: Xid 79", 1000.0)


async def look(of: NodeBook) -> None:
    """As `run` does once."""
    with contextlib.suppress(ApiError):
        await of.look()
    of._hear_what_waited()


async def test_a_new_leader_adds_to_what_is_held_and_counts_nothing_twice() -> None:
    cluster = Cluster()
    first = book(cluster)
    await look(first)
    first.blame([blame("a"), blame("a"), blame("b")])
    await look(first)
    assert from_texts(cluster.data or {})["n1"].count == 2
    second = book(cluster)
    second.blame([blame("b"), blame("c")])  # before it has read anything
    await look(second)
    await look(second)
    assert from_texts(cluster.data or {})["n1"].count == 3
    assert second.levels() == {"n1": 3}


async def test_what_is_cleared_is_forgotten() -> None:
    cluster = Cluster()
    held = book(cluster)
    await look(held)
    held.blame([blame("a")])
    await look(held)
    cluster.data = {}
    await look(held)
    assert held.levels() == {}


async def test_without_rights_it_is_remembered_by_this_process() -> None:
    cluster = Cluster()
    cluster.broken = True
    held = book(cluster)
    held.blame([blame("a")])
    await look(held)
    await look(held)
    assert held.levels() == {"n1": 1}
