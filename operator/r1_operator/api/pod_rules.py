"""Rules across fields of what users say of the pods: what the operator relies on is not theirs to take."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from .engine import EngineResources
from .fields import ApiModel
from .gateway import GatewayResources
from .names import (
    CONTAINER_ENGINE,
    GROUP,
    RESERVED_ENV,
    RESERVED_LABELS,
    RESERVED_MOUNTS,
    RESERVED_VOLUMES,
    SHARED_MOUNTS,
)
from .pod_template import (
    Capabilities,
    ContainerResources,
    EmptyDirVolume,
    EnvVar,
    EnvVarSource,
    HostPathVolume,
    InitContainer,
    PodMetadata,
    Toleration,
    Volume,
    VolumeMount,
)
from .rule import Rule, cel_list, if_set

QUANTITY_PATTERN = "^[0-9]+([.][0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
QUANTITY_REMEDY = "write a number, if need be with a unit of Kubernetes and without a space: 8, 500m or 64Gi"
KEY_PATTERN = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
_OUR_PREFIX = f"{GROUP}/"
_OF_EVERY_POD = ("cpu", "memory", "ephemeral-storage")


def quantity_rule(scope: type[ApiModel], field: str, value: Callable[..., str | None]) -> Rule:
    """The form of one quantity: the API server ignores `pattern` where an integer is allowed, too."""
    return Rule(
        scope=scope,
        field=field,
        cel=if_set(field, then=f"string(self.{field}).matches('{QUANTITY_PATTERN}')"),
        holds=lambda r: (text := value(r)) is None or is_quantity(text),
        message=f"{field} is not a quantity",
        remedy=QUANTITY_REMEDY,
    )


def is_quantity(text: str) -> bool:
    """Whether this is a quantity as the API takes it."""
    return re.fullmatch(QUANTITY_PATTERN, text) is not None


def _one_of(scope: type[ApiModel], what: str, *fields: str) -> Rule:
    """Exactly one of these optional fields."""
    snake = [re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", field) for field in fields]
    return Rule(
        scope=scope,
        cel=f"[{', '.join(f'has(self.{field})' for field in fields)}].filter(given, given).size() == 1",
        holds=lambda obj: sum(getattr(obj, name) is not None for name in snake) == 1,
        message=f"{what} needs exactly one source",
        remedy=f"set one of {', '.join(fields)}",
    )


def _map_rule(
    scope: type[ApiModel], field: str, each: str, holds: Callable[[str, str], bool], message: str, remedy: str
) -> Rule:
    """What holds for each key `key` of a map, with its value `self.<field>[key]`."""
    return Rule(
        scope=scope,
        field=field,
        cel=if_set(field, then=f"self.{field}.all(key, {each})"),
        holds=lambda obj: all(holds(key, str(value)) for key, value in _entries(obj, field).items()),
        message=message,
        remedy=remedy,
    )


def _entries(obj: ApiModel, field: str) -> Mapping[str, str]:
    found = getattr(obj, field)
    assert isinstance(found, dict)
    return found


def _apart(path: str) -> bool:
    """Whether a mount at this path leaves the operator's own alone."""
    below = any(path == ours or path.startswith(f"{ours}/") for ours in RESERVED_MOUNTS)
    return not below and path not in SHARED_MOUNTS


def _limited(key: str) -> bool:
    return "/" in key or key.startswith("hugepages-") or key == "ephemeral-storage"


def _amount(key: str, value: str) -> bool:
    return value.isdecimal() if "/" in key else is_quantity(value)


_SAID_ONCE = (
    "self.requests.all(key, !(has(self.limits) && key in self.limits) && !(key == 'cpu' && has(self.cpu))"
    " && !(key == 'memory' && has(self.memory)))"
)


def _said_once(resources: EngineResources) -> bool:
    said = {*resources.limits}
    said |= {key for key, text in (("cpu", resources.cpu), ("memory", resources.memory)) if text is not None}
    return not said & set(resources.requests)


