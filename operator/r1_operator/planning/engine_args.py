"""The engine's arguments, rendered from a plan's values in one place per SGLang version."""

from __future__ import annotations

from .deepep import DISPATCH_VARIABLE, decodes_with_deepep, dispatch_tokens
from .layout import AllToAll, Layout
from .memory import MTP_DRAFT_TOKENS, MTP_STEPS, SGLANG_PREFIX_CHUNK, prefix_chunk
from .model import Dense, MlaMoe, Model
from .overrides import flags
from .plan import Limits, Role

SGLANG_VERSION = "0.5.23"
# The last release that spells attention DP as --dp-size N --enable-dp-attention; 0.5.22 deprecated that for
# --attn-dp-size N. All other arguments that a plan renders are the same in both (docs/planning/README.md).
SGLANG_OLDER = "0.5.21"
SGLANG_VERSIONS = (SGLANG_VERSION, SGLANG_OLDER)

CPU_MAX_TOTAL_TOKENS = 20_000


def render(
    model: Model,
    layout: Layout,
    limits: Limits,
    *,
    fraction: float,
    role: Role,
    cpu: bool,
    extra: tuple[str, ...] = (),
    version: str = SGLANG_VERSION,
) -> tuple[str, ...]:
    """The arguments for one of SGLANG_VERSIONS, the user's last.

    `fraction` is the static memory fraction; `cpu` is for trying out.
    """
    planned: list[tuple[str, ...]] = [("--tp-size", str(layout.tensor_parallel))]
    planned += [*_data_parallel(layout, version), *_experts(model, layout, role, cpu)]
    planned += [
        ("--context-length", str(limits.context_length)),
        # SGLang divides by the attention ranks, but each of several whole copies takes the number for itself.
        ("--max-running-requests", str(max(1, limits.max_running_requests // layout.copies))),
        ("--mem-fraction-static", f"{fraction:.3f}".rstrip("0")),
    ]
    if cpu:
        planned.append(("--max-total-tokens", str(CPU_MAX_TOTAL_TOKENS)))
    else:
        planned += [
            ("--chunked-prefill-size", str(limits.chunked_prefill_size)),
            ("--page-size", str(limits.page_size)),
        ]
        if role != "Prefill":
            planned.append(("--cuda-graph-max-bs-decode", str(limits.graph_batch)))
    if layout.draft:
        planned += [
            ("--speculative-algorithm", "EAGLE"),
            ("--speculative-num-steps", str(MTP_STEPS)),
            ("--speculative-eagle-topk", "1"),
            ("--speculative-num-draft-tokens", str(MTP_DRAFT_TOKENS)),
        ]
    if role != "Aggregated":
        planned.append(("--disaggregation-mode", role.lower()))
    planned.append(("--reasoning-parser", model.reasoning_parser))
    if model.tool_call_parser is not None:
        planned.append(("--tool-call-parser", model.tool_call_parser))
    replaced = set(flags(extra))
    kept = [word for argument in planned if argument[0] not in replaced for word in argument]
    return (*kept, *extra)


def environment(model: Model, layout: Layout, limits: Limits, role: Role, *, cpu: bool) -> tuple[tuple[str, str], ...]:
    """Variables the engine needs beside its arguments."""
    variables: list[tuple[str, str]] = []
    if cpu or isinstance(model.architecture, Dense):
        return ()
    if role != "Decode" and (chunk := prefix_chunk(layout)) != SGLANG_PREFIX_CHUNK:
        variables.append(("SGLANG_MAX_KV_CHUNK_CAPACITY", str(chunk)))
    if decodes_with_deepep(layout, role):
        variables.append((DISPATCH_VARIABLE, str(dispatch_tokens(layout, limits, MTP_DRAFT_TOKENS))))
    return tuple(variables)


def _data_parallel(layout: Layout, version: str) -> list[tuple[str, ...]]:
    """Whole copies and attention groups. No layout has both: attention DP is for the models that fill a node."""
    arguments: list[tuple[str, ...]] = []
    if layout.copies > 1:
        arguments.append(("--dp-size", str(layout.copies)))
    if layout.attention_dp > 1:
        groups = str(layout.attention_dp)
        older = [("--dp-size", groups), ("--enable-dp-attention",)]
        arguments += older if version == SGLANG_OLDER else [("--attn-dp-size", groups)]
    return arguments


def _experts(model: Model, layout: Layout, role: Role, cpu: bool) -> list[tuple[str, ...]]:
    arguments: list[tuple[str, ...]] = []
    if layout.expert_parallel > 1:
        arguments.append(("--ep-size", str(layout.expert_parallel)))
    if layout.all_to_all is AllToAll.DEEPEP:
        mode = {"Prefill": "normal", "Decode": "low_latency", "Aggregated": "auto"}[role]
        arguments += [("--moe-a2a-backend", "deepep"), ("--deepep-mode", mode)]
    if layout.redundant_experts:
        arguments += [
            ("--ep-num-redundant-experts", str(layout.redundant_experts)),
            # Copies that nobody moves stay where they were put at random; one layer a step, so that no step is long.
            ("--enable-eplb",),
            ("--eplb-algorithm", "deepseek"),
            ("--eplb-rebalance-layers-per-chunk", "1"),
            ("--ep-dispatch-algorithm", "dynamic"),
        ]
    if layout.dp_lm_head:
        arguments.append(("--enable-dp-lm-head",))
    if layout.dense_tp_one:
        arguments.append(("--moe-dense-tp-size", "1"))
    if isinstance(model.architecture, MlaMoe) and not cpu:
        # A node that loads from a slow volume must not time out the others: NCCL's own limit is 10 minutes.
        arguments.append(("--dist-timeout", "3600"))
    return arguments
