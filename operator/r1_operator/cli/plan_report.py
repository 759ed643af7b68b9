"""Plans as text: a table to read in ten seconds, JSON and YAML for programs, arguments and a manifest to use."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from r1_operator.api.names import API_VERSION, KIND
from r1_operator.planning.disaggregate import Disaggregated
from r1_operator.planning.performance import ESTIMATE_ERROR
from r1_operator.planning.plan import Plan, Refusal, Size
from r1_operator.planning.units import gib
from r1_operator.planning.wishes import Wishes

CONTEXTS = (4096, 32768)

Others = Sequence[tuple[int, Size | Refusal]]


def one(plan: Plan, wishes: Wishes, output: str, *, others: Others, explain: bool) -> str:
    """One plan in the chosen form. `wishes`: what it was planned from; `others`: what other node counts would bring."""
    if output in ("json", "yaml"):
        return dump(as_object(plan) | {"otherNodeCounts": [_other(*entry) for entry in others]}, output)
    if output == "args":
        return shlex.join(plan.engine_args)
    if output == "manifest":
        return dump(manifest(plan, wishes), "yaml")
    return table(plan, others) + ("\n\n" + arithmetic(plan) if explain else "")


def disaggregated(pair: Disaggregated, output: str, *, explain: bool) -> str:
    """A prefill and a decode plan, and how many of each."""
    groups = {"prefill": (pair.prefill, pair.prefill_groups), "decode": (pair.decode, pair.decode_groups)}
    if output in ("json", "yaml"):
        body: dict[str, Any] = {side: as_object(plan) | {"groups": count} for side, (plan, count) in groups.items()}
        body |= {"requestsPerSecond": round(pair.requests_per_second, 2), "nodes": pair.nodes}
        return dump(body | {"reasons": [str(reason) for reason in pair.reasons]}, output)
    if output == "args":
        return "\n".join(f"{side}: {shlex.join(plan.engine_args)}" for side, (plan, _) in groups.items())
    sections = [
        f"{side.capitalize()}: {count} group{'s' * (count > 1)} of\n{table(plan)}" + _explained(plan, explain)
        for side, (plan, count) in groups.items()
    ]
    total = f"Together {pair.nodes} nodes, about {pair.requests_per_second:.1f} requests/s. {pair.reasons[0]}"
    return "\n\n".join([*sections, total])


def _explained(plan: Plan, explain: bool) -> str:
    return "\n\n" + arithmetic(plan) if explain else ""


def comparison(plans: Sequence[Plan], output: str) -> str:
    """Layouts ranked by expected tokens/s per GPU."""

    def per_gpu(plan: Plan) -> float:
        return plan.estimate.tokens_per_second / plan.gpus_per_replica if plan.estimate else 0.0

    ranked = sorted(plans, key=lambda plan: -per_gpu(plan))
    if output in ("json", "yaml"):
        return dump([as_object(plan) for plan in ranked], output)
    rows = [("LAYOUT", "NODES", "WEIGHTS/GPU", "KV TOKENS", "CONTEXT", "RUNNING", "TOK/S", "TOK/S/GPU", "TPOT", "TTFT")]
    for plan in ranked:
        expected = plan.estimate
        rows.append(
            (
                plan.layout.describe(),
                str(plan.nodes_per_replica),
                gib(plan.weight_bytes_per_gpu),
                f"{plan.kv_tokens_per_replica:,}",
                f"{plan.limits.context_length:,}",
                str(plan.limits.max_running_requests),
                f"{expected.tokens_per_second:,.0f}" if expected else "-",
                f"{per_gpu(plan):,.0f}" if expected else "-",
                f"{expected.tpot_ms:.1f} ms" if expected else "-",
                f"{expected.ttft_ms:.0f} ms" if expected else "-",
            )
        )
    return aligned(rows)


def table(plan: Plan, others: Others = ()) -> str:
    """What a person wants to know, one fact a line; last, what other node counts would bring."""
    limits, memory, expected = plan.limits, plan.memory, plan.estimate
    free = memory.usable - memory.weight_bytes - memory.draft_bytes - memory.kv
    rows = [
        ("Model", plan.model),
        ("Replica", f"{plan.nodes_per_replica} × {plan.hardware} = {plan.gpus_per_replica} GPUs"),
        ("Layout", plan.layout.describe()),
        (
            "Memory per GPU",
            f"{gib(memory.usable)} usable = {gib(memory.weight_bytes + memory.draft_bytes)} weights"
            f" + {gib(memory.kv)} KV + {gib(free)} for activations, graphs and buffers",
        ),
        (
            "KV cache",
            f"{plan.kv_tokens_per_replica:,} tokens{_on_each_rank(plan)}: "
            + ", ".join(f"{plan.requests_at(n):,} requests of {n // 1024}k" for n in CONTEXTS),
        ),
        ("Limits", f"context {_context(plan)} · {limits.max_running_requests:,} running requests"),
    ]
    if expected:
        load = f"{expected.input_tokens} in, {expected.output_tokens} out, {expected.concurrency:,} at once"
        unit = "input tok/s" if plan.role == "Prefill" else "output tok/s"
        latency = [f"TTFT {expected.ttft_ms:.0f} ms"] * (plan.role != "Decode")
        latency += [f"TPOT {expected.tpot_ms:.0f} ms"] * (plan.role != "Prefill")
        rows.append(
            (
                f"Expected (±{100 * ESTIMATE_ERROR:.0f}%)",
                f"{expected.tokens_per_second:,.0f} {unit} · {' · '.join(latency)} · for {load}",
            )
        )
        rows.append(("Bound by", expected.bound_by))
    rows.append((f"SGLang {plan.sglang_version}", shlex.join(plan.engine_args)))
    if plan.env:
        rows.append(("Environment", " ".join(f"{name}={value}" for name, value in plan.env)))
    rows += [_instead(plan, nodes, size) for nodes, size in others]
    return aligned(rows)


def _context(plan: Plan) -> str:
    context = f"{plan.limits.context_length:,}"
    return f"{context}, cut from {plan.own_context:,}: more does not fit a rank" if plan.cuts_context else context


def _instead(plan: Plan, nodes: int, size: Size | Refusal) -> tuple[str, str]:
    """A row on another number of nodes: what a replica would be there, or why there can be none."""
    name = f"On {nodes} node{'s' * (nodes != 1)}"
    if isinstance(size, Refusal):
        return name, f"refused: {size.message}"
    times = ""
    if plan.estimate and size.tokens_per_second is not None:
        now = plan.estimate.tokens_per_second / plan.gpus_per_replica
        times = f" · {size.tokens_per_second / size.gpus / now:.2f} times per GPU"
    return name, f"{size}{times} · {size.layout.describe()}"


def _other(nodes: int, size: Size | Refusal) -> dict[str, Any]:
    """The same for programs."""
    if isinstance(size, Refusal):
        return {"nodes": nodes, **refused(size)}
    speed, each = size.tokens_per_second, size.tokens_per_second_per_gpu
    return {
        "nodes": nodes,
        "layout": size.layout.describe(),
        "contextLength": size.context_length,
        "tokensPerSecond": None if speed is None else round(speed),
        "tokensPerSecondPerGpu": None if each is None else round(each),
        "tpotMilliseconds": None if size.tpot_ms is None else round(size.tpot_ms, 1),
    }


def _on_each_rank(plan: Plan) -> str:
    return "" if plan.kv_ranks == 1 else f" ({plan.kv_tokens_per_rank:,} on each of {plan.kv_ranks} ranks)"


def arithmetic(plan: Plan) -> str:
    """Every byte of a GPU, and every choice with what it beat."""
    memory = plan.memory
    rows = [("Weights", "", "")]
    rows += [("", part.name, gib(part.bytes)) for part in (*memory.weights, *memory.draft) if part.bytes]
    rows += [
        ("KV cache", f"{plan.kv_tokens_per_rank:,} tokens × {memory.kv_bytes_per_token:,} B", gib(memory.kv)),
        ("", f"static share: {memory.fraction:.3f} × {gib(memory.usable)}", gib(memory.fraction * memory.usable)),
        ("Outside", "", ""),
    ]
    rows += [("", part.name, gib(part.bytes)) for part in memory.slack]
    rows.append(("", "left for these", gib(memory.slack_bytes)))
    choices = []
    for reason in plan.reasons:
        choices.append(f"  {reason.choice} = {reason.value}: {reason.because}")
        choices += [f"      rather than {other}" for other in reason.beat]
    return aligned(rows) + "\n\nWhy\n" + "\n".join(choices)


def as_object(plan: Plan) -> dict[str, Any]:
    """The plan for programs. Bytes are bytes, times milliseconds, counts per replica unless the name says otherwise."""
    expected, limits = plan.estimate, plan.limits
    return {
        "model": plan.model,
        "hardware": plan.hardware,
        "role": plan.role,
        "nodesPerReplica": plan.nodes_per_replica,
        "gpusPerReplica": plan.gpus_per_replica,
        "tensorParallel": plan.tensor_parallel,
        "attentionDataParallel": plan.attention_data_parallel,
        "expertParallel": plan.expert_parallel,
        "redundantExperts": plan.redundant_experts,
        "moeA2aBackend": plan.layout.all_to_all.value,
        "modelCopies": plan.layout.copies,
        "multiTokenPrediction": plan.layout.draft,
        "contextLength": limits.context_length,
        "contextLengthUncut": plan.own_context,
        "maxRunningRequests": limits.max_running_requests,
        "chunkedPrefillSize": limits.chunked_prefill_size,
        "pageSize": limits.page_size,
        "decodeGraphBatch": limits.graph_batch,
        "memoryFraction": plan.memory.fraction,
        "usableBytesPerGpu": plan.memory.usable,
        "weightBytesPerGpu": plan.weight_bytes_per_gpu,
        "draftBytesPerGpu": plan.memory.draft_bytes,
        "kvBytesPerGpu": plan.memory.kv,
        "kvBytesPerToken": plan.memory.kv_bytes_per_token,
        "slackBytesPerGpu": {part.name: part.bytes for part in plan.memory.slack},
        "weightPartsPerGpu": {part.name: part.bytes for part in plan.memory.weights},
        "kvTokensPerRank": plan.kv_tokens_per_rank,
        "kvTokensPerReplica": plan.kv_tokens_per_replica,
        "requestsAtContext": {str(context): plan.requests_at(context) for context in CONTEXTS},
        "engineVersion": plan.sglang_version,
        "engineArgs": list(plan.engine_args),
        "env": dict(plan.env),
        "expected": None
        if expected is None
        else {
            "tokensPerSecond": round(expected.tokens_per_second),
            "ttftMilliseconds": round(expected.ttft_ms),
            "tpotMilliseconds": round(expected.tpot_ms, 1),
            "concurrency": expected.concurrency,
            "inputTokens": expected.input_tokens,
            "outputTokens": expected.output_tokens,
            "boundBy": expected.bound_by,
            "errorPercent": round(100 * ESTIMATE_ERROR),
        },
        "reasons": [str(reason) for reason in plan.reasons],
    }


def refused(refusal: Refusal) -> dict[str, Any]:
    """A refusal for programs."""
    return {"refused": {"field": refusal.field, "message": refusal.message, "remedy": refusal.remedy}}


def manifest(plan: Plan, wishes: Wishes) -> dict[str, Any]:
    """An R1Deployment that fixes what the plan chose."""
    limits: dict[str, Any] = {
        "contextLength": plan.limits.context_length,
        "maxRunningRequests": plan.limits.max_running_requests,
        "chunkedPrefillSize": plan.limits.chunked_prefill_size,
    }
    if wishes.memory_fraction is not None:
        limits["memoryFractionPercent"] = round(100 * wishes.memory_fraction)
    spec: dict[str, Any] = {
        "model": {"name": plan.model, "weights": {"persistentVolumeClaim": {"claimName": "r1-weights"}}},
        "hardware": plan.hardware,
        "objective": "Latency" if plan.layout.draft else "Throughput",
        "topology": {
            "nodesPerReplica": plan.nodes_per_replica,
            "tensorParallel": plan.tensor_parallel,
            "attentionDataParallel": plan.attention_data_parallel,
            "expertParallel": plan.expert_parallel,
            "redundantExperts": plan.redundant_experts,
            "moeA2aBackend": plan.layout.all_to_all.value,
        },
        "limits": limits,
    }
    if wishes.extra_args:
        spec["engine"] = {"args": list(wishes.extra_args)}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "r1"}, "spec": spec}


def dump(value: Mapping[str, Any] | Sequence[Any], form: str) -> str:
    """JSON, or YAML in the same order."""
    if form == "json":
        return json.dumps(value, indent=2, ensure_ascii=False)
    import yaml  # only for this output

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)).rstrip()


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell; the last one is left as it is."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    padded = [
        [cell if column == len(row) - 1 else cell.ljust(widths[column]) for column, cell in enumerate(row)]
        for row in rows
    ]
    return "\n".join("  ".join(row).rstrip() for row in padded)
