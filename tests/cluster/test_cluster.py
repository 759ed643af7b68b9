"""The local cluster is a real one, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import control, network
from tests.cluster.cluster import Cluster, ClusterError, is_running
from tests.cluster.config import CHECKOUT, ClusterConfig, ConfigError, paths_of
from tests.cluster.streams import use_streams
from tests.cluster.workloads import (
    IMAGE,
    await_state,
    http_status,
    marks_of,
    node_becomes,
    output_of,
    pod,
    wait_for,
)

pytestmark = pytest.mark.cluster


@pytest.fixture
def web(cluster: Cluster, namespace: str) -> str:
    """A Deployment of two pods on different nodes behind the Service `web`; the namespace."""
    labels = {"app": "web"}
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": labels},
    }
    container = {
        "name": "main",
        "image": IMAGE,
        "command": ["python", "-m", "http.server", "8080", "--directory", "/tmp"],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
    }
    cluster.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web", "namespace": namespace},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "containers": [container],
                        "topologySpreadConstraints": [spread],
                        "terminationGracePeriodSeconds": 1,
                    },
                },
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": namespace},
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
        },
    )
    await_state(cluster, "deployment/web", "condition=Available", namespace)
    return namespace


def test_nodes_are_ready_and_offer_gpus(cluster: Cluster) -> None:
    nodes = {node["metadata"]["name"]: node for node in cluster.kubectl_json("get", "nodes")["items"]}
    assert set(nodes) == {"n1", "n2"}
    for node in nodes.values():
        assert node["status"]["allocatable"]["nvidia.com/gpu"] == "8"
        assert node["metadata"]["labels"]["nvidia.com/gpu.product"]
    version = cluster.kubectl_json("version")
    assert version["serverVersion"]["gitVersion"] == version["clientVersion"]["gitVersion"]


def test_service_answers_by_name_inside_and_on_a_port_of_the_host(cluster: Cluster, web: str) -> None:
    script = (
        "import urllib.request\n"
        f"for name in ('web', 'web.{web}', 'web.{web}.svc.{network.DOMAIN}'):\n"
        "    print(urllib.request.urlopen(f'http://{name}/', timeout=60).status)\n"
    )
    assert output_of(cluster, web, pod("client", "python", "-c", script)).split() == ["200"] * 3
    assert http_status(f"http://127.0.0.1:{cluster.expose(web, 'web', 80)}/") == 200
    later = cluster.expose(web, "later", 80)
    assert http_status(f"http://127.0.0.1:{later}/") == 0
    cluster.kubectl("-n", web, "expose", "deployment", "web", "--name=later", "--port=80", "--target-port=8080")
    wait_for(lambda: http_status(f"http://127.0.0.1:{later}/") == 200)


def test_a_service_reaches_the_very_pod_that_asks(cluster: Cluster, web: str) -> None:
    cluster.kubectl("-n", web, "scale", "deployment/web", "--replicas=1")
    script = "import urllib.request; print(urllib.request.urlopen('http://web/', timeout=20).status)"

    def answer() -> str:
        pods = cluster.kubectl_json("-n", web, "get", "pods", "-l", "app=web")["items"]
        if len(pods) != 1:
            return "not alone yet"
        try:
            return cluster.kubectl("-n", web, "exec", "deployment/web", "--", "python", "-c", script).strip()
        except ClusterError as error:  # the rules may still name the pod that has left
            return str(error)

    wait_for(lambda: answer() == "200")


def test_rights_are_enforced(cluster: Cluster, namespace: str) -> None:
    """A pod's account may do nothing, nobody may do nothing, a kubelet may not touch another node."""
    script = (
        "import ssl, urllib.error, urllib.request\n"
        "folder = '/var/run/secrets/kubernetes.io/serviceaccount/'\n"
        "tls = ssl.create_default_context(cafile=folder + 'ca.crt')\n"
        "url = f'https://kubernetes.default.svc/api/v1/namespaces/{open(folder + \"namespace\").read()}/pods'\n"
        "for headers in ({'Authorization': 'Bearer ' + open(folder + 'token').read()}, {}):\n"
        "    try:\n"
        "        print(urllib.request.urlopen(urllib.request.Request(url, headers=headers), context=tls).status)\n"
        "    except urllib.error.HTTPError as error:\n"
        "        print(error.code)\n"
    )
    assert output_of(cluster, namespace, pod("asker", "python", "-c", script)).split() == ["403", "403"]
    as_n1 = ("--kubeconfig", str(cluster.paths.inner_kubeconfig("n1")))
    n1 = [str(cluster.paths.binaries / "kubectl"), *as_n1]
    cluster.exec_inside([*n1, "label", "node", "n1", "mine=yes"], capture_output=True)
    for node, label, reason in (
        ("n2", "mine=yes", "only its own Node object"),
        ("n1", "node-restriction.kubernetes.io/mine=yes", "is not allowed to modify labels"),
    ):
        refused = cluster.exec_inside([*n1, "label", "node", node, label], capture_output=True, check=False)
        assert refused.returncode != 0
        assert reason in refused.stderr


