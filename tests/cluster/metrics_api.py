"""A stand-in of metrics-server: the resource metrics API over real pods, with figures that a test gives.

    with metrics_api(cluster) as metrics:
        metrics.tell("a-namespace", {"a-pod": "80M", "another": "120M"})     # so much memory each

It runs beside the control plane and is aggregated into the API server as metrics-server is, so that the real
HorizontalPodAutoscaler controller reckons with it. `python -m tests.cluster.metrics_api` is the server itself.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from tests.cluster.cluster import Cluster
from tests.cluster.config import CHECKOUT
from tests.cluster.network import ADDRESSES
from tests.cluster.processes import first_child
from tests.cluster.workloads import await_state
from tests.waiting import PATIENCE_SECONDS

GROUP_VERSION: Final = "metrics.k8s.io/v1beta1"
_ROOT: Final = f"/apis/{GROUP_VERSION}"
_HERE: Final = ADDRESSES[4]
_API_SERVICE: Final = "v1beta1.metrics.k8s.io"
_NAME: Final = "stand-in-metrics"


@dataclass
class MetricsApi:
    """The running stand-in, as a test sees it."""

    figures: Path
    _told: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def tell(self, namespace: str, memory: Mapping[str, str]) -> None:
        """From now on these pods of the namespace, by name, use so much memory; of others nothing is known."""
        self._told[namespace] = memory
        fresh = self.figures.with_suffix(".new")
        fresh.write_text(json.dumps(self._told))
        fresh.replace(self.figures)


@contextmanager
def metrics_api(cluster: Cluster) -> Iterator[MetricsApi]:
    """The API is served inside; one at a time in a cluster."""
    api = MetricsApi(cluster.paths.root / "metrics.json")
    api.figures.write_text("{}")
    command = [sys.executable, "-m", "tests.cluster.metrics_api", str(cluster.paths.pki), str(api.figures)]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}  # the working directory is lost on the way in
    output = cluster.paths.logs / "metrics-api.log"
    with (
        output.open("ab") as log,
        cluster.popen_inside(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            port = process.stdout.readline()
            assert port, f"the metrics API has ended: {output.read_text()}"
            cluster.apply(*_objects(int(port)))
            await_state(cluster, f"apiservice/{_API_SERVICE}", "condition=Available")
            yield api
        finally:
            cluster.kubectl("delete", "apiservice", _API_SERVICE, "--ignore-not-found")
            cluster.kubectl("-n", "kube-system", "delete", "service,endpointslice", _NAME, "--ignore-not-found")
            if process.poll() is None:
                os.kill(first_child(process.pid, time.monotonic() + PATIENCE_SECONDS), signal.SIGTERM)


def _objects(port: int) -> tuple[dict[str, Any], ...]:
    """No pod is behind the Service: its endpoint is the address of the control plane."""
    metadata = {"name": _NAME, "namespace": "kube-system"}
    group, version = GROUP_VERSION.split("/")
    return (
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"ports": [{"name": "https", "port": 443, "targetPort": port}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": metadata | {"labels": {"kubernetes.io/service-name": _NAME}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [_HERE.control_plane], "conditions": {"ready": True}}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": _API_SERVICE},
            "spec": {
                "group": group,
                "version": version,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "insecureSkipTLSVerify": True,
                "service": {"name": _NAME, "namespace": "kube-system"},
            },
        },
    )


# The server ----------------------------------------------------------------------------------------------------------


def discovery() -> dict[str, Any]:
    pods = {"name": "pods", "singularName": "", "namespaced": True, "kind": "PodMetrics", "verbs": ["get", "list"]}
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": GROUP_VERSION, "resources": [pods]}


def pod_metrics(pods: list[Mapping[str, Any]], memory: Mapping[str, str], now: datetime) -> dict[str, Any]:
    """The PodMetricsList of those of the pods that run and have a figure; the first container uses it all."""
    items = [
        {
            "metadata": {key: pod["metadata"][key] for key in ("name", "namespace")},
            "timestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "window": "10s",
            "containers": [
                {"name": container["name"], "usage": {"cpu": "0", "memory": "0" if index else memory[name]}}
                for index, container in enumerate(pod["spec"]["containers"])
            ],
        }
        for pod in pods
        if (name := pod["metadata"]["name"]) in memory and pod["status"].get("phase") == "Running"
    ]
    return {"kind": "PodMetricsList", "apiVersion": GROUP_VERSION, "metadata": {}, "items": items}


class _Handler(BaseHTTPRequestHandler):
    pki: Path
    figures: Path

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        namespace = path.removeprefix(f"{_ROOT}/namespaces/").removesuffix("/pods")
        if path == _ROOT:
            self._answer(200, discovery())
        elif path == f"{_ROOT}/namespaces/{namespace}/pods":
            self._answer(200, self._metrics(namespace, query))
        else:
            self._answer(404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404})

    def _metrics(self, namespace: str, query: str) -> dict[str, Any]:
        memory = json.loads(self.figures.read_text()).get(namespace, {})
        selector = urllib.parse.parse_qs(query).get("labelSelector", [""])[0]
        return pod_metrics(self._pods(namespace, selector), memory, datetime.now(UTC))

    def _pods(self, namespace: str, selector: str) -> list[Mapping[str, Any]]:
        tls = ssl.create_default_context(cafile=str(self.pki / "ca.crt"))
        tls.load_cert_chain(str(self.pki / "admin.crt"), str(self.pki / "admin.key"))
        server = _HERE.inner_server
        query = urllib.parse.urlencode({"labelSelector": selector})
        with urllib.request.urlopen(f"{server}/api/v1/namespaces/{namespace}/pods?{query}", context=tls) as answer:
            items: list[Mapping[str, Any]] = json.loads(answer.read())["items"]
            return items

    def _answer(self, code: int, body: Mapping[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.metrics_api", description=__doc__)
    parser.add_argument("pki", type=Path, help="the cluster's folder of certificates")
    parser.add_argument("figures", type=Path, help="JSON file: namespace → pod → memory")
    arguments = parser.parse_args()
    _Handler.pki, _Handler.figures = arguments.pki, arguments.figures
    server = ThreadingHTTPServer((_HERE.control_plane, 0), _Handler)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(str(arguments.pki / "apiserver.crt"), str(arguments.pki / "apiserver.key"))
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
