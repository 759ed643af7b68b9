"""The copy of one kind of object: what a watch, a list and the answers to our own writes say, in whatever order.

The three arrive out of step: the answer to a write may be handled after the watch has told of the object's end. What
keeps such a late answer from bringing the object back needs no memory of the dead: the copy knows up to which version
it has heard everything, so an object that it lacks and that is no newer than that has gone since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from r1_operator.cluster.resources import JsonObject, Resource, key_of, version_of
from r1_operator.cluster.trim import Trim, trim_bookkeeping


@dataclass(frozen=True, slots=True)
class Change:
    """One object that came, changed or went. `old` is None when it came, `new` is None when it went."""

    resource: Resource
    type: Literal["Added", "Modified", "Deleted"]
    old: JsonObject | None
    new: JsonObject | None

    @property
    def obj(self) -> JsonObject:
        """The object as it is now, or as it last was."""
        obj = self.new if self.new is not None else self.old
        assert obj is not None
        return obj


class Store:
    """Objects of one kind by (namespace, name), each as new as anything that was heard of it."""

    def __init__(
        self,
        resource: Resource,
        trim: Trim = trim_bookkeeping,
        on_change: Callable[[Change], None] = lambda change: None,
    ) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.version = 0
        """All that happened up to this version is known."""
        self._resource, self._trim, self._on_change = resource, trim, on_change

    def replace(self, items: Iterable[dict[str, Any]], version: int) -> None:
        """Take over a list of everything, made at `version`. What we wrote after it was made stays."""
        listed = set()
        for item in items:
            listed.add(key_of(item))
            self._store(item)
        for key, gone in list(self.objects.items()):
            if key not in listed and version_of(gone) <= version:
                self._drop(key)
        self.version = version

    def hear(self, kind: str, obj: dict[str, Any]) -> None:
        """Take over one event of a watch: `ADDED`, `MODIFIED`, `DELETED` or `BOOKMARK`."""
        if kind == "DELETED":
            if version_of(self.objects.get(key_of(obj), {})) <= version_of(obj):
                self._drop(key_of(obj))
        elif kind != "BOOKMARK":
            self._store(obj)
        self.version = max(self.version, version_of(obj))

    def put(self, obj: dict[str, Any]) -> None:
        """Take over an object as a write of our own returned it, unless something newer is known of it."""
        if key_of(obj) in self.objects or version_of(obj) > self.version:
            self._store(obj)

    def _store(self, obj: dict[str, Any]) -> None:
        key, new = key_of(obj), self._trim(obj)
        old = self.objects.get(key)
        if old is not None and version_of(old) >= version_of(new):
            return
        if old is not None and old["metadata"].get("uid") != new["metadata"].get("uid"):
            self._drop(key)  # another object by the same name: whoever listens must hear of the end of the first
            old = None
        self.objects[key] = new
        if old is None:
            self._on_change(Change(self._resource, "Added", None, new))
        elif not _same_but_version(old, new):
            self._on_change(Change(self._resource, "Modified", old, new))

    def _drop(self, key: tuple[str, str]) -> None:
        old = self.objects.pop(key, None)
        if old is not None:
            self._on_change(Change(self._resource, "Deleted", old, None))


def _same_but_version(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """True when nothing that we keep has changed: a heartbeat is no reason to reconcile."""
    old_metadata = {**old["metadata"], "resourceVersion": None}
    return old_metadata == {**new["metadata"], "resourceVersion": None} and {**old, "metadata": None} == {
        **new,
        "metadata": None,
    }
