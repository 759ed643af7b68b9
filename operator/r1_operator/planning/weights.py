"""Bytes of weights on one GPU: a closed form, part by part.

For DeepSeek V3's architecture it equals, to the byte, what SGLang 0.5.23's own model code allocates
(`tests/engine/test_planner_weights.py` builds the models on the meta device and compares), buffers included.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from .layout import AllToAll, Layout
from .model import Dense, MlaMoe, Model, Quantization
from .units import pad

BF16 = 2
FP32 = 4
BLOCK = 128  # FP8 block scales, and the group of inputs that shares an int4 scale


@dataclass(frozen=True, slots=True)
class Part:
    """One named share of a GPU's memory, in bytes."""

    name: str
    bytes: int


@lru_cache(maxsize=512)
def weight_parts(model: Model, layout: Layout) -> tuple[Part, ...]:
    """Bytes per GPU after loading, on the rank that holds most. Expects a layout that `checks` passed."""
    if isinstance(model.architecture, Dense):
        return _dense_parts(model.architecture, layout)
    return _mla_moe_parts(model.architecture, model.quantization, layout)


def weight_bytes(model: Model, layout: Layout) -> int:
    """Sum of `weight_parts`."""
    return sum(part.bytes for part in weight_parts(model, layout))


@lru_cache(maxsize=512)
def draft_parts(model: Model, layout: Layout) -> tuple[Part, ...]:
    """Bytes per GPU of the multi-token-prediction layer while the KV cache is sized. Empty without a draft.

    The draft then still holds its own embedding and head; afterwards it shares the target's and gives them back.
    """
    arch = model.architecture
    if not layout.draft or not isinstance(arch, MlaMoe):
        return ()
    embedding, head = _vocabulary(arch.vocab, arch.hidden, layout)
    steady = (
        _attention(arch, model.quantization, layout)
        + _absorbed(arch, layout)
        + expert_bytes(arch, model.quantization, layout)
        + _shared_expert(arch, model.quantization, layout)
        + _router(arch)
        + _layer_norms(arch)
        + 2 * arch.hidden * arch.hidden * BF16  # eh_proj joins the embedding and the hidden state
        + 3 * arch.hidden * BF16  # enorm, hnorm, and the norm before the head
    )
    return (Part("MTP layer", steady), Part("MTP embedding and head while KV is sized", embedding + head))


def fused_shared_expert(arch: MlaMoe, quantization: Quantization, layout: Layout) -> bool:
    """Whether SGLang turns the shared expert into one more routed expert (DeepseekV2ForCausalLM's fusion rules)."""
    return (
        layout.all_to_all is AllToAll.NONE
        and layout.expert_parallel == 1
        and arch.routed_experts == 256
        and arch.shared_experts == 1
        and quantization is not Quantization.W4AFP8
    )


def expert_slots(arch: MlaMoe, quantization: Quantization, layout: Layout) -> int:
    """Experts on one rank, redundant and fused ones included."""
    routed = (arch.routed_experts + layout.redundant_experts) // layout.expert_parallel
    return routed + int(fused_shared_expert(arch, quantization, layout))


def _mla_moe_parts(arch: MlaMoe, quantization: Quantization, layout: Layout) -> tuple[Part, ...]:
    embedding, head = _vocabulary(arch.vocab, arch.hidden, layout)
    dense_tp = 1 if layout.dense_tp_one else layout.tensor_parallel
    dense = _gated_mlp(arch.hidden, arch.intermediate, dense_tp, quantization)
    return (
        Part("routed experts", arch.moe_layers * expert_bytes(arch, quantization, layout)),
        Part("shared expert", arch.moe_layers * _shared_expert(arch, quantization, layout)),
        Part("attention", arch.layers * _attention(arch, quantization, layout)),
        Part("absorbed kv_b", arch.layers * _absorbed(arch, layout)),
        Part("dense MLP", arch.dense_layers * dense),
        Part("embedding", embedding),
        Part("lm_head", head),
        Part("router", arch.moe_layers * _router(arch)),
        Part("norms", arch.layers * _layer_norms(arch) + arch.hidden * BF16),
        Part("rope table", arch.rope_rows * arch.rope * FP32),
    )


