"""The examples of the fabrics: what the operator makes of them, and that what they count on is in the pods."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.rendering import render

GPUS = {"nvidia.com/gpu": "8"}


def container(pod: dict[str, Any]) -> dict[str, Any]:
    (found,) = pod["spec"]["containers"]
    return found  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("example", "devices"),
    [
        ("r1-infiniband", {"rdma/ib": "1"}),
        ("r1-roce", {"nvidia.com/hostdev": "8"}),
        ("r1-efa", {"vpc.amazonaws.com/efa": "32", "hugepages-2Mi": "5120Mi"}),
        ("r1-host-network", {}),
    ],
)
def test_the_devices_are_asked_for_and_a_replica_without_rdma_does_not_start(
    example: str, devices: dict[str, str]
) -> None:
    mine = render(example)
    resources = container(mine.pod)["resources"]
    assert resources["limits"] == GPUS | devices
    assert resources["limits"].items() <= resources["requests"].items()
    assert mine.told["fabric"]["transport"] == "Rdma"
    assert mine.told["fabric"]["gbitsPerNode"] == 3200


@pytest.mark.parametrize("example", ["r1-infiniband", "r1-roce", "r1-efa"])
def test_pods_with_given_devices_stay_in_their_own_network_and_only_pin_memory(example: str) -> None:
    pod = render(example).pod
    assert "hostNetwork" not in pod["spec"]
    assert container(pod)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"], "add": ["IPC_LOCK"]},
    }


def test_over_roce_a_pod_is_on_a_network_for_each_nic_that_it_asks_for() -> None:
    pod = render("r1-roce").pod
    networks = pod["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"].split(", ")
    assert len(set(networks)) == int(container(pod)["resources"]["limits"]["nvidia.com/hostdev"])


def test_in_the_nodes_network_names_of_the_cluster_still_resolve() -> None:
    pod = render("r1-host-network").pod
    assert (pod["spec"]["hostNetwork"], pod["spec"]["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")
    assert container(pod)["securityContext"] == {"privileged": True}


def test_efa_is_never_planned_with_deepep() -> None:
    mine = render("r1-efa")
    assert "--moe-a2a-backend" not in mine.told["engineArgs"]
    assert mine.told["fabric"]["needsRdma"] is False
    assert {"name": "FI_PROVIDER", "value": "efa"} in container(mine.pod)["env"]
