"""The planner's bytes per GPU against SGLang's own model code, built on the meta device in a fake process group."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from r1_operator.planning.catalog import find_model
from r1_operator.planning.engine_args import render
from r1_operator.planning.layout import AllToAll, Layout
from r1_operator.planning.model import MlaMoe, Model
from r1_operator.planning.plan import Limits
from r1_operator.planning.weights import draft_parts, weight_parts

pytestmark = pytest.mark.engine

PROBE = Path(__file__).with_name("planner_probe.py")
MODELS = Path(__file__).parents[2] / "operator" / "r1_operator" / "planning" / "models"
DEEPEP = AllToAll.DEEPEP
LIMITS = Limits(16384, 256, 8192, 1, 64)
H100 = {"label": "NVIDIA H100 80GB HBM3", "memoryMib": 81559, "capability": 90}

R1, BF16, W4A8 = "deepseek-ai/DeepSeek-R1", "unsloth/DeepSeek-R1-BF16", "Barrrrry/DeepSeek-R1-W4AFP8"
LAYERS = 4  # three dense and one with experts; FULL are built whole
DISTILL = "deepseek-ai/DeepSeek-R1-Distill-"
CASES: list[tuple[str, Layout]] = [
    (R1, Layout(8)),  # fused shared expert, everything split
    (R1, Layout(8, 8)),  # attention whole on each rank
    (R1, Layout(8, 4)),
    (R1, Layout(8, 2, 8)),  # experts spread without all-to-all: shared expert split
    (R1, Layout(8, 8, 8, 0, DEEPEP)),  # shared expert whole
    (R1, Layout(16)),
    (R1, Layout(16, 16, 4)),  # experts spread and cut
    (R1, Layout(16, 8, 16, 0, DEEPEP)),
    (R1, Layout(16, 16, 16, 0, DEEPEP)),
    (R1, Layout(16, 16, 16, 32, DEEPEP, dp_lm_head=True, dense_tp_one=True)),
    (R1, Layout(24, 24, 24, 8, DEEPEP, dp_lm_head=True, dense_tp_one=True)),  # a vocabulary that 24 does not divide
    (R1, Layout(32, 32, 32, 32, DEEPEP, dp_lm_head=True, dense_tp_one=True)),
    (R1, Layout(72, 72, 72, 32, DEEPEP, dp_lm_head=True, dense_tp_one=True)),
    (W4A8, Layout(8)),
    (W4A8, Layout(8, 8, 8, 0, DEEPEP, dp_lm_head=True)),
    (BF16, Layout(32)),
    (BF16, Layout(32, 32, 32, 0, DEEPEP, dp_lm_head=True, dense_tp_one=True)),
    (DISTILL + "Qwen-1.5B", Layout(4)),  # fewer key-value heads than ranks
    (DISTILL + "Qwen-14B", Layout(2)),
    (DISTILL + "Qwen-32B", Layout(8)),
    (DISTILL + "Llama-8B", Layout(1)),
    (DISTILL + "Llama-70B", Layout(8)),
]
# Whole models too, once of each architecture's kind: that layers beyond LAYERS are alike is not taken on trust.
FULL = [
    (R1, Layout(16, 16, 16, 32, DEEPEP, dp_lm_head=True, dense_tp_one=True)),
    (DISTILL + "Qwen-1.5B", Layout(1)),
]
# The draft's branches: split or whole attention, fused, split and whole shared expert, head in the group, each storage.
DRAFTS = [
    (R1, Layout(8)),
    (R1, Layout(8, 4)),
    (R1, Layout(8, 2, 8)),
    (R1, Layout(16, 16, 16, 0, DEEPEP)),
    (R1, Layout(32, 32, 32, 32, DEEPEP, dp_lm_head=True, dense_tp_one=True)),
    (W4A8, Layout(8)),
    (BF16, Layout(32)),
]


Built = dict[tuple[str, str], dict[str, int]]


def case_name(case: tuple[str, Layout]) -> str:
    return f"{case[0].split('/')[1]} {case[1].describe()}"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Sizes by name for all cases, target and draft, from one process: importing SGLang is what takes the time."""
    folder = tmp_path_factory.mktemp("models")
    jobs = (
        [(case, "target") for case in CASES] + [(case, "draft") for case in DRAFTS] + [(case, "full") for case in FULL]
    )
    answers = probe("build", [_job(folder, name, layout, what) for (name, layout), what in jobs])
    result = {}
    for (case, what), answer in zip(jobs, answers, strict=True):
        assert answer["error"] is None, f"{case_name(case)} {what}: {answer['error']}"
        result[case_name(case), what] = answer["sizes"]
    return result