def _amounts_rules(scope: type[ApiModel], field: str, whose: str) -> tuple[Rule, ...]:
    """Amounts of what every pod uses."""
    return (
        _map_rule(
            scope,
            field,
            f"key in {cel_list(_OF_EVERY_POD)}",
            lambda key, _: key in _OF_EVERY_POD,
            f"{field} of {whose} takes {', '.join(_OF_EVERY_POD)} only",
            "remove what is not among them",
        ),
        _quantities_rule(scope, field, whose),
    )


def _quantities_rule(scope: type[ApiModel], field: str, whose: str) -> Rule:
    return _map_rule(
        scope,
        field,
        f"string(self.{field}[key]).matches('{QUANTITY_PATTERN}')",
        lambda _, value: is_quantity(value),
        f"a value of {field} of {whose} is not a quantity",
        QUANTITY_REMEDY,
    )


def _keys_rules(field: str) -> tuple[Rule, ...]:
    """Keys of labels and annotations."""
    return (
        _map_rule(
            PodMetadata,
            field,
            f"key.matches('{KEY_PATTERN}')",
            lambda key, _: re.fullmatch(KEY_PATTERN, key) is not None,
            f"a key of {field} is not one that Kubernetes takes",
            "write letters, digits, '-', '_' and '.', if need be after a domain and a '/'",
        ),
        _map_rule(
            PodMetadata,
            field,
            f"!key.startsWith('{_OUR_PREFIX}') && !(key in {cel_list(RESERVED_LABELS)})",
            lambda key, _: not key.startswith(_OUR_PREFIX) and key not in RESERVED_LABELS,
            f"a key of {field} is the operator's own",
            f"remove it: {', '.join(RESERVED_LABELS)} and all below {_OUR_PREFIX} tell whose pod it is",
        ),
    )


