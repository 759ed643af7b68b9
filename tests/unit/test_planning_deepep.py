"""Plans with DeepEP: the largest decode step that it sends, what that costs, and copies of experts."""

from __future__ import annotations

from typing import Any

import pytest
from r1_operator.api.spec import R1DeploymentSpec
from r1_operator.planning import Plan, Refusal, make_plan
from r1_operator.planning.catalog import find_model
from r1_operator.planning.deepep import DISPATCH_VARIABLE, low_latency_bytes
from r1_operator.planning.layout import AllToAll, Layout
from r1_operator.planning.model import MlaMoe

R1 = "deepseek-ai/DeepSeek-R1-0528"


def plan(
    hardware: str, nodes: int, topology: dict[str, Any], dispatch: str | None = None, **spec: Any
) -> Plan | Refusal:
    spec["topology"] = {"nodesPerReplica": nodes, **topology}
    if dispatch is not None:
        spec["engine"] = {**spec.get("engine", {}), "env": [{"name": DISPATCH_VARIABLE, "value": dispatch}]}
    model = {"name": R1, "weights": {"hostPath": {"path": "/data"}}}
    return make_plan(R1DeploymentSpec.model_validate({"model": model, "hardware": hardware, **spec}))


@pytest.mark.parametrize(
    ("redundant", "limit", "size"), [(0, 128, 1_908_410_496), (0, 176, 2_624_063_616), (32, 256, 4_293_921_152)]
)
def test_the_buffer_has_deepeps_own_size(redundant: int, limit: int, size: int) -> None:
    """`Buffer.get_low_latency_rdma_size_hint(limit, 7168, ranks, 256 + redundant)`, worked out from its config.hpp."""
    model = find_model(R1)
    assert model is not None
    assert isinstance(model.architecture, MlaMoe)
    layout = Layout(32, 32, 32, redundant, AllToAll.DEEPEP)
    assert low_latency_bytes(model.architecture, layout, limit) == size


@pytest.mark.parametrize(("hardware", "nodes"), [("B200x8", 1), ("H100x8", 4), ("H800x8", 4), ("H200x8", 2)])
def test_the_limit_follows_the_requests(hardware: str, nodes: int) -> None:
    """These plans had 176 to 256 requests a rank under SGLang's default of 128."""
    made = plan(hardware, nodes, {"moeA2aBackend": "DeepEP"})
    assert isinstance(made, Plan)
    assert made.limits.graph_batch > 128
    assert int(dict(made.env)[DISPATCH_VARIABLE]) >= made.limits.graph_batch


def test_more_requests_than_deepep_sends_are_refused_with_what_it_takes() -> None:
    limits, drafts = {"maxRunningRequests": 4096}, {"args": ["--speculative-algorithm", "EAGLE"]}
    refused = plan("B200x8", 1, {"attentionDataParallel": 8, "moeA2aBackend": "DeepEP"}, limits=limits, engine=drafts)
    assert isinstance(refused, Refusal)
    assert refused.field == "spec.limits.maxRunningRequests"
    assert "are 2048 tokens of a rank in a decode step" in refused.message
    assert refused.remedy == "set at most 2048, or moeA2aBackend None"


def test_a_limit_of_the_users_that_is_too_small_is_refused_by_its_field() -> None:
    layout = {"attentionDataParallel": 8, "moeA2aBackend": "DeepEP"}
    refused = plan("B200x8", 1, layout, "128", limits={"maxRunningRequests": 2048})
    assert isinstance(refused, Refusal)
    assert (refused.field, refused.remedy) == ("spec.engine.env", "leave it out, or set at least 256")
    fewer = plan("B200x8", 1, layout, "128")
    assert isinstance(fewer, Plan)
    assert fewer.limits.max_running_requests == 128 * 8


@pytest.mark.parametrize("value", ["0", "2048", "", "many"])
def test_a_limit_that_deepep_does_not_take_is_refused(value: str) -> None:
    refused = plan("B200x8", 1, {"moeA2aBackend": "DeepEP"}, value)
    assert isinstance(refused, Refusal)
    assert refused.field == "spec.engine.env"


def test_copies_of_experts_come_with_what_moves_them() -> None:
    made = plan("H100x8", 4, {"redundantExperts": 32})
    assert isinstance(made, Plan)
    assert "--enable-eplb" in made.engine_args
    assert "moving experts" in {part.name for part in made.memory.slack}
