"""What planning answers: a Plan, or a Refusal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .expected import Expected
from .layout import AllToAll, Layout
from .weights import Part

Role = Literal["Aggregated", "Prefill", "Decode"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing can be planned. `field` is the path in the resource, `message` carries the arithmetic."""

    field: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Reason:
    """One choice: what was decided, why in one line, and what it was preferred to."""

    choice: str
    value: str
    because: str
    beat: tuple[str, ...] = ()

    def __str__(self) -> str:
        over = f" (over {', '.join(self.beat)})" if self.beat else ""
        return f"{self.choice} = {self.value}: {self.because}{over}"


@dataclass(frozen=True, slots=True)
class Memory:
    """One GPU's memory, in bytes. `usable` is free before weights; SGLang's static share is `fraction` of it."""

    usable: int
    fraction: float
    weights: tuple[Part, ...]
    draft: tuple[Part, ...]  # while the KV cache is sized
    kv: int
    slack: tuple[Part, ...]  # what the rest of the GPU is for
    kv_bytes_per_token: int

    @property
    def weight_bytes(self) -> int:
        return sum(part.bytes for part in self.weights)

    @property
    def draft_bytes(self) -> int:
        return sum(part.bytes for part in self.draft)

    @property
    def slack_needed(self) -> int:
        return sum(part.bytes for part in self.slack)

    @property
    def slack_bytes(self) -> int:
        """What the static share leaves, in bytes."""
        return self.usable - int(self.usable * self.fraction)


@dataclass(frozen=True, slots=True)
class Limits:
    """Serving limits of one replica."""

    context_length: int  # tokens
    max_running_requests: int  # of the whole replica
    chunked_prefill_size: int  # tokens, of the whole replica: SGLang divides it by the attention DP
    page_size: int  # tokens
    graph_batch: int  # largest decode batch of one attention rank that has a CUDA graph
    dispatch_tokens: int | None = None  # DeepEP's limit per rank and step where the user set it; else as needed


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the roofline model expects of one replica under the stated load. See docs/planning/performance.md."""

    input_tokens: int  # assumed prompt length of a request
    output_tokens: int  # assumed answer length, thought included
    concurrency: int  # requests running at once in the replica
    tokens_per_second: float  # output tokens/s of the replica
    ttft_ms: float
    tpot_ms: float
    bound_by: str


@dataclass(frozen=True, slots=True)
class Size:
    """One replica on a number of nodes, as it would be planned there."""

    nodes: int
    gpus: int
    layout: Layout
    context_length: int  # tokens
    tokens_per_second: float | None  # of the replica; None: not estimated
    tpot_ms: float | None

    @property
    def tokens_per_second_per_gpu(self) -> float | None:
        return None if self.tokens_per_second is None else self.tokens_per_second / self.gpus

    def __str__(self) -> str:
        speed = ""
        if self.tokens_per_second is not None:
            speed = f"{self.tokens_per_second:,.0f} tok/s, {self.tokens_per_second / self.gpus:,.0f} a GPU, "
        if self.tpot_ms:
            speed += f"TPOT {self.tpot_ms:.0f} ms, "
        return f"{speed}context {self.context_length:,}"


@dataclass(frozen=True, slots=True)
class Plan:
    """One replica (or one prefill or decode group of it) in full. Counts are GPUs, sizes are bytes."""

    model: str
    hardware: str
    device: Literal["cuda", "cpu"]
    resource_name: str
    nodes_per_replica: int
    gpus_per_node: int
    layout: Layout
    limits: Limits
    memory: Memory
    kv_tokens_per_rank: int
    sglang_version: str
    engine_args: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    reasons: tuple[Reason, ...]
    estimate: Estimate | None
    expected: Expected
    own_context: int  # tokens: the longest request that could be wished for; limits.context_length may be less
    sizes: tuple[Size, ...] = ()  # the other node counts that were looked at and work, fewest first
    role: Role = "Aggregated"
    network_gbits_per_node: int = 0  # to other nodes, as the estimate reckons with it; 0 = no fabric

    @property
    def needs_rdma(self) -> bool:
        """Whether it cannot run over TCP: DeepEP's NVSHMEM has nothing else between nodes."""
        return self.nodes_per_replica > 1 and self.uses_deepep

    @property
    def uses_deepep(self) -> bool:
        """Whether tokens go to their experts by DeepEP."""
        return self.layout.all_to_all is AllToAll.DEEPEP

    @property
    def cuts_context(self) -> bool:
        """Whether the cache of a rank is too small for the longest request of the model."""
        return self.limits.context_length < self.own_context

    @property
    def smallest(self) -> Size | None:
        """The fewest nodes that hold the model, where the plan takes more."""
        return next((size for size in self.sizes if size.nodes < self.nodes_per_replica), None)

    @property
    def gpus_per_replica(self) -> int:
        return self.nodes_per_replica * self.gpus_per_node

    @property
    def tensor_parallel(self) -> int:
        return self.layout.tensor_parallel

    @property
    def attention_data_parallel(self) -> int:
        return self.layout.attention_dp

    @property
    def expert_parallel(self) -> int:
        return self.layout.expert_parallel

    @property
    def redundant_experts(self) -> int:
        return self.layout.redundant_experts

    @property
    def weight_bytes_per_gpu(self) -> int:
        return self.memory.weight_bytes

    @property
    def kv_ranks(self) -> int:
        """Ranks (or groups of ranks) with KV tokens of their own."""
        return self.layout.attention_dp * self.layout.copies

    @property
    def kv_tokens_per_replica(self) -> int:
        return self.kv_tokens_per_rank * self.kv_ranks

    def requests_at(self, context: int) -> int:
        """Requests of `context` tokens each that the KV cache of one replica holds at once."""
        return self.kv_tokens_per_rank // context * self.kv_ranks