def test_host_without_its_kubeconfig_is_nobody(cluster: Cluster) -> None:
    server = json.loads(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    refused = subprocess.run(
        [
            str(cluster.binaries / "kubectl"),
            "--kubeconfig=/dev/null",
            f"--server={server}",
            "--insecure-skip-tls-verify",
            "get",
            "pods",
        ],
        env={"HOME": "/nonexistent"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode != 0
    assert cluster.kubeconfig.stat().st_mode & 0o077 == 0


def test_a_cut_cable_isolates_the_pods_of_a_node(cluster: Cluster, web: str) -> None:
    """The other node's pod goes on answering; the cut one is reached by nobody, and works again once healed."""
    address = {
        item["spec"]["nodeName"]: item["status"]["podIP"]
        for item in cluster.kubectl_json("-n", web, "get", "pods", "-l", "app=web")["items"]
    }
    url = {node: f"http://127.0.0.1:{cluster.expose_address(ip, 8080)}/" for node, ip in address.items()}
    cluster.cut_node("n2")
    try:
        wait_for(lambda: http_status(url["n1"]) == 200)
        assert http_status(url["n2"]) == 0
    finally:
        cluster.heal_node("n2")
    wait_for(lambda: http_status(url["n2"]) == 200)
    node_becomes(cluster, "n2", "True")


def test_failed_gpus_are_no_longer_offered(cluster: Cluster) -> None:
    def offered() -> str:
        return str(cluster.kubectl_json("get", "node", "n1")["status"]["allocatable"]["nvidia.com/gpu"])

    cluster.fail_gpus("n1", "GPU-0", "GPU-5")
    wait_for(lambda: offered() == "6")
    cluster.heal_node("n1")
    wait_for(lambda: offered() == "8")


def test_streams(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    use_streams(cluster, namespace, tmp_path)


def test_unknown_nodes_and_faults_are_refused(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match=r"node 'n9' is unknown; there are n1, n2"):
        cluster.kill_node("n9")
    with pytest.raises(control.ControlError, match="fault 'burn' is unknown"):
        control.request(cluster.paths.control, {"do": "break", "node": "n1", "fault": "burn"})
    with pytest.raises(ConfigError, match="node_grace_seconds"):
        ClusterConfig(lease_seconds=20, node_grace_seconds=10)


def test_a_cluster_ends_with_a_starter_that_is_killed() -> None:
    """kill -9 of the process that started it, which can clear nothing up."""
    name = f"orphan-{os.getpid()}"
    script = (
        "import sys, time\n"
        "from tests.cluster.cluster import Cluster\n"
        "from tests.cluster.config import ClusterConfig\n"
        f"Cluster.start(ClusterConfig(name={name!r}, nodes=1, gpus_per_node=0))\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    paths = paths_of(name)
    with subprocess.Popen([sys.executable, "-c", script], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "ready\n"
        assert is_running(paths)
        assert marks_of(paths.root)
        starter.send_signal(signal.SIGKILL)
    wait_for(lambda: not is_running(paths) and not marks_of(paths.root))
    Cluster(paths).stop()
    assert not paths.root.exists()
