"""What the operator knows of the cluster: one informer per kind, read as snapshots."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from r1_operator.api import names
from r1_operator.cluster.client import Client
from r1_operator.cluster.clock import boot_seconds
from r1_operator.cluster.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    NETWORK_POLICIES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    R1_DEPLOYMENTS,
    SERVICES,
    JsonObject,
    Resource,
    key_of,
    resource_of,
)
from r1_operator.cluster.store import Change
from r1_operator.cluster.trim import Trim, trim_bookkeeping, trim_node, trim_pod
from r1_operator.cluster.watch import Informer

log = logging.getLogger(__name__)

_OURS = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"

Listener = Callable[[Change], None]


@dataclass(frozen=True, slots=True)
class Interest:
    """One kind to watch, narrowed by a label selector, and what to keep of each object.

    `everywhere`: also when the cache is restricted to some namespaces.
    """

    resource: Resource
    labels: str | None = None
    trim: Trim = trim_bookkeeping
    everywhere: bool = False


INTERESTS = (
    Interest(R1_DEPLOYMENTS),
    Interest(PODS, trim=trim_pod, everywhere=True),  # all of them: others' pods take room on the nodes
    Interest(NODES, trim=trim_node),
    Interest(PERSISTENT_VOLUME_CLAIMS),
    Interest(SERVICES, _OURS),
    Interest(CONFIG_MAPS, _OURS),
    Interest(DEPLOYMENTS, _OURS),
    Interest(POD_DISRUPTION_BUDGETS, _OURS),
    Interest(NETWORK_POLICIES, _OURS),
)


class Cache:
    """Copies of all objects of interest. Reads never wait; what they return is shared and must not be changed.

    `namespaces` restricts what is watched to these, one by one, for an operator that may look nowhere else.
    """

    def __init__(
        self, client: Client, interests: Collection[Interest] = INTERESTS, *, namespaces: Collection[str] = ()
    ) -> None:
        self._listeners: list[Listener] = []
        self._informers = {
            interest.resource: tuple(
                Informer(
                    client,
                    interest.resource,
                    namespace=namespace,
                    labels=interest.labels,
                    trim=interest.trim,
                    on_change=self._tell,
                )
                for namespace in _namespaces_of(interest, namespaces)
            )
            for interest in interests
        }

    async def run(self) -> None:
        """Keep the copies up to date until cancelled."""
        async with asyncio.TaskGroup() as group:
            for informer in self._all():
                group.create_task(informer.run(), name=f"watch-{informer.resource.plural}")

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` at each change, in the event loop; it must not block. Its exceptions are logged, no more."""
        self._listeners.append(listener)

    def synced(self) -> bool:
        """True once every kind has been listed. Decide nothing before."""
        return all(informer.synced.is_set() for informer in self._all())

    async def wait_synced(self, timeout: float | None = None) -> None:
        """Wait for the first list of every kind. Raises TimeoutError that names the kinds still missing."""
        try:
            async with asyncio.timeout(timeout):
                for informer in self._all():
                    await informer.synced.wait()
        except TimeoutError:
            missing = sorted({each.resource.plural for each in self._all() if not each.synced.is_set()})
            raise TimeoutError(f"not listed in {timeout:g} s: {', '.join(missing)}") from None

    def age_seconds(self, resource: Resource | None = None) -> float:
        """Seconds since the API server last spoke of a kind, in the namespace heard of least recently; None: any kind.

        A bookmark comes once a minute even where nothing happens, so up to about 75 s say nothing. Infinite before the
        first list.
        """
        informers = self._all() if resource is None else self._informers_of(resource)
        return boot_seconds() - min(informer.last_contact for informer in informers)

    def get(self, resource: Resource, namespace: str | None, name: str) -> JsonObject | None:
        """One object, or None."""
        key = (namespace or "", name)
        return next((i.objects[key] for i in self._informers_of(resource) if key in i.objects), None)

    def snapshot(
        self, resource: Resource, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> tuple[JsonObject, ...]:
        """All objects of a kind in a namespace (None: all) that carry the labels, ordered by namespace and name."""
        wanted = (labels or {}).items()
        found = [
            (key, obj)
            for informer in self._informers_of(resource)
            for key, obj in informer.objects.items()
            if (namespace is None or key[0] == namespace) and wanted <= (obj["metadata"].get("labels") or {}).items()
        ]
        return tuple(obj for _, obj in sorted(found, key=lambda pair: pair[0]))

    def remember(self, obj: dict[str, Any]) -> None:
        """Take over what a write of our own returned, so that the next reconcile does not decide on older news."""
        for informer in self._informers.get(resource_of(obj), ()):
            if informer.namespace in (None, key_of(obj)[0]):
                informer.put(obj)

    def _all(self) -> Iterator[Informer]:
        return chain.from_iterable(self._informers.values())

    def _informers_of(self, resource: Resource) -> tuple[Informer, ...]:
        if resource not in self._informers:
            raise KeyError(f"{resource.plural} are not watched; add an Interest")
        return self._informers[resource]

    def _tell(self, change: Change) -> None:
        for listener in self._listeners:
            try:
                listener(change)
            except Exception:
                log.exception("a listener failed on %s of %s %s", change.type, change.resource.kind, key_of(change.obj))


def _namespaces_of(interest: Interest, namespaces: Collection[str]) -> tuple[str | None, ...]:
    if interest.everywhere or not interest.resource.namespaced or not namespaces:
        return (None,)
    return tuple(sorted(set(namespaces)))
