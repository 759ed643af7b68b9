"""Named steps of a reconcile whose failures are joined: one that fails does not keep the others from running."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from ..cluster import ApiError

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(slots=True)
class Steps:
    """Collects what failed in one reconcile."""

    key: str
    errors: list[str] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Run a step; its exception is noted and goes no further. Cancellation does."""
        try:
            yield
        except Exception as error:
            self.note(name, error)

    async def all(self, name: str, calls: Iterable[Awaitable[T]]) -> list[T]:
        """Await independent calls together; → results of those that succeeded, the others' errors are noted."""
        results = await asyncio.gather(*calls, return_exceptions=True)
        done: list[T] = []
        for result in results:
            if isinstance(result, Exception):
                self.note(name, result)
            elif isinstance(result, BaseException):
                raise result
            else:
                done.append(result)
        return done

    def note(self, name: str, error: Exception) -> None:
        """Note a failure of a step."""
        self.errors.append(f"{name}: {error}")
        if isinstance(error, ApiError):
            log.warning("%s: %s: %s", self.key, name, error)
        else:
            log.exception("%s: %s failed", self.key, name, exc_info=error)
