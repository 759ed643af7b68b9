"""`r1 plan`: a resource or flags in, the plan of one replica out. Reads a file at most; needs no cluster."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from r1_operator.planning.catalog import find_model, known_models
from r1_operator.planning.disaggregate import split
from r1_operator.planning.engine_args import SGLANG_VERSION, SGLANG_VERSIONS
from r1_operator.planning.hardware import built_in_hardware, built_in_profiles
from r1_operator.planning.layout import AllToAll
from r1_operator.planning.make import build, find_profile, plan_wishes, read_wishes, unknown_model
from r1_operator.planning.model import Model, ModelConfigError, read_model
from r1_operator.planning.overrides import KV_DTYPES, argument_problem
from r1_operator.planning.plan import Refusal
from r1_operator.planning.search import Found, search
from r1_operator.planning.wishes import Load, Slo, Wishes

from . import plan_report

BAD_INPUT = 2
USUAL = Load()
DEFAULT_MODEL = "deepseek-ai/DeepSeek-R1-0528"

# Flag, field of Wishes, and what it says.
_COUNTS = (
    ("--nodes", "nodes", "whole nodes of one replica"),
    ("--tensor-parallel", "tensor_parallel", "ranks of one replica"),
    ("--attention-dp", "attention_dp", "groups that share attention by request"),
    ("--expert-parallel", "expert_parallel", "ranks over which the experts are spread"),
    ("--context-length", "context_length", "longest prompt plus answer, in tokens"),
    ("--max-running-requests", "max_running_requests", "requests decoded at once by one replica"),
    ("--chunked-prefill-size", "chunked_prefill_size", "most prompt tokens of one prefill step of a replica"),
)


class InputError(Exception):
    """Bad input: the message is one line for the user."""


def add_to(commands: Any) -> None:
    """The `plan` command's flags."""
    parser = commands.add_parser(
        "plan", help="what fits, why, how fast, and the engine's arguments; or why nothing does"
    )
    parser.add_argument("-f", "--filename", help="an R1Deployment in YAML or JSON; '-' reads standard input")
    parser.add_argument("--hardware", help="hardware profile, e.g. H100x8")
    parser.add_argument("--model", help=f"a known model (default {DEFAULT_MODEL}), or any name with --model-config")
    parser.add_argument(
        "--model-config", metavar="FILE", help="config.json of a model the planner does not know by name"
    )
    parser.add_argument("--objective", choices=["Throughput", "Latency", "SLO"], help="what to prefer")
    parser.add_argument("--ttft-ms", type=_count, metavar="MS", help="promise: time to the first token (objective SLO)")
    parser.add_argument("--tpot-ms", type=_count, metavar="MS", help="promise: time per output token (objective SLO)")
    for flag, name, text in _COUNTS:
        parser.add_argument(flag, dest=name, type=_count, metavar="N", help=text)
    parser.add_argument("--redundant-experts", type=_count_or_zero, metavar="N", help="extra copies of busy experts")
    parser.add_argument("--moe-a2a-backend", choices=[e.value for e in AllToAll], help="how tokens reach their experts")
    parser.add_argument("--memory-fraction-percent", type=_count, metavar="N", help="weights and KV cache, of a GPU")
    parser.add_argument("--kv-cache-dtype", choices=list(KV_DTYPES), help="how keys and values are stored")
    parser.add_argument("--mtp", choices=["on", "off"], help="multi-token prediction with the model's own draft layer")
    parser.add_argument(
        "--sglang-version", choices=SGLANG_VERSIONS, default=SGLANG_VERSION, help="whose arguments to print"
    )
    parser.add_argument("--disaggregated", action="store_true", help="plan prefill and decode groups of their own")
    parser.add_argument("--input-tokens", type=_count, default=USUAL.input_tokens, metavar="N", help="mean prompt")
    parser.add_argument("--output-tokens", type=_count, default=USUAL.output_tokens, metavar="N", help="mean answer")
    parser.add_argument("-o", "--output", choices=["table", "json", "yaml", "args", "manifest"], default="table")
    parser.add_argument("--explain", action="store_true", help="print the arithmetic and what each choice beat")
    parser.add_argument("--compare", action="store_true", help="rank all layouts that work, over several node counts")


