"""One cluster and one operator for all tests of this folder; each test has a namespace of its own.

Most of a test's time is waiting: for probes, grace periods, cool-downs. So tests run TOGETHER at a time, but for those
marked `alone`, which count the cluster's free nodes or the operator's writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.behaviour.operator_process import Operator
from tests.behaviour.world import CRD, EFA, NICS, NODES, RDMA, Deployments, World, wait_for
from tests.cluster.cluster import Cluster
from tests.cluster.config import ClusterConfig
from tests.crd import await_crd

TOGETHER = 3


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    log: Path = tmp_path_factory.mktemp("operator") / "operator.log"
    name = f"behaviour-{os.getpid()}"
    devices = {RDMA: 1, NICS: 8, EFA: 32}
    with made_of(ClusterConfig(name=name, nodes=NODES, gpus_per_node=1, more_devices=devices), log) as made:
        yield made


@contextmanager
def made_of(config: ClusterConfig, log: Path) -> Iterator[World]:
    """Such a cluster with an operator; at the end nothing may be left of any deployment."""
    with Cluster.start(config) as cluster:
        _separate_gateways(cluster)
        cluster.kubectl("apply", "-f", str(CRD))
        await_crd(cluster.kubectl)
        operator = Operator(cluster, log)
        operator.keep()
        made = World(cluster, operator)
        try:
            yield made
            wait_for("nothing left of any deployment", made.left, until=lambda left: left == [])
            assert operator.crashes() == []
        finally:
            operator.end()
            print(f"\nthe operator's log: {log}")


def _separate_gateways(cluster: Cluster) -> None:
    """Taints, as a cluster with GPU nodes has: a node that a test kills takes nobody else's gateway along."""
    nodes = [f"n{number}" for number in range(2, cluster.config.nodes + 1)]
    cluster.kubectl("taint", "node", *nodes, "nvidia.com/gpu=present:NoSchedule")


@pytest.fixture
def deploy(world: World, request: pytest.FixtureRequest) -> Iterator[Deployments]:
    """Makes R1Deployments; they are deleted at the end of the test."""
    if request.node.get_closest_marker("alone"):
        wait_for("the nodes are free", world.engine_pods, until=lambda pods: pods == [])
    made = Deployments(world, _namespace(request.node))
    yield made
    made.delete()


def _namespace(item: pytest.Item) -> str:
    return item.name.replace("_", "-")[:50].strip("-")


class Together:
    """Runs tests in threads; each one's result is asked for when its turn comes."""

    def __init__(self, world: World, items: list[pytest.Function]) -> None:
        self._pool = ThreadPoolExecutor(TOGETHER, thread_name_prefix="test")
        self._results: dict[str, Future[None]] = {
            item.nodeid: self._pool.submit(self._run, world, item) for item in items
        }

    def _run(self, world: World, item: pytest.Function) -> None:
        deploy = Deployments(world, _namespace(item))
        given: dict[str, Any] = {"world": world, "deploy": deploy}
        names = item._fixtureinfo.argnames
        try:
            item.obj(**{name: given[name] for name in names})
        finally:
            deploy.delete()

    def result(self, item: pytest.Function) -> None:
        self._results[item.nodeid].result()

    def end(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


_together = pytest.StashKey[Together]()


def _runs_together(item: pytest.Item) -> bool:
    return item.path.parent == Path(__file__).parent and item.get_closest_marker("alone") is None


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "alone: no other test of tests/behaviour may run at the same time")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs alone comes when nothing else runs any more."""
    items.sort(key=lambda item: item.path.parent == Path(__file__).parent and not _runs_together(item))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not _runs_together(pyfuncitem):
        return None
    session = pyfuncitem.session
    if _together not in session.stash:
        items = [i for i in session.items if isinstance(i, pytest.Function) and _runs_together(i)]
        session.stash[_together] = Together(pyfuncitem._request.getfixturevalue("world"), items)
    session.stash[_together].result(pyfuncitem)
    return True


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _together in session.stash:
        session.stash[_together].end()
