"""`r1 plan`: a resource or flags in, the plan of one replica out. Reads a file at most; needs no cluster."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from r1_operator.api.names import MAX_NODES_PER_REPLICA
from r1_operator.planning.disaggregate import split
from r1_operator.planning.engine_args import SGLANG_VERSION, SGLANG_VERSIONS
from r1_operator.planning.layout import AllToAll
from r1_operator.planning.make import build, find_profile, plan_wishes
from r1_operator.planning.overrides import KV_DTYPE, KV_DTYPES, with_value
from r1_operator.planning.plan import Refusal
from r1_operator.planning.search import Found, search
from r1_operator.planning.wishes import Load, Slo, Wishes

from . import plan_input, plan_report
from .plan_input import InputError

BAD_INPUT = 2
USUAL = Load()
DEFAULT_MODEL = "deepseek-ai/DeepSeek-R1-0528"

# Flag, field of Wishes, the least and the most that the resource takes there, and what it says.
COUNTS = (
    ("--nodes", "nodes", 1, MAX_NODES_PER_REPLICA, "whole nodes of one replica"),
    ("--tensor-parallel", "tensor_parallel", 1, 1024, "ranks of one replica"),
    ("--attention-dp", "attention_dp", 1, 1024, "groups that share attention by request"),
    ("--expert-parallel", "expert_parallel", 1, 1024, "ranks over which the experts are spread"),
    ("--redundant-experts", "redundant_experts", 0, 256, "extra copies of busy experts"),
    ("--context-length", "context_length", 64, 1_048_576, "longest prompt plus answer, in tokens"),
    ("--max-running-requests", "max_running_requests", 1, 65_536, "requests decoded at once by one replica"),
    ("--chunked-prefill-size", "chunked_prefill_size", 64, 1_048_576, "most prompt tokens of a replica's prefill step"),
)
MOST_MILLISECONDS = 600_000
MOST_TOKENS = 1_048_576


def add_to(commands: Any) -> None:
    """The `plan` command's flags."""
    parser = commands.add_parser(
        "plan", help="what fits, why, how fast, and the engine's arguments; or why nothing does"
    )
    parser.add_argument("-f", "--filename", help="an R1Deployment in YAML or JSON; '-' reads standard input")
    parser.add_argument("--hardware", help="hardware profile, e.g. H100x8")
    parser.add_argument(
        "--hardware-profiles", metavar="FILE", help="YAML list of profiles of your own, as in the chart"
    )
    parser.add_argument("--model", help=f"a known model (default {DEFAULT_MODEL}), or any name with --model-config")
    parser.add_argument(
        "--model-config", metavar="FILE", help="config.json of a model the planner does not know by name"
    )
    parser.add_argument("--objective", choices=["Throughput", "Latency", "SLO"], help="what to prefer")
    for flag, what in (("--ttft-ms", "to the first token"), ("--tpot-ms", "per output token")):
        milliseconds = _whole(1, MOST_MILLISECONDS)
        parser.add_argument(flag, type=milliseconds, metavar="MS", help=f"promise: time {what} (objective SLO)")
    for flag, name, least, most, text in COUNTS:
        parser.add_argument(flag, dest=name, type=_whole(least, most), metavar="N", help=text)
    parser.add_argument("--moe-a2a-backend", choices=[e.value for e in AllToAll], help="how tokens reach their experts")
    parser.add_argument(
        "--memory-fraction-percent", type=_whole(1, 95), metavar="N", help="weights and KV cache, of a GPU"
    )
    parser.add_argument("--kv-cache-dtype", choices=list(KV_DTYPES), help="how keys and values are stored")
    parser.add_argument("--mtp", choices=["on", "off"], help="multi-token prediction with the model's own draft layer")
    parser.add_argument(
        "--sglang-version", choices=SGLANG_VERSIONS, default=SGLANG_VERSION, help="whose arguments to print"
    )
    parser.add_argument("--disaggregated", action="store_true", help="plan prefill and decode groups of their own")
    for flag, usual, what in (
        ("--input-tokens", USUAL.input_tokens, "mean prompt"),
        ("--output-tokens", USUAL.output_tokens, "mean answer"),
    ):
        parser.add_argument(flag, type=_whole(1, MOST_TOKENS), default=usual, metavar="N", help=f"{what} ({usual})")
    parser.add_argument("-o", "--output", choices=["table", "json", "yaml", "args", "manifest"], default="table")
    parser.add_argument("--explain", action="store_true", help="print the arithmetic and what each choice beat")
    parser.add_argument("--compare", action="store_true", help="rank all layouts that work, over several node counts")


