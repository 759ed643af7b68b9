"""One object of the API laid over another of the same type: what the upper one says holds, the rest shows through.

Pure. A field that is absent above is as below; of alternatives (`OneOf`) the upper one is taken; objects and maps are
joined field by field; lists whose items have a key (in the schema, `map_by`) are joined by it; other lists of objects
are strung together without repetition; lists of plain words are taken from above, or from below where above is empty.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic.fields import FieldInfo

from .fields import ApiModel, OneOf, camel

Laid = TypeVar("Laid", bound=ApiModel)


def overlay(below: ApiModel, above: Laid) -> Laid:
    """`above` over `below`, whose type is that of `above` or one of its bases."""
    fields = type(below).model_fields
    joined = {name: _joined(info, getattr(below, name), getattr(above, name)) for name, info in fields.items()}
    return above.model_copy(update=joined)


def map_key(info: FieldInfo) -> str | None:
    """The field by which items of a list are told apart, in snake_case; None if nothing does."""
    extra = info.json_schema_extra
    keys = extra.get("x-kubernetes-list-map-keys") if isinstance(extra, dict) else None
    return _snake(str(keys[0])) if isinstance(keys, list) else None


def _joined(info: FieldInfo, below: Any, above: Any) -> Any:
    if above is None:
        return below
    if isinstance(above, ApiModel) and isinstance(below, ApiModel) and not isinstance(above, OneOf):
        return overlay(below, above)
    if isinstance(above, dict):
        return {**(below or {}), **above}
    if isinstance(above, tuple):
        return _lists(map_key(info), tuple(below or ()), above)
    return above


def _lists(key: str | None, below: tuple[Any, ...], above: tuple[Any, ...]) -> tuple[Any, ...]:
    if key is not None:
        said = {getattr(item, key) for item in above}
        return (*(item for item in below if getattr(item, key) not in said), *above)
    if any(isinstance(item, ApiModel) for item in (*below, *above)):
        return (*below, *(item for item in above if item not in below))
    return above or below


def _snake(name: str) -> str:
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    assert camel(snake) == name
    return snake
