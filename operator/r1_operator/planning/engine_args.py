"""The engine's arguments, rendered from a plan's values in one place per SGLang version."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from r1_operator.api.names import ENGINE_OWNED_FLAGS

from .layout import AllToAll, Layout
from .memory import MTP_DRAFT_TOKENS, MTP_STEPS, SGLANG_PREFIX_CHUNK, prefix_chunk
from .model import Dense, MlaMoe, Model
from .plan import Limits, Refusal, Role

SGLANG_VERSION = "0.5.23"

# What the engine sets itself (docs/design/contracts.md).
OWNED_BY_ENGINE = frozenset((*ENGINE_OWNED_FLAGS, "--tokenizer-path", "--device", "--base-gpu-id"))
# What a field of the resource says: setting it twice would let the two disagree.
OWNED_BY_FIELD: Mapping[str, str] = {
    "--tp-size": "spec.topology.tensorParallel",
    "--tp": "spec.topology.tensorParallel",
    "--tensor-parallel-size": "spec.topology.tensorParallel",
    "--attn-dp-size": "spec.topology.attentionDataParallel",
    "--dp-size": "spec.topology.attentionDataParallel",
    "--dp": "spec.topology.attentionDataParallel",
    "--data-parallel-size": "spec.topology.attentionDataParallel",
    "--enable-dp-attention": "spec.topology.attentionDataParallel",
    "--ep-size": "spec.topology.expertParallel",
    "--ep": "spec.topology.expertParallel",
    "--expert-parallel-size": "spec.topology.expertParallel",
    "--ep-num-redundant-experts": "spec.topology.redundantExperts",
    "--moe-a2a-backend": "spec.topology.moeA2aBackend",
    "--context-length": "spec.limits.contextLength",
    "--max-running-requests": "spec.limits.maxRunningRequests",
    "--mem-fraction-static": "spec.limits.memoryFractionPercent",
    "--chunked-prefill-size": "spec.limits.chunkedPrefillSize",
}
# Names that SGLang 0.5.23 refuses, deprecates or that break R1, and what to do instead.
WITHDRAWN: Mapping[str, str] = {
    "--cuda-graph-bs": "use --cuda-graph-bs-decode",
    "--cuda-graph-max-bs": "use --cuda-graph-max-bs-decode",
    "--enable-deepep-moe": "set spec.topology.moeA2aBackend to DeepEP",
    "--enable-ep-moe": "set spec.topology.expertParallel",
    "--disable-cuda-graph": "use --cuda-graph-backend-decode=disabled",
    "--quantization": "leave it out: the checkpoint's config.json says how it is quantized",
    "--pp-size": "leave it out: pipeline parallelism has no memory form here",
    "--pipeline-parallel-size": "leave it out: pipeline parallelism has no memory form here",
    "--page-size": "leave it out: the plan sets it with the KV cache",
}
KV_DTYPES: Mapping[str, int] = {"auto": 2, "bfloat16": 2, "bf16": 2, "fp8_e4m3": 1, "fp8_e5m2": 1}
CPU_MAX_TOTAL_TOKENS = 20_000


def render(
    model: Model, layout: Layout, limits: Limits, *, fraction: float, role: Role, cpu: bool, extra: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """SGLang 0.5.23's arguments, the user's last. `fraction` is the static memory fraction; `cpu` is for trying out."""
    planned: list[tuple[str, ...]] = [("--tp-size", str(layout.tensor_parallel))]
    planned += _parallel(model, layout, limits, role, cpu)
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
    planned.append(("--reasoning-parser", "deepseek-r1"))
    replaced = set(flags(extra))
    kept = [word for argument in planned if argument[0] not in replaced for word in argument]
    return (*kept, *extra)


def environment(model: Model, layout: Layout, role: Role, *, cpu: bool) -> tuple[tuple[str, str], ...]:
    """Variables the engine needs beside its arguments."""
    if cpu or isinstance(model.architecture, Dense) or role == "Decode":
        return ()
    chunk = prefix_chunk(layout)
    return () if chunk == SGLANG_PREFIX_CHUNK else (("SGLANG_MAX_KV_CHUNK_CAPACITY", str(chunk)),)


def _parallel(model: Model, layout: Layout, limits: Limits, role: Role, cpu: bool) -> list[tuple[str, ...]]:
    arguments: list[tuple[str, ...]] = []
    if layout.copies > 1:
        arguments.append(("--dp-size", str(layout.copies)))
    if layout.attention_dp > 1:
        arguments.append(("--attn-dp-size", str(layout.attention_dp)))
    if layout.expert_parallel > 1:
        arguments.append(("--ep-size", str(layout.expert_parallel)))
    if layout.all_to_all is AllToAll.DEEPEP:
        mode = {"Prefill": "normal", "Decode": "low_latency", "Aggregated": "auto"}[role]
        arguments += [("--moe-a2a-backend", "deepep"), ("--deepep-mode", mode)]
    if layout.redundant_experts:
        arguments += [
            ("--ep-num-redundant-experts", str(layout.redundant_experts)),
            ("--eplb-algorithm", "deepseek"),
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


def flags(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """The names in an argument list, without values: `--a=1` and `--a 1` both give `--a`."""
    return tuple(word.split("=", 1)[0] for word in arguments if word.startswith("--"))


def value_of(arguments: tuple[str, ...], flag: str) -> str | None:
    """The value of the last `--flag value` or `--flag=value`, or None."""
    found = None
    for index, word in enumerate(arguments):
        if word.startswith(flag + "="):
            found = word.split("=", 1)[1]
        elif word == flag and index + 1 < len(arguments):
            found = arguments[index + 1]
    return found


def argument_problem(extra: tuple[str, ...]) -> Refusal | None:
    """Why the user's own arguments cannot be added, or None."""
    field = "spec.engine.args"
    for name in flags(extra):
        if name in OWNED_BY_ENGINE:
            return Refusal(field, f"{name} is set by the engine itself", "leave it out")
        if name in OWNED_BY_FIELD:
            return Refusal(field, f"{name} would bypass the plan's checks", f"set {OWNED_BY_FIELD[name]} instead")
        if name in WITHDRAWN:
            return Refusal(field, f"{name} does not work with SGLang {SGLANG_VERSION} and R1", WITHDRAWN[name])
    dtype = value_of(extra, "--kv-cache-dtype")
    if dtype is not None and dtype not in KV_DTYPES:
        return Refusal(
            field, f"--kv-cache-dtype {dtype} has no known size per token", f"use one of {', '.join(KV_DTYPES)}"
        )
    return None


RENDERERS: Mapping[str, Callable[..., tuple[str, ...]]] = {SGLANG_VERSION: render}