def run(options: argparse.Namespace) -> int:
    """Print the plan. Exit code 2 for bad input and refusals; then stdout stays empty but for `-o json` and yaml."""
    try:
        _check_views(options)
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
    print(plan_report.one(plan, wishes, options.output, explain=options.explain))
    return 0


def _check_views(options: argparse.Namespace) -> None:
    """Views that exclude each other, told before anything is planned."""
    if options.compare and options.disaggregated:
        raise InputError("--compare ranks replicas that prefill and decode; leave out --disaggregated")
    if options.compare and options.output in ("args", "manifest"):
        raise InputError(f"--compare prints many layouts: use -o table, json or yaml, not {options.output}")
    if options.disaggregated and options.output == "manifest":
        raise InputError(
            "an R1Deployment's replicas prefill and decode: with --disaggregated use -o args for each side"
        )


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
    if not options.filename and not options.hardware:
        raise InputError("give --hardware, e.g. --hardware H100x8, or a resource with -f")
    profiles = plan_input.hardware_profiles(options.hardware_profiles)
    wishes = plan_input.wishes_of_resource(options.filename, profiles) if options.filename else None
    if isinstance(wishes, Refusal):
        return wishes
    profile = find_profile(options.hardware, profiles) if options.hardware else None
    if isinstance(profile, Refusal):
        return profile
    named = options.model or options.model_config
    model = plan_input.model(options.model, options.model_config, DEFAULT_MODEL) if named or not wishes else None
    if isinstance(model, Refusal):
        return model
    if wishes is None:
        assert profile is not None
        assert model is not None
        wishes = Wishes(model=model, profile=profile)
    else:
        wishes = replace(wishes, profile=profile or wishes.profile, model=model or wishes.model)
    return _with_flags(wishes, options)


def _with_flags(wishes: Wishes, options: argparse.Namespace) -> Wishes | Refusal:
    names = [name for _, name, *_ in COUNTS if getattr(options, name) is not None]
    fixed: dict[str, Any] = {name: getattr(options, name) for name in names}
    fixed["sglang_version"] = options.sglang_version
    if options.moe_a2a_backend:
        fixed["all_to_all"] = AllToAll(options.moe_a2a_backend)
    if options.memory_fraction_percent is not None:
        fixed["memory_fraction"] = options.memory_fraction_percent / 100
    if options.mtp:
        fixed["draft"] = options.mtp == "on"
    fixed |= _promised(options)
    if options.kv_cache_dtype:
        extra = (KV_DTYPE, options.kv_cache_dtype)
        fixed |= {"kv_itemsize": KV_DTYPES[options.kv_cache_dtype], "extra_args": with_value(wishes.extra_args, *extra)}
    return _with_load(replace(wishes, **fixed), Load(options.input_tokens, options.output_tokens))


def _promised(options: argparse.Namespace) -> dict[str, Any]:
    """The objective, and the latencies promised under it."""
    if options.ttft_ms or options.tpot_ms:
        if options.objective not in (None, "SLO"):
            raise InputError(f"--ttft-ms and --tpot-ms are promises of --objective SLO, not of {options.objective}")
        return {"goal": "SLO", "slo": Slo(options.ttft_ms, options.tpot_ms)}
    if options.objective == "SLO":
        raise InputError("--objective SLO needs --ttft-ms, --tpot-ms or both")
    return {"goal": options.objective} if options.objective else {}


def _with_load(wishes: Wishes, load: Load) -> Wishes:
    """The requests to plan for. What is asked for must fit the context; the usual load is only what to judge by."""
    most = wishes.context_length or wishes.model.architecture.context
    tokens = load.input_tokens + load.output_tokens
    if load != USUAL and tokens > most:
        raise InputError(
            f"--input-tokens {load.input_tokens} and --output-tokens {load.output_tokens} are {tokens} together, more "
            f"than the context of {most}; lower them"
        )
    return replace(wishes, load=load)


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


def _whole(least: int, most: int) -> Callable[[str], int]:
    """A reader of whole numbers between the two."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, not {text!r}")
        return value

    return read