POD_RULES: tuple[Rule, ...] = (
    Rule(
        scope=EnvVar,
        field="name",
        cel=f"!(self.name in {cel_list(RESERVED_ENV)})",
        holds=lambda variable: variable.name not in RESERVED_ENV,
        message="the operator sets this variable itself",
        remedy="remove it",
    ),
    Rule(
        scope=EnvVar,
        field="valueFrom",
        cel=if_set("valueFrom", "value", then="self.value == ''"),
        holds=lambda variable: variable.value_from is None or not variable.value,
        message="value and valueFrom exclude each other",
        remedy="remove one",
    ),
    _one_of(EnvVarSource, "valueFrom", "fieldRef", "configMapKeyRef", "secretKeyRef"),
    Rule(
        scope=Toleration,
        field="operator",
        cel="has(self.key) || (has(self.operator) && self.operator == 'Exists')",
        holds=lambda t: t.key is not None or t.operator == "Exists",
        message="a toleration without a key tolerates every taint and needs operator Exists",
        remedy="name the key, or set operator to Exists",
    ),
    Rule(
        scope=Toleration,
        field="value",
        cel=if_set("value", "operator", then="self.operator != 'Exists' || self.value == ''"),
        holds=lambda t: t.operator != "Exists" or not t.value,
        message="operator Exists compares no value",
        remedy="remove value, or set operator to Equal",
    ),
    Rule(
        scope=Toleration,
        field="tolerationSeconds",
        cel=if_set("tolerationSeconds", then="has(self.effect) && self.effect == 'NoExecute'"),
        holds=lambda t: t.toleration_seconds is None or t.effect == "NoExecute",
        message="tolerationSeconds is for effect NoExecute only",
        remedy="set effect to NoExecute, or remove tolerationSeconds",
    ),
    _one_of(Volume, "a volume", "hostPath", "persistentVolumeClaim", "configMap", "secret", "emptyDir"),
    Rule(
        scope=Volume,
        field="name",
        cel=f"!(self.name in {cel_list(RESERVED_VOLUMES)})",
        holds=lambda volume: volume.name not in RESERVED_VOLUMES,
        message="the operator has a volume of this name",
        remedy=f"choose another than {', '.join(RESERVED_VOLUMES)}",
    ),
    Rule(
        scope=HostPathVolume,
        field="path",
        cel="self.path.startsWith('/') && !('..' in self.path.split('/'))",
        holds=lambda v: v.path.startswith("/") and ".." not in v.path.split("/"),
        message="path is not an absolute path",
        remedy="begin it with '/' and leave out '..'",
    ),
    quantity_rule(EmptyDirVolume, "sizeLimit", lambda v: v.size_limit),
    Rule(
        scope=VolumeMount,
        field="mountPath",
        cel="self.mountPath.startsWith('/') && !self.mountPath.endsWith('/') && !self.mountPath.contains(':')"
        " && !self.mountPath.split('/').exists(part, part in ['.', '..']) && !self.mountPath.contains('//')",
        holds=lambda m: re.fullmatch(r"(/[^/:]+)+", m.mount_path) is not None and _plain(m.mount_path),
        message="mountPath is not a plain absolute path",
        remedy="begin it with '/', end it without, and leave out ':', '.' and '..'",
    ),
    Rule(
        scope=VolumeMount,
        field="mountPath",
        cel=f"!{cel_list(RESERVED_MOUNTS)}.exists(ours, self.mountPath == ours || "
        "self.mountPath.startsWith(ours + '/'))"
        f" && !(self.mountPath in {cel_list(SHARED_MOUNTS)})",
        holds=lambda m: _apart(m.mount_path),
        message="the operator mounts something of its own there",
        remedy=f"choose a path that is not below {', '.join(RESERVED_MOUNTS)} and none of {', '.join(SHARED_MOUNTS)}",
    ),
    Rule(
        scope=VolumeMount,
        field="subPath",
        cel=if_set("subPath", then="(!self.subPath.startsWith('/') && !('..' in self.subPath.split('/')))"),
        holds=lambda m: m.sub_path is None or not (m.sub_path.startswith("/") or ".." in m.sub_path.split("/")),
        message="subPath leaves the volume",
        remedy="give a path relative to the volume's root, without '..'",
    ),
    Rule(
        scope=Capabilities,
        each="add",
        cel="self.matches('^[A-Z][A-Z0-9_]*$') && !self.startsWith('CAP_')",
        holds=lambda name: re.fullmatch("[A-Z][A-Z0-9_]*", name) is not None and not name.startswith("CAP_"),
        message="this is not a capability as Kubernetes spells it",
        remedy="write it in capitals and without CAP_, e.g. SYS_NICE",
    ),
    Rule(
        scope=InitContainer,
        field="name",
        cel=f"self.name != '{CONTAINER_ENGINE}'",
        holds=lambda container: container.name != CONTAINER_ENGINE,
        message="the engine's container has this name",
        remedy="choose another",
    ),
    _quantities_rule(ContainerResources, "requests", "a container"),
    _quantities_rule(ContainerResources, "limits", "a container"),
    *_keys_rules("labels"),
    *_keys_rules("annotations"),
    _map_rule(
        EngineResources,
        "limits",
        "key.contains('/') || key.startsWith('hugepages-') || key == 'ephemeral-storage'",
        lambda key, _: _limited(key),
        "limits takes extended resources, huge pages and ephemeral-storage only",
        "write an extended resource with its domain, e.g. rdma/ib; cpu and memory have fields of their own",
    ),
    _map_rule(
        EngineResources,
        "limits",
        "key.contains('/') ? string(self.limits[key]).matches('^[0-9]+$')"
        f" : string(self.limits[key]).matches('{QUANTITY_PATTERN}')",
        _amount,
        "an amount of limits is not one",
        "write a whole number for an extended resource, a quantity like 512Mi for huge pages",
    ),
    Rule(
        scope=EngineResources,
        field="requests",
        cel=if_set("requests", then=_SAID_ONCE),
        holds=_said_once,
        message="requests says again what is a limit, too",
        remedy="say it in one place: cpu and memory are request and limit, as is all of limits",
    ),
    *_amounts_rules(EngineResources, "requests", "the engine"),
    *_amounts_rules(GatewayResources, "requests", "the gateway"),
    *_amounts_rules(GatewayResources, "limits", "the gateway"),
)


def _plain(path: str) -> bool:
    return not {".", ".."} & set(path.split("/"))
