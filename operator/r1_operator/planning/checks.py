"""What cannot be built, contradicts itself, or is known to give wrong numbers: refused before a pod exists.

Each check is a function from (wishes, layout, nodes) to a Refusal or None.
"""

from __future__ import annotations

from collections.abc import Callable

from .layout import AllToAll, Layout
from .model import Dense, MlaMoe, Model, Quantization
from .plan import Refusal
from .weights import BLOCK, fused_shared_expert

TP = "spec.topology.tensorParallel"
DP = "spec.topology.attentionDataParallel"
EP = "spec.topology.expertParallel"
REDUNDANT = "spec.topology.redundantExperts"
BACKEND = "spec.topology.moeA2aBackend"

Check = Callable[[Model, Layout, int], Refusal | None]


def layout_problem(model: Model, layout: Layout, nodes: int) -> Refusal | None:
    """The first reason why SGLang cannot build `layout` over `nodes` nodes, or None."""
    for check in _DENSE_CHECKS if isinstance(model.architecture, Dense) else _MLA_MOE_CHECKS:
        problem = check(model, layout, nodes)
        if problem is not None:
            return problem
    return None


def _attention_dp_divides(model: Model, layout: Layout, nodes: int) -> Refusal | None:
    if layout.tensor_parallel % layout.attention_dp == 0:
        return None
    return Refusal(
        DP,
        f"{layout.attention_dp} does not divide tensorParallel {layout.tensor_parallel}",
        f"use one of {_divisors(layout.tensor_parallel)}",
    )


def _heads_divide(model: Model, layout: Layout, nodes: int) -> Refusal | None:
    heads = model.architecture.heads
    if heads % layout.attention_tp == 0:
        return None
    return Refusal(
        DP if layout.attention_dp > 1 else TP,
        f"{heads} attention heads cannot be split over {layout.attention_tp} ranks "
        f"(tensorParallel {layout.tensor_parallel} / attentionDataParallel {layout.attention_dp})",
        f"set attentionDataParallel {layout.tensor_parallel}, or a tensorParallel that divides {heads}",
    )


def _expert_parallel_divides(model: Model, layout: Layout, nodes: int) -> Refusal | None:
    if layout.tensor_parallel % layout.expert_parallel == 0:
        return None
    return Refusal(
        EP,
        f"{layout.expert_parallel} does not divide tensorParallel {layout.tensor_parallel}",
        f"use one of {_divisors(layout.tensor_parallel)}",
    )


def _experts_divide(model: Model, layout: Layout, nodes: int) -> Refusal | None:
    arch = model.architecture
    assert isinstance(arch, MlaMoe)
    total = arch.routed_experts + layout.redundant_experts
    if total % layout.expert_parallel == 0:
        return None
    fitting = -arch.routed_experts % layout.expert_parallel
    return Refusal(
        REDUNDANT,
        f"{arch.routed_experts} + {layout.redundant_experts} experts cannot be spread evenly over "
        f"expertParallel {layout.expert_parallel}",
        f"set redundantExperts {fitting} or {fitting + layout.expert_parallel}",
    )


def _redundant_needs_spread(model: Model, layout: Layout, nodes: int) -> Refusal | None:
    if not layout.redundant_experts or layout.expert_parallel > 1:
        return None
    return Refusal(
        REDUNDANT,
        f"{layout.redundant_experts} copies of experts, but expertParallel 1 keeps every expert on every rank",
        "set expertParallel, or redundantExperts 0",
    )


def _all_to_all_spans(model: Model, layout: Layout, nodes: int) -> Refusal | None:
    if layout.all_to_all is AllToAll.NONE or layout.expert_parallel == layout.tensor_parallel:
        return None
    return Refusal(
        EP,
        f"{layout.all_to_all.value} spreads experts over all ranks, so expertParallel {layout.expert_parallel} "
        f"must equal tensorParallel {layout.tensor_parallel}",
        f"set expertParallel {layout.tensor_parallel}, or moeA2aBackend None",
    )


