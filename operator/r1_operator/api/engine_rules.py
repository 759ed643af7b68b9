"""Rules across fields of `spec.engine`."""

from __future__ import annotations

import re
from collections.abc import Callable

from .engine import Engine, EngineResources, EnvVar
from .names import ENGINE_OWNED_FLAGS, PLAN_OWNED_FLAGS, RESERVED_ENV
from .rule import Rule, cel_list, if_set

QUANTITY_PATTERN = "^[0-9]+([.][0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"


def _quantity_rule(field: str, value: Callable[[EngineResources], str | None]) -> Rule:
    return Rule(
        scope=EngineResources,
        field=field,
        cel=if_set(field, then=f"string(self.{field}).matches('{QUANTITY_PATTERN}')"),
        holds=lambda r: (text := value(r)) is None or re.fullmatch(QUANTITY_PATTERN, text) is not None,
        message=f"{field} is not a quantity",
        remedy="write a number, if need be with a unit of Kubernetes and without a space: 8, 500m or 64Gi",
    )


def _flag(argument: str) -> str:
    """`--port=1` → `--port`."""
    return argument.split("=", 1)[0]


ENGINE_RULES: tuple[Rule, ...] = (
    Rule(
        scope=Engine,
        each="args",
        cel=f"!(self.split('=')[0] in {cel_list(ENGINE_OWNED_FLAGS)})",
        holds=lambda argument: _flag(argument) not in ENGINE_OWNED_FLAGS,
        message="the operator sets this argument itself",
        remedy="remove it; the served name is spec.model.servedName, the key spec.gateway.apiKeySecret",
    ),
    Rule(
        scope=Engine,
        each="args",
        cel=f"!(self.split('=')[0] in {cel_list(PLAN_OWNED_FLAGS)})",
        holds=lambda argument: _flag(argument) not in PLAN_OWNED_FLAGS,
        message="this argument is planned, and as free text it would escape the memory check",
        remedy="set the field of spec.topology or spec.limits instead",
    ),
    Rule(
        scope=EnvVar,
        field="name",
        cel=f"!(self.name in {cel_list(RESERVED_ENV)})",
        holds=lambda variable: variable.name not in RESERVED_ENV,
        message="the operator sets this variable itself",
        remedy="remove it",
    ),
    _quantity_rule("cpu", lambda r: r.cpu),
    _quantity_rule("memory", lambda r: r.memory),
    _quantity_rule("sharedMemory", lambda r: r.shared_memory),
)
