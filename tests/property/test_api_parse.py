"""What must hold for any input of the parser."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from r1_operator.api.parse import parse
from r1_operator.api.rule import Problem
from r1_operator.api.types import R1Deployment, to_wire

from tests.chart.cases import GOOD
from tests.chart.drawing import resources

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


def tells_all(result: R1Deployment | list[Problem]) -> None:
    if isinstance(result, list):
        assert result
        assert all(problem.field and problem.message and problem.remedy for problem in result)


@given(st.dictionaries(st.sampled_from(["apiVersion", "kind", "metadata", "spec", "status", "x"]), JSON))
def test_no_content_makes_it_raise(obj: dict[str, Any]) -> None:
    tells_all(parse(obj))


@given(st.sampled_from(["model", "topology", "autoscaling", "engine", "gateway", "hardwareProfile"]), JSON)
def test_nor_does_any_field(field: str, value: Any) -> None:
    tells_all(parse(GOOD | {"spec": GOOD["spec"] | {field: value}}))


@given(resources())
def test_what_is_written_reads_back_the_same(resource: dict[str, Any]) -> None:
    first = parse(resource)
    tells_all(first)
    if isinstance(first, R1Deployment):
        assert parse(to_wire(first)) == first
