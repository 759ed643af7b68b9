"""One layout judged: serving limits that its memory can hold, or the arithmetic that shows why there are none."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .checks import layout_problem
from .deepep import DISPATCH_VARIABLE, MOST_DISPATCH_TOKENS, decodes_with_deepep, step_tokens
from .engine_args import CPU_MAX_TOTAL_TOKENS
from .layout import Layout
from .memory import MTP_DRAFT_TOKENS, Held, hold
from .model import Dense, Quantization
from .overrides import FIELD as ARGS
from .overrides import KV_CAP
from .performance import estimate
from .plan import Estimate, Limits, Memory, Refusal, Size
from .units import MIB, gib
from .wishes import Wishes

HARDWARE = "spec.hardware"
CONTEXT = "spec.limits.contextLength"
FRACTION = "spec.limits.memoryFractionPercent"
RUNNING = "spec.limits.maxRunningRequests"
CHUNK_SIZE = "spec.limits.chunkedPrefillSize"
ENVIRONMENT = "spec.engine.env"
# R1's thoughts run to thousands of tokens: a rank that cannot hold one request of this length is of no use.
LEAST_CONTEXT = 16_384
RUNNING_PER_RANK = (512, 448, 384, 320, *range(256, 64, -16), *range(64, 16, -8), *range(16, 4, -2), 4, 3, 2, 1)
MOST_RUNNING_WITH_ATTENTION_DP = 256
MOST_RUNNING_FOR_LATENCY = 64
CHUNK = 8_192  # tokens; SGLang's own choice for these GPUs
CHUNK_PER_ATTENTION_RANK = 1_024
PAGE = 64  # tokens: what FlashMLA and KV transfer want
CPU_FRACTION = 0.1
CPU_RUNNING = 16
FP8_CAPABILITY = 89
HOPPER = 9


@dataclass(frozen=True, slots=True)
class Candidate:
    """A layout that works, with its limits."""

    layout: Layout
    nodes: int
    limits: Limits
    memory: Memory
    kv_tokens: int  # per attention rank
    estimate: Estimate | None

    @property
    def gpus(self) -> int:
        return self.layout.gpus

    @property
    def size(self) -> Size:
        """In short, to be told beside another."""
        told, shape = self.estimate, (self.nodes, self.gpus, self.layout, self.limits.context_length)
        return Size(*shape, told.tokens_per_second, told.tpot_ms) if told else Size(*shape, None, None)


def judge(wishes: Wishes, layout: Layout, nodes: int) -> Candidate | Refusal:
    """The largest limits that fit under `layout`, keeping what the user fixed."""
    problem = (
        _capability_problem(wishes)
        or layout_problem(wishes.model, layout, nodes)
        or _context_problem(wishes)
        or _running_problem(wishes, layout)
        or _dispatch_problem(wishes, layout)
        or _chunk_problem(wishes, layout)
    )
    if problem is not None:
        return problem
    if wishes.profile.device == "Cpu":
        return _on_processor_cores(wishes, layout, nodes)
    held: Held | None = None
    late: Refusal | None = None
    for per_rank in _running_options(wishes, layout):
        limits = _limits(wishes, layout, per_rank)
        held = _hold(wishes, layout, limits)
        last = per_rank == 1 or wishes.max_running_requests is not None
        wanted = _least_context(wishes)
        if held.kv_tokens >= max(wanted, 0 if last else per_rank * wishes.load.resident_tokens):
            accepted = _accept(wishes, layout, nodes, limits, held)
            late = None if isinstance(accepted, Refusal) else _too_slow(wishes, accepted)
            if late is None:
                return accepted
    assert held is not None
    return late or _does_not_fit(wishes, layout, held)


def own_context(wishes: Wishes) -> int:
    """The longest request, in tokens, that a plan can be wished to take: the user's, or the model's own; less where the
    user caps the cache."""
    most = wishes.context_length or wishes.model.architecture.context
    return most if wishes.kv_token_cap is None else min(most, _whole_kib(wishes.kv_token_cap))


def keeps_context(wishes: Wishes, candidate: Candidate) -> bool:
    """Whether the candidate takes the longest request that can be wished for."""
    return candidate.limits.context_length >= own_context(wishes)


def _whole_kib(tokens: int) -> int:
    return tokens // 1024 * 1024 if tokens >= 1024 else tokens


def _too_slow(wishes: Wishes, candidate: Candidate) -> Refusal | None:
    """Whether the estimate misses a promised latency."""
    expected = candidate.estimate
    if wishes.goal != "SLO" or expected is None:
        return None
    where = f"{candidate.layout.describe()} on {wishes.profile.name} with {expected.concurrency} requests running"
    if wishes.slo.ttft_ms is not None and expected.ttft_ms > wishes.slo.ttft_ms:
        return Refusal(
            "spec.slo.ttftMilliseconds",
            f"{where} is expected to take {expected.ttft_ms:.0f} ms to the first token of a "
            f"{expected.input_tokens}-token prompt, more than {wishes.slo.ttft_ms}",
            f"promise at least {expected.ttft_ms:.0f}, or use faster GPUs",
        )
    if wishes.slo.tpot_ms is not None and expected.tpot_ms > wishes.slo.tpot_ms:
        return Refusal(
            "spec.slo.tpotMilliseconds",
            f"{where} is expected to take {expected.tpot_ms:.1f} ms a token, more than {wishes.slo.tpot_ms}",
            f"promise at least {expected.tpot_ms:.0f}, or use faster GPUs",
        )
    return None


def _capability_problem(wishes: Wishes) -> Refusal | None:
    """FP8 e4m3 products came with Ada (8.9). SGLang's kernel for int4 experts (cutlass_w4a8_moe_mm) is built from
    Hopper's own instructions, which neither older nor newer GPUs run."""
    kind, has = wishes.model.quantization, wishes.profile.compute_capability
    if wishes.profile.device == "Cpu":
        return None
    if kind is Quantization.W4AFP8 and has // 10 != HOPPER:
        need, instead = f"Hopper ({HOPPER}.x): SGLang has no int4 expert kernel for others", "an FP8 or BF16 checkpoint"
    elif kind is Quantization.FP8 and has < FP8_CAPABILITY:
        need, instead = f"compute capability {FP8_CAPABILITY / 10}", "a BF16 checkpoint"
    else:
        return None
    return Refusal(
        HARDWARE,
        f"{kind.value} weights need {need}, and {wishes.profile.name} has {has / 10}",
        f"use {instead}, or other GPUs",
    )


