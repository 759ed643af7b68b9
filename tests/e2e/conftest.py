"""One cluster and one real engine for all tests of this folder: a gang costs more than a minute of both cores."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.config import ClusterConfig
from tests.e2e.main_path import START_SECONDS, demo_manifest
from tests.e2e.site import Answer, Site, chat_body, deployed, install_operator, post
from tests.waiting import wait_for


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Four nodes, room for two replicas of two; the operator installed by Helm."""
    with Cluster.start(ClusterConfig(name=f"e2e-{os.getpid()}", nodes=4, gpus_per_node=1), report=print) as started:
        install_operator(started)
        yield started


@pytest.fixture(scope="session")
def applied(cluster: Cluster) -> Iterator[Site]:
    """The R1Deployment of the demo, applied; not ready yet."""
    with deployed(cluster, "e2e", demo_manifest()) as site:
        yield site


@pytest.fixture(scope="session")
def refused_while_starting(applied: Site) -> Answer:
    """What the gateway answered, as soon as it stood, before any replica was ready."""
    wait_for("a gateway pod", lambda: applied.condition("GatewayReady"), 240, until=lambda c: c.get("status") == "True")
    assert applied.status().get("readyReplicas", 0) == 0, "the replica was ready before the gateway"
    return post(f"{applied.gateway()}/v1/chat/completions", chat_body("What is 2 + 2?"))


@pytest.fixture(scope="session")
def ready(applied: Site, refused_while_starting: Answer) -> Site:
    """The same, with one replica serving."""
    applied.wait_ready(1, START_SECONDS, print)
    return applied


@pytest.fixture(scope="session")
def url(ready: Site) -> str:
    return ready.gateway()
