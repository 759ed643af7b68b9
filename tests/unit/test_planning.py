"""The planner's decisions on single cases: what FACTS-like sources state, and each refusal with its remedy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from r1_operator.api.names import ENGINE_OWNED_FLAGS, PLAN_OWNED_FLAGS
from r1_operator.api.spec import R1DeploymentSpec
from r1_operator.planning import Plan, Refusal, built_in_profiles, make_plan
from r1_operator.planning.catalog import find_model, known_models
from r1_operator.planning.checks import layout_problem
from r1_operator.planning.hardware import built_in_hardware
from r1_operator.planning.layout import AllToAll, Layout
from r1_operator.planning.make import plan_wishes
from r1_operator.planning.memory import kv_bytes_per_token
from r1_operator.planning.model import Model, ModelConfigError, read_model
from r1_operator.planning.overrides import argument_problem, value_of
from r1_operator.planning.weights import weight_bytes
from r1_operator.planning.wishes import Slo, Wishes

R1 = "deepseek-ai/DeepSeek-R1-0528"
DEEPEP = AllToAll.DEEPEP
ROOT = Path(__file__).parents[2]
CONFIG = json.loads((ROOT / "operator/r1_operator/planning/models/deepseek-r1.json").read_text())


def model(name: str = R1) -> Model:
    found = find_model(name)
    assert found is not None
    return found


def plan(hardware: str, name: str = R1, **spec: object) -> Plan | Refusal:
    weights = {"hostPath": {"path": "/data"}}
    return make_plan(
        R1DeploymentSpec.model_validate({"model": {"name": name, "weights": weights}, "hardware": hardware, **spec})
    )


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (Layout(8), 85_437_927_408),
        (Layout(8, 8), 98_031_534_448),
        (Layout(8, 8, 8, 0, DEEPEP), 100_267_119_856),
        (Layout(16), 43_309_252_496),
        (Layout(16, 2), 44_208_795_856),
        (Layout(16, 8, 16, 0, DEEPEP), 52_001_326_096),
        (Layout(16, 16, 16, 0, DEEPEP), 59_197_672_976),
        (Layout(16, 16, 16, 32, DEEPEP, dp_lm_head=True, dense_tp_one=True), 67_160_145_200),
        (Layout(32, 32, 32, 32, DEEPEP, dp_lm_head=True, dense_tp_one=True), 44_165_552_432),
    ],
    ids=lambda value: value.describe() if isinstance(value, Layout) else "",
)
def test_weights_of_r1_are_the_bytes_sglang_allocated(layout: Layout, expected: int) -> None:
    assert weight_bytes(model(), layout) == expected


def test_a_token_of_r1_costs_70272_bytes_and_half_in_fp8() -> None:
    assert kv_bytes_per_token(model(), Layout(8)) == 70_272
    assert kv_bytes_per_token(model(), Layout(8), itemsize=1) == 35_136


def test_sixteen_h100_get_a_plan_from_model_and_hardware_alone() -> None:
    made = plan("H100x8")
    assert isinstance(made, Plan)
    assert (made.nodes_per_replica, made.gpus_per_node, made.tensor_parallel, made.device) == (2, 8, 16, "cuda")
    assert made.limits.context_length == 163_840
    assert value_of(made.engine_args, "--mem-fraction-static") is not None
    assert all(reason.because for reason in made.reasons)
    assert any(reason.beat for reason in made.reasons)


def test_latency_splits_one_request_over_all_ranks_and_drafts() -> None:
    made = plan("H200x8", objective="Latency")
    assert isinstance(made, Plan)
    assert (made.attention_data_parallel, made.layout.draft) == (1, True)


def test_the_trying_out_profile_plans_the_shape_of_the_full_model_on_cores() -> None:
    made = plan("CPUx1", "r1-operator/tiny-r1", topology={"nodesPerReplica": 2})
    assert isinstance(made, Plan)
    assert made.device == "cpu"
    assert (made.tensor_parallel, made.attention_data_parallel, made.expert_parallel) == (2, 2, 2)
    assert value_of(made.engine_args, "--max-total-tokens") == "20000"


def test_the_planner_knows_the_tiny_model_as_it_was_trained() -> None:
    trained = ROOT / "engine/tiny_model/weights/config.json"
    if not trained.exists():
        pytest.skip("the tiny model is not in this checkout")
    known = model("r1-operator/tiny-r1")
    assert read_model(known.name, json.loads(trained.read_text()), known.source) == known


REFUSED: list[tuple[Layout, int, str, str]] = [
    (Layout(16, 3), 2, "attentionDataParallel", "does not divide"),
    (Layout(16, 16, 5), 2, "expertParallel", "does not divide"),
    (Layout(24), 3, "tensorParallel", "128 attention heads"),
    (Layout(16, 16, 8, 0, DEEPEP), 2, "expertParallel", "must equal tensorParallel"),
    (Layout(16, 16, 1, 32), 2, "redundantExperts", "every expert on every rank"),
    (Layout(24, 24, 24, 0, DEEPEP), 3, "redundantExperts", "cannot be spread evenly"),
    (Layout(32), 4, "tensorParallel", "not a multiple of the FP8 block"),
    (Layout(16, 8), 2, "attentionDataParallel", "wrong numbers"),
]


@pytest.mark.parametrize(("layout", "nodes", "field", "message"), REFUSED, ids=lambda v: getattr(v, "describe", str)())
def test_what_sglang_cannot_build_is_refused_with_a_remedy(
    layout: Layout, nodes: int, field: str, message: str
) -> None:
    problem = layout_problem(model(), layout, nodes)
    assert problem is not None
    assert problem.field.endswith(field)
    assert message in problem.message
    assert problem.remedy


def test_one_node_of_h100_is_refused_in_gib_with_what_works() -> None:
    refusal = plan("H100x8", topology={"nodesPerReplica": 1})
    assert isinstance(refusal, Refusal)
    assert "79.57 GiB" in refusal.message
    assert "77.00 GiB usable" in refusal.message
    assert "2 node(s) of H100x8" in refusal.remedy


def test_a_fraction_that_cannot_hold_the_weights_is_refused_with_a_range_that_can() -> None:
    refusal = plan("H200x8", limits={"memoryFractionPercent": 40}, topology={"nodesPerReplica": 1})
    assert isinstance(refusal, Refusal)
    assert refusal.field == "spec.limits.memoryFractionPercent"
    assert "between" in refusal.remedy


@pytest.mark.parametrize(
    ("hardware", "name", "near"),
    [
        ("H100x16", R1, "2 nodes"),
        ("H10x8", R1, "H100x8"),
        ("h200x8", R1, "H200x8"),
        ("H100x8", "deepseek-ai/DeepSeek-R1-0529", R1),
    ],
)
def test_an_unknown_name_is_answered_with_the_near_one(hardware: str, name: str, near: str) -> None:
    refusal = plan(hardware, name)
    assert isinstance(refusal, Refusal)
    assert near in refusal.remedy


def test_fp8_weights_are_refused_on_gpus_without_fp8() -> None:
    old = replace(built_in_hardware()["H200x8"], name="A100x8", compute_capability=80, fp8_tflops=None)
    refusal = plan_wishes(Wishes(model=model(), profile=old))
    assert isinstance(refusal, Refusal)
    assert "compute capability 8.9" in refusal.message
    assert isinstance(plan_wishes(Wishes(model=model("unsloth/DeepSeek-R1-BF16"), profile=old)), Plan)


def test_int4_experts_are_refused_where_sglang_has_no_kernel_for_them() -> None:
    refusal = plan("B200x8", "Barrrrry/DeepSeek-R1-W4AFP8")
    assert isinstance(refusal, Refusal)
    assert "Hopper" in refusal.message
    assert "the smallest that works is H" in refusal.remedy


def test_a_fine_tune_is_planned_as_the_model_it_has_the_shape_of() -> None:
    tuned = {"name": "acme/r1-legal", "baseModel": R1, "weights": {"hostPath": {"path": "/data"}}}
    made = make_plan(R1DeploymentSpec.model_validate({"model": tuned, "hardware": "H200x8"}))
    base = plan("H200x8")
    assert isinstance(made, Plan)
    assert isinstance(base, Plan)
    assert made.engine_args == base.engine_args


def test_a_promise_is_kept_by_running_fewer_or_refused() -> None:
    asked = Wishes(model=model(), profile=built_in_profiles()["H200x8"], goal="SLO", slo=Slo(tpot_ms=40))
    made, strict = plan_wishes(asked), plan_wishes(replace(asked, slo=Slo(tpot_ms=1)))
    assert isinstance(made, Plan)
    assert made.estimate is not None
    assert made.estimate.tpot_ms <= 40
    assert isinstance(strict, Refusal)
    assert strict.field == "spec.slo.tpotMilliseconds"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tp-size", "8"), "spec.topology.tensorParallel"),
        (("--mem-fraction-static=0.9",), "spec.limits.memoryFractionPercent"),
        (("--host", "0.0.0.0"), "leave it out"),
        (("--quantization", "fp8"), "config.json"),
        (("--cuda-graph-bs", "8"), "--cuda-graph-bs-decode"),
        (("--kv-cache-dtype", "fp4"), "fp8_e4m3"),
        (("--mem-frac", "0.99"), "in full"),
        (("--moe-dense-tp-size", "1"), "leave it out"),
        (("--speculative-algorithm", "NGRAM"), "EAGLE"),
        (("--max-total-tokens", "many"), "correct it"),
        (("verbose",), "--log-level"),
    ],
)
def test_an_argument_that_would_break_the_plan_is_refused(arguments: tuple[str, ...], message: str) -> None:
    problem = argument_problem(arguments)
    assert problem is not None
    assert message in problem.remedy


def test_a_cap_on_the_cache_is_counted_and_must_hold_a_request() -> None:
    capped = plan("H200x8", engine={"args": ["--max-total-tokens", "100000"]})
    assert isinstance(capped, Plan)
    assert capped.kv_tokens_per_rank == 100_000 // 64 * 64
    assert capped.limits.context_length <= capped.kv_tokens_per_rank
    small = plan("H200x8", engine={"args": ["--max-total-tokens", "1000"]}, limits={"contextLength": 4096})
    assert isinstance(small, Refusal)
    assert (small.field, small.remedy) == ("spec.engine.args", "set at least 4096")


def test_larger_decode_graphs_of_the_user_cost_cache() -> None:
    usual, larger = (plan("H200x8", engine={"args": ["--cuda-graph-max-bs-decode", n]}) for n in ("64", "1024"))
    assert isinstance(usual, Plan)
    assert isinstance(larger, Plan)
    assert larger.kv_tokens_per_rank < usual.kv_tokens_per_rank


@pytest.mark.parametrize("flag", [*ENGINE_OWNED_FLAGS, *PLAN_OWNED_FLAGS])
def test_what_the_schema_refuses_the_planner_refuses_too(flag: str) -> None:
    assert argument_problem((flag, "1")) is not None


def test_other_arguments_replace_the_planned_one_and_come_last() -> None:
    made = plan("H200x8", engine={"args": ["--reasoning-parser", "qwen3", "--kv-cache-dtype", "fp8_e4m3"]})
    assert isinstance(made, Plan)
    assert made.engine_args[-4:] == ("--reasoning-parser", "qwen3", "--kv-cache-dtype", "fp8_e4m3")
    assert made.engine_args.count("--reasoning-parser") == 1
    assert made.memory.kv_bytes_per_token == 35_136


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["DeepseekV4ForCausalLM"]}, "DeepseekV4ForCausalLM"),
        ({"index_topk": 2048}, "index_topk"),
        ({"kv_lora_rank": None}, "lacks kv_lora_rank"),
        ({"hidden_size": "7168"}, "hidden_size must be a whole number"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"first_k_dense_replace": 70}, "more than num_hidden_layers"),
        ({"quantization_config": {"quant_method": "awq"}}, "awq"),
    ],
)
def test_a_configuration_without_a_memory_form_is_refused_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(ModelConfigError, match=message):
        read_model("some/model", CONFIG | change)


def test_every_known_model_and_profile_can_be_read() -> None:
    assert all(find_model(name) is not None for name in known_models())
    assert all(profile.source for profile in built_in_profiles().values())
