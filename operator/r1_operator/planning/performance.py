"""A roofline estimate of one replica's speed: what must be read, computed and sent in a step, over what the GPU can do.

Derivation, constants and errors against published figures: docs/planning/performance.md. All times are seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .hardware import Hardware
from .layout import AllToAll, Layout
from .memory import MTP_DRAFT_TOKENS, kv_bytes_per_token
from .model import Dense, Model, Quantization
from .plan import Estimate, Limits, Role
from .weights import BF16, expert_slots, weight_parts
from .wishes import Load

# Shares of the data-sheet rates that real kernels reach, as their authors report for H800: FlashMLA up to 3000 GB/s of
# 3350 (a step's many small reads reach less), DeepGEMM up to 1550 TFLOP/s of 1979, DeepEP 43 GB/s of 50 between nodes.
# One value each for all GPUs: fitting per source would only hide the model's error.
HBM_SHARE = 0.75
COMPUTE_SHARE = 0.7
LINK_SHARE = 0.85
# How far an estimate may be off: all published figures but the worst are nearer, each left out of the fit
# (docs/planning/performance.md; docs/planning/tables.py derives it).
ESTIMATE_ERROR = 0.45
# The next three are a fit: chosen with the published figures in view.
# Time a decoder layer takes however small the batch is: kernel launches inside a CUDA graph and two collectives.
LAYER_SECONDS_ONE_NODE = 220e-6
LAYER_SECONDS_MORE_NODES = 320e-6
# The same for a prefill step, which launches its kernels one by one.
PREFILL_LAYER_SECONDS = 1.5e-3
# Tokens that a step of three drafted tokens yields on average (DeepSeek-V3 report: 85-90% of second tokens accepted).
MTP_TOKENS_PER_STEP = 2.4
# The draft's own passes, as a share of the step's fixed part.
MTP_STEP_OVERHEAD = 0.15
# Grouped matrix products over experts cut into few columns read slower: by the root of the width, which is what
# AIConfigurator's measurements of R1 on tp 8 (256 columns) and tp 16 (128) show beside whole experts.
FULL_SPEED_EXPERT_COLUMNS = 512
# An expert's group limit: R1's router keeps each token within 4 of 8 groups, so within 4 nodes at most.
MAX_REMOTE_NODES = 4


@dataclass(frozen=True, slots=True)
class Machine:
    """Rates of one GPU as kernels reach them: bytes/s and FLOP/s."""

    hbm: float
    matmul: float
    attention: float
    nvlink: float
    network: float
    nodes: int


@dataclass(frozen=True, slots=True)
class Step:
    """Where the time of one step goes, in seconds."""

    weights: float
    kv: float
    compute: float
    communication: float
    fixed: float

    @property
    def seconds(self) -> float:
        """Reading weights overlaps with the matrix products; the rest is in sequence."""
        return max(self.weights, self.compute) + self.kv + self.communication + self.fixed

    @property
    def bound_by(self) -> str:
        parts = {
            "HBM (weights)": self.weights if self.weights >= self.compute else 0.0,
            "compute": self.compute if self.compute > self.weights else 0.0,
            "HBM (KV cache)": self.kv,
            "communication": self.communication,
            "fixed cost per layer": self.fixed,
        }
        return max(parts, key=lambda name: parts[name])


def machine(profile: Hardware, quantization: Quantization, nodes: int) -> Machine:
    """The rates that a model of this quantization sees."""
    fp8 = profile.fp8_tflops if quantization is not Quantization.BF16 else None
    return Machine(
        hbm=profile.memory_bandwidth_gbytes_per_second * 1e9 * HBM_SHARE,
        matmul=(fp8 or profile.bf16_tflops) * 1e12 * COMPUTE_SHARE,
        attention=profile.bf16_tflops * 1e12 * COMPUTE_SHARE,
        nvlink=max(1, profile.nvlink_gbytes_per_second) * 1e9 * LINK_SHARE,
        network=max(1, profile.network_gbits_per_second / 8 / profile.gpus_per_node) * 1e9 * LINK_SHARE,
        nodes=nodes,
    )


def decode_step(model: Model, gpu: Machine, layout: Layout, batch: float, context: float, kv_itemsize: int) -> Step:
    """One decode step of one model copy with `batch` running requests of `context` tokens each."""
    tokens = batch * (MTP_DRAFT_TOKENS if layout.draft else 1)
    per_rank = batch / layout.attention_dp
    kv = per_rank * context * kv_bytes_per_token(model, layout, kv_itemsize) / gpu.hbm
    attention = _decode_attention_flops(model, layout, context) * tokens / layout.attention_dp / gpu.attention
    layers = model.architecture.layers
    fixed = layers * (LAYER_SECONDS_ONE_NODE if gpu.nodes == 1 else LAYER_SECONDS_MORE_NODES)
    return Step(
        weights=_weights_read(model, layout, tokens) / gpu.hbm,
        kv=max(kv, attention),
        compute=_matmul_flops(model, layout) * tokens / layout.tensor_parallel / gpu.matmul,
        communication=_communication_seconds(model, layout, gpu, tokens, low_latency=True),
        fixed=fixed * (1 + MTP_STEP_OVERHEAD if layout.draft else 1),
    )


def prefill_step(model: Model, gpu: Machine, layout: Layout, tokens: float, context: float) -> Step:
    """One prefill step of one model copy over `tokens` prompt tokens whose requests are `context` long."""
    attention = _prefill_attention_flops(model, context) * tokens / layout.tensor_parallel / gpu.attention
    matmul = _matmul_flops(model, layout) * tokens / layout.tensor_parallel / gpu.matmul
    return Step(
        weights=_weights_read(model, layout, tokens) / gpu.hbm,
        kv=0.0,
        compute=matmul + attention,
        communication=_communication_seconds(model, layout, gpu, tokens, low_latency=False),
        fixed=model.architecture.layers * PREFILL_LAYER_SECONDS,
    )


def estimate(
    model: Model,
    profile: Hardware,
    layout: Layout,
    nodes: int,
    limits: Limits,
    kv_tokens_per_rank: int,
    load: Load,
    *,
    role: Role = "Aggregated",
    kv_itemsize: int = BF16,
    concurrency: int | None = None,
) -> Estimate:
    """Steady state of one replica that is offered as much of `load` as it can run (or `concurrency` requests)."""
    gpu = machine(profile, model.quantization, nodes)
    groups = layout.attention_dp * layout.copies
    fits = max(1, kv_tokens_per_rank // load.resident_tokens) * groups
    running = min(limits.max_running_requests, fits, concurrency or limits.max_running_requests)
    batch = max(1.0, running / layout.copies)
    step = decode_step(model, gpu, layout, batch, load.resident_tokens, kv_itemsize)
    per_step = MTP_TOKENS_PER_STEP if layout.draft else 1.0
    decode = load.output_tokens * step.seconds / per_step / batch  # machine seconds a request takes to decode
    full = min(limits.chunked_prefill_size, load.input_tokens * batch)
    chunk = prefill_step(model, gpu, layout, full, load.input_tokens)
    prefill = chunk.seconds / full * load.input_tokens
    spent = {"Aggregated": prefill + decode, "Prefill": prefill, "Decode": decode}[role]
    alone = prefill_step(model, gpu, layout, load.input_tokens * _serial_share(layout), load.input_tokens)
    return Estimate(
        input_tokens=load.input_tokens,
        output_tokens=load.output_tokens,
        concurrency=running,
        tokens_per_second=(load.input_tokens if role == "Prefill" else load.output_tokens) / spent * layout.copies,
        ttft_ms=1000 * (alone.seconds + (step.seconds if role == "Aggregated" else 0.0)),
        tpot_ms=0.0 if role == "Prefill" else 1000 * spent * batch / load.output_tokens,
        bound_by=chunk.bound_by if role == "Prefill" or (role == "Aggregated" and prefill > decode) else step.bound_by,
    )


def _serial_share(layout: Layout) -> float:
    """A single prompt's attention runs on one attention rank; its experts on all. Counted as half and half."""
    return (1 + layout.attention_dp) / 2 if layout.attention_dp > 1 else 1.0


