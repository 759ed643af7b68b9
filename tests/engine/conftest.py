"""The engine's tests live in namespaces of their own: they make networks, and need not be root for it."""

from __future__ import annotations

from tests.engine import namespaces


def pytest_sessionstart() -> None:
    namespaces.enter()
