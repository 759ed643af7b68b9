"""Kubelets that fall silent while the containers of their nodes serve on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.cluster import Cluster


@contextmanager
def silence_kubelets(cluster: Cluster, *nodes: str) -> Iterator[None]:
    """Inside, the kubelets of these nodes stand still; afterwards they go on and their nodes are Ready again.

    Kubernetes calls the nodes NotReady `node_grace_seconds` later: nothing here waits for that
    (`workloads.node_becomes`). Other faults of the nodes are undone as well at the end.
    """
    silenced: list[str] = []
    try:
        for node in nodes:
            silenced.append(node)
            cluster.silence_kubelet(node)
        yield
    finally:
        for node in silenced:
            cluster.heal_node(node)
        cluster.await_nodes(*silenced)
