"""The examples are valid, and the planner has a plan for each of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from r1_operator.api.parse import parse
from r1_operator.api.types import R1Deployment
from r1_operator.planning import Plan, make_plan

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
NODES_AND_RANKS = {
    "r1-16xh100": (2, 16),
    "r1-autoscaling": (2, 16),
    "r1-efa": (2, 16),
    "r1-h200": (1, 8),
    "r1-host-network": (2, 16),
    "r1-infiniband": (2, 16),
    "r1-own-hardware": (2, 16),
    "r1-roce": (2, 16),
    "tiny": (2, 2),
}


def test_no_example_is_forgotten() -> None:
    assert {path.stem for path in EXAMPLES} == set(NODES_AND_RANKS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_can_be_planned(path: Path) -> None:
    resource = parse(yaml.safe_load(path.read_text()))
    assert isinstance(resource, R1Deployment), resource
    plan = make_plan(resource.spec)
    assert isinstance(plan, Plan), plan
    assert (plan.nodes_per_replica, plan.tensor_parallel) == NODES_AND_RANKS[path.stem]


def test_the_example_of_the_tiny_model_points_at_it() -> None:
    example = yaml.safe_load((EXAMPLES[0].parent / "tiny.yaml").read_text())
    path = Path(example["spec"]["model"]["weights"]["hostPath"]["path"])
    assert path.parts[-3:] == ("engine", "tiny_model", "weights")