def _job(folder: Path, name: str, layout: Layout, what: str) -> dict[str, object]:
    layout = replace(layout, draft=what == "draft")
    argv = ["--model-path", model_folder(folder, name, None if what == "full" else LAYERS)]
    argv += render(model(name), layout, LIMITS, fraction=0.9, role="Aggregated", cpu=False)
    if layout.tensor_parallel > 8:
        nodes = layout.tensor_parallel // 8
        argv += ["--nnodes", str(nodes), "--node-rank", "0", "--dist-init-addr", "127.0.0.1:25000"]
    return {"card": H100, "argv": argv, "draft": what == "draft"}


def model(name: str, layers: int | None = LAYERS) -> Model:
    found = find_model(name)
    assert found is not None
    return found if layers is None else replace(found, architecture=replace(found.architecture, layers=layers))


def model_folder(folder: Path, name: str, layers: int | None = None) -> str:
    """A folder with the catalogue's config.json of that model."""
    entries = json.loads((MODELS / "catalog.json").read_text())
    config = next(entry["config"] for entry in entries if entry["name"] == name)
    target = folder / f"{config.removesuffix('.json')}-{layers or 'full'}"
    target.mkdir(exist_ok=True)
    (target / "config.json").write_text(json.dumps(shortened(json.loads((MODELS / config).read_text()), layers)))
    return str(target)


def shortened(config: dict[str, object], layers: int | None) -> dict[str, object]:
    """The configuration with fewer layers: all layers of a kind are alike, and building them is what takes time."""
    return config if layers is None else config | {"num_hidden_layers": layers}


def probe(mode: str, cases: list[dict[str, object]]) -> list[dict[str, object]]:
    run = subprocess.run(
        [sys.executable, str(PROBE), mode], input=json.dumps(cases), capture_output=True, text=True, timeout=500
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout)


def after_loading(sizes: dict[str, int]) -> int:
    """What SGLang does to the allocated tensors while it loads: kv_b is kept once more in bfloat16, and int4 experts'
    float32 group scales become bfloat16 and their input scales one float32 a layer."""
    total, int4 = 0, any(name.endswith("input_scale") for name in sizes)
    for name, size in sizes.items():
        if name.endswith(("w13_input_scale", "w2_input_scale")) and size > 8:
            size = 4
        elif int4 and ".experts." in name and name.endswith("weight_scale_inv"):
            size //= 2
        total += size
        if name.endswith("kv_b_proj.weight"):
            total += size * (2 if name.removesuffix("weight") + "weight_scale_inv" in sizes else 1)
    return total


def kernel_tables(model: Model, layout: Layout, layers: int) -> int:
    """Strides and offsets that the int4 kernel keeps beside the module's tensors."""
    arch = model.architecture
    if model.quantization != "W4AFP8" or not isinstance(arch, MlaMoe):
        return 0
    slots = (arch.routed_experts + layout.redundant_experts) // layout.expert_parallel
    return layers * (slots * (4 * 3 * 8 + 2 * 3 * 4) + (slots + 1) * 4)


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_weights_equal_what_sglang_allocates(case: tuple[str, Layout], built: Built) -> None:
    name, layout = case
    expected = after_loading(built[case_name(case), "target"])
    arch = model(name).architecture
    if isinstance(arch, MlaMoe):
        expected += kernel_tables(model(name), layout, arch.moe_layers)
    assert sum(part.bytes for part in weight_parts(model(name), layout)) == expected


@pytest.mark.parametrize("case", DRAFTS, ids=case_name)
def test_the_draft_equals_what_sglang_allocates(case: tuple[str, Layout], built: Built) -> None:
    name, layout = case
    sizes = built[case_name(case), "draft"]
    own = {key: size for key, size in sizes.items() if "cos_sin_cache" not in key}  # the target's table, cached
    expected = after_loading(own) + kernel_tables(model(name), layout, 1)
    assert sum(part.bytes for part in draft_parts(model(name), replace(layout, draft=True))) == expected


@pytest.mark.parametrize("case", FULL, ids=case_name)
def test_whole_models_are_equal_too(case: tuple[str, Layout], built: Built) -> None:
    name, layout = case
    expected = after_loading(built[case_name(case), "full"])
    assert sum(part.bytes for part in weight_parts(model(name, None), layout)) == expected
