"""A gang without RDMA serves, and the resource says what is missing, where, and which field asks for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.behaviour.world import Deployment, wait_for

pytestmark = pytest.mark.cluster

NO_DEVICES = (
    "node 1 (gpu-8): no RDMA device (/sys/class/infiniband) is on this node: the gang runs over TCP, several to tens "
    'of times slower; request the node\'s RDMA resource in spec.engine.resources.limits, e.g. rdma/ib: "1"'
)
FOUND = "8 InfiniBand port(s), 3200 Gb/s a node, with GPUDirect; NCCL: IB"


def test_a_gang_without_rdma_is_told_with_the_remedy_while_it_serves(deploy: Callable[..., Deployment]) -> None:
    r1 = deploy()
    r1.await_ready("r1-0-0")
    assert r1.condition("FabricReady") == {}, "processor cores have none"
    r1.fault("r1-0-0-0", "fabric", ready=False, reason="NoRdmaDevices", message=NO_DEVICES)
    told = r1.await_condition("FabricReady", "False", "NoRdmaDevices")
    assert told["message"] == f"r1-0-0: {NO_DEVICES}"
    assert r1.condition("Degraded")["reason"] == "NoRdmaDevices"
    assert "spec.engine.resources.limits" in r1.condition("Ready")["message"]
    assert r1.gangs() == {"r1-0-0": "Ready"}, "it serves as well as it can"
    wait_for("an event", r1.events, until=lambda events: any(NO_DEVICES in e for e in events))
    r1.fault("r1-0-0-0", "fabric", ready=True, reason="RdmaFound", message=FOUND)
    r1.await_condition("FabricReady", "True", "RdmaFound")
    r1.await_condition("Degraded", "False")
