"""The inventory, kept change by change, says what a look at all nodes and pods would say."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from r1_operator.api import names
from r1_operator.api.pinning import pinned_affinity
from r1_operator.cluster import Change
from r1_operator.cluster.resources import NODES, PODS
from r1_operator.controller.inventory import Inventory
from r1_operator.placement.nodes import nodes_of, pod_requests

GPU = "nvidia.com/gpu"


class Quiet:
    def subscribe(self, listener: object) -> None:
        """Changes are handed over by the test."""


def node(name: str, ready: bool) -> dict[str, Any]:
    conditions = [
        {"type": "Ready", "status": "True" if ready else "Unknown", "lastTransitionTime": "2026-11-25T00:00:00Z"}
    ]
    return {"metadata": {"name": name}, "status": {"allocatable": {GPU: "8"}, "conditions": conditions}}


@st.composite
def pods(draw: st.DrawFn) -> dict[str, Any]:
    ours, where = draw(st.booleans()), draw(st.sampled_from(["n0", "n1", None]))
    labels = names.base_labels("r1", names.COMPONENT_ENGINE) | {names.LABEL_GANG: "r1-0-0"} if ours else {}
    spec: dict[str, Any] = {"containers": [{"resources": {"requests": {GPU: str(draw(st.integers(1, 8)))}}}]}
    if where and draw(st.booleans()):
        spec["nodeName"] = where
    elif where:
        spec["affinity"] = pinned_affinity(where)
    owners = [{"kind": names.KIND, "uid": "u", "controller": True}] if ours and draw(st.booleans()) else []
    metadata = {"namespace": "ns", "name": f"p{draw(st.integers(0, 3))}", "labels": labels, "ownerReferences": owners}
    return {
        "metadata": metadata,
        "spec": spec,
        "status": {"phase": draw(st.sampled_from(["Pending", "Running", "Failed"]))},
    }


changes = st.lists(
    st.tuples(st.just("pod"), pods(), st.booleans())
    | st.tuples(st.just("node"), st.tuples(st.sampled_from(["n0", "n1"]), st.booleans()), st.booleans()),
    max_size=25,
)


@given(changes)
def test_it_agrees_with_a_look_at_everything(steps: list[tuple[str, Any, bool]]) -> None:
    inventory = Inventory(Quiet())  # type: ignore[arg-type]
    seen: dict[str, dict[str, dict[str, Any]]] = {"pod": {}, "node": {}}
    for kind, value, goes in steps:
        obj = node(*value) if kind == "node" else value
        name = obj["metadata"]["name"]
        old = seen[kind].pop(name, None)
        if not goes:
            seen[kind][name] = obj
        elif old is None:
            continue
        new = None if goes else obj
        inventory.on_change(Change(NODES if kind == "node" else PODS, "Modified", old, new))
        truth = nodes_of(seen["node"].values(), seen["pod"].values())
        found = inventory.nodes()
        assert [(n.name, n.ready) for n in found] == [(n.name, n.ready) for n in truth]
        assert [n.free(GPU) for n in found] == [n.free(GPU) for n in truth]
        labelled = {n: p for n, p in seen["pod"].items() if p["metadata"]["labels"]}
        ours = sorted(n for n, p in labelled.items() if p["metadata"]["ownerReferences"])
        assert inventory.strangers(("ns", "r1")) == tuple(sorted(labelled.keys() - set(ours)))
        assert [p["metadata"]["name"] for p in inventory.pods(("ns", "r1"), names.COMPONENT_ENGINE)] == ours
        running = {
            p["spec"]["nodeName"]
            for p in seen["pod"].values()
            if p["metadata"]["ownerReferences"] and p["spec"].get("nodeName") and p["status"]["phase"] != "Failed"
        }
        assert inventory.fleet().holding == running
        assert inventory.fleet().silent == running - {n.name for n in truth if n.ready}


def test_what_a_pod_asks_for_as_a_whole_is_counted() -> None:
    """L15: spec.resources of a pod counted as nothing."""
    spec = {
        "resources": {"requests": {"memory": "1900Gi"}},
        "containers": [{"resources": {"requests": {"cpu": "2", "memory": "1Gi"}}}],
    }
    assert pod_requests(spec) == {"cpu": 2, "memory": 1900 * 2**30}
