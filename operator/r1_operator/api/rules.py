"""Rules across fields, each written once: as CEL for the API server and as a predicate for Python, with one message.

`crd.py` puts the CEL into the schema, `parse.py` runs the predicates; tests send the same inputs through both. A rule
belongs to a type of the API and is checked wherever that type occurs. The API server never refuses a change of a field
that was valid when created: nothing is immutable, because a changed layout is rolled replica by replica.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from .fields import ApiModel
from .hardware import HardwareProfile
from .names import ENGINE_OWNED_FLAGS, MAX_NAME_LENGTH, NAME_PATTERN, PLAN_OWNED_FLAGS, RESERVED_ENV
from .spec import (
    Autoscaling,
    Engine,
    EngineResources,
    EnvVar,
    HostPathWeights,
    PersistentVolumeClaimWeights,
    R1DeploymentSpec,
    Slo,
    Startup,
    Topology,
    Weights,
)
from .types import R1Deployment

QUANTITY_PATTERN = "^[0-9]+([.][0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule. `self` in the CEL and the predicate's argument are the same value: an object of `scope`, or with
    `each` one item of that list field of it."""

    scope: type[ApiModel]
    cel: str
    holds: Callable[[Any], bool]
    message: str
    remedy: str
    field: str = ""
    """camelCase field of the scope that is at fault; empty = the object itself."""
    each: str = ""

    @property
    def text(self) -> str:
        """What the API server prints."""
        return f"{self.message}; {self.remedy}"


@dataclass(frozen=True)
class Problem:
    """What is wrong with an input, where, and what to do."""

    field: str
    message: str
    remedy: str
    location: tuple[int | str, ...] = ()
    """Of a field that is not known at all: the way to it, so that it can be left out."""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}; {self.remedy}"


def _if_set(*fields: str, then: str) -> str:
    """CEL that holds where one of the optional fields is absent, and otherwise says `then`."""
    return " || ".join([*(f"!has(self.{field})" for field in fields), then])


def _cel_list(values: tuple[str, ...]) -> str:
    return "[" + ", ".join(f"'{value}'" for value in values) + "]"


def _multiple(value: int | None, divisor: int | None) -> bool:
    return value is None or divisor is None or value % divisor == 0


def _quantity_rule(field: str, value: Callable[[EngineResources], str | None]) -> Rule:
    return Rule(
        scope=EngineResources,
        field=field,
        cel=_if_set(field, then=f"string(self.{field}).matches('{QUANTITY_PATTERN}')"),
        holds=lambda r: (text := value(r)) is None or re.fullmatch(QUANTITY_PATTERN, text) is not None,
        message=f"{field} is not a quantity",
        remedy="write a number, if need be with a unit of Kubernetes and without a space: 8, 500m or 64Gi",
    )


def _flag(argument: str) -> str:
    """`--port=1` → `--port`."""
    return argument.split("=", 1)[0]


def _inside(path: str) -> bool:
    """Whether a relative path stays inside the folder it starts from."""
    return not path.startswith("/") and ".." not in path.split("/")


