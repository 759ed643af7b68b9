"""What a gang was planned for, from the plan to the engine's comparison and to the nodes that are taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from r1_engine.config import ConfigError, EngineConfig
from r1_engine.expected import Expected
from r1_engine.preflight import check_model
from r1_operator.api.types import R1DeploymentSpec
from r1_operator.manifests.context import Context
from r1_operator.manifests.engine_config import engine_config, products_of
from r1_operator.manifests.template import shape_of, template_of
from r1_operator.placement.nodes import Node
from r1_operator.placement.place import Request, place
from r1_operator.planning import make_plan
from r1_operator.planning.catalog import MODELS
from r1_operator.planning.plan import Plan

from tests.chart.cases import PROFILE

GPU = "nvidia.com/gpu"
TINY = Path(__file__).parents[2] / "engine" / "tiny_model" / "weights"
R1, V3 = "deepseek-ai/DeepSeek-R1-0528", "deepseek-ai/DeepSeek-V3-0324"


def context(name: str = R1, hardware: str = "H100x8", base: str | None = None, **spec: Any) -> Context:
    model = {"name": name, "weights": {"hostPath": {"path": "/w"}}} | ({"baseModel": base} if base else {})
    parsed = R1DeploymentSpec.model_validate({"model": model, "hardware": hardware, **spec})
    plan = make_plan(parsed)
    assert isinstance(plan, Plan), plan
    return Context("r1", "default", {"uid": "u"}, parsed, plan, "engine", "gateway")


def told(given: Context) -> Expected:
    """What the engine reads of it: through JSON, as the ConfigMap carries it."""
    return EngineConfig.model_validate(json.loads(json.dumps(engine_config(given, 0, 0)))).expected


def test_the_engine_is_told_the_profile_and_the_model() -> None:
    expected = told(context())
    assert expected.hardware is not None
    assert expected.hardware.model_dump() == {
        "profile": "H100x8",
        "gpus": 8,
        "products": ("NVIDIA-H100-80GB-HBM3",),
        "memory_mib": 81559,
        "compute_capability": 90,
    }
    assert expected.model is not None
    assert (expected.model.quantization, expected.model.weight_block) == ("fp8", (128, 128))
    assert expected.model.figures["n_routed_experts"] == 256
    assert told(context("r1-operator/tiny-r1", "CPUx1")).hardware is None
    fine_tune = told(context("acme/r1-medical", base=R1))
    assert fine_tune.model is not None
    assert (fine_tune.model.name, fine_tune.model.field) == (R1, "spec.model.baseModel")


def test_what_an_older_or_a_newer_operator_tells_is_taken() -> None:
    document = engine_config(context(), 0, 0)
    del document["expected"]
    older = EngineConfig.model_validate(document).expected
    assert (older.hardware, older.model) == (None, None)
    newer = {"hardware": {"profile": "p", "gpus": 1, "clocks": 7}, "network": {"gbits": 400}}
    assert EngineConfig.model_validate(document | {"expected": newer}).expected.hardware is not None
    assert products_of(document) == ()


def folder(tmp_path: Path, config: str, **changed: Any) -> Path:
    """A model's folder with a config.json of the catalogue; None takes a key away."""
    document = json.loads((MODELS / config).read_text()) | changed
    kept = {key: value for key, value in document.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(kept))
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text("{}")
    header = json.dumps({"x": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0\0\0")
    return tmp_path


@pytest.mark.parametrize("config", sorted(p.name for p in MODELS.glob("*.json") if p.name != "catalog.json"))
def test_each_known_model_is_its_own(tmp_path: Path, config: str) -> None:
    """And is refused where another one is planned."""
    planned = next(e for e in json.loads((MODELS / "catalog.json").read_text()) if e["config"] == config)["name"]
    own = told(context(planned, "CPUx1" if "tiny" in planned else "H200x8")).model
    assert own is not None
    check_model(folder(tmp_path, config), own)
    other = told(context("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B")).model
    if "32b" not in config:
        with pytest.raises(ConfigError) as error:
            check_model(tmp_path, other)
        assert error.value.reason == "ModelMismatch"
        assert "spec.model.name" in str(error.value)


def test_the_model_for_trying_out_is_the_planned_one() -> None:
    check_model(TINY, told(context("r1-operator/tiny-r1", "CPUx1")).model)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"num_hidden_layers": 62}, "num_hidden_layers is 62 instead of 61"),
        ({"n_routed_experts": 128, "hidden_size": 4096}, "n_routed_experts is 128 instead of 256"),
        ({"quantization_config": None}, "quantization_config.quant_method is none (BF16) instead of fp8"),
        ({"quantization_config": {"quant_method": "awq"}}, "quant_method is awq instead of fp8"),
        (
            {"quantization_config": {"quant_method": "fp8", "weight_block_size": None}},
            "weight_block_size is None instead of [128, 128]",
        ),
        ({"architectures": ["DeepseekV32ForCausalLM"]}, "architectures is DeepseekV32ForCausalLM instead of Deepseek"),
        ({"vocab_size": 160000}, "vocab_size is 160000 instead of 129280"),
    ],
)
def test_what_makes_it_another_model_is_named(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_model(folder(tmp_path, "deepseek-r1.json", **changed), told(context()).model)
    assert error.value.where.endswith("config.json")
    assert words in error.value.why


def test_a_fine_tune_may_add_tokens_and_leave_figures_out(tmp_path: Path) -> None:
    fine_tune = told(context("acme/r1-medical", base=R1)).model
    check_model(
        folder(tmp_path, "deepseek-r1.json", vocab_size=129792, head_dim=None, n_shared_experts=None), fine_tune
    )
    # ModelOpt's checkpoints say beside config.json how they are quantized.
    (tmp_path / "hf_quant_config.json").write_text("{}")
    check_model(folder(tmp_path, "deepseek-r1.json", quantization_config=None), fine_tune)


def _shards(path: Path) -> None:
    (path / "model.safetensors").unlink()
    (path / "model-00001.safetensors").symlink_to("../../blobs/0123")
    index = {"weight_map": {"x": "model-00001.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


def _relink(name: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        (path / name).unlink()
        (path / name).symlink_to("../../blobs/0123")

    return change


@pytest.mark.parametrize(
    "change", [_relink("config.json"), _relink("tokenizer.json"), _relink("model.safetensors"), _shards]
)
def test_links_of_hugging_faces_cache_that_lead_out_of_the_mount_are_named(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path = folder(tmp_path, "deepseek-r1.json")
    change(path)
    with pytest.raises(ConfigError, match=r"is a link to \.\./\.\./blobs/0123.*cp -rL"):
        check_model(path)


def node(name: str, product: str | None) -> Node:
    labels = {} if product is None else {"nvidia.com/gpu.product": product}
    return Node(name, labels, {GPU: Fraction(8), "cpu": Fraction(500), "memory": Fraction(2**42)}, {}, True, False, ())


@pytest.mark.parametrize("other", ["NVIDIA-A100-SXM4-80GB", "NVIDIA-H100-80GB-HBM3-SHARED", "NVIDIA-H100-PCIe"])
def test_a_node_whose_label_says_another_board_is_not_taken(other: str) -> None:
    shape = shape_of(template_of(context()))
    good, unlabelled = node("n4", "NVIDIA-H100-80GB-HBM3"), [node("n2", None), node("n3", None)]
    (taken,) = place([Request("r1-0-0", shape)], [node("n1", other), *unlabelled, good])
    assert taken.nodes == ("n4", "n2")  # type: ignore[union-attr]
    (waits,) = place([Request("r1-0-0", shape)], [node("n1", other), good])
    assert f"other hardware (nvidia.com/gpu.product {other})" in _reasons(shape, other)
    assert "needs 2 whole free nodes" in waits.message  # type: ignore[union-attr]


def _reasons(shape: Any, other: str) -> str:
    (waits,) = place([Request("r1-0-0", shape)], [node("n1", other)])
    return str(waits.message)  # type: ignore[union-attr]


def test_a_profile_of_ones_own_takes_any_board() -> None:
    own = PROFILE | {"name": "ours", "nvlinkGbytesPerSecond": 450, "fp8Tflops": 1979, "networkGbitsPerSecond": 3200}
    shape = shape_of(template_of(context(hardware="ours", hardwareProfile=own)))
    (taken,) = place([Request("r1-0-0", shape)], [node("n1", "NVIDIA-H100-PCIe"), node("n2", None)])
    assert taken.nodes == ("n1", "n2")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "base", "reasoning", "tools"),
    [
        (R1, None, "deepseek-r1", "deepseekv3"),
        ("deepseek-ai/DeepSeek-R1", None, "deepseek-r1", None),
        (V3, None, "deepseek-v3", "deepseekv3"),
        ("acme/v3-medical", V3, "deepseek-v3", "deepseekv3"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", None, "deepseek-r1", None),
    ],
)
def test_parsers_follow_the_model(name: str, base: str | None, reasoning: str, tools: str | None) -> None:
    arguments = context(name, "H200x8", base).plan.engine_args
    assert arguments[arguments.index("--reasoning-parser") + 1] == reasoning
    found = arguments[arguments.index("--tool-call-parser") + 1] if "--tool-call-parser" in arguments else None
    assert found == tools
    own = {"args": ["--reasoning-parser", "qwen3", "--tool-call-parser", "qwen"]}
    overridden = context(name, "H200x8", base, engine=own).plan.engine_args
    assert overridden[-4:] == tuple(own["args"])
    assert overridden.count("--reasoning-parser") == overridden.count("--tool-call-parser") == 1
