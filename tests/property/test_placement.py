"""Placement: all or nothing, never over-committed, one domain, deterministic, and half-placed gangs completed."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
from r1_operator.placement.nodes import Node, Taint
from r1_operator.placement.place import Placement, Request, Shape, Unplaceable, place, room_for

GPU = "nvidia.com/gpu"


def amounts(**values: int) -> dict[str, Fraction]:
    return {GPU if key == "gpu" else key: Fraction(value) for key, value in values.items()}


@st.composite
def clusters(draw: st.DrawFn) -> tuple[Node, ...]:
    count = draw(st.integers(0, 10))
    return tuple(
        Node(
            name=f"n{i}",
            labels={"fabric": domain} if (domain := draw(st.sampled_from(["", "a", "b"]))) else {},
            allocatable=amounts(gpu=draw(st.sampled_from([0, 4, 8, 8, 8])), cpu=64),
            used=amounts(gpu=draw(st.sampled_from([0, 0, 0, 1, 8])), cpu=draw(st.sampled_from([0, 60]))),
            ready=draw(st.integers(0, 9)) > 0,
            unschedulable=draw(st.integers(0, 9)) == 0,
            taints=(Taint("maintenance", "", "NoSchedule"),) if draw(st.integers(0, 9)) == 0 else (),
        )
        for i in range(count)
    )


sizes = st.integers(1, 4)


def shape(size: int) -> Shape:
    return Shape(size, GPU, amounts(gpu=8, cpu=8), fabric_label="fabric")


@given(clusters(), st.lists(sizes, max_size=4))
def test_whole_gangs_on_whole_free_nodes_of_one_domain(nodes: tuple[Node, ...], gangs: list[int]) -> None:
    requests = [Request(f"g{i}", shape(size)) for i, size in enumerate(gangs)]
    results = place(requests, nodes)
    assert [r.gang for r in results] == [r.gang for r in requests]
    by_name = {node.name: node for node in nodes}
    taken: Counter[str] = Counter()
    for request, result in zip(requests, results, strict=True):
        if isinstance(result, Unplaceable):
            continue
        assert len(result.nodes) == len(set(result.nodes)) == request.shape.size
        chosen = [by_name[name] for name in result.nodes]
        assert len({node.labels.get("fabric", "") for node in chosen}) == 1
        for node in chosen:
            assert node.ready
            assert not node.unschedulable
            assert not node.taints
            assert node.allocatable[GPU] == 8
            assert node.used[GPU] == 0
            assert node.free("cpu") >= 8
        taken.update(result.nodes)
    assert all(count == 1 for count in taken.values())


@given(clusters(), sizes, st.randoms())
def test_a_gang_is_placed_exactly_when_there_is_room(nodes: tuple[Node, ...], size: int, random: object) -> None:
    (result,) = place([Request("g", shape(size))], nodes)
    assert isinstance(result, Placement) == (room_for(shape(size), nodes) > 0)
    shuffled = list(nodes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert place([Request("g", shape(size))], sorted(shuffled, key=lambda n: n.name)) == (result,)


@given(clusters(), sizes, st.data())
def test_half_written_pins_are_completed_or_given_up(nodes: tuple[Node, ...], size: int, data: st.DataObject) -> None:
    (whole,) = place([Request("g", shape(size))], nodes)
    if isinstance(whole, Unplaceable):
        return
    written = data.draw(st.sets(st.integers(0, size - 1), min_size=1))
    pins = {i: whole.nodes[i] for i in written}
    (again,) = place([Request("g", shape(size), pins)], nodes)
    assert isinstance(again, Placement)
    assert all(again.nodes[i] == node for i, node in pins.items())

    lost = data.draw(st.sampled_from(sorted(pins.values())))
    (given_up,) = place([Request("g", shape(size), pins)], [n for n in nodes if n.name != lost])
    assert isinstance(given_up, Unplaceable)
    assert given_up.broken_pins


@given(clusters(), sizes, sizes)
def test_half_placed_gangs_keep_their_nodes_from_earlier_ones(nodes: tuple[Node, ...], first: int, second: int) -> None:
    (alone,) = place([Request("late", shape(second))], nodes)
    if isinstance(alone, Placement):
        pins = dict(enumerate(alone.nodes))
        early, late = place([Request("early", shape(first)), Request("late", shape(second), pins)], nodes)
        assert late == alone
        if isinstance(early, Placement):
            assert not set(early.nodes) & set(alone.nodes)