def run(options: argparse.Namespace) -> int:
    """Print the plan. Exit code 2 for bad input and refusals; then stdout stays empty but for `-o json` and yaml."""
    try:
        wishes = _wishes(options)
    except InputError as error:
        print(f"r1 plan: {error}", file=sys.stderr)
        return BAD_INPUT
    if isinstance(wishes, Refusal):
        return _refuse(wishes, options.output)
    if options.compare:
        return _compare(wishes, options.output)
    if options.disaggregated:
        pair = split(wishes)
        if isinstance(pair, Refusal):
            return _refuse(pair, options.output)
        print(plan_report.disaggregated(pair, options.output, explain=options.explain))
        return 0
    plan = plan_wishes(wishes)
    if isinstance(plan, Refusal):
        return _refuse(plan, options.output)
    print(plan_report.one(plan, options.output, explain=options.explain))
    return 0


def _refuse(refusal: Refusal, output: str) -> int:
    if output in ("json", "yaml"):
        print(plan_report.dump(plan_report.refused(refusal), output))
    print(f"r1 plan: {_as_flag(refusal.field)}: {refusal.message}; {refusal.remedy}", file=sys.stderr)
    return BAD_INPUT


def _compare(wishes: Wishes, output: str) -> int:
    """Every layout that works, over the node counts the user left open."""
    counts = (wishes.nodes,) if wishes.nodes or wishes.tensor_parallel else (1, 2, 3, 4, 6, 8)
    found = [(n, search(replace(wishes, nodes=n))) for n in counts]
    good = [result for _, result in found if isinstance(result, Found)]
    if not good:
        refusal = found[0][1]
        assert isinstance(refusal, Refusal)
        return _refuse(refusal, output)
    plans = [build(wishes, Found(c, (), ())) for result in good for c in (result.best, *result.others)]
    print(plan_report.comparison(plans, output))
    return 0


def _wishes(options: argparse.Namespace) -> Wishes | Refusal:
    """What the resource and the flags fix; a flag wins over the resource."""
    wishes = _from_resource(options.filename) if options.filename else None
    if isinstance(wishes, Refusal):
        return wishes
    if wishes is None:
        if not options.hardware:
            raise InputError("give --hardware, e.g. --hardware H100x8, or a resource with -f")
        profile = find_profile(options.hardware, None, built_in_hardware())
        model = _model(options)
        if isinstance(profile, Refusal) or isinstance(model, Refusal):
            return profile if isinstance(profile, Refusal) else model  # type: ignore[return-value]
        wishes = Wishes(model=model, profile=profile)
    else:
        changed = _changed_subject(wishes, options)
        if isinstance(changed, Refusal):
            return changed
        wishes = changed
    return _with_flags(wishes, options)


def _changed_subject(wishes: Wishes, options: argparse.Namespace) -> Wishes | Refusal:
    """--hardware and --model beside a resource."""
    if options.hardware:
        profile = find_profile(options.hardware, None, built_in_hardware())
        if isinstance(profile, Refusal):
            return profile
        wishes = replace(wishes, profile=profile)
    if options.model or options.model_config:
        model = _model(options)
        if isinstance(model, Refusal):
            return model
        wishes = replace(wishes, model=model)
    return wishes


