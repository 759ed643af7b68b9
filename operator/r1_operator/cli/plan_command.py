"""`r1 plan`: a resource or flags in, the plan of one replica out. Reads a file at most; needs no cluster."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import Any

from r1_operator.api.names import MAX_NODES_PER_REPLICA
from r1_operator.planning.around import around
from r1_operator.planning.disaggregate import split
from r1_operator.planning.layout import AllToAll
from r1_operator.planning.make import build, find_profile, plan_wishes
from r1_operator.planning.overrides import KV_DTYPE, KV_DTYPES, with_value
from r1_operator.planning.plan import Refusal
from r1_operator.planning.search import Found, search
from r1_operator.planning.wishes import Load, Slo, Wishes

from . import plan_input, plan_report
from .plan_flags import COUNTS, DEFAULT_MODEL, FLAG_OF_FIELD, USUAL, settle
from .plan_input import InputError

BAD_INPUT = 2


def run(options: argparse.Namespace) -> int:
    """Print the plan. Exit code 2 for bad input and refusals; then stdout stays empty but for `-o json` and yaml."""
    try:
        settle(options)
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
    others = around(wishes, plan) if options.output in ("table", "json", "yaml") else ()
    print(plan_report.one(plan, wishes, options.output, others=others, explain=options.explain))
    return 0


def _check_views(options: argparse.Namespace) -> None:
    """Views that exclude each other, told before anything is planned."""
    if options.compare and options.disaggregated:
        raise InputError("--compare ranks replicas that prefill and decode; leave out --disaggregated")
    if options.compare and options.output in ("args", "manifest"):
        raise InputError(f"--compare prints many layouts: use -o table, json or yaml, not {options.output}")
    if options.disaggregated and options.cluster_nodes:
        raise InputError("--cluster-nodes chooses the nodes of one kind of replica; leave it out with --disaggregated")
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
    there = wishes.cluster_nodes or MAX_NODES_PER_REPLICA
    fixed = wishes.nodes or wishes.tensor_parallel
    counts = (wishes.nodes,) if fixed else tuple(n for n in (1, 2, 3, 4, 6, 8) if n <= there)
    found = [search(replace(wishes, nodes=n)) for n in counts]
    good = [result for result in found if isinstance(result, Found)]
    if not good:
        refusal = found[0]
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
    fixed |= {"sglang_version": options.sglang_version, "cluster_nodes": options.cluster_nodes}
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
    flag = FLAG_OF_FIELD.get(field)
    return f"{field} ({flag})" if flag else field
