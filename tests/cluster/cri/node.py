"""The runtime's state: the pods and containers of one node. One event loop runs it all, so no thread locks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.cluster.cri.container import Container, Host
from tests.cluster.cri.images import Catalogue
from tests.cluster.cri.network import AddressPool, NetworkConfig
from tests.cluster.cri.sandbox import Sandbox
from tests.cluster.cri.stats import Meter
from tests.cluster.cri.streaming import StreamingServer

_Item = TypeVar("_Item", Sandbox, Container)


class NotFound(LookupError):
    """No pod or container has that id."""


@dataclass
class Node:
    """All that one runtime process knows; nothing is kept on disk, because its containers die with it."""

    state: Path
    network: NetworkConfig
    catalogue: Catalogue
    host: Host
    streaming: StreamingServer
    addresses: AddressPool
    meter: Meter = field(default_factory=Meter)
    sandboxes: dict[str, Sandbox] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)

    def sandbox(self, id: str) -> Sandbox:
        """The pod sandbox with this id or unique prefix.

        Raises:
            NotFound: none or several.
        """
        return _find("pod sandbox", self.sandboxes, id)

    def container(self, id: str) -> Container:
        """The container with this id or unique prefix.

        Raises:
            NotFound: none or several.
        """
        return _find("container", self.containers, id)

    def containers_of(self, sandbox: Sandbox) -> list[Container]:
        """The pod's containers."""
        return [container for container in self.containers.values() if container.sandbox is sandbox]


def _find(kind: str, items: Mapping[str, _Item], id: str) -> _Item:
    if id in items:
        return items[id]
    found = [item for key, item in items.items() if id and key.startswith(id)]
    if len(found) != 1:
        raise NotFound(f"{kind} {id!r} not found")
    return found[0]
