"""Changes of a library's modules in the moment they are imported: nothing is imported before the library does."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

_patches: dict[str, Callable[[Any], None]] = {}


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self) -> None:
        self._busy: set[str] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in _patches or name in self._busy:
            return None
        self._busy.add(name)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._busy.discard(name)
        if spec is not None and spec.loader is not None:
            _run_after(spec.loader, _patches[name])
        return spec


def _run_after(loader: Any, patch: Callable[[Any], None]) -> None:
    execute = loader.exec_module

    def exec_module(module: types.ModuleType) -> None:
        execute(module)
        patch(module)

    loader.exec_module = exec_module


def after_import(name: str, patch: Callable[[Any], None]) -> None:
    """Runs `patch` with the module of this name as soon as it has been imported. Idempotent."""
    _patches[name] = patch
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
