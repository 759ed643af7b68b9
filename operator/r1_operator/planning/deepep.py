"""What DeepEP's low-latency mode, which decodes, needs: a limit on the tokens of a step, and memory that grows with it.

The limit is a variable of the engine. A decode step that is larger ends the engine in an assertion while it captures
its graphs, after the whole load; SGLang 0.5.23 neither raises the limit nor caps the batch by it.
"""

from __future__ import annotations

from .layout import AllToAll, Layout
from .model import MlaMoe, Quantization
from .plan import Limits, Role
from .units import pad

DISPATCH_VARIABLE = "SGLANG_DEEPEP_NUM_MAX_DISPATCH_TOKENS_PER_RANK"
LEAST_DISPATCH_TOKENS = 128  # SGLang's default (environ.py)
MOST_DISPATCH_TOKENS = 1024  # SGLang asserts it: the tag of DeepEP's sums (token_dispatcher/deepep.py)
DISPATCH_STEP = 64
_BF16, _FP32, _FP8 = 2, 4, 1
_SCALE_COLUMNS = 128
_HEADER_BYTES = 16  # of each message: an int4 with the token's place at its sender
_ALIGNMENT = 128


def decodes_with_deepep(layout: Layout, role: Role) -> bool:
    """Prefill has another mode, whose buffers do not depend on the batch."""
    return layout.all_to_all is AllToAll.DEEPEP and role != "Prefill"


def step_tokens(layout: Layout, running_requests: int, draft_tokens: int) -> int:
    """Tokens of one attention rank's largest decode step. Batches beyond the largest graph decode without one and
    count as well."""
    return -(-running_requests // (layout.attention_dp * layout.copies)) * (draft_tokens if layout.draft else 1)


def dispatch_limit(tokens: int) -> int:
    """The value of DISPATCH_VARIABLE for steps of `tokens` tokens a rank."""
    return max(LEAST_DISPATCH_TOKENS, pad(tokens, DISPATCH_STEP))


def low_latency_bytes(arch: MlaMoe, layout: Layout, limit: int) -> int:
    """DeepEP's own size of the symmetric buffer (`get_low_latency_rdma_size_hint`, csrc/config.hpp): send, receive and
    signals, each twice, for every expert and every token that any rank may send it."""
    experts, scales = arch.routed_experts + layout.redundant_experts, arch.hidden // _SCALE_COLUMNS
    dispatched = _HEADER_BYTES + max(arch.hidden * _BF16, arch.hidden + scales * _FP32)
    combined = scales * 2 * _BF16 + arch.hidden * _BF16
    send = max(limit * dispatched, experts * limit * combined)
    receive = experts * limit * max(dispatched, combined)
    return pad(2 * (send + receive + pad(experts * 4, _ALIGNMENT)) + 1, _ALIGNMENT)


def expert_row_bytes(arch: MlaMoe, quantization: Quantization, layout: Layout, limit: int) -> int:
    """What the experts of a decode step work on: a row for each local expert and each token that any rank may send,
    whether or not it comes. Input, product and the larger of gate-up and output live together in a captured graph
    (SGLang's moe_runner/deep_gemm.py reckons so)."""
    rows = (arch.routed_experts + layout.redundant_experts) // layout.expert_parallel * layout.gpus * limit
    item = _BF16 if quantization is Quantization.BF16 else _FP8
    inner = arch.expert_intermediate // layout.expert_tp

    def scaled(width: int) -> int:
        return width * item + (0 if item == _BF16 else width // _SCALE_COLUMNS * _FP32)

    return rows * (scaled(arch.hidden) + scaled(inner) + max(2 * inner, arch.hidden) * _BF16)


def dispatch_tokens(layout: Layout, limits: Limits, draft_tokens: int) -> int:
    """The limit of a plan: what the user set its variable to, or what its requests need."""
    if limits.dispatch_tokens is not None:
        return limits.dispatch_tokens
    return dispatch_limit(step_tokens(layout, limits.max_running_requests, draft_tokens))
