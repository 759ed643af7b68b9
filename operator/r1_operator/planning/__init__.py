"""Planning: a spec and a hardware profile in, a Plan or a Refusal out. Pure: no I/O but its own data files."""

from .hardware import built_in_profiles
from .make import make_plan, plan_wishes, read_wishes, settle
from .plan import Estimate, Limits, Memory, Plan, Reason, Refusal

__all__ = [
    "Estimate",
    "Limits",
    "Memory",
    "Plan",
    "Reason",
    "Refusal",
    "built_in_profiles",
    "make_plan",
    "plan_wishes",
    "read_wishes",
    "settle",
]