def _context_problem(wishes: Wishes) -> Refusal | None:
    most = wishes.model.architecture.context
    if wishes.context_length is None or wishes.context_length <= most:
        return None
    return Refusal(
        CONTEXT,
        f"{wishes.context_length} tokens are more than {wishes.model.name} was made for ({most})",
        f"set at most {most}",
    )


def _running_problem(wishes: Wishes, layout: Layout) -> Refusal | None:
    ranks = layout.attention_dp * layout.copies
    if wishes.max_running_requests is None or wishes.max_running_requests >= ranks:
        return None
    return Refusal(
        RUNNING,
        f"{wishes.max_running_requests} requests cannot be shared by {ranks} attention ranks",
        f"set at least {ranks}, or a smaller attentionDataParallel",
    )


def _dispatch_problem(wishes: Wishes, layout: Layout) -> Refusal | None:
    """DeepEP ends the engine where a decode step is larger than its limit, which it finds out after the whole load."""
    if not decodes_with_deepep(layout, wishes.role):
        return None
    fixed, running = wishes.dispatch_tokens, wishes.max_running_requests
    drafts = MTP_DRAFT_TOKENS if layout.draft else 1
    if fixed is not None and not drafts <= fixed <= MOST_DISPATCH_TOKENS:
        return Refusal(
            ENVIRONMENT,
            f"{DISPATCH_VARIABLE} {fixed} is not between {drafts}, the tokens of one request in a decode step, and "
            f"{MOST_DISPATCH_TOKENS}, the most that DeepEP sends",
            "leave it out: the plan sets what its requests need",
        )
    if running is None:
        return None
    needed = step_tokens(layout, running, MTP_DRAFT_TOKENS)
    if needed > MOST_DISPATCH_TOKENS:
        ranks = layout.attention_dp * layout.copies
        return Refusal(
            RUNNING,
            f"{running} requests over {ranks} attention ranks are {needed} tokens of a rank in a decode step, and "
            f"DeepEP sends at most {MOST_DISPATCH_TOKENS}",
            f"set at most {MOST_DISPATCH_TOKENS // drafts * ranks}, or moeA2aBackend None",
        )
    if fixed is not None and needed > fixed:
        return Refusal(
            ENVIRONMENT,
            f"{DISPATCH_VARIABLE} {fixed} is less than the {needed} tokens of a decode step of {running} requests",
            f"leave it out, or set at least {needed}",
        )
    return None


