"""Rules across fields, each written once: as CEL for the API server and as a predicate for Python, with one message.

`crd.py` puts the CEL into the schema, `parse.py` runs the predicates; tests send the same inputs through both. A rule
belongs to a type of the API and is checked wherever that type occurs. The API server never refuses a change of a field
that was valid when created: nothing is immutable, because a changed layout is rolled replica by replica.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic.fields import FieldInfo

from .engine_rules import ENGINE_RULES
from .fields import ApiModel, camel
from .overlay import map_key
from .pod_rules import POD_RULES
from .rule import Problem, Rule
from .spec_rules import SPEC_RULES

RULES: tuple[Rule, ...] = (*SPEC_RULES, *ENGINE_RULES, *POD_RULES)


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
    key = map_key(info)
    if key is None:
        return
    seen: set[object] = set()
    for index, item in enumerate(items):
        value = getattr(item, key)
        if value in seen:
            yield Problem(f"{path}[{index}]", f"duplicate value: {camel(key)} {value}", "give each one once")
        seen.add(value)


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
