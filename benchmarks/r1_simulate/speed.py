"""How fast a simulated replica is: the planner's own roofline as a table over the batch, and what it can carry."""

from __future__ import annotations

from dataclasses import dataclass, replace

from r1_operator.planning.hardware import Hardware
from r1_operator.planning.model import Model
from r1_operator.planning.performance import MTP_TOKENS_PER_STEP, decode_step, machine, prefill_step
from r1_operator.planning.plan import Plan
from r1_operator.planning.weights import BF16

_KV_READ_TOKENS = 1024.0
"""Context at which the table is made; the share of longer ones is linear in their tokens."""


@dataclass(frozen=True, slots=True)
class Speed:
    """One replica. `step_seconds[n]`: a decode step of n running requests that hold no KV; each resident token adds
    `step_seconds_per_token`. A prefill batch of up to `chunk_tokens` prompt tokens takes `prefill_seconds` and
    `prefill_seconds_per_token`, and meanwhile nothing is decoded, as SGLang does it without mixed chunks."""

    step_seconds: tuple[float, ...]
    step_seconds_per_token: float
    tokens_per_step: float
    prefill_seconds: float
    prefill_seconds_per_token: float
    chunk_tokens: int
    kv_tokens: int

    @property
    def max_running(self) -> int:
        return len(self.step_seconds) - 1

    def scaled(self, factor: float) -> Speed:
        """A replica that is so many times as fast, with the same memory."""
        return replace(
            self,
            step_seconds=tuple(s / factor for s in self.step_seconds),
            step_seconds_per_token=self.step_seconds_per_token / factor,
            prefill_seconds=self.prefill_seconds / factor,
            prefill_seconds_per_token=self.prefill_seconds_per_token / factor,
        )


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a replica carries of one kind of request for long, within a time per output token."""

    requests_per_second: float
    running: float
    tokens_per_second: float
    tpot_seconds: float


def speed_of(plan: Plan, model: Model, profile: Hardware) -> Speed:
    """The planner's estimate of a plan, as the simulator runs it."""
    gpu, layout = machine(profile, model.quantization, plan.nodes_per_replica), plan.layout
    most = plan.limits.max_running_requests
    batch = max(1, most // layout.copies)
    steps = [decode_step(model, gpu, layout, max(1.0, n / layout.copies), 0.0, BF16).seconds for n in range(most + 1)]
    with_kv = decode_step(model, gpu, layout, batch, _KV_READ_TOKENS, BF16).seconds
    chunk = plan.limits.chunked_prefill_size
    full, half = (prefill_step(model, gpu, layout, n, _KV_READ_TOKENS).seconds for n in (chunk, chunk / 2))
    per_token = (full - half) / (chunk / 2)
    return Speed(
        step_seconds=tuple(steps),
        step_seconds_per_token=(with_kv - steps[most]) / (batch * _KV_READ_TOKENS) / layout.copies,
        tokens_per_step=MTP_TOKENS_PER_STEP if layout.draft else 1.0,
        prefill_seconds=full - per_token * chunk,
        prefill_seconds_per_token=per_token,
        chunk_tokens=chunk,
        kv_tokens=plan.kv_tokens_per_rank * layout.attention_dp * layout.copies,
    )


def capacity(speed: Speed, input_tokens: float, output_tokens: float, tpot_seconds: float) -> Capacity:
    """The most of such requests a second of which each token comes within `tpot_seconds`, prefill's pauses included."""
    resident = input_tokens + output_tokens / 2
    most = min(speed.max_running, int(speed.kv_tokens / resident))
    best = Capacity(0.0, 0.0, 0.0, 0.0)
    batches = max(1.0, speed.chunk_tokens / max(1.0, input_tokens))
    prefill = input_tokens * speed.prefill_seconds_per_token + speed.prefill_seconds / batches
    for n in range(1, most + 1):
        step = speed.step_seconds[n] + n * resident * speed.step_seconds_per_token
        decode = output_tokens * step / speed.tokens_per_step / n
        tpot = n * (prefill + decode) / output_tokens
        if tpot <= tpot_seconds and 1 / (prefill + decode) > best.requests_per_second:
            best = Capacity(1 / (prefill + decode), n, output_tokens / (prefill + decode), tpot)
    return best
