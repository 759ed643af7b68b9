"""One cluster and one operator for all tests of this folder; each test has a namespace of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.behaviour.world import CRD, Deployment, Operator, World, wait_for
from tests.cluster.cluster import Cluster
from tests.cluster.config import ClusterConfig

NODES = 4  # room for two gangs of two


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    log: Path = tmp_path_factory.mktemp("operator") / "operator.log"
    name = f"behaviour-{os.getpid()}"
    with Cluster.start(ClusterConfig(name=name, nodes=NODES, gpus_per_node=1)) as cluster:
        cluster.kubectl("apply", "-f", str(CRD))
        cluster.kubectl("wait", "--for=condition=Established", "crd/r1deployments.r1operator.dev")
        operator = Operator(cluster, log)
        operator.start()
        try:
            yield World(cluster, operator)
        finally:
            operator.end()
            print(f"\nthe operator's log: {log}")


@pytest.fixture
def deploy(world: World, request: pytest.FixtureRequest) -> Iterator[object]:
    """`deploy(**spec)` → a Deployment in the test's own namespace; at the end nothing of it may be left."""
    namespace = request.node.name.replace("_", "-")[:50].strip("-")
    made: list[Deployment] = []

    def _deploy(**spec: object) -> Deployment:
        deployment = world.deployment(f"{namespace}-{len(made)}" if made else namespace, **spec)
        made.append(deployment)
        return deployment

    yield _deploy
    for deployment in made:
        deployment.kubectl("delete", "r1d", "--all")
        wait_for("nothing left", lambda d=deployment: left_behind(d), until=lambda left: left == [])


def left_behind(deployment: Deployment) -> list[str]:
    """Whatever of an R1Deployment still exists."""
    kinds = "pods,services,configmaps,secrets,deployments,r1d"
    return deployment.kubectl("get", kinds, "-l", "app.kubernetes.io/managed-by=r1-operator", "-o", "name").split()
