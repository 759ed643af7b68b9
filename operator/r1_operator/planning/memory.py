"""One GPU's memory under a layout and limits: weights, KV cache, and what the rest must hold.

SGLang sizes the KV cache from `free0`, the memory free after its process groups exist, minus what is gone once target
and draft are loaded: `tokens = floor((f·free0 - weights - draft) / bytes per token / page)·page`. What the fraction `f`
leaves must hold everything else. SGLang's default for `f` looks at the GPU and not at the model, so a plan always
sets it, from the parts below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .deepep import decodes_with_deepep, dispatch_tokens, expert_row_bytes, low_latency_bytes
from .hardware import Hardware
from .layout import AllToAll, Layout
from .model import Dense, MlaMoe, Model
from .plan import Limits, Memory, Role
from .units import GIB, MIB
from .weights import BF16, Part, draft_parts, expert_bytes, fused_shared_expert, weight_parts

# A start that runs out of memory is found out after the whole load: never plan closer to the edge than this.
MAX_FRACTION = 0.93
MTP_STEPS = 3
MTP_DRAFT_TOKENS = MTP_STEPS + 1
PREFIX_CHUNK_PER_ATTENTION_RANK = 16_384
REBALANCE_STEPS = 1_000  # --eplb-rebalance-num-iterations' default, over which the experts' load is counted
SGLANG_PREFIX_CHUNK = 131_072  # SGLANG_MAX_KV_CHUNK_CAPACITY's default in environ.py


@dataclass(frozen=True, slots=True)
class Held:
    """What a GPU holds: the memory, and the KV tokens per attention rank."""

    memory: Memory
    kv_tokens: int


def kv_bytes_per_token(model: Model, layout: Layout, itemsize: int = BF16) -> int:
    """KV cache bytes of one token on one rank (SGLang's DefaultPoolConfigurator).

    MLA's latent vector is whole on every rank of an attention group; grouped-query heads are split, and copied when
    there are fewer than ranks. A draft's layers count like the target's.
    """
    arch = model.architecture
    if isinstance(arch, MlaMoe):
        per_layer = (arch.kv_lora + arch.rope) * itemsize
        return per_layer * (arch.layers + (arch.draft_layers if layout.draft else 0))
    heads = max(1, arch.kv_heads // layout.tensor_parallel)
    return 2 * heads * arch.head_dim * itemsize * arch.layers


def prefix_chunk(layout: Layout) -> int:
    """Tokens of cached prefix that MLA expands to keys and values at once while it prefills.

    SGLang's default of 131,072 costs 14 GiB with whole attention per rank; this keeps it near 1.75 GiB.
    """
    return min(SGLANG_PREFIX_CHUNK, PREFIX_CHUNK_PER_ATTENTION_RANK * layout.attention_tp)


def slack_parts(model: Model, layout: Layout, limits: Limits, role: Role) -> tuple[Part, ...]:
    """What a GPU must hold outside the static share: computed where SGLang's code says it, or an allowance."""
    per_rank = -(-limits.max_running_requests // (layout.attention_dp * layout.copies))
    parts = [
        # ReqToTokenPool: int32 slots for every position of every request, plus one padding row and four positions.
        Part("request-to-token table", (per_rank + 1) * (limits.context_length + 4) * 4),
        Part("activations", _activations(model, layout, limits)),
        Part("sampling (logits, float32, twice)", per_rank * model.architecture.vocab * 4 * 2),
    ]
    if isinstance(model.architecture, MlaMoe) and role != "Decode":
        parts.append(Part("expanded cached prefix (allowance)", _expanded_prefix(model.architecture, layout, limits)))
        # memory_hook.reserve_for_graph_mb: what capturing prefill costs MLA, and its bridge to DeepEP.
        deepep = layout.all_to_all is AllToAll.DEEPEP
        parts.append(Part("prefill graphs (allowance)", 3 * GIB // 2 + (GIB if deepep else 0)))
    if role != "Prefill":
        tokens = limits.graph_batch * (MTP_DRAFT_TOKENS if layout.draft else 1)
        # Allowance: a base for the private pool and 4 MiB a batched token, twice SGLang's own 2 MiB a request.
        parts.append(Part("decode graphs (allowance)", GIB // 2 + tokens * 4 * MIB))
    if isinstance(model.architecture, MlaMoe):
        parts += [*_deepep(model, model.architecture, layout, limits, role), *_rebalancing(model, layout)]
    # Rounding of the allocator is 0.1-0.2 GiB in FP8 loads; the rest is for late NCCL channels and fragmentation.
    parts.append(Part("allocator and late NCCL (allowance)", 5 * GIB // 2))
    return tuple(parts)


def _deepep(model: Model, arch: MlaMoe, layout: Layout, limits: Limits, role: Role) -> tuple[Part, ...]:
    parts: list[Part] = []
    if decodes_with_deepep(layout, role):
        limit = dispatch_tokens(layout, limits, MTP_DRAFT_TOKENS)
        parts.append(Part("DeepEP buffer", low_latency_bytes(arch, layout, limit)))
        parts.append(Part("DeepEP experts' rows", expert_row_bytes(arch, model.quantization, layout, limit)))
    if layout.all_to_all is AllToAll.DEEPEP and role != "Decode":
        # Prefill's mode has buffers over NVLink and RDMA whose sizes DeepEP tabulates by the number of ranks.
        parts.append(Part("DeepEP prefill buffers (allowance)", GIB))
    return tuple(parts)


def _rebalancing(model: Model, layout: Layout) -> tuple[Part, ...]:
    """Copies of experts are moved to where the load is: a second home for one layer's experts, and the counts of 1,000
    steps (SGLang's eplb/expert_location_updater.py and expert_distribution.py)."""
    arch = model.architecture
    if not layout.redundant_experts or not isinstance(arch, MlaMoe):
        return ()
    counts = REBALANCE_STEPS * (arch.layers - arch.dense_layers) * (arch.routed_experts + layout.redundant_experts) * 4
    return (Part("moving experts", expert_bytes(arch, model.quantization, layout) + counts),)


def hold(
    model: Model,
    profile: Hardware,
    layout: Layout,
    limits: Limits,
    *,
    role: Role = "Aggregated",
    fraction: float | None = None,
    kv_itemsize: int = BF16,
) -> Held:
    """The memory of a GPU, with the largest fraction that leaves the slack if none is given. KV tokens may be ≤ 0."""
    usable = profile.usable_memory_mib * MIB
    slack = slack_parts(model, layout, limits, role)
    if fraction is None:
        room = 1 - sum(part.bytes for part in slack) / usable
        fraction = max(0.0, min(MAX_FRACTION, math.floor(room * 1000) / 1000))
    weights, draft = weight_parts(model, layout), draft_parts(model, layout)
    cell = kv_bytes_per_token(model, layout, kv_itemsize)
    rest = int(fraction * usable) - sum(part.bytes for part in weights) - sum(part.bytes for part in draft)
    tokens = rest // cell // limits.page_size * limits.page_size
    memory = Memory(usable, fraction, weights, draft, max(0, tokens) * cell, slack, cell)
    return Held(memory, tokens)


def _activations(model: Model, layout: Layout, limits: Limits) -> int:
    """Peak of one prefill step: the residual stream, one layer's attention, and one layer's MLP or experts."""
    arch = model.architecture
    chunk = max(1, limits.chunked_prefill_size // layout.attention_dp)  # tokens of one attention rank
    stream = 6 * arch.hidden * BF16
    if isinstance(arch, Dense):
        attention = 2 * (arch.heads + 2 * arch.kv_heads) * arch.head_dim * BF16 // layout.tensor_parallel
        return chunk * (stream + attention + 3 * arch.intermediate // layout.tensor_parallel * BF16)
    heads = arch.heads // layout.attention_tp
    attention = heads * BF16 * (2 * (arch.nope + arch.rope) + 2 * (arch.nope + arch.v_head) + arch.v_head)
    # A row of an expert: input in FP8, gate and up, their product twice (BF16, FP8), and the output.
    inner = arch.expert_intermediate // layout.expert_tp
    row = arch.hidden * 3 + inner * (2 * BF16 + BF16 + 1)
    if layout.all_to_all is AllToAll.DEEPEP:
        rows = chunk * arch.experts_per_token * 5 // 4  # a quarter over the mean: routing is uneven
    else:
        fused = fused_shared_expert(arch, model.quantization, layout)
        rows = limits.chunked_prefill_size * (arch.experts_per_token + int(fused))  # gathered from every attention rank
    return chunk * (stream + attention) + rows * row


def _expanded_prefix(arch: MlaMoe, layout: Layout, limits: Limits) -> int:
    """Keys and values of a chunk of cached prefix: the projection's output and the keys joined with their rope part."""
    heads = arch.heads // layout.attention_tp
    tokens = min(prefix_chunk(layout), limits.context_length)
    return tokens * heads * BF16 * (arch.nope + arch.v_head + arch.nope + arch.rope)
