"""The flags of `r1 plan`. SGLang's own names for the same things are taken too, and its spelling of their values."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from r1_operator.api.names import MAX_NODES_PER_REPLICA
from r1_operator.planning.engine_args import SGLANG_VERSION, SGLANG_VERSIONS
from r1_operator.planning.layout import AllToAll
from r1_operator.planning.overrides import DRAFT, DRAFTS, KV_DTYPE, KV_DTYPES, OWNED_BY_FIELD, argument_problem
from r1_operator.planning.wishes import Load

from .plan_input import InputError

USUAL = Load()
DEFAULT_MODEL = "deepseek-ai/DeepSeek-R1-0528"
OBJECTIVES = ("Throughput", "Latency", "SLO")

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
MOST_CLUSTER_NODES = 100_000

# Each field of the resource that a flag sets.
FLAG_OF_FIELD: Mapping[str, str] = {
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

# SGLang's names of what a plan takes, beside those that OWNED_BY_FIELD knows the fields of.
NNODES, MODEL_PATH, FRACTION = "--nnodes", "--model-path", "--mem-fraction-static"
DP_SIZES, WITH_ATTENTION = ("--dp-size", "--dp", "--data-parallel-size"), "--enable-dp-attention"
MOST_PERCENT = 95


def add_to(commands: Any) -> None:
    """The `plan` command's flags."""
    parser = commands.add_parser(
        "plan",
        help="what fits, why, how fast, and the engine's arguments; or why nothing does",
        epilog="SGLang's own names and values are taken too: --tp-size 16 --moe-a2a-backend deepep.",
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
    _choice(parser, "--objective", OBJECTIVES, "what to prefer")
    for flag, what in (("--ttft-ms", "to the first token"), ("--tpot-ms", "per output token")):
        milliseconds = _whole(1, MOST_MILLISECONDS)
        parser.add_argument(flag, type=milliseconds, metavar="MS", help=f"promise: time {what} (objective SLO)")
    for flag, name, least, most, text in COUNTS:
        parser.add_argument(flag, dest=name, type=_whole(least, most), metavar="N", help=text)
    parser.add_argument(
        "--cluster-nodes",
        type=_whole(1, MOST_CLUSTER_NODES),
        metavar="N",
        help="nodes of this hardware that you have: no replica is larger, and what all together do decides",
    )
    _choice(parser, "--moe-a2a-backend", tuple(e.value for e in AllToAll), "how tokens reach their experts")
    parser.add_argument(
        "--memory-fraction-percent", type=_whole(1, MOST_PERCENT), metavar="N", help="weights and KV cache, of a GPU"
    )
    _choice(parser, KV_DTYPE, tuple(KV_DTYPES), "how keys and values are stored")
    _choice(parser, "--mtp", ("on", "off"), "multi-token prediction with the model's own draft layer")
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
    _add_sglang_names(parser)
    parser.set_defaults(flags=tuple(parser._option_string_actions))


def _add_sglang_names(parser: argparse.ArgumentParser) -> None:
    """What SGLang calls the same things; not in the help, where each thing stands once."""
    whole = {flag: (name, _whole(least, most)) for flag, name, least, most, _ in COUNTS}
    aliases = {name: FLAG_OF_FIELD[field] for name, field in OWNED_BY_FIELD.items()} | {NNODES: "--nodes"}
    for alias, flag in aliases.items():
        if flag in whole and alias not in (flag, *DP_SIZES, WITH_ATTENTION):
            parser.add_argument(alias, dest=whole[flag][0], type=whole[flag][1], help=argparse.SUPPRESS)
    parser.add_argument(*DP_SIZES, dest="dp_size", type=whole["--attention-dp"][1], help=argparse.SUPPRESS)
    parser.add_argument(WITH_ATTENTION, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(MODEL_PATH, dest="model", help=argparse.SUPPRESS)
    parser.add_argument(FRACTION, dest="memory_fraction_percent", type=_percent, help=argparse.SUPPRESS)
    parser.add_argument(DRAFT, dest="mtp", type=_draft, help=argparse.SUPPRESS)


def settle(options: argparse.Namespace) -> None:
    """What SGLang says with two flags, as the one it is here. Raises InputError where they do not say one thing."""
    groups = options.dp_size
    if options.enable_dp_attention and groups is None:
        raise InputError(
            f"{WITH_ATTENTION}: into how many groups is not said; add --dp-size N, or use --attention-dp N"
        )
    if groups is None:
        return
    if groups > 1 and not options.enable_dp_attention:
        raise InputError(
            f"--dp-size {groups}: alone it is {groups} whole copies of the model, which the planner chooses itself; "
            f"add {WITH_ATTENTION}, or use --attention-dp {groups}"
        )
    if options.attention_dp not in (None, groups):
        raise InputError(f"--dp-size {groups}: --attention-dp says {options.attention_dp}; leave one of them out")
    options.attention_dp = groups


def unknown(words: Sequence[str], known: Iterable[str]) -> str:
    """What to say of words that no flag takes: the first one, why, and what to do."""
    name = words[0].partition("=")[0]
    if not name.startswith("--"):
        return f"{name!r} belongs to no flag; begin with one, e.g. --hardware H100x8"
    problem = argument_problem((name,))
    if problem is not None:
        return f"{problem.message}; {problem.remedy}"
    near = get_close_matches(name, [flag for flag in known if flag.startswith("--")], n=1, cutoff=0.8)
    if near:
        return f"{name}: is not known; did you mean {near[0]}"
    return f"{name}: a plan is not made from it; give the engine's own arguments in spec.engine.args of a resource (-f)"


def _choice(parser: argparse.ArgumentParser, flag: str, values: tuple[str, ...], text: str) -> None:
    """A flag of a few values, whose case does not matter."""
    spelled = {value.lower(): value for value in values}

    def read(word: str) -> str:
        if word.lower() in spelled:
            return spelled[word.lower()]
        raise argparse.ArgumentTypeError(f"the planner has no form for {word!r}; use {' or '.join(spelled)}")

    parser.add_argument(flag, type=read, metavar="{" + ",".join(values) + "}", help=text)


def _percent(text: str) -> int:
    """SGLang's fraction as the resource takes it."""
    try:
        percent = 100 * float(text)
    except ValueError:
        percent = 0.0
    if not (1 <= percent <= MOST_PERCENT and math.isclose(percent, round(percent))):
        most = MOST_PERCENT / 100
        raise argparse.ArgumentTypeError(
            f"{text!r} is no fraction that a resource takes; use 0.01 to {most} in hundredths"
        )
    return round(percent)


def _draft(text: str) -> str:
    if text.upper() in DRAFTS:
        return "on"
    raise argparse.ArgumentTypeError(f"the planner has no memory form for {text!r}; use {' or '.join(DRAFTS)}")


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