def _chunk_problem(wishes: Wishes, layout: Layout) -> Refusal | None:
    """SGLang divides the chunk by the attention ranks and wants whole pages on each."""
    page = _page(wishes)
    chunk = wishes.chunked_prefill_size
    if chunk is None or chunk % (page * layout.attention_dp) == 0:
        return None
    whole = page * layout.attention_dp
    return Refusal(
        CHUNK_SIZE,
        f"{chunk} tokens over {layout.attention_dp} attention ranks are not whole pages of {page} tokens on each",
        f"set a multiple of {whole}, e.g. {-(-chunk // whole) * whole}",
    )


def _page(wishes: Wishes) -> int:
    return 1 if isinstance(wishes.model.architecture, Dense) or wishes.profile.device == "Cpu" else PAGE


def _running_options(wishes: Wishes, layout: Layout) -> tuple[int, ...]:
    ranks = layout.attention_dp * layout.copies
    if wishes.max_running_requests is not None:
        return (-(-wishes.max_running_requests // ranks),)
    most = RUNNING_PER_RANK[0] if layout.attention_dp == 1 else MOST_RUNNING_WITH_ATTENTION_DP
    if wishes.goal == "Latency":
        most = max(1, MOST_RUNNING_FOR_LATENCY // ranks)
    if decodes_with_deepep(layout, wishes.role):
        most = min(most, _dispatched_requests(wishes, layout))
    return tuple(n for n in RUNNING_PER_RANK if n <= most)


def _dispatched_requests(wishes: Wishes, layout: Layout) -> int:
    """Requests of a rank whose decode step DeepEP can send."""
    tokens = MOST_DISPATCH_TOKENS if wishes.dispatch_tokens is None else wishes.dispatch_tokens
    return tokens // (MTP_DRAFT_TOKENS if layout.draft else 1)


def _limits(wishes: Wishes, layout: Layout, per_rank: int) -> Limits:
    """Limits for `per_rank` requests on each attention rank. The context is the model's until the KV cache is known."""
    share = max(CHUNK // layout.attention_dp, CHUNK_PER_ATTENTION_RANK) // PAGE * PAGE
    chunk = wishes.chunked_prefill_size or share * layout.attention_dp
    ranks = layout.attention_dp * layout.copies
    return Limits(
        context_length=wishes.context_length or wishes.model.architecture.context,
        max_running_requests=wishes.max_running_requests or per_rank * ranks,
        chunked_prefill_size=chunk,
        page_size=_page(wishes),
        graph_batch=wishes.graph_batch or min(per_rank, RUNNING_PER_RANK[0]),
        dispatch_tokens=wishes.dispatch_tokens,
    )


def _hold(wishes: Wishes, layout: Layout, limits: Limits) -> Held:
    held = hold(
        wishes.model,
        wishes.profile,
        layout,
        limits,
        role=wishes.role,
        fraction=wishes.memory_fraction,
        kv_itemsize=wishes.kv_itemsize,
    )
    if wishes.kv_token_cap is None or held.kv_tokens <= wishes.kv_token_cap:
        return held
    tokens = wishes.kv_token_cap // limits.page_size * limits.page_size
    return Held(replace(held.memory, kv=tokens * held.memory.kv_bytes_per_token), tokens)


def _least_context(wishes: Wishes) -> int:
    """Tokens of one request that a rank must be able to hold."""
    most = min(LEAST_CONTEXT, wishes.model.architecture.context, wishes.kv_token_cap or LEAST_CONTEXT)
    return wishes.context_length or most


def _accept(wishes: Wishes, layout: Layout, nodes: int, limits: Limits, held: Held) -> Candidate | Refusal:
    if wishes.memory_fraction is not None and (problem := _fraction_problem(held.memory)) is not None:
        return problem
    if wishes.context_length is None:
        context = min(limits.context_length, _whole_kib(held.kv_tokens))
        limits = replace(limits, context_length=context)
    return Candidate(
        layout,
        nodes,
        limits,
        held.memory,
        held.kv_tokens,
        estimate(
            wishes.model,
            wishes.profile,
            layout,
            nodes,
            limits,
            held.kv_tokens,
            wishes.load,
            role=wishes.role,
            kv_itemsize=wishes.kv_itemsize,
        ),
    )


def _fraction_problem(memory: Memory) -> Refusal | None:
    """A fixed fraction must leave what is certain to be needed; allowances may be overdrawn at the user's risk."""
    certain = sum(part.bytes for part in memory.slack if "allowance" not in part.name)
    if memory.slack_bytes >= certain:
        return None
    return Refusal(
        FRACTION,
        f"{memory.fraction:.0%} of {gib(memory.usable)} leaves {gib(memory.slack_bytes)} outside weights and KV cache, "
        f"and {_sum_of([(p.name, p.bytes) for p in memory.slack if 'allowance' not in p.name])} are needed there",
        f"set at most {int(100 - 100 * memory.slack_needed / memory.usable)}",
    )


def _does_not_fit(wishes: Wishes, layout: Layout, held: Held) -> Refusal:
    memory, wanted, cap = held.memory, _least_context(wishes), wishes.kv_token_cap
    if cap is not None and held.kv_tokens == cap // _page(wishes) * _page(wishes):
        return Refusal(ARGS, f"{KV_CAP} {cap} holds no request of {wanted} tokens", f"set at least {wanted}")
    need = wanted * memory.kv_bytes_per_token
    parts = [("weights", memory.weight_bytes)]
    if memory.draft_bytes:
        parts.append(("MTP draft", memory.draft_bytes))
    parts.append((f"KV of one {wanted}-token request", need))
    slack = max(memory.slack_needed, memory.slack_bytes) if wishes.memory_fraction is None else memory.slack_bytes
    parts.append(("activations, graphs and buffers", slack))
    if wishes.memory_fraction is not None:
        field = FRACTION
    elif wishes.context_length is not None and held.kv_tokens >= LEAST_CONTEXT:
        field = CONTEXT
    else:
        field = HARDWARE
    return Refusal(
        field,
        f"{layout.describe()} on {wishes.profile.name} needs {_sum_of(parts)} per GPU, more than the "
        f"{gib(memory.usable)} usable",
        _smaller(wishes, memory, held),
    )


def _smaller(wishes: Wishes, memory: Memory, held: Held) -> str:
    static = memory.weight_bytes + memory.draft_bytes
    if wishes.memory_fraction is not None and static + memory.slack_needed < memory.usable:
        least = -(-100 * (static + LEAST_CONTEXT * memory.kv_bytes_per_token) // memory.usable)
        most = int(100 - 100 * memory.slack_needed / memory.usable)
        if least <= most:
            return f"set between {least} and {most}, or leave it out"
    if wishes.context_length is not None and held.kv_tokens >= LEAST_CONTEXT:
        return f"set at most {held.kv_tokens}"
    return "use more nodes, GPUs with more memory, or a smaller quantization"


def _sum_of(parts: list[tuple[str, int]]) -> str:
    return " + ".join(f"{name} {gib(size)}" for name, size in parts) + f" = {gib(sum(size for _, size in parts))}"


def _on_processor_cores(wishes: Wishes, layout: Layout, nodes: int) -> Candidate | Refusal:
    """For trying out: SGLang's CPU mode takes its KV size from --max-total-tokens; nothing is estimated."""
    limits = _limits(wishes, layout, CPU_RUNNING)
    tokens = wishes.kv_token_cap or CPU_MAX_TOTAL_TOKENS
    limits = Limits(
        context_length=min(limits.context_length, tokens),
        max_running_requests=wishes.max_running_requests or CPU_RUNNING * layout.attention_dp,
        chunked_prefill_size=limits.chunked_prefill_size,
        page_size=1,
        graph_batch=0,
    )
    if wishes.context_length is not None and wishes.context_length > tokens:
        return Refusal(
            CONTEXT,
            f"{wishes.context_length} tokens do not fit the {tokens} that CPU mode caches",
            f"set at most {tokens}",
        )
    fraction = wishes.memory_fraction or CPU_FRACTION
    held = hold(wishes.model, wishes.profile, layout, limits, fraction=fraction, kv_itemsize=wishes.kv_itemsize)
    memory = replace(held.memory, kv=tokens * held.memory.kv_bytes_per_token)
    needed, usable = memory.weight_bytes + memory.kv, wishes.profile.usable_memory_mib * MIB
    if needed > usable:
        return Refusal(
            HARDWARE,
            f"{wishes.model.name} needs {gib(needed)} per rank, more than the {gib(usable)} of {wishes.profile.name}",
            "CPU mode is for trying out: use the model r1-operator/tiny-r1, or GPUs",
        )
    return Candidate(layout, nodes, limits, memory, tokens, None)
