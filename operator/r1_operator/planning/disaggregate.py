"""Prefill and decode in groups of their own: shapes of each, and how many of one the other keeps busy."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .make import plan_wishes
from .plan import Plan, Reason, Refusal
from .wishes import Wishes

MOST_GROUPS = 16
# How far the chosen counts may leave one side idle before a bigger pair is taken.
BALANCE_MARGIN = 0.10


@dataclass(frozen=True, slots=True)
class Disaggregated:
    """`prefill_groups` replicas of one plan feed `decode_groups` of the other. Rates are requests/s of the whole."""

    prefill: Plan
    decode: Plan
    prefill_groups: int
    decode_groups: int
    requests_per_second: float
    reasons: tuple[Reason, ...]

    @property
    def nodes(self) -> int:
        return self.prefill_groups * self.prefill.nodes_per_replica + self.decode_groups * self.decode.nodes_per_replica


def split(wishes: Wishes) -> Disaggregated | Refusal:
    """The two plans and their counts for the load's mix of input and output tokens.

    What the user fixed about the layout holds for both sides.
    """
    if wishes.profile.device == "Cpu":
        return Refusal(
            "spec.hardware",
            "CPU mode has no performance model to balance prefill and decode with",
            "give a GPU profile, or plan without --disaggregated",
        )
    prefill = plan_wishes(replace(wishes, role="Prefill", goal="Throughput", draft=False))
    if isinstance(prefill, Refusal):
        return prefill
    decode = plan_wishes(replace(wishes, role="Decode", goal="SLO" if wishes.goal == "SLO" else "Throughput"))
    if isinstance(decode, Refusal):
        return decode
    assert prefill.estimate is not None
    assert decode.estimate is not None
    per_prefill = prefill.estimate.tokens_per_second / wishes.load.input_tokens
    per_decode = decode.estimate.tokens_per_second / wishes.load.output_tokens
    groups = balance(per_prefill, per_decode)
    ratio = per_decode / per_prefill
    reason = Reason(
        "prefill : decode groups",
        f"{groups[0]} : {groups[1]}",
        f"{wishes.load.input_tokens} tokens in and {wishes.load.output_tokens} out: a prefill group feeds "
        f"{per_prefill:.2f} requests/s, a decode group takes {per_decode:.2f}, which asks for {ratio:.2f} : 1",
    )
    rate = min(groups[0] * per_prefill, groups[1] * per_decode)
    return Disaggregated(prefill, decode, *groups, rate, (reason,))


def balance(per_prefill: float, per_decode: float) -> tuple[int, int]:
    """The smallest counts (prefill, decode) that leave neither side idle beyond the margin, or the best up to 16."""

    def idle(pair: tuple[int, int]) -> float:
        made, taken = pair[0] * per_prefill, pair[1] * per_decode
        return 1 - min(made, taken) / max(made, taken)

    pairs = sorted(
        ((p, d) for p in range(1, MOST_GROUPS + 1) for d in range(1, MOST_GROUPS + 1)),
        key=lambda pair: (sum(pair), idle(pair)),
    )
    return next((pair for pair in pairs if idle(pair) <= BALANCE_MARGIN), min(pairs, key=idle))
