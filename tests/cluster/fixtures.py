"""pytest fixtures: one cluster for a whole session, a namespace of its own for each test."""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.config import ClusterConfig

SESSION: ClusterConfig = ClusterConfig(name="pytest", nodes=2, gpus_per_node=8)
"""What the shared cluster is like; the process id is added to its name, so that sessions run side by side."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The session's cluster, all nodes Ready. Ends with pytest, however pytest ends.

    A test that breaks a node heals it again, or makes a cluster of its own with `new_cluster`.
    """
    with Cluster.start(dataclasses.replace(SESSION, name=f"{SESSION.name}-{os.getpid()}"), install=True) as running:
        yield running


@pytest.fixture
def new_cluster() -> Iterator[Callable[[ClusterConfig], Cluster]]:
    """Makes clusters that end with the test. Their names get a suffix of their own."""
    started: list[Cluster] = []

    def start(config: ClusterConfig) -> Cluster:
        unique = f"{config.name[:30]}-{uuid.uuid4().hex[:6]}"
        started.append(Cluster.start(dataclasses.replace(config, name=unique), install=True))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A fresh namespace of the session's cluster; its deletion is not waited for."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")
