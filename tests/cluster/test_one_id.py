"""A cluster as an ordinary user has it, in a user namespace of one id: pods with users, streams, faults, its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster, ClusterError
from tests.cluster.config import ClusterConfig
from tests.cluster.cri_fixtures import works
from tests.cluster.fixtures import of_this_run
from tests.cluster.streams import use_streams
from tests.cluster.workloads import await_state, http_status, marks_of, node_becomes, output_of, pod

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def lone() -> Iterator[Cluster]:
    """One node, and quick to notice a lost one. The last test of this file ends it."""
    if not works("user-namespace"):
        pytest.skip("this machine allows no user namespaces")
    quick = ClusterConfig(name="lone", nodes=1, gpus_per_node=0, lease_seconds=4, node_grace_seconds=8)
    with Cluster.start(of_this_run(quick, user_namespace=True), install=True) as running:
        yield running


def test_a_pod_is_its_user_and_owns_its_volumes_and_token(lone: Cluster) -> None:
    """What hangs where the kubelet insists on changing owners: runAsUser with a token, fsGroup."""
    token = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    script = f"id -u; id -g; touch /volume/mine && stat -c %u:%g /volume/mine {token}; head -c 2 {token}"
    owned = pod(
        "owned",
        *("sh", "-c", script),
        securityContext={"runAsUser": 1234, "runAsGroup": 99, "fsGroup": 99, "runAsNonRoot": True},
        volumes=[{"name": "volume", "emptyDir": {}}],
        container={"volumeMounts": [{"name": "volume", "mountPath": "/volume"}]},
    )
    assert output_of(lone, "default", owned).split() == ["1234", "99", "1234:99", "1234:99", "ey"]


def test_streams(lone: Cluster, tmp_path: Path) -> None:
    use_streams(lone, "default", tmp_path)


def test_a_node_that_freezes_fills_up_or_dies_is_noticed_and_heals(lone: Cluster) -> None:
    added = lone.add_node()
    assert added == "n2"
    lone.apply(pod("sleeper", "sleep", "1000", nodeName=added))
    await_state(lone, "pod/sleeper", "condition=Ready")
    port = lone.expose_address(lone.config.addresses.node(2), 10250)

    lone.freeze_node(added)
    node_becomes(lone, added, "Unknown")
    lone.heal_node(added)
    node_becomes(lone, added, "True")
    assert lone.kubectl_json("get", "pod", "sleeper")["status"]["phase"] == "Running"

    lone.fill_memory(added)
    await_state(lone, f"node/{added}", "condition=MemoryPressure")
    lone.heal_node(added)
    lone.fill_disk(added)
    await_state(lone, f"node/{added}", "condition=DiskPressure")
    lone.heal_node(added)

    lone.kill_node(added)
    assert http_status(f"http://127.0.0.1:{port}/") == 0
    with pytest.raises(ClusterError, match="is off"):
        lone.freeze_node(added)
    node_becomes(lone, added, "Unknown")
    lone.heal_node(added)
    node_becomes(lone, added, "True")


def test_clusters_side_by_side_know_nothing_of_each_other_and_one_ends_without_a_trace(
    cluster: Cluster, lone: Cluster
) -> None:
    lone.kubectl("create", "namespace", "only-here")
    assert "only-here" not in cluster.kubectl("get", "namespaces")
    with pytest.raises(ClusterError, match="is running"):
        Cluster.start(lone.config)
    assert marks_of(lone.paths.root)
    lone.stop()
    assert not marks_of(lone.paths.root)
    assert not lone.paths.root.exists()
    assert cluster.kubectl("get", "--raw", "/readyz") == "ok"
