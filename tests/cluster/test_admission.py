"""Quotas refuse and injectors inject as on any cluster, and a silent kubelet's containers serve on."""

from __future__ import annotations

import pytest

from tests.cluster import admission
from tests.cluster.audit import audit_writes
from tests.cluster.cluster import Cluster, ClusterError
from tests.cluster.kubelets import silence_kubelets
from tests.cluster.workloads import await_state, http_status, node_becomes, pod, wait_for

pytestmark = pytest.mark.cluster


def gpu_pod(namespace: str, name: str, gpus: int) -> dict[str, object]:
    made = pod(name, "sleep", "600", container={"resources": {"limits": {"nvidia.com/gpu": str(gpus)}}})
    made["metadata"]["namespace"] = namespace
    return made


def test_a_quota_refuses_what_is_beyond_it(cluster: Cluster, namespace: str) -> None:
    admission.limit(cluster, namespace, {"requests.nvidia.com/gpu": "3", "pods": "2"})
    cluster.apply(gpu_pod(namespace, "one", 2))
    told = r"exceeded quota: quota, requested: requests\.nvidia\.com/gpu=2, used: requests\.nvidia\.com/gpu=2"
    with pytest.raises(ClusterError, match=rf"forbidden: {told}"):
        cluster.apply(gpu_pod(namespace, "two", 2))
    cluster.apply(gpu_pod(namespace, "two", 1))
    with pytest.raises(ClusterError, match="exceeded quota: quota, requested: pods=1, used: pods=2"):
        cluster.apply(gpu_pod(namespace, "three", 0))
    codes = [write.code for write in audit_writes(cluster) if write.target == ("pods", namespace, "two")]
    assert codes[:2] == [403, 201]


def test_an_injected_sidecar_outlives_the_container_of_its_pod(cluster: Cluster, namespace: str) -> None:
    with admission.inject_sidecar(cluster, namespace, {"inject": "yes"}):
        for name, labels in (("with", {"inject": "yes"}), ("without", {"inject": "no"})):
            made = pod(name, "true")
            made["metadata"] |= {"namespace": namespace, "labels": labels}
            cluster.apply(made)
    await_state(cluster, "pod/without", "jsonpath={.status.phase}=Succeeded", namespace)
    ended = "jsonpath={.status.containerStatuses[?(@.name=='main')].state.terminated.exitCode}=0"
    await_state(cluster, "pod/with", ended, namespace)
    found = cluster.kubectl_json("-n", namespace, "get", "pod", "with")
    assert [container["name"] for container in found["spec"]["containers"]] == ["main", admission.SIDECAR]
    assert found["status"]["phase"] == "Running"


def test_containers_of_silent_kubelets_serve_on(cluster: Cluster, namespace: str) -> None:
    serves = pod("server", "python", "-m", "http.server", "8080", "--directory", "/tmp", nodeName="n2")
    serves["metadata"]["namespace"] = namespace
    cluster.apply(serves)
    await_state(cluster, "pod/server", "condition=Ready", namespace)
    address = cluster.kubectl_json("-n", namespace, "get", "pod", "server")["status"]["podIP"]
    url = f"http://127.0.0.1:{cluster.expose_address(address, 8080)}/"
    wait_for(lambda: http_status(url) == 200)
    with silence_kubelets(cluster, "n1", "n2"):
        node_becomes(cluster, "n1", "Unknown")
        node_becomes(cluster, "n2", "Unknown")
        assert http_status(url) == 200
    node_becomes(cluster, "n2", "True")
    assert http_status(url) == 200
    status = cluster.kubectl_json("-n", namespace, "get", "pod", "server")["status"]
    assert status["containerStatuses"][0]["restartCount"] == 0