RULES: tuple[Rule, ...] = (
    Rule(
        scope=R1Deployment,
        field="metadata.name",
        cel=f"size(self.metadata.name) <= {MAX_NAME_LENGTH}",
        holds=lambda r: len(r.metadata.name) <= MAX_NAME_LENGTH,
        message=f"metadata.name is longer than {MAX_NAME_LENGTH} characters",
        remedy="choose a shorter one: names of pods and Services are made from it and Kubernetes allows them 63",
    ),
    Rule(
        scope=R1Deployment,
        field="metadata.name",
        cel=f"self.metadata.name.matches('{NAME_PATTERN}')",
        holds=lambda r: re.fullmatch(NAME_PATTERN, r.metadata.name) is not None,
        message="metadata.name is not a DNS label",
        remedy="use a to z, 0 to 9 and '-', beginning with a letter: it becomes part of host names",
    ),
    Rule(
        scope=Weights,
        cel="has(self.persistentVolumeClaim) != has(self.hostPath)",
        holds=lambda w: (w.persistent_volume_claim is None) != (w.host_path is None),
        message="exactly one weights source is needed",
        remedy="set either persistentVolumeClaim or hostPath",
    ),
    Rule(
        scope=PersistentVolumeClaimWeights,
        field="subPath",
        cel=_if_set("subPath", then="(!self.subPath.startsWith('/') && !('..' in self.subPath.split('/')))"),
        holds=lambda w: _inside(w.sub_path),
        message="subPath leaves the volume",
        remedy="give a path relative to the volume's root, without '..'",
    ),
    Rule(
        scope=HostPathWeights,
        field="path",
        cel="self.path.startsWith('/') && !('..' in self.path.split('/'))",
        holds=lambda w: w.path.startswith("/") and ".." not in w.path.split("/"),
        message="path is not an absolute path",
        remedy="begin it with '/' and leave out '..'",
    ),
    Rule(
        scope=R1DeploymentSpec,
        field="hardwareProfile",
        cel=_if_set("hardwareProfile", then="self.hardwareProfile.name == self.hardware"),
        holds=lambda s: s.hardware_profile is None or s.hardware_profile.name == s.hardware,
        message="hardwareProfile.name differs from hardware",
        remedy="give both the same name, or leave hardwareProfile out to use a profile known by name",
    ),
    Rule(
        scope=R1DeploymentSpec,
        field="slo",
        cel="(has(self.objective) && self.objective == 'SLO') == has(self.slo)",
        holds=lambda s: (s.objective == "SLO") == (s.slo is not None),
        message="slo and objective SLO belong together",
        remedy="set objective to SLO and slo to the promised latencies, or neither",
    ),
    Rule(
        scope=Slo,
        cel="has(self.ttftMilliseconds) || has(self.tpotMilliseconds)",
        holds=lambda s: s.ttft_milliseconds is not None or s.tpot_milliseconds is not None,
        message="slo promises nothing",
        remedy="set ttftMilliseconds, tpotMilliseconds or both",
    ),
    Rule(
        scope=HardwareProfile,
        field="usableMemoryMib",
        cel="self.usableMemoryMib <= self.memoryMib",
        holds=lambda p: p.usable_memory_mib <= p.memory_mib,
        message="usableMemoryMib is more than memoryMib",
        remedy="give the memory that is free before weights are loaded, which is 2 to 6 GiB less than memoryMib",
    ),
    Rule(
        scope=Topology,
        field="tensorParallel",
        cel=_if_set("tensorParallel", "nodesPerReplica", then="self.tensorParallel % self.nodesPerReplica == 0"),
        holds=lambda t: _multiple(t.tensor_parallel, t.nodes_per_replica),
        message="tensorParallel is not a multiple of nodesPerReplica",
        remedy="every node of a replica runs the same number of ranks; change one, or leave one to the planner",
    ),
    Rule(
        scope=Topology,
        field="attentionDataParallel",
        cel=_if_set(
            "tensorParallel", "attentionDataParallel", then="self.tensorParallel % self.attentionDataParallel == 0"
        ),
        holds=lambda t: _multiple(t.tensor_parallel, t.attention_data_parallel),
        message="attentionDataParallel does not divide tensorParallel",
        remedy="change one, or leave one to the planner",
    ),
    Rule(
        scope=Topology,
        field="expertParallel",
        cel=_if_set("tensorParallel", "expertParallel", then="self.tensorParallel % self.expertParallel == 0"),
        holds=lambda t: _multiple(t.tensor_parallel, t.expert_parallel),
        message="expertParallel does not divide tensorParallel",
        remedy="change one, or leave one to the planner",
    ),
    Rule(
        scope=Topology,
        field="moeA2aBackend",
        cel=_if_set(
            "moeA2aBackend",
            "tensorParallel",
            "expertParallel",
            then="self.moeA2aBackend != 'DeepEP' || self.expertParallel == self.tensorParallel",
        ),
        holds=lambda t: (
            t.moe_a2a_backend != "DeepEP"
            or t.tensor_parallel is None
            or t.expert_parallel is None
            or t.expert_parallel == t.tensor_parallel
        ),
        message="DeepEP needs expertParallel equal to tensorParallel",
        remedy="make them equal, leave expertParallel to the planner, or set moeA2aBackend to None",
    ),
    Rule(
        scope=Autoscaling,
        field="minReplicas",
        cel=_if_set("minReplicas", then="self.minReplicas <= self.maxReplicas"),
        holds=lambda a: a.min_replicas <= a.max_replicas,
        message="minReplicas is more than maxReplicas",
        remedy="lower minReplicas or raise maxReplicas",
    ),
    Rule(
        scope=Startup,
        field="stallSeconds",
        cel=_if_set("stallSeconds", "seconds", then="self.stallSeconds <= self.seconds"),
        holds=lambda s: s.stall_seconds is None or s.stall_seconds <= s.seconds,
        message="stallSeconds is more than seconds",
        remedy="raise seconds, which limits the whole start, or lower stallSeconds",
    ),
    Rule(
        scope=Engine,
        each="args",
        cel=f"!(self.split('=')[0] in {_cel_list(ENGINE_OWNED_FLAGS)})",
        holds=lambda argument: _flag(argument) not in ENGINE_OWNED_FLAGS,
        message="the operator sets this argument itself",
        remedy="remove it; the served name is spec.model.servedName, the key spec.gateway.apiKeySecret",
    ),
    Rule(
        scope=Engine,
        each="args",
        cel=f"!(self.split('=')[0] in {_cel_list(PLAN_OWNED_FLAGS)})",
        holds=lambda argument: _flag(argument) not in PLAN_OWNED_FLAGS,
        message="this argument is planned, and as free text it would escape the memory check",
        remedy="set the field of spec.topology or spec.limits instead",
    ),
    Rule(
        scope=EnvVar,
        field="name",
        cel=f"!(self.name in {_cel_list(RESERVED_ENV)})",
        holds=lambda variable: variable.name not in RESERVED_ENV,
        message="the operator sets this variable itself",
        remedy="remove it",
    ),
    _quantity_rule("cpu", lambda r: r.cpu),
    _quantity_rule("memory", lambda r: r.memory),
    _quantity_rule("sharedMemory", lambda r: r.shared_memory),
)