def _linear(inputs: int, outputs: int, quantization: Quantization) -> int:
    """One linear layer's shard: its elements, and for FP8 a float32 scale per 128×128 block."""
    if quantization is Quantization.BF16:
        return inputs * outputs * BF16
    return inputs * outputs + FP32 * -(-inputs // BLOCK) * -(-outputs // BLOCK)


def _gated_mlp(hidden: int, intermediate: int, shards: int, quantization: Quantization) -> int:
    inner = intermediate // shards
    if quantization is Quantization.BF16:
        return 3 * hidden * inner * BF16
    return 2 * _linear(hidden, inner, quantization) + _linear(inner, hidden, quantization)


def expert_bytes(arch: MlaMoe, quantization: Quantization, layout: Layout) -> int:
    """Routed experts of one layer on one rank."""
    slots = expert_slots(arch, quantization, layout)
    inner = arch.expert_intermediate // layout.expert_tp
    elements = 3 * arch.hidden * inner
    if quantization is Quantization.W4AFP8:
        # W4AFp8MoEMethod: two weights a byte, a bfloat16 scale per 128 inputs after loading, two float32 input scales
        # a layer, and the strides and offsets its kernel takes (int64 ×4×3, int32 ×2×3 per expert).
        scales = BF16 * elements // BLOCK
        return slots * (elements // 2 + scales) + 2 * FP32 + slots * (4 * 3 * 8 + 2 * 3 * 4) + (slots + 1) * 4
    return slots * _gated_mlp(arch.hidden, inner, 1, quantization)


def _shared_expert(arch: MlaMoe, quantization: Quantization, layout: Layout) -> int:
    """The shared expert of one layer on one rank: split over all ranks, but whole beside an all-to-all backend."""
    if fused_shared_expert(arch, quantization, layout) or not arch.shared_experts:
        return 0
    shards = 1 if layout.all_to_all is not AllToAll.NONE else layout.tensor_parallel
    return _gated_mlp(arch.hidden, arch.expert_intermediate * arch.shared_experts, shards, quantization)


def _attention(arch: MlaMoe, quantization: Quantization, layout: Layout) -> int:
    """MLA of one layer on one rank: the latent projections whole, the per-head ones split over the attention group."""
    heads = arch.heads // layout.attention_tp
    # The FP8 method gives each of the two attention forms a float32 scale for k and for v; W4AFP8 does not.
    kv_scales = 16 if quantization is Quantization.FP8 else 0
    return (
        _linear(arch.hidden, arch.q_lora + arch.kv_lora + arch.rope, quantization)
        + _linear(arch.q_lora, heads * (arch.nope + arch.rope), quantization)
        + _linear(arch.kv_lora, heads * (arch.nope + arch.v_head), quantization)
        + _linear(heads * arch.v_head, arch.hidden, quantization)
        + kv_scales
    )


def _absorbed(arch: MlaMoe, layout: Layout) -> int:
    """kv_b once more in bfloat16, folded into the query and the output for decoding."""
    return arch.kv_lora * (arch.heads // layout.attention_tp) * (arch.nope + arch.v_head) * BF16


def _router(arch: MlaMoe) -> int:
    """Gate in bfloat16 and its correction bias in float32."""
    return arch.routed_experts * (arch.hidden * BF16 + FP32)


def _layer_norms(arch: MlaMoe) -> int:
    return (2 * arch.hidden + arch.q_lora + arch.kv_lora) * BF16


def _vocabulary(vocab: int, hidden: int, layout: Layout) -> tuple[int, int]:
    """Bytes of the embedding and of the head. Attention DP keeps the embedding inside its group."""
    embedding_shards = layout.attention_tp if layout.attention_dp > 1 else layout.tensor_parallel
    head_shards = layout.attention_tp if layout.dp_lm_head else layout.tensor_parallel
    return tuple(_vocabulary_rows(vocab, n) * hidden * BF16 for n in (embedding_shards, head_shards))  # type: ignore[return-value]


def _vocabulary_rows(vocab: int, shards: int) -> int:
    """SGLang pads the vocabulary to 64 rows, and to 64 rows a shard if the shards do not divide that."""
    padded = pad(vocab, 64)
    if padded % shards:
        padded = pad(vocab, 64 * shards)
    return padded // shards


def _dense_parts(arch: Dense, layout: Layout) -> tuple[Part, ...]:
    """Llama and Qwen2 in bfloat16, split over `tensor_parallel`; key and value heads are copied when too few."""
    tp = layout.tensor_parallel
    heads, kv_heads = arch.heads // tp, max(1, arch.kv_heads // tp)
    qkv = (heads + 2 * kv_heads) * arch.head_dim
    attention = arch.hidden * (qkv + heads * arch.head_dim) * BF16 + (qkv * BF16 if arch.qkv_bias else 0)
    rows = _vocabulary_rows(arch.vocab, tp)
    return (
        Part("attention", arch.layers * attention),
        Part("MLP", arch.layers * 3 * arch.hidden * (arch.intermediate // tp) * BF16),
        Part("embedding", rows * arch.hidden * BF16),
        Part("lm_head", 0 if arch.tied_embedding else rows * arch.hidden * BF16),
        Part("norms", (2 * arch.layers + 1) * arch.hidden * BF16),
        Part("rope table", arch.rope_rows * arch.head_dim * FP32),
    )
