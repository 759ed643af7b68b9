"""What the operator knows of the cluster: one informer per kind, read as snapshots."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from r1_operator.api import names
from r1_operator.cluster.client import Client
from r1_operator.cluster.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    R1_DEPLOYMENTS,
    SECRETS,
    SERVICES,
    JsonObject,
    Resource,
    resource_of,
)
from r1_operator.cluster.trim import Trim, trim_bookkeeping, trim_node, trim_pod
from r1_operator.cluster.watch import Change, Informer

_OURS = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"

Listener = Callable[[Change], None]


@dataclass(frozen=True, slots=True)
class Interest:
    """One kind to watch, narrowed by a label selector, and what to keep of each object."""

    resource: Resource
    labels: str | None = None
    trim: Trim = trim_bookkeeping


INTERESTS = (
    Interest(R1_DEPLOYMENTS),
    Interest(PODS, trim=trim_pod),  # all of them: others' pods take room on the nodes
    Interest(NODES, trim=trim_node),
    Interest(PERSISTENT_VOLUME_CLAIMS),
    Interest(SERVICES, _OURS),
    Interest(CONFIG_MAPS, _OURS),
    Interest(SECRETS, _OURS),
    Interest(DEPLOYMENTS, _OURS),
)


class Cache:
    """Copies of all objects of interest. Reads never wait; what they return is shared and must not be changed."""

    def __init__(
        self, client: Client, interests: tuple[Interest, ...] = INTERESTS, *, namespace: str | None = None
    ) -> None:
        self._listeners: list[Listener] = []
        self._informers = {
            interest.resource: Informer(
                client,
                interest.resource,
                namespace=namespace,
                labels=interest.labels,
                trim=interest.trim,
                on_change=self._tell,
            )
            for interest in interests
        }

    async def run(self) -> None:
        """Keep the copies up to date until cancelled."""
        async with asyncio.TaskGroup() as group:
            for informer in self._informers.values():
                group.create_task(informer.run(), name=f"watch-{informer.resource.plural}")

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` at each change, in the event loop; it must not block. Its exceptions are logged, no more."""
        self._listeners.append(listener)

    def synced(self) -> bool:
        """True once every kind has been listed. Decide nothing before."""
        return all(informer.synced.is_set() for informer in self._informers.values())

    async def wait_synced(self, timeout: float | None = None) -> None:
        """Wait for the first list of every kind. Raises TimeoutError that names the kinds still missing."""
        try:
            async with asyncio.timeout(timeout):
                for informer in self._informers.values():
                    await informer.synced.wait()
        except TimeoutError:
            missing = [each.resource.plural for each in self._informers.values() if not each.synced.is_set()]
            raise TimeoutError(f"not listed in {timeout:g} s: {', '.join(missing)}") from None

    def age_seconds(self) -> float:
        """Seconds since the API server last spoke of the kind heard of least recently (bookmarks: every minute)."""
        return time.monotonic() - min(informer.last_contact for informer in self._informers.values())

    def get(self, resource: Resource, namespace: str | None, name: str) -> JsonObject | None:
        """One object, or None."""
        return self._informer(resource).objects.get((namespace or "", name))

    def snapshot(
        self, resource: Resource, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> tuple[JsonObject, ...]:
        """All objects of a kind in a namespace (None: all) that carry the labels, ordered by namespace and name."""
        wanted = (labels or {}).items()
        found = [
            (key, obj)
            for key, obj in self._informer(resource).objects.items()
            if (namespace is None or key[0] == namespace) and wanted <= (obj["metadata"].get("labels") or {}).items()
        ]
        return tuple(obj for _, obj in sorted(found, key=lambda pair: pair[0]))

    def remember(self, obj: dict[str, Any]) -> None:
        """Take over what a write of our own returned, so that the next reconcile does not decide on older news."""
        informer = self._informers.get(resource_of(obj))
        if informer is not None:
            informer.put(obj)

    def _informer(self, resource: Resource) -> Informer:
        if resource not in self._informers:
            raise KeyError(f"{resource.plural} are not watched; add an Interest")
        return self._informers[resource]

    def _tell(self, change: Change) -> None:
        for listener in self._listeners:
            listener(change)
