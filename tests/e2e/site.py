"""The operator installed on a local cluster, and one R1Deployment on it: what the demo and the tests act on."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.cluster import Cluster
from tests.waiting import wait_for

CHECKOUT = Path(__file__).resolve().parents[2]
CHART = CHECKOUT / "charts" / "r1-operator"
WEIGHTS = CHECKOUT / "engine" / "tiny_model" / "weights"
OPERATOR_NAMESPACE = "r1-system"
# The local cluster knows images by these names; a registry would in a real one.
IMAGES = ("--set", "images.tag=dev")
# The checkout may lie anywhere.
FOLDERS = ("--set", f"hostPaths.allowedPrefixes={{{CHECKOUT}}}")

Report = Callable[[str], None]


def silent(_: str) -> None:
    """Reports nothing."""


@dataclass(frozen=True)
class Site:
    """One R1Deployment by namespace and name on a cluster."""

    cluster: Cluster
    namespace: str
    name: str

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("--namespace", self.namespace, *arguments, stdin=stdin)

    def resource(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", "r1d", self.name, "--output", "json"))
        return found

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.resource().get("status", {})
        return status

    def condition(self, kind: str) -> dict[str, Any]:
        return next((c for c in self.status().get("conditions", ()) if c["type"] == kind), {})

    def pods(self, component: str = "engine") -> list[dict[str, Any]]:
        selector = f"app.kubernetes.io/instance={self.name},app.kubernetes.io/component={component}"
        found = json.loads(self.kubectl("get", "pods", "--selector", selector, "--output", "json"))
        items: list[dict[str, Any]] = found["items"]
        return items

    def events(self) -> list[dict[str, Any]]:
        found = json.loads(self.kubectl("get", "events", "--output", "json"))
        return [e for e in found["items"] if e.get("involvedObject", {}).get("kind") == "R1Deployment"]

    def gateway(self) -> str:
        """Base URL of the gateway on this machine's loopback."""
        return f"http://127.0.0.1:{self.cluster.expose(self.namespace, f'{self.name}-gateway', 8000)}"

    def wait_ready(self, replicas: int, seconds: float, report: Report = silent) -> dict[str, Any]:
        """Waits until `replicas` replicas are ready and Ready is True; reports each change of stage."""
        told: dict[str, str] = {}

        def look() -> dict[str, Any]:
            status = self.status()
            for replica in status.get("replicaStatuses", ()):
                line = f"{replica['stage']}" + (f": {replica['message']}" if replica.get("message") else "")
                if told.get(replica["name"]) != line:
                    told[replica["name"]] = line
                    report(f"{replica['name']}  {line}")
            return status

        def is_ready(status: dict[str, Any]) -> bool:
            ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))
            return ready and status.get("readyReplicas", 0) >= replicas

        return wait_for(f"{self.name} ready with {replicas} replicas", look, seconds, until=is_ready, describe=_brief)


def _brief(status: Mapping[str, Any]) -> str:
    return json.dumps({k: status.get(k) for k in ("readyReplicas", "replicaStatuses", "conditions")}, indent=1)


def tiny_manifest(name: str, **spec: Any) -> dict[str, Any]:
    """`examples/tiny.yaml` under another name, with this checkout's weights; `spec` replaces whole fields of it."""
    manifest: dict[str, Any] = yaml.safe_load((CHECKOUT / "examples" / "tiny.yaml").read_text())
    manifest["metadata"]["name"] = name
    manifest["spec"]["model"]["weights"] = {"hostPath": {"path": str(WEIGHTS)}}
    manifest["spec"] |= spec
    return manifest


def install_operator(cluster: Cluster) -> str:
    """`helm install` of the chart as a user would; returns what Helm printed."""
    return cluster.helm(
        "install", "r1", str(CHART), "--namespace", OPERATOR_NAMESPACE, "--create-namespace", *IMAGES, *FOLDERS,
        "--wait", "--timeout", "240s",
    )  # fmt: skip


def uninstall_operator(cluster: Cluster) -> str:
    return cluster.helm("uninstall", "r1", "--namespace", OPERATOR_NAMESPACE, "--wait", "--timeout", "240s")


@contextmanager
def deployed(cluster: Cluster, namespace: str, manifest: Mapping[str, Any]) -> Iterator[Site]:
    """Applies `manifest` in a namespace of its own, which is deleted at the end without waiting for it."""
    site = Site(cluster, namespace, manifest["metadata"]["name"])
    cluster.kubectl("create", "namespace", namespace)
    try:
        site.kubectl("apply", "--filename", "-", stdin=json.dumps(manifest))
        yield site
    finally:
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")


@dataclass(frozen=True)
class Answer:
    """One HTTP answer: status, headers (lower case) and body."""

    status: int
    headers: dict[str, str]
    body: str


def post(url: str, body: Mapping[str, Any], seconds: float = 60, headers: Mapping[str, str] | None = None) -> Answer:
    """POSTs JSON and returns the answer whatever its status."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})}
    )
    try:
        with urllib.request.urlopen(request, timeout=seconds) as response:
            return Answer(response.status, _lower(response.headers), response.read().decode())
    except urllib.error.HTTPError as error:
        return Answer(error.code, _lower(error.headers), error.read().decode())


def _lower(headers: Any) -> dict[str, str]:
    return {key.lower(): value for key, value in headers.items()}


def chat_body(question: str, model: str = "tiny-r1", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0, **more}


def kill_in_pod(site: Site, pod: str, pattern: str) -> tuple[int, float]:
    """kill -9 of every process of a pod's container whose command line matches `pattern`; returns how many, and when
    (Unix seconds)."""
    script = (
        "import os,re,signal,time\n"
        "pids = []\n"
        "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
        "    if int(pid) == os.getpid(): continue\n"
        "    try: line = open(f'/proc/{pid}/cmdline').read().replace(chr(0), ' ')\n"
        "    except OSError: continue\n"
        f"    if re.search({pattern!r}, line): pids.append(int(pid))\n"
        "now = time.time()\n"
        "for pid in pids: os.kill(pid, signal.SIGKILL)\n"
        "print(len(pids), now)\n"
    )
    count, moment = site.kubectl("exec", pod, "--", "python", "-c", script).split()[-2:]
    return int(count), float(moment)
