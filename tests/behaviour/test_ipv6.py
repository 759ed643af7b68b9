"""In a cluster with IPv6 addresses alone: pods, Services, the API server."""

from __future__ import annotations

import ipaddress
import os

import pytest

from tests.behaviour.asking import answers
from tests.behaviour.conftest import made_of
from tests.behaviour.world import Deployments, wait_for
from tests.cluster.config import ClusterConfig


@pytest.mark.alone
def test_a_replica_comes_up_serves_and_goes(tmp_path_factory: pytest.TempPathFactory) -> None:
    log = tmp_path_factory.mktemp("operator6") / "operator.log"
    with made_of(ClusterConfig(name=f"behaviour6-{os.getpid()}", nodes=2, gpus_per_node=1, family=6), log) as six:
        r1 = Deployments(six, "ipv6")()
        r1.await_ready("r1-0-0")
        addresses = [ip["ip"] for pod in [*r1.pods(), *r1.pods("gateway")] for ip in pod["status"]["podIPs"]]
        assert {ipaddress.ip_address(address).version for address in addresses} == {6}
        assert r1.service().startswith("http://[")
        assert wait_for("an answer", lambda: answers(r1.gateway()))
        r1.kubectl("delete", "r1d", "r1")
        wait_for("all of it is gone", r1.left, until=[].__eq__)
