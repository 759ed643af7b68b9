"""pytest fixtures: one cluster for a whole session, a namespace of its own for each test."""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.config import ClusterConfig

SESSION: ClusterConfig = ClusterConfig(name="pytest", nodes=2, gpus_per_node=8)
"""What the shared cluster is like; the process id is added to its name, so that sessions run side by side."""


def of_this_run(config: ClusterConfig, **changes: Any) -> ClusterConfig:
    """The same with this process's id in its name, so that test runs stay apart."""
    return dataclasses.replace(config, name=f"{config.name}-{os.getpid()}", **changes)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The session's cluster, all nodes Ready. Ends with pytest, however pytest ends.

    A test that breaks a node heals it again.
    """
    with Cluster.start(of_this_run(SESSION), install=True) as running:
        yield running


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A fresh namespace of the session's cluster; its deletion is not waited for."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")
