"""What the user fixed, in the planner's own terms: one flat frozen value, whether it came from a resource or flags."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from .engine_args import SGLANG_VERSION
from .hardware import Hardware
from .layout import AllToAll
from .model import Model
from .plan import Role

Goal = Literal["Throughput", "Latency", "SLO"]


@dataclass(frozen=True, slots=True)
class Load:
    """The requests a plan is judged by, in tokens. Defaults: the mean of the R1 API traffic that ServeGen published."""

    input_tokens: int = 1500
    output_tokens: int = 1500

    @property
    def resident_tokens(self) -> int:
        """KV tokens of one running request, on average over its life: the prompt and half of the answer."""
        return self.input_tokens + self.output_tokens // 2


@dataclass(frozen=True, slots=True)
class Slo:
    """Latency promises in milliseconds; None = not promised."""

    ttft_ms: int | None = None
    tpot_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Wishes:
    """None means: the planner chooses."""

    model: Model
    profile: Hardware
    goal: Goal = "Throughput"
    slo: Slo = Slo()
    load: Load = Load()
    role: Role = "Aggregated"
    nodes: int | None = None
    cluster_nodes: int | None = None  # nodes of this hardware that there are; told by who asks, never looked up
    tensor_parallel: int | None = None
    attention_dp: int | None = None
    expert_parallel: int | None = None
    redundant_experts: int | None = None
    all_to_all: AllToAll | None = None
    draft: bool | None = None
    context_length: int | None = None
    max_running_requests: int | None = None
    memory_fraction: float | None = None
    chunked_prefill_size: int | None = None
    kv_itemsize: int = 2  # bytes: 2 bfloat16, 1 fp8_e4m3
    kv_token_cap: int | None = None  # most tokens of a rank's KV cache
    graph_batch: int | None = None  # largest decode batch of a rank that gets a CUDA graph
    dispatch_tokens: int | None = None  # DeepEP's limit of tokens per rank and decode step (spec.engine.env)
    over_tcp: bool = False  # there is no RDMA between the nodes, on purpose (spec.engine.fabric.transport)
    extra_args: tuple[str, ...] = ()
    sglang_version: str = SGLANG_VERSION  # one of engine_args.SGLANG_VERSIONS

    def any_layout(self) -> Wishes:
        """The same without what goes with one number of ranks only."""
        return replace(self, tensor_parallel=None, attention_dp=None, expert_parallel=None, redundant_experts=None)
