"""Every argument list the planner renders, through SGLang's own resolver with the GPU's figures faked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from r1_operator.planning.catalog import find_model, known_models
from r1_operator.planning.disaggregate import split
from r1_operator.planning.hardware import built_in_profiles
from r1_operator.planning.layout import AllToAll
from r1_operator.planning.make import plan_wishes
from r1_operator.planning.model import Model
from r1_operator.planning.plan import Plan, Refusal
from r1_operator.planning.wishes import Slo, Wishes

pytestmark = pytest.mark.engine

PROBE = Path(__file__).with_name("planner_probe.py")
MODELS = Path(__file__).parents[2] / "operator" / "r1_operator" / "planning" / "models"
LABELS = {
    "H100": "NVIDIA H100 80GB HBM3",
    "H800": "NVIDIA H800",
    "H200": "NVIDIA H200",
    "H20": "NVIDIA H20",
    "H20-141G": "NVIDIA H20-3e",
    "B200": "NVIDIA B200",
}
FULL_MODELS = ("deepseek-ai/DeepSeek-R1", "Barrrrry/DeepSeek-R1-W4AFP8", "unsloth/DeepSeek-R1-BF16")
KEYS = (
    "tp_size",
    "attn_dp_size",
    "dp_size",
    "ep_size",
    "ep_num_redundant_experts",
    "moe_a2a_backend",
    "deepep_mode",
    "enable_dp_lm_head",
    "moe_dense_tp_size",
    "context_length",
    "max_running_requests",
    "mem_fraction_static",
    "chunked_prefill_size",
    "page_size",
    "cuda_graph_config",
    "speculative_algorithm",
    "disaggregation_mode",
    "nnodes",
)


@dataclass(frozen=True)
class Case:
    name: str
    plan: Plan


def plans() -> list[Case]:
    """Profiles × objectives × modes: each argument list the planner makes for a configuration and card, once."""
    found: dict[tuple[str, ...], Case] = {}
    for name in FULL_MODELS:
        for card in LABELS:
            for plan in _plans_of_a_full_model(name, f"{card}x8"):
                add(found, name, plan)
    for name in known_models():
        if "Distill" in name:
            for size in (1, 2, 4, 8):
                for goal in ("Throughput", "Latency"):
                    profile = built_in_profiles()[f"H100x{size}"]
                    add(found, name, plan_wishes(Wishes(model=model_of(name), profile=profile, goal=goal)))
    return list(found.values())


def _plans_of_a_full_model(name: str, hardware: str) -> Iterator[Plan | Refusal]:
    base = Wishes(model=model_of(name), profile=built_in_profiles()[hardware])
    yield plan_wishes(base)
    yield plan_wishes(replace(base, goal="Latency"))
    yield plan_wishes(replace(base, goal="SLO", slo=Slo(tpot_ms=50)))
    pair = split(base)
    if not isinstance(pair, Refusal):
        yield from (pair.prefill, pair.decode)
    for nodes in (2, 4):
        deepep = replace(base, nodes=nodes, all_to_all=AllToAll.DEEPEP)
        yield plan_wishes(replace(deepep, redundant_experts=32, draft=True))
        yield plan_wishes(replace(base, nodes=nodes, kv_itemsize=1, extra_args=("--kv-cache-dtype", "fp8_e4m3")))


def model_of(name: str) -> Model:
    found = find_model(name)
    assert found is not None
    return found


def add(found: dict[tuple[str, ...], Case], name: str, plan: Plan | Refusal) -> None:
    if isinstance(plan, Plan):
        key = (config_file(name), plan.hardware.rsplit("x", 1)[0], *plan.engine_args)
        found.setdefault(key, Case(f"{name} {plan.hardware} {plan.role} {plan.layout.describe()}", plan))


def config_file(name: str) -> str:
    entries = json.loads((MODELS / "catalog.json").read_text())
    return next(str(entry["config"]) for entry in entries if entry["name"] == name)


def job(folder: Path, case: Case) -> dict[str, object]:
    plan, config = case.plan, config_file(case.plan.model)
    target = folder / config.removesuffix(".json")
    target.mkdir(exist_ok=True)
    (target / "config.json").write_text((MODELS / config).read_text())
    argv = ["--model-path", str(target), *plan.engine_args, "--enable-metrics"]
    if plan.nodes_per_replica > 1:
        argv += ["--nnodes", str(plan.nodes_per_replica), "--node-rank", "0", "--dist-init-addr", "127.0.0.1:25000"]
    card = plan.hardware.rsplit("x", 1)[0]
    profile = built_in_profiles()[plan.hardware]
    figures = {"label": LABELS[card], "memoryMib": profile.memory_mib, "capability": profile.compute_capability}
    return {"card": figures, "argv": argv, "keys": KEYS}


def test_all_arguments_resolve_to_the_plan(tmp_path: Path) -> None:
    """No error, no deprecation, and SGLang's resolved values are the plan's."""
    cases = plans()
    assert len(cases) > 60
    run = subprocess.run(
        [sys.executable, str(PROBE), "resolve"],
        input=json.dumps([job(tmp_path, case) for case in cases]),
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    wrong = []
    for case, answer in zip(cases, json.loads(run.stdout), strict=True):
        if answer["error"] or answer["said"]:
            wrong.append(f"{case.name}: {answer['error']} {answer['said']}")
            continue
        differing = differences(case.plan, answer["values"])
        wrong += [f"{case.name}: {text}" for text in differing]
    assert not wrong, "\n".join(wrong)


def differences(plan: Plan, values: dict[str, object]) -> list[str]:
    """Where SGLang resolved something else than was planned."""
    layout, limits = plan.layout, plan.limits
    graphs = values["cuda_graph_config"]
    assert isinstance(graphs, dict)
    expected: dict[str, object] = {
        "tp_size": layout.tensor_parallel,
        "attn_dp_size": layout.attention_dp,
        "dp_size": layout.copies,
        "ep_size": layout.expert_parallel,
        "ep_num_redundant_experts": layout.redundant_experts,
        "moe_a2a_backend": layout.all_to_all.value.lower(),
        "enable_dp_lm_head": layout.dp_lm_head,
        "moe_dense_tp_size": 1 if layout.dense_tp_one else None,
        "context_length": limits.context_length,
        "max_running_requests": limits.max_running_requests // layout.copies,
        "mem_fraction_static": plan.memory.fraction,
        "chunked_prefill_size": limits.chunked_prefill_size // layout.attention_dp,
        "page_size": limits.page_size,
        "speculative_algorithm": "EAGLE" if layout.draft else None,
        "disaggregation_mode": {"Aggregated": "null"}.get(plan.role, plan.role.lower()),
        "nnodes": plan.nodes_per_replica,
    }
    found = [f"{key} is {values[key]!r}, planned {value!r}" for key, value in expected.items() if values[key] != value]
    if plan.role != "Prefill" and graphs["decode"]["max_bs"] != limits.graph_batch:
        found.append(f"decode graphs up to {graphs['decode']['max_bs']}, planned {limits.graph_batch}")
    return found