def _weights_read(model: Model, layout: Layout, tokens: float) -> float:
    """Bytes of weights that one rank reads in a step of `tokens` tokens, of the experts only those chosen. Narrow
    shards count as more, because they are read slower."""
    parts = {part.name: part.bytes for part in weight_parts(model, layout)}
    read = float(sum(parts.values()) - parts.get("embedding", 0) - parts.get("rope table", 0))
    if isinstance(model.architecture, Dense):
        return read
    arch = model.architecture
    untouched = math.pow(1 - arch.experts_per_token / arch.routed_experts, tokens)
    slots = expert_slots(arch, model.quantization, layout)
    touched = min(1 - untouched, tokens * arch.experts_per_token / slots)
    if layout.expert_parallel > 1:  # the step waits for the rank whose experts are chosen most
        chosen = tokens * arch.experts_per_token / layout.expert_parallel
        touched = min(1.0, touched * (1 + math.sqrt(2 * math.log(layout.expert_parallel) / chosen)))
    narrow = min(1.0, math.sqrt(arch.expert_intermediate // layout.expert_tp / FULL_SPEED_EXPERT_COLUMNS))
    return read - parts["routed experts"] * (1 - touched / narrow)


def _matmul_flops(model: Model, layout: Layout) -> float:
    """FLOP of all linear layers for one token, over all ranks. What attention TP 1 copies counts on every rank."""
    arch = model.architecture
    if isinstance(arch, Dense):
        per_layer = (
            arch.hidden * (2 * arch.heads + 2 * arch.kv_heads) * arch.head_dim + 3 * arch.hidden * arch.intermediate
        )
        return 2.0 * (arch.layers * per_layer + arch.hidden * arch.vocab)
    latent = arch.hidden * (arch.q_lora + arch.kv_lora + arch.rope)
    heads = arch.heads * (
        arch.q_lora * (arch.nope + arch.rope) + arch.kv_lora * (arch.nope + arch.v_head) + arch.v_head * arch.hidden
    )
    moe = arch.expert_elements * (arch.experts_per_token + arch.shared_experts) + arch.hidden * arch.routed_experts
    dense = 3 * arch.hidden * arch.intermediate
    total = arch.layers * (latent * layout.attention_tp + heads) + arch.moe_layers * moe + arch.dense_layers * dense
    return 2.0 * (total + arch.hidden * arch.vocab)


def _decode_attention_flops(model: Model, layout: Layout, context: float) -> float:
    """FLOP on one rank for one token's attention over `context` tokens."""
    arch = model.architecture
    if isinstance(arch, Dense):
        return 4.0 * arch.layers * arch.heads / layout.tensor_parallel * arch.head_dim * context
    heads = arch.heads / layout.attention_tp
    return 2.0 * arch.layers * heads * (2 * arch.kv_lora + arch.rope) * context  # absorbed: against the latent vector


def _prefill_attention_flops(model: Model, context: float) -> float:
    """FLOP over all ranks for one prompt token's attention: causal, so over half the prompt on average."""
    arch = model.architecture
    if isinstance(arch, Dense):
        return 4.0 * arch.layers * arch.heads * arch.head_dim * context / 2
    return 2.0 * arch.layers * arch.heads * (arch.nope + arch.rope + arch.v_head) * context / 2


def _communication_seconds(model: Model, layout: Layout, gpu: Machine, tokens: float, *, low_latency: bool) -> float:
    """Bytes that one rank sends in a step, over the slower link they cross."""
    if layout.tensor_parallel == 1:
        return 0.0
    arch = model.architecture
    row = arch.hidden * BF16
    remote = 1 - 1 / gpu.nodes
    if layout.all_to_all is AllToAll.DEEPEP and not isinstance(arch, Dense):
        mine = tokens / layout.attention_dp / layout.attention_tp * arch.moe_layers * arch.hidden * (1 + BF16)
        # Low latency sends each token to each of its experts; normal mode once to each node, then over NVLink.
        copies = float(arch.experts_per_token)
        over_network = copies * remote if low_latency else min(MAX_REMOTE_NODES, gpu.nodes) * remote
        return mine * (over_network / gpu.network + copies * (1 - remote) / gpu.nvlink)
    # Two ring all-reduces a layer; across nodes each GPU's share of the ring crosses its own NIC.
    ring = 2 * 2 * row * arch.layers * tokens
    within = ring * (1 - 1 / layout.tensor_parallel) / gpu.nvlink
    if gpu.nodes == 1:
        return within
    return within + ring * remote / (layout.tensor_parallel / gpu.nodes) / gpu.network
