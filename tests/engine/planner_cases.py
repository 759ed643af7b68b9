"""Every argument list that the planner renders: the cases of the tests against SGLang's resolver and parsers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from r1_operator.planning.catalog import find_model, known_models
from r1_operator.planning.disaggregate import split
from r1_operator.planning.hardware import built_in_profiles
from r1_operator.planning.layout import AllToAll
from r1_operator.planning.make import plan_wishes
from r1_operator.planning.model import Model
from r1_operator.planning.plan import Plan, Refusal
from r1_operator.planning.wishes import Slo, Wishes

MODELS = Path(__file__).parents[2] / "operator" / "r1_operator" / "planning" / "models"
CARDS = ("H100", "H800", "H200", "H20", "H20-141G", "B200")
FULL_MODELS = ("deepseek-ai/DeepSeek-R1", "Barrrrry/DeepSeek-R1-W4AFP8", "unsloth/DeepSeek-R1-BF16")


@dataclass(frozen=True)
class Case:
    name: str
    plan: Plan


def plans(version: str) -> list[Case]:
    """Profiles × objectives × modes: each argument list the planner makes for a configuration and card, once."""
    found: dict[tuple[str, ...], Case] = {}
    for name in FULL_MODELS:
        for card in CARDS:
            for plan in _plans_of_a_full_model(name, f"{card}x8", version):
                add(found, name, plan)
    for name in known_models():
        if "Distill" in name:
            for size in (1, 2, 4, 8):
                for goal in ("Throughput", "Latency"):
                    profile = built_in_profiles()[f"H100x{size}"]
                    wishes = Wishes(model=model_of(name), profile=profile, goal=goal, sglang_version=version)
                    add(found, name, plan_wishes(wishes))
    return list(found.values())


def _plans_of_a_full_model(name: str, hardware: str, version: str) -> Iterator[Plan | Refusal]:
    base = Wishes(model=model_of(name), profile=built_in_profiles()[hardware], sglang_version=version)
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
