"""`r1 preflight` on the local cluster: ten things are broken, each is found, and its remedy is tried."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.behaviour.operator_process import CHECKOUT
from tests.behaviour.test_pods import NODE, tainted
from tests.behaviour.world import Deployment, Deployments, World
from tests.cluster.admission import limit

pytestmark = [pytest.mark.cluster, pytest.mark.alone]


def resource(**engine: Any) -> dict[str, Any]:
    """All eight nodes' worth of one replica, so that each node counts."""
    manifest: dict[str, Any] = yaml.safe_load((CHECKOUT / "examples" / "tiny.yaml").read_text())
    manifest["spec"]["model"]["weights"] = {"persistentVolumeClaim": {"claimName": "weights"}}
    manifest["spec"]["topology"] = {"nodesPerReplica": 8, "tensorParallel": 8}
    manifest["spec"]["engine"] |= engine
    return manifest


class Doctor:
    """`r1 preflight -f` as a user runs it."""

    def __init__(self, r1: Deployment, file: Any) -> None:
        self._r1, self._file = r1, file

    def says(self, **engine: Any) -> tuple[int, str]:
        self._file.write_text(yaml.safe_dump(resource(**engine)))
        return self._r1.r1_said("preflight", "-f", str(self._file))


@pytest.fixture
def r1(deploy: Deployments) -> Deployment:
    return deploy.in_own_namespace()


def test_each_fault_is_found_and_its_remedy_is_right(
    world: World, r1: Deployment, tmp_path: Any, record_property: Callable[[str, object], None]
) -> None:
    doctor, where = Doctor(r1, tmp_path / "r1.yaml"), r1.namespace

    def lacks(words: str, **engine: Any) -> None:
        code, said = doctor.says(**engine)
        assert words in said, said
        assert code == 1, said

    # No claim, then one that nobody has bound; a volume is none of a control plane's own to make here.
    lacks("there is no PersistentVolumeClaim 'weights'")
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "weights"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "none",
        },
    }
    r1.kubectl("apply", "-f", "-", stdin=json.dumps(claim))
    lacks("has access modes ReadWriteOnce, but 8 nodes have to mount it")
    r1.kubectl("delete", "pvc", "weights")
    claim["spec"]["accessModes"] = ["ReadOnlyMany"]
    r1.kubectl("apply", "-f", "-", stdin=json.dumps(claim))
    code, said = doctor.says()
    assert "a replica would be placed on n1, n2, n3, n4, n5, n6, n7, n8 now" in said
    # Here no operator runs as a pod: the tests run it beside the cluster, and preflight says so.
    assert "no pod of it runs" in said
    assert code == 1
    assert "1 to mend before R1 can serve" in said

    with tainted(world):
        lacks(f"sku=gpu:NoSchedule on {NODE} keeps the gang away")
        tolerated = {"podTemplate": {"spec": {"tolerations": [{"key": "sku", "value": "gpu"}]}}}
        assert "a replica would be placed" in doctor.says(**tolerated)[1]
    world.cluster.kubectl("cordon", NODE)
    try:
        lacks(f"cordoned: {NODE}")
    finally:
        world.cluster.kubectl("uncordon", NODE)
    lacks("a pod of the gang would be refused", podTemplate={"spec": {"priorityClassName": "urgent"}})
    lacks("a pod of the gang would be refused", podTemplate={"spec": {"runtimeClassName": "not-there"}})
    lacks("there is no Secret registry", podTemplate={"spec": {"imagePullSecrets": [{"name": "registry"}]}})
    limit(world.cluster, where, {"requests.nvidia.com/gpu": "7"})
    lacks("8 are needed for 1 replicas, 0 of 7 are in use")
    r1.kubectl("delete", "resourcequota", "--all")
    r1.kubectl("label", "namespace", where, "pod-security.kubernetes.io/enforce=restricted")
    lacks("a pod of the gang would be refused: ")
    assert "pod-security.kubernetes.io/enforce=privileged" in doctor.says()[1]
    r1.kubectl("label", "namespace", where, "pod-security.kubernetes.io/enforce=privileged", "--overwrite")
    # Every remedy was right: nothing but the operator is left to mend.
    assert doctor.says() == (1, said)