def _fp8_shards_are_blocks(model: Model, layout: Layout, nodes: int) -> Refusal | None:
    """FP8 shards must be whole 128×128 blocks: SGLang's loader raises otherwise."""
    arch = model.architecture
    assert isinstance(arch, MlaMoe)
    if model.quantization is Quantization.BF16:
        return None
    dense_tp = 1 if layout.dense_tp_one else layout.tensor_parallel
    shared_tp = 1 if layout.all_to_all is not AllToAll.NONE else layout.tensor_parallel
    splits = [("routed experts", arch.expert_intermediate, layout.expert_tp)]
    if not fused_shared_expert(arch, model.quantization, layout) and arch.shared_experts:
        splits.append(("shared expert", arch.expert_intermediate * arch.shared_experts, shared_tp))
    if arch.dense_layers:
        splits.append(("dense layers", arch.intermediate, dense_tp))
    for name, width, shards in splits:
        if width % (shards * BLOCK):
            return Refusal(
                TP,
                f"{name}: {width} columns over {shards} ranks are {width / shards:g} each, not a multiple of the "
                f"FP8 block of {BLOCK}",
                "use a smaller tensorParallel, or DeepEP with expertParallel = tensorParallel",
            )
    return None


def _numbers_are_right(model: Model, layout: Layout, nodes: int) -> Refusal | None:
    mixed = layout.attention_dp > 1 and layout.attention_tp > 1 and layout.all_to_all is AllToAll.NONE
    if not mixed or nodes == 1:
        return None
    return Refusal(
        DP,
        f"attention DP {layout.attention_dp} with attention TP {layout.attention_tp} over {nodes} nodes and no "
        "all-to-all backend is reported to give wrong numbers (SGLang issue 31700)",
        f"set attentionDataParallel {layout.tensor_parallel} or 1, or moeA2aBackend DeepEP",
    )


def _draft_exists(model: Model, layout: Layout, nodes: int) -> Refusal | None:
    arch = model.architecture
    if not layout.draft or (isinstance(arch, MlaMoe) and arch.draft_layers):
        return None
    return Refusal(
        "spec.engine.args",
        f"speculative decoding needs a NextN layer, and {model.name} has none (num_nextn_predict_layers 0)",
        "leave speculative decoding out",
    )


def _no_experts(model: Model, layout: Layout, nodes: int) -> Refusal | None:
    dense_only = {
        EP: layout.expert_parallel > 1,
        BACKEND: layout.all_to_all is not AllToAll.NONE,
        REDUNDANT: layout.redundant_experts > 0,
        DP: layout.attention_dp > 1,
    }
    for field, used in dense_only.items():
        if used:
            return Refusal(field, f"{model.name} is a dense model: it has no experts and no latent cache", "unset it")
    return None


def _dense_splits(model: Model, layout: Layout, nodes: int) -> Refusal | None:
    arch = model.architecture
    assert isinstance(arch, Dense)
    tp = layout.tensor_parallel
    copied = arch.kv_heads < tp and tp % arch.kv_heads == 0
    if arch.heads % tp == 0 and arch.intermediate % tp == 0 and (arch.kv_heads % tp == 0 or copied):
        return None
    return Refusal(
        TP,
        f"{tp} ranks cannot split {arch.heads} heads, {arch.kv_heads} key-value heads and "
        f"{arch.intermediate} MLP columns",
        f"use one of {[n for n in _divisors(arch.heads) if arch.intermediate % n == 0]}",
    )


def _divisors(value: int) -> list[int]:
    return [n for n in range(1, value + 1) if value % n == 0]


_MLA_MOE_CHECKS: tuple[Check, ...] = (
    _attention_dp_divides,
    _expert_parallel_divides,
    _heads_divide,
    _all_to_all_spans,
    _redundant_needs_spread,
    _experts_divide,
    _fp8_shards_are_blocks,
    _draft_exists,
    _numbers_are_right,
)
_DENSE_CHECKS: tuple[Check, ...] = (_no_experts, _dense_splits, _draft_exists)
