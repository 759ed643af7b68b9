"""Rules across fields of `spec.engine`."""

from __future__ import annotations

from .engine import Engine, EngineCache, EngineResources
from .names import ENGINE_OWNED_FLAGS, PLAN_OWNED_FLAGS
from .pod_rules import quantity_rule
from .rule import Rule, cel_list


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
        scope=EngineCache,
        cel="has(self.persistentVolumeClaim) != has(self.hostPath)",
        holds=lambda c: (c.persistent_volume_claim is None) != (c.host_path is None),
        message="exactly one place for the cache is needed",
        remedy="set either hostPath or persistentVolumeClaim",
    ),
    quantity_rule(EngineResources, "cpu", lambda r: r.cpu),
    quantity_rule(EngineResources, "memory", lambda r: r.memory),
    quantity_rule(EngineResources, "sharedMemory", lambda r: r.shared_memory),
)