def rules_of(scope: type[ApiModel], each: str = "") -> tuple[Rule, ...]:
    """The rules of one type: of its objects, or with `each` of the items of that list field."""
    return tuple(rule for rule in RULES if rule.scope is scope and rule.each == each)


def broken(model: ApiModel, path: str = "") -> list[Problem]:
    """Every rule that `model` or something inside it breaks, in the order of the fields."""
    return list(_broken(model, path))


def _broken(model: ApiModel, path: str) -> Iterator[Problem]:
    for rule in rules_of(type(model)):
        if not rule.holds(model):
            yield Problem(_join(path, rule.field), rule.message, rule.remedy)
    for name, info in type(model).model_fields.items():
        value, key = getattr(model, name), info.alias or name
        if isinstance(value, ApiModel):
            yield from _broken(value, _join(path, key))
        elif isinstance(value, tuple):
            yield from _duplicates(value, _join(path, key), info)
            yield from _broken_items(model, value, _join(path, key), key)


def _duplicates(items: tuple[object, ...], path: str, info: FieldInfo) -> Iterator[Problem]:
    """Items of a list that is a map for Kubernetes (`env` by `name`) and that share their key."""
    extra = info.json_schema_extra
    keys = extra.get("x-kubernetes-list-map-keys") if isinstance(extra, dict) else None
    if not isinstance(keys, list):
        return
    seen: set[tuple[object, ...]] = set()
    for index, item in enumerate(items):
        key = tuple(getattr(item, str(name)) for name in keys)
        if key in seen:
            shown = ", ".join(f"{name} {value}" for name, value in zip(keys, key, strict=True))
            yield Problem(f"{path}[{index}]", f"duplicate value: {shown}", "give each one once")
        seen.add(key)


def _broken_items(parent: ApiModel, items: tuple[object, ...], path: str, key: str) -> Iterator[Problem]:
    item_rules = rules_of(type(parent), key)
    for index, item in enumerate(items):
        at = f"{path}[{index}]"
        for rule in item_rules:
            if not rule.holds(item):
                yield Problem(at, rule.message, rule.remedy)
        if isinstance(item, ApiModel):
            yield from _broken(item, at)


def _join(path: str, field: str) -> str:
    return f"{path}.{field}" if path and field else path or field
