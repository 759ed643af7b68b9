"""A cluster with the operator in it, and R1Deployments whose engines are stand-ins."""

from __future__ import annotations

import base64
import json
import re
import ssl
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import yaml
from r1_operator.api import names
from r1_operator.manifests.keys import Keys

from tests import waiting
from tests.behaviour.operator_process import CHECKOUT, Operator
from tests.cluster.cluster import Cluster

Seen = TypeVar("Seen")
CRD = CHECKOUT / "charts" / "r1-operator" / "files" / "r1deployments.yaml"
OWNED = (
    "/api/v1/pods",
    "/api/v1/services",
    "/api/v1/configmaps",
    "/api/v1/secrets",
    "/apis/apps/v1/deployments",
    "/apis/networking.k8s.io/v1/networkpolicies",
)
LEASE_NAMESPACE = "default"
"""Of an operator that is told of no other."""
NODES = 8
RDMA, NICS, EFA = "rdma/ib", "nvidia.com/hostdev", "vpc.amazonaws.com/efa"
"""Devices that are played on each node, as the examples of the fabrics call them."""
PATIENCE_SECONDS = waiting.PATIENCE_SECONDS
"""A gang of stand-ins is up in 10 s on an idle machine; two loaded cores need longer."""


_SILENCING = frozenset({"die", "freeze", "exit", "exit70", "exit78"})
_UNANSWERED = (28, 52, 56)
"""curl's codes where the other side took the request and then stood still or ended."""


