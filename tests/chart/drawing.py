"""Drawn resources for property tests: near GOOD, mostly right field by field, now and then wrong."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from r1_operator.api.crd import custom_resource_definition

from tests.chart.cases import GOOD

SCHEMA = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

# Words that mean something somewhere, and some that mean nothing anywhere.
WORDS = [
    "H100x8",
    "/data",
    "/models/x",
    "/dev/shm",
    "models",
    "SYS_NICE",
    "CAP_X",
    "data/r1",
    "a/../b",
    "..",
    "A",
    "POD_IP",
    "--port",
    "--tp=2",
    "--log-level",
    "r1-weights",
    "8Gi",
    "500m",
    "Ä",
]

# Of labels, annotations and resources.
KEYS = ["a", "rdma/ib", "cpu", "r1operator.dev/gang", "app.kubernetes.io/instance", "a b", "hugepages-2Mi"]


def rarely(good: st.SearchStrategy[Any], bad: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly good: one wrong field hides all the rules from the test."""
    return st.integers(0, 19).flatmap(lambda roll: bad if roll == 19 else good)


def integers(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    low, high = schema.get("minimum", 0), schema.get("maximum", 1000)
    inside = st.one_of(st.integers(low, min(high, low + 8)), st.sampled_from([low, high]))
    return rarely(inside, st.sampled_from([low - 1, high + 1, str(low), True, 1.5]))


def strings(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "enum" in schema:
        return rarely(st.sampled_from(schema["enum"]), st.just("none"))
    return rarely(st.sampled_from(WORDS), st.sampled_from(["", 5, "x" * 254]))


def objects(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    properties = {name: values(prop) for name, prop in schema["properties"].items()}
    required = set(schema.get("required", ()))
    whole = st.fixed_dictionaries(
        {name: properties[name] for name in required},
        optional={name: value for name, value in properties.items() if name not in required},
    )
    holed = st.fixed_dictionaries({}, optional=properties | {"unknown": st.just(1)})
    return rarely(whole, holed)


def words(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a map."""
    inner = schema["additionalProperties"]
    return values(inner) if inner.get("x-kubernetes-int-or-string") else strings(inner)


def values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if schema.get("x-kubernetes-int-or-string"):
        return rarely(st.sampled_from([-1, 0, 8, "8Gi", "500m", "1.5", "8 Gi"]), st.sampled_from(["", True, 1.5]))
    kinds = {
        "boolean": lambda _: rarely(st.booleans(), st.just("yes")),
        "integer": integers,
        "string": strings,
        "array": lambda s: st.lists(values(s["items"]), max_size=3),
        "object": lambda s: (
            objects(s) if "properties" in s else st.dictionaries(st.sampled_from(KEYS), words(s), max_size=2)
        ),
    }
    made = kinds[schema["type"]](schema)
    return rarely(made, st.none())


def resources() -> st.SearchStrategy[dict[str, Any]]:
    """GOOD with some of its spec's fields drawn anew: a spec drawn whole is nearly always bad in ten places."""
    drawn = {name: values(prop) for name, prop in SCHEMA["properties"]["spec"]["properties"].items()}
    changes = st.lists(st.sampled_from(sorted(drawn)), min_size=1, max_size=2, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries({name: drawn[name] for name in chosen})
    )
    return changes.map(lambda change: GOOD | {"spec": GOOD["spec"] | change})
