"""The user's own engine arguments: which of them a plan can keep, and what those say about memory.

They come last on the engine's command line and win, so whatever would make the plan's arithmetic untrue is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from r1_operator.api.names import ENGINE_OWNED_FLAGS

from .plan import Refusal

FIELD = "spec.engine.args"
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
# Names that SGLang refuses, deprecates or that break R1, and what to do instead.
WITHDRAWN: Mapping[str, str] = {
    "--cuda-graph-bs": "use --cuda-graph-bs-decode",
    "--cuda-graph-max-bs": "use --cuda-graph-max-bs-decode",
    "--enable-deepep-moe": "set spec.topology.moeA2aBackend to DeepEP",
    "--enable-ep-moe": "set spec.topology.expertParallel",
    "--disable-cuda-graph": "use --cuda-graph-backend-decode=disabled",
    "--quantization": "leave it out: the checkpoint's config.json says how it is quantized",
    "--page-size": "leave it out: the plan sets it with the KV cache",
    "--disaggregation-mode": "leave it out: an R1Deployment's replicas prefill and decode",
}
# Names that cut or store the weights in ways the closed form does not know, or add to them.
WITHOUT_MEMORY_FORM = frozenset(
    (
        *("--attn-cp-size", "--attention-context-parallel-size", "--dcp-size", "--decode-context-parallel-size"),
        *("--pp-size", "--pipeline-parallel-size", "--moe-dp-size", "--moe-data-parallel-size", "--dwdp-size"),
        *("--shared-experts-tp-size", "--enable-shared-experts-attn-tp", "--enable-kv-cache-sharding"),
        *("--disable-shared-experts-fusion", "--enforce-shared-experts-fusion"),
        *("--moe-dense-tp-size", "--enable-dp-lm-head", "--dtype"),
        *("--enable-lora", "--lora-paths", "--speculative-draft-model-path", "--speculative-draft-model"),
    )
)
KV_DTYPE = "--kv-cache-dtype"
KV_DTYPES: Mapping[str, int] = {"auto": 2, "bfloat16": 2, "bf16": 2, "fp8_e4m3": 1, "fp8_e5m2": 1}
DRAFT = "--speculative-algorithm"
DRAFTS = ("EAGLE", "NEXTN")  # SGLang's names of multi-token prediction with R1's own layer
KV_CAP = "--max-total-tokens"
GRAPH_BATCH = "--cuda-graph-max-bs-decode"
# What a plan takes from the user's arguments into its arithmetic.
COUNTED = frozenset((KV_DTYPE, DRAFT, KV_CAP, GRAPH_BATCH))
_SPELLED_OUT = sorted((*OWNED_BY_ENGINE, *OWNED_BY_FIELD, *WITHDRAWN, *WITHOUT_MEMORY_FORM, *COUNTED))


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


def with_value(arguments: tuple[str, ...], flag: str, value: str) -> tuple[str, ...]:
    """The arguments with `flag value` in place of any other value of that flag."""
    kept: list[str] = []
    for index, word in enumerate(arguments):
        told_apart = index > 0 and arguments[index - 1] == flag
        if word != flag and not told_apart and not word.startswith(flag + "="):
            kept.append(word)
    return (*kept, flag, value)


def count_of(arguments: tuple[str, ...], flag: str) -> int | None:
    """The whole number that `argument_problem` has found to follow the flag, or None without the flag."""
    value = value_of(arguments, flag)
    return None if value is None else int(value)


def argument_problem(extra: tuple[str, ...]) -> Refusal | None:
    """Why the user's own arguments cannot be added, or None."""
    if extra and not extra[0].startswith("--"):
        return Refusal(FIELD, f"{extra[0]!r} belongs to no argument", "begin with a name such as --log-level")
    return next((p for p in map(_name_problem, flags(extra)) if p), None) or _value_problem(extra)


def _name_problem(name: str) -> Refusal | None:
    if name in OWNED_BY_ENGINE:
        return Refusal(FIELD, f"{name} is set by the engine itself", "leave it out")
    if name in OWNED_BY_FIELD:
        return Refusal(FIELD, f"{name} would bypass the plan's checks", f"set {OWNED_BY_FIELD[name]} instead")
    if name in WITHDRAWN:
        return Refusal(FIELD, f"{name} does not work with R1 and the SGLang planned for", WITHDRAWN[name])
    if name in WITHOUT_MEMORY_FORM:
        return Refusal(FIELD, f"{name} changes what a GPU holds in a way the planner has no form for", "leave it out")
    # SGLang's parser takes abbreviations: --mem-frac would be --mem-fraction-static.
    short = None if name in COUNTED else next((full for full in _SPELLED_OUT if full.startswith(name)), None)
    if short is not None:
        return Refusal(FIELD, f"{name} is short for {short}, which the plan's checks read", "write names in full")
    return None


def _value_problem(extra: tuple[str, ...]) -> Refusal | None:
    dtype, draft = value_of(extra, KV_DTYPE), value_of(extra, DRAFT)
    if dtype is not None and dtype not in KV_DTYPES:
        return Refusal(FIELD, f"{KV_DTYPE} {dtype} has no known size per token", f"use one of {', '.join(KV_DTYPES)}")
    if draft is not None and draft.upper() not in DRAFTS:
        return Refusal(
            FIELD, f"{DRAFT} {draft} needs a draft that the planner has no memory form for", f"use {DRAFTS[0]}"
        )
    for flag in (KV_CAP, GRAPH_BATCH):
        value = value_of(extra, flag)
        if value is not None and not (value.isdecimal() and int(value)):
            return Refusal(FIELD, f"{flag} must be a whole number of at least 1, not {value!r}", "correct it")
    return None
