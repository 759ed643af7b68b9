"""Carrying a placement out: every pin before any gate, and nothing lifted when a pin could not be written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from r1_operator.api.pinning import pinned_node
from r1_operator.cluster import ApiError
from r1_operator.cluster.resources import NODES, PODS, JsonObject, Resource
from r1_operator.controller.placing import Placer
from r1_operator.lifecycle.pods import gangs_of
from r1_operator.placement.place import Placement, Shape, Unplaceable

GPU = "nvidia.com/gpu"
SHAPE = Shape(2, GPU, {GPU: 8})  # type: ignore[dict-item]


def node(name: str) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True"}]
    return {"metadata": {"name": name}, "status": {"allocatable": {GPU: "8"}, "conditions": conditions}}


def pod(gang: str, index: int, namespace: str = "ns") -> dict[str, Any]:
    labels = {
        "app.kubernetes.io/component": "engine",
        "r1operator.dev/gang": gang,
        "r1operator.dev/node-index": str(index),
        "r1operator.dev/nodes": "2",
    }
    name = f"{gang}-{index}"
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{namespace}-{name}", "labels": labels},
        "spec": {
            "schedulingGates": [{"name": "r1operator.dev/gang"}],
            "containers": [{"name": "engine", "resources": {"requests": {GPU: "8"}}}],
        },
    }


class ApiServer:
    """The cache and the client at once: patches are applied to the objects, and remembered in order."""

    def __init__(self, nodes: Sequence[str], pods: Sequence[dict[str, Any]], refuse: str | None = None) -> None:
        self.objects = {NODES: [node(n) for n in nodes], PODS: list(pods)}
        self.refuse = refuse
        self.patches: list[tuple[str, str]] = []

    def snapshot(self, resource: Resource) -> list[dict[str, Any]]:
        return self.objects[resource]

    def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        return next(o for o in self.objects[resource] if o["metadata"]["name"] == name)

    def remember(self, obj: JsonObject) -> None:
        pass

    async def patch_json(
        self, resource: Resource, namespace: str, name: str, operations: Sequence[JsonObject]
    ) -> dict[str, Any]:
        found = self.get(resource, namespace, name)
        change = operations[-1]
        what = "pin" if change["path"] == "/spec/affinity" else "lift"
        if self.refuse == f"{what} {name}":
            raise ApiError(409, "Conflict", "injected")
        self.patches.append((what, name))
        if what == "pin":
            found["spec"]["affinity"] = change["value"]
        else:
            found["spec"]["schedulingGates"].pop(int(change["path"].rsplit("/", 1)[1]))
        return found

    def placer(self) -> Placer:
        return Placer(self, self)  # type: ignore[arg-type]

    async def place(self) -> tuple[Placement | Unplaceable, ...]:
        return await self.placer().place("ns", [g for g in gangs_of(self.objects[PODS]) if _gated(g)], SHAPE)


def _gated(gang: Any) -> bool:
    return any(member.gated for member in gang.members)


async def test_all_pins_are_written_before_any_gate_is_lifted() -> None:
    api = ApiServer(["n1", "n2", "n3"], [pod("r1-0-0", 0), pod("r1-0-0", 1)])
    assert await api.place() == (Placement("r1-0-0", ("n1", "n2")),)
    assert [what for what, _ in api.patches] == ["pin", "pin", "lift", "lift"]
    assert [pinned_node(p["spec"]) for p in api.objects[PODS]] == ["n1", "n2"]


async def test_nothing_is_lifted_when_a_pin_fails_and_the_next_round_completes_it() -> None:
    api = ApiServer(["n1", "n2"], [pod("r1-0-0", 0), pod("r1-0-0", 1)], refuse="pin r1-0-0-1")
    with pytest.raises(ApiError):
        await api.place()
    assert api.patches == [("pin", "r1-0-0-0")]
    api.refuse = None
    assert await api.place() == (Placement("r1-0-0", ("n1", "n2")),)
    assert api.patches[1:] == [("pin", "r1-0-0-1"), ("lift", "r1-0-0-0"), ("lift", "r1-0-0-1")]


async def test_a_half_lifted_gang_is_completed_on_the_nodes_it_holds_itself() -> None:
    api = ApiServer(["n1", "n2"], [pod("r1-0-0", 0), pod("r1-0-0", 1)], refuse="lift r1-0-0-1")
    with pytest.raises(ApiError):
        await api.place()
    api.refuse = None
    assert await api.place() == (Placement("r1-0-0", ("n1", "n2")),)
    assert not any(p["spec"]["schedulingGates"] for p in api.objects[PODS])


async def test_a_placed_gang_keeps_its_nodes_before_the_scheduler_has_bound_it() -> None:
    api = ApiServer(["n1", "n2"], [pod("r1-0-0", i) for i in (0, 1)])
    await api.place()
    api.objects[PODS] += [pod("r1-1-0", i) for i in (0, 1)]
    (waits,) = await api.place()
    assert isinstance(waits, Unplaceable)
    assert waits.message == (
        "needs 2 whole free nodes with 8 nvidia.com/gpu each: 0 of 2 nodes are free (2 nvidia.com/gpu in use)"
    )


async def test_a_gang_of_another_namespace_keeps_its_nodes_although_it_has_the_same_name() -> None:
    theirs = [pod("r1-0-0", i, "theirs") for i in (0, 1)]
    for member, name in zip(theirs, ("n1", "n2"), strict=True):
        member["spec"] |= {"schedulingGates": [], "nodeName": name}
    api = ApiServer(["n1", "n2", "n3", "n4"], theirs)
    ours = [pod("r1-0-0", i) for i in (0, 1)]
    api.objects[PODS] = [*ours, *theirs]
    (placed,) = await api.placer().place("ns", gangs_of(ours), SHAPE)
    assert placed == Placement("r1-0-0", ("n3", "n4"))
