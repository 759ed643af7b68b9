"""The base model and the constrained field types that the spec, the status and the CRD generator share."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints


def camel(name: str) -> str:
    """`target_kv_usage_percent` → `targetKvUsagePercent`, `moe_a2a_backend` → `moeA2aBackend`."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


class ApiModel(BaseModel):
    """Frozen, camelCase outside, snake_case inside, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=camel, populate_by_name=True)


class OneOf(ApiModel):
    """Exactly one of its fields is given: what is laid over it takes its place whole."""


class ReadModel(ApiModel):
    """As ApiModel, but unknown fields are dropped: what we read back may have been written by another version."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=camel, populate_by_name=True)


def _integer_as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Quantity = Annotated[
    str,
    BeforeValidator(_integer_as_text),
    StringConstraints(min_length=1, max_length=32),
    Field(json_schema_extra={"x-kubernetes-int-or-string": True}),
]
"""A Kubernetes quantity: `8`, `500m`, `64Gi`. A bare integer is taken as text, as Kubernetes does.

Its form is a rule of `rules.py`: the API server ignores `pattern` where an integer is allowed, too."""

ShortText = Annotated[str, StringConstraints(min_length=1, max_length=253)]
LongText = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
ObjectName = Annotated[
    str, StringConstraints(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
]


def model_in(annotation: object) -> type[BaseModel] | None:
    """The model class inside `X`, `X | None` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := model_in(arg)) is not None), None)