class Reader:
    """GETs of the API server. A kubectl for each look takes a tenth of a core-second; tests look all the time."""

    def __init__(self, cluster: Cluster) -> None:
        pki = cluster.paths.pki
        self._tls = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self._tls.load_cert_chain(str(pki / "admin.crt"), str(pki / "admin.key"))
        self._server = yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Raises urllib.error.HTTPError."""
        url = f"{self._server}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=60, context=self._tls) as answer:
            return dict(json.loads(answer.read()))


class World:
    """What the tests act on."""

    def __init__(self, cluster: Cluster, operator: Operator) -> None:
        self.cluster, self.operator = cluster, operator
        self.reader = Reader(cluster)

    def left(self) -> list[str]:
        """Whatever exists of any R1Deployment, in all namespaces."""
        return self._names(OWNED)

    def engine_pods(self) -> list[str]:
        return self._names(["/api/v1/pods"], ",app.kubernetes.io/component=engine")

    def _names(self, paths: Sequence[str], more: str = "") -> list[str]:
        selector = f"app.kubernetes.io/managed-by=r1-operator{more}"
        found = [
            (path, item["metadata"])
            for path in paths
            for item in self.reader.get(path, labelSelector=selector)["items"]
        ]
        return [f"{path.rsplit('/', 1)[1]} {meta['namespace']}/{meta['name']}" for path, meta in found]


class Deployments:
    """`deploy(**spec)` → an R1Deployment of stand-ins named `r1`, each in a namespace of its own."""

    def __init__(self, world: World, namespace: str) -> None:
        self._world, self._namespace = world, namespace
        self._made: list[Deployment] = []

    def __call__(self, **spec: Any) -> Deployment:
        deployment = self.in_own_namespace()
        deployment.apply(**spec)
        return deployment

    def in_own_namespace(self) -> Deployment:
        """One that is not applied yet: its namespace is there, for what others put into it first."""
        namespace = f"{self._namespace}-{len(self._made)}" if self._made else self._namespace
        self._world.cluster.kubectl("create", "namespace", namespace)
        deployment = Deployment(self._world, namespace, "r1")
        self._made.append(deployment)
        return deployment

    def delete(self) -> None:
        """Delete them; what is left of them is looked at when all tests are over."""
        for deployment in self._made:
            deployment.kubectl("delete", "r1d", "--all", "--wait=false")


class Deployment:
    """One R1Deployment."""

    def __init__(self, world: World, namespace: str, name: str) -> None:
        self.cluster, self.namespace, self.name = world.cluster, namespace, name
        self._world, self._reader = world, world.reader

    def apply(self, env: Mapping[str, str] | None = None, engine: Mapping[str, Any] | None = None, **spec: Any) -> None:
        """`env`: more variables of the engine. `engine`: more of spec.engine."""
        standin = {"PYTHONPATH": "/opt/r1/tests/standin/image:/opt/r1", "R1_STANDIN_CHECK_WEIGHTS": "0"}
        variables = {**({} if (engine or {}).get("image") else standin), **(env or {})}
        manifest = {
            "apiVersion": "r1operator.dev/v1alpha1",
            "kind": "R1Deployment",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {
                "model": {
                    "name": "r1-operator/tiny-r1",
                    "servedName": "tiny-r1",
                    "weights": {"hostPath": {"path": str(CHECKOUT)}},
                },
                "hardware": "CPUx1",
                "topology": {"nodesPerReplica": 2},
                "drain": {"seconds": 20},
                "startup": {"seconds": 120},
                "strategy": {"minReadySeconds": 2},
                "engine": {"env": [{"name": k, "value": v} for k, v in variables.items()], **(engine or {})},
            }
            | spec,
        }
        self.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, stdin=stdin)

    def r1(self, *words: str) -> str:
        """`r1 …` as a user types it; → what it printed."""
        code, said = self.r1_said(*words)
        assert code == 0, f"r1 {' '.join(words)}: {code}: {said}"
        return said

    def r1_said(self, *words: str) -> tuple[int, str]:
        """The same: → its exit code, and what it printed."""
        command = [sys.executable, "-m", "r1_operator.cli.main", *words, "--kubeconfig", str(self.cluster.kubeconfig)]
        where = ["-n", LEASE_NAMESPACE if words[0] == "nodes" else self.namespace]
        done = subprocess.run([*command, *where], capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
        return done.returncode, done.stdout + done.stderr

    def nodes(self) -> dict[str, str]:
        """Pod → node, of engine pods that hold one."""
        over = ("Failed", "Succeeded")
        held = [p for p in self.pods() if p["spec"].get("nodeName") and p["status"].get("phase") not in over]
        return {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in held}

    def resource(self) -> dict[str, Any]:
        return self._reader.get(f"/apis/r1operator.dev/v1alpha1/namespaces/{self.namespace}/r1deployments/{self.name}")

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.resource().get("status") or {}
        return status

    def uid(self) -> str:
        return str(self.resource()["metadata"]["uid"])

    def owners(self) -> set[str]:
        """Uids of the R1Deployments that own anything here."""
        return {
            owner["uid"]
            for path in OWNED
            for item in self._reader.get(path, labelSelector="app.kubernetes.io/managed-by=r1-operator")["items"]
            for owner in item["metadata"].get("ownerReferences", ())
            if item["metadata"]["namespace"] == self.namespace and owner["kind"] == "R1Deployment"
        }

    def condition(self, kind: str) -> dict[str, Any]:
        return next((c for c in self.status().get("conditions", ()) if c["type"] == kind), {})

    def pods(self, component: str = "engine") -> list[dict[str, Any]]:
        selector = f"app.kubernetes.io/component={component}"
        items: list[dict[str, Any]] = self._reader.get(
            f"/api/v1/namespaces/{self.namespace}/pods", labelSelector=selector
        )["items"]
        return items

    def pod(self, name: str) -> dict[str, Any]:
        return next(p for p in self.pods() if p["metadata"]["name"] == name)

    def serving_gateways(self) -> frozenset[str]:
        """Pods of the gateway that users' requests go to."""
        return frozenset(
            pod["metadata"]["name"]
            for pod in self.pods("gateway")
            if "deletionTimestamp" not in pod["metadata"]
            and any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
        )

    def events(self) -> list[str]:
        items = self._reader.get(f"/api/v1/namespaces/{self.namespace}/events")["items"]
        return [f"{e['reason']}: {e['message']}" for e in items if e["involvedObject"]["kind"] == "R1Deployment"]

    def await_event(self, reason: str, *words: str) -> str:
        """The first event of this reason whose message holds all `words`. Events are written behind the status."""

        def told() -> str:
            return next((e for e in self.events() if e.startswith(f"{reason}: ") and all(w in e for w in words)), "")

        return wait_for(f"event {reason} {' '.join(words)}", told)

    def gangs(self) -> dict[str, str]:
        """Gang → stage, as the status tells."""
        return {r["name"]: r["stage"] for r in self.status().get("replicaStatuses", ())}

    def await_ready(self, *gangs: str) -> None:
        """Exactly these gangs, each Ready, and the resource Ready."""
        wanted = dict.fromkeys(gangs, "Ready")
        wait_for(f"{', '.join(gangs)} ready", self.gangs, until=lambda seen: seen == wanted)
        self.await_condition("Ready", "True")

    def await_condition(self, kind: str, status: str, reason: str | None = None) -> dict[str, Any]:
        def holds(condition: dict[str, Any]) -> bool:
            return condition.get("status") == status and reason in (None, condition.get("reason"))

        return wait_for(f"{kind}={status} {reason or ''}", lambda: self.condition(kind), until=holds)

    def fault(self, pod: str, kind: str, **fields: Any) -> None:
        """Injects a fault of the stand-in in one pod. Raises where it did not arrive."""
        address = self.pod(pod)["status"]["podIP"]
        body = json.dumps({"kind": kind, **fields})
        command = ["curl", "-s", "-m", "20", "-H", "Content-Type: application/json", "-d", body]
        done = self.cluster.exec_inside([*command, f"http://{address}:8500/fault"], capture_output=True, check=False)
        assert done.returncode in {0, *(_UNANSWERED if kind in _SILENCING else ())}, f"{kind}: curl {done.returncode}"

    def left(self) -> list[str]:
        """Whatever of it still exists."""
        return [name for name in self._world.left() if f" {self.namespace}/" in name]

    def prompted(self, pod: str) -> float:
        """Tokens of prompts that the engine of this pod has taken since it was started."""
        address = self.pod(pod)["status"]["podIP"]
        text = self.cluster.exec_inside(["curl", "-sf", f"http://{address}:30000/metrics"], capture_output=True).stdout
        return sum(float(n) for n in re.findall(r"(?m)^sglang:prompt_tokens_total\S* (\S+)$", text))

    def gateway_token(self) -> str:
        """What the gateways' admin port asks for."""
        master = self._reader.get(f"/api/v1/namespaces/{LEASE_NAMESPACE}/secrets/{names.MASTER_SECRET}")
        return Keys(base64.b64decode(master["data"][names.MASTER_KEY_KEY])).gateway(self.uid())

    def routed(self) -> set[str]:
        """Gangs that every gateway pod which runs sends requests to."""
        token = self.gateway_token()
        heads = {f"http://{p['status'].get('podIP')}:30000": p["metadata"]["name"][:-2] for p in self.pods()}
        found = []
        for pod in self.pods("gateway"):
            url = f"http://{pod['status']['podIP']}:8001/workers"
            command = ["curl", "-sf", "-H", f"Authorization: Bearer {token}", url]
            told = json.loads(self.cluster.exec_inside(command, capture_output=True).stdout)
            found.append({heads[w["url"]] for w in told["workers"] if w["state"] == "Routing"})
        return set.intersection(*found)

    def in_flight(self, pod: str) -> int:
        """Requests that the engine of this pod is answering."""
        address = self.pod(pod)["status"]["podIP"]
        answer = self.cluster.exec_inside(["curl", "-sf", f"http://{address}:8500/status"], capture_output=True)
        return int(json.loads(answer.stdout)["inFlight"])

    def service(self) -> str:
        """URL of the gateway's Service, for clients inside the cluster."""
        address = self._reader.get(f"/api/v1/namespaces/{self.namespace}/services/{self.name}-gateway")
        return f"http://{names.host(address['spec']['clusterIP'])}:8000"

    def gateway(self) -> str:
        """URL of the same for clients on the host."""
        port = self.cluster.expose(self.namespace, f"{self.name}-gateway", 8000)
        return f"http://127.0.0.1:{port}"


def wait_for(
    what: str,
    probe: Callable[[], Seen],
    *,
    until: Callable[[Seen], object] = bool,
    seconds: float = PATIENCE_SECONDS,
    interval: float = 0.3,
) -> Seen:
    """Call `probe` until `until` accepts what it returns. Raises AssertionError with what was seen last."""
    return waiting.wait_for(what, probe, seconds, until=until, interval=interval)


def names_of(objects: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted(o["metadata"]["name"] for o in objects)
