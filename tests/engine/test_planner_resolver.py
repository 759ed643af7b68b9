"""Every argument list the planner renders, through SGLang's own resolver with the GPU's figures faked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from r1_engine.launch import WATCHDOG
from r1_operator.planning.engine_args import SGLANG_OLDER, SGLANG_VERSION
from r1_operator.planning.hardware import built_in_profiles
from r1_operator.planning.plan import Plan

from tests.engine.planner_cases import MODELS, Case, config_file, plans

pytestmark = pytest.mark.engine

PROBE = Path(__file__).with_name("planner_probe.py")
LABELS = {
    "H100": "NVIDIA H100 80GB HBM3",
    "H800": "NVIDIA H800",
    "H200": "NVIDIA H200",
    "H20": "NVIDIA H20",
    "H20-141G": "NVIDIA H20-3e",
    "B200": "NVIDIA B200",
}
# The unpacked wheel of SGLANG_OLDER (see sglang_flags.py): with it the older release's own resolver is asked, too.
OLDER = os.environ.get("R1_SGLANG_OLDER")
KEYS = (
    "tp_size",
    "attn_dp_size",
    "enable_dp_attention",
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
    "watchdog_timeout",
)


def job(folder: Path, case: Case) -> dict[str, object]:
    plan, config = case.plan, config_file(case.plan.model)
    target = folder / config.removesuffix(".json")
    target.mkdir(exist_ok=True)
    (target / "config.json").write_text((MODELS / config).read_text())
    argv = ["--model-path", str(target), *plan.engine_args, "--enable-metrics", *WATCHDOG]
    if plan.nodes_per_replica > 1:
        argv += ["--nnodes", str(plan.nodes_per_replica), "--node-rank", "0", "--dist-init-addr", "127.0.0.1:25000"]
    card = plan.hardware.rsplit("x", 1)[0]
    profile = built_in_profiles()[plan.hardware]
    figures = {"label": LABELS[card], "memoryMib": profile.memory_mib, "capability": profile.compute_capability}
    return {"card": figures, "argv": argv, "keys": KEYS}


@pytest.mark.parametrize(
    ("version", "source"),
    [
        (SGLANG_VERSION, None),
        pytest.param(
            *(SGLANG_OLDER, OLDER), marks=pytest.mark.skipif(OLDER is None, reason="R1_SGLANG_OLDER is not set")
        ),
    ],
    ids=[SGLANG_VERSION, SGLANG_OLDER],
)
def test_all_arguments_resolve_to_the_plan(version: str, source: str | None, tmp_path: Path) -> None:
    """No error, no deprecation, and SGLang's resolved values are the plan's."""
    cases = plans(version)
    assert len(cases) > 60
    run = subprocess.run(
        [sys.executable, str(PROBE), "resolve"],
        input=json.dumps([job(tmp_path, case) for case in cases]),
        capture_output=True,
        text=True,
        timeout=400,
        env=os.environ | ({} if source is None else {"PYTHONPATH": source}),
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
        **_data_parallel(plan),
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
        "watchdog_timeout": float(WATCHDOG[1]),
    }
    found = [f"{key} is {values[key]!r}, planned {value!r}" for key, value in expected.items() if values[key] != value]
    if plan.role != "Prefill" and graphs["decode"]["max_bs"] != limits.graph_batch:
        found.append(f"decode graphs up to {graphs['decode']['max_bs']}, planned {limits.graph_batch}")
    return found


def _data_parallel(plan: Plan) -> dict[str, object]:
    """The older release keeps one size for copies and attention groups, and says apart which it is."""
    layout = plan.layout
    if plan.sglang_version == SGLANG_VERSION:
        return {"attn_dp_size": layout.attention_dp, "dp_size": layout.copies}
    return {"dp_size": layout.attention_dp * layout.copies, "enable_dp_attention": layout.attention_dp > 1}