def _with_flags(wishes: Wishes, options: argparse.Namespace) -> Wishes | Refusal:
    fixed: dict[str, Any] = {
        name: getattr(options, name) for _, name, _ in _COUNTS if getattr(options, name) is not None
    }
    fixed |= {
        "load": Load(options.input_tokens, options.output_tokens),
        "sglang_version": options.sglang_version,
    }
    if options.redundant_experts is not None:
        fixed["redundant_experts"] = options.redundant_experts
    if options.moe_a2a_backend:
        fixed["all_to_all"] = AllToAll(options.moe_a2a_backend)
    if options.memory_fraction_percent is not None:
        if options.memory_fraction_percent > 95:
            raise InputError("--memory-fraction-percent must be at most 95: graphs and activations need the rest")
        fixed["memory_fraction"] = options.memory_fraction_percent / 100
    if options.mtp:
        fixed["draft"] = options.mtp == "on"
    if options.objective:
        fixed["goal"] = options.objective
    if options.ttft_ms or options.tpot_ms:
        if options.objective not in (None, "SLO"):
            raise InputError(f"--ttft-ms and --tpot-ms are promises of --objective SLO, not of {options.objective}")
        fixed |= {"goal": "SLO", "slo": Slo(options.ttft_ms, options.tpot_ms)}
    elif options.objective == "SLO":
        raise InputError("--objective SLO needs --ttft-ms, --tpot-ms or both")
    if options.kv_cache_dtype:
        extra = ("--kv-cache-dtype", options.kv_cache_dtype)
        problem = argument_problem(extra)
        if problem is not None:
            return problem
        fixed |= {"kv_itemsize": KV_DTYPES[options.kv_cache_dtype], "extra_args": (*wishes.extra_args, *extra)}
    return replace(wishes, **fixed)


def _model(options: argparse.Namespace) -> Model | Refusal:
    name = options.model or DEFAULT_MODEL
    if not options.model_config:
        return find_model(name) or unknown_model("spec.model.name", name, known_models())
    path = Path(options.model_config)
    config = _read(path, lambda text: json.loads(text), "JSON")
    if not isinstance(config, Mapping):
        raise InputError(f"{path}: not a JSON object")
    try:
        return read_model(options.model or path.parent.name or str(path), config, str(path))
    except ModelConfigError as error:
        raise InputError(f"{path}: {error}") from None


def _from_resource(name: str) -> Wishes | Refusal:
    import yaml  # not needed when only flags are given

    from r1_operator.api.parse import parse
    from r1_operator.api.types import R1Deployment

    path = Path("/dev/stdin") if name == "-" else Path(name)
    documents = _read(path, lambda text: list(yaml.safe_load_all(text)), "YAML")
    resources = [d for d in documents if isinstance(d, Mapping) and d.get("kind") == "R1Deployment"]
    if len(resources) != 1:
        raise InputError(f"{name}: {len(resources)} objects of kind R1Deployment, and exactly one is needed")
    parsed = parse(resources[0])
    if not isinstance(parsed, R1Deployment):
        problem = parsed[0]
        raise InputError(f"{name}: {problem.field}: {problem.message}; {problem.remedy}")
    return read_wishes(parsed.spec, built_in_profiles())


def _read(path: Path, decode: Any, form: str) -> Any:
    try:
        return decode(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except Exception as error:
        line = str(error).splitlines()[0]
        raise InputError(f"{path}: not {form}: {line}") from None


def _as_flag(field: str) -> str:
    """`spec.topology.tensorParallel` → `spec.topology.tensorParallel (--tensor-parallel)`."""
    flag = _FLAGS.get(field)
    return f"{field} ({flag})" if flag else field


_FLAGS = {
    "spec.hardware": "--hardware",
    "spec.model.name": "--model",
    "spec.topology.nodesPerReplica": "--nodes",
    "spec.topology.tensorParallel": "--tensor-parallel",
    "spec.topology.attentionDataParallel": "--attention-dp",
    "spec.topology.expertParallel": "--expert-parallel",
    "spec.topology.redundantExperts": "--redundant-experts",
    "spec.topology.moeA2aBackend": "--moe-a2a-backend",
    "spec.limits.contextLength": "--context-length",
    "spec.limits.maxRunningRequests": "--max-running-requests",
    "spec.limits.memoryFractionPercent": "--memory-fraction-percent",
    "spec.limits.chunkedPrefillSize": "--chunked-prefill-size",
    "spec.slo.ttftMilliseconds": "--ttft-ms",
    "spec.slo.tpotMilliseconds": "--tpot-ms",
}


def _count(text: str) -> int:
    return _whole(text, 1)


def _count_or_zero(text: str) -> int:
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, not {text!r}")
    return value
