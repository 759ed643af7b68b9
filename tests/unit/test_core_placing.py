"""Carrying a placement out: every pin before any gate, and nothing lifted when a pin could not be written."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
from r1_operator.api.pinning import pinned_node
from r1_operator.cluster import ApiError, Change
from r1_operator.cluster.resources import NODES, PODS, JsonObject, Resource
from r1_operator.controller.inventory import Inventory
from r1_operator.controller.placing import Placer
from r1_operator.lifecycle.pods import gangs_of
from r1_operator.placement.place import Shape, Unplaceable
from r1_operator.rounds.decide import Waiting

GPU = "nvidia.com/gpu"
OWNED = {"ownerReferences": [{"kind": "R1Deployment", "uid": "u", "controller": True}]}
SHAPE = Shape(2, GPU, {GPU: 8})  # type: ignore[dict-item]


def node(name: str) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True"}]
    return {"metadata": {"name": name}, "status": {"allocatable": {GPU: "8"}, "conditions": conditions}}


def pod(gang: str, index: int, namespace: str = "ns") -> dict[str, Any]:
    labels = {
        "app.kubernetes.io/managed-by": "r1-operator",
        "app.kubernetes.io/instance": "r1",
        "app.kubernetes.io/component": "engine",
        "r1operator.dev/gang": gang,
        "r1operator.dev/node-index": str(index),
        "r1operator.dev/nodes": "2",
    }
    name = f"{gang}-{index}"
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{namespace}-{name}", "labels": labels} | OWNED,
        "spec": {
            "schedulingGates": [{"name": "r1operator.dev/gang"}],
            "containers": [{"name": "engine", "resources": {"requests": {GPU: "8"}}}],
        },
    }


class ApiServer:
    """The cache and the client at once: patches are applied to the objects, and remembered in order."""

    def __init__(self, nodes: Sequence[str], pods: Sequence[dict[str, Any]], refuse: str | None = None) -> None:
        self.refuse = refuse
        self.patches: list[tuple[str, str]] = []
        self.pods: dict[tuple[str, str], dict[str, Any]] = {}
        self.woken: list[tuple[str, str]] = []
        self.inventory = Inventory(self)  # type: ignore[arg-type]
        self.placer = Placer(self, self, self.inventory, self.woken.append)  # type: ignore[arg-type]
        for name in nodes:
            self.inventory.on_change(Change(NODES, "Added", None, node(name)))
        for made in pods:
            self.remember(made)

    def subscribe(self, listener: object) -> None:
        """The inventory is told by `remember`."""

    def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        return self.pods[namespace, name]

    def remember(self, obj: JsonObject) -> None:
        key = (obj["metadata"]["namespace"], obj["metadata"]["name"])
        old = self.pods.get(key)
        self.pods[key] = dict(copy.deepcopy(obj))
        self.inventory.on_change(Change(PODS, "Modified", old, self.pods[key]))

    async def patch_json(
        self, resource: Resource, namespace: str, name: str, operations: Sequence[JsonObject]
    ) -> dict[str, Any]:
        found = copy.deepcopy(self.pods[namespace, name])
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

    def submit(self, namespace: str = "ns") -> None:
        gangs = gangs_of(self.inventory.pods((namespace, "r1"), "engine"))
        waiting = [Waiting(gang, SHAPE) for gang in gangs if any(member.gated for member in gang.members)]
        self.placer.submit((namespace, "r1"), waiting)

    async def place(self) -> None:
        self.submit()
        await self.placer.tick()

    def nodes_of(self, gang: str, namespace: str = "ns") -> list[str | None]:
        return [
            pinned_node(pod["spec"])
            for (where, name), pod in sorted(self.pods.items())
            if (where, name[:-2]) == (namespace, gang)
        ]


async def test_all_pins_are_written_before_any_gate_is_lifted() -> None:
    api = ApiServer(["n1", "n2", "n3"], [pod("r1-0-0", 0), pod("r1-0-0", 1)])
    await api.place()
    assert [what for what, _ in api.patches] == ["pin", "pin", "lift", "lift"]
    assert api.nodes_of("r1-0-0") == ["n1", "n2"]


async def test_nothing_is_lifted_when_a_pin_fails_and_the_next_tick_completes_it() -> None:
    api = ApiServer(["n1", "n2"], [pod("r1-0-0", 0), pod("r1-0-0", 1)], refuse="pin r1-0-0-1")
    with pytest.raises(ApiError):
        await api.place()
    assert api.patches == [("pin", "r1-0-0-0")]
    api.refuse = None
    await api.place()
    assert api.patches[1:] == [("pin", "r1-0-0-1"), ("lift", "r1-0-0-0"), ("lift", "r1-0-0-1")]


async def test_a_half_lifted_gang_is_completed_on_the_nodes_it_holds_itself() -> None:
    api = ApiServer(["n1", "n2"], [pod("r1-0-0", 0), pod("r1-0-0", 1)], refuse="lift r1-0-0-1")
    with pytest.raises(ApiError):
        await api.place()
    api.refuse = None
    await api.place()
    assert not any(p["spec"]["schedulingGates"] for p in api.pods.values())


async def test_a_placed_gang_keeps_its_nodes_before_the_scheduler_has_bound_it() -> None:
    api = ApiServer(["n1", "n2"], [pod("r1-0-0", i) for i in (0, 1)])
    await api.place()
    for made in [pod("r1-1-0", i) for i in (0, 1)]:
        api.remember(made)
    await api.place()
    waits = api.placer.verdicts(("ns", "r1"))["r1-1-0"]
    assert isinstance(waits, Unplaceable)
    assert waits.message == (
        "needs 2 whole free nodes with 8 nvidia.com/gpu each: 0 are free (others: nvidia.com/gpu in use)"
    )
    assert api.woken == [("ns", "r1")]


async def test_a_gang_of_another_namespace_keeps_its_nodes_although_it_has_the_same_name() -> None:
    theirs = [pod("r1-0-0", i, "theirs") for i in (0, 1)]
    for member, name in zip(theirs, ("n1", "n2"), strict=True):
        member["spec"] |= {"schedulingGates": [], "nodeName": name}
    api = ApiServer(["n1", "n2", "n3", "n4"], [*theirs, *(pod("r1-0-0", i) for i in (0, 1))])
    await api.place()
    assert api.nodes_of("r1-0-0") == ["n3", "n4"]


async def test_one_queue_for_all_and_the_oldest_goes_first() -> None:
    """Two R1Deployments wait; whoever's pods are older gets the nodes, whoever is reconciled first."""
    old = [pod("r1-0-0", i, "theirs") for i in (0, 1)]
    for member in old:
        member["metadata"]["creationTimestamp"] = "2026-11-25T13:00:00Z"
    young = [pod("r1-0-0", i) for i in (0, 1)]
    for member in young:
        member["metadata"]["creationTimestamp"] = "2026-11-25T13:05:00Z"
    api = ApiServer(["n1", "n2"], [*young, *old])
    api.submit()
    api.submit("theirs")
    await api.placer.tick()
    assert api.nodes_of("r1-0-0", "theirs") == ["n1", "n2"]
    assert api.nodes_of("r1-0-0") == [None, None]
    assert [r.gang for r in api.placer.ahead_of(("ns", "r1"))] == ["r1-0-0"]
