"""What the status tells of a layout."""

from __future__ import annotations

from ..api.types import PlanStatus
from ..planning.plan import Plan
from .wording import within

_ARGUMENT_BYTES, _ARGUMENTS_BYTES = 4096, 64 * 1024
_REASON_BYTES, _REASONS_BYTES = 1024, 32 * 1024


def plan_status(plan: Plan) -> PlanStatus:
    """The layout of one replica, within what a status has room for."""
    return PlanStatus(
        nodes_per_replica=plan.nodes_per_replica,
        gpus_per_replica=plan.gpus_per_replica,
        tensor_parallel=plan.tensor_parallel,
        attention_data_parallel=plan.attention_data_parallel,
        expert_parallel=plan.expert_parallel,
        kv_tokens_per_replica=plan.kv_tokens_per_replica,
        engine_args=within(plan.engine_args, _ARGUMENT_BYTES, _ARGUMENTS_BYTES),
        reasons=within(map(str, plan.reasons), _REASON_BYTES, _REASONS_BYTES),
    )
