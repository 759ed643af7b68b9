"""What the faults act on: two replicas of two nodes on a real Kubernetes, two gateways, spare nodes, an operator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from r1_operator.api import names

from tests.behaviour.operator_process import CHECKOUT, Operator
from tests.behaviour.world import CRD, Deployment, World, wait_for
from tests.campaigns.faults import preload, watcher
from tests.campaigns.faults.measure import Seen
from tests.campaigns.rotation import is_ready
from tests.cluster.cluster import Cluster, ClusterError
from tests.cluster.config import ClusterConfig
from tests.crd import await_crd
from tests.waiting import NeverCame

NODES = 8
FOR_GATEWAYS = 2
"""Nodes without the taint of GPU nodes. Two replicas take four of the others; two are free."""
ENGINE_NODES = tuple(f"n{number}" for number in range(FOR_GATEWAYS + 1, NODES + 1))
"""No engine goes elsewhere, or a node's fault would take a gateway along."""
REPLICAS, NODES_PER_REPLICA, GATEWAYS = 2, 2, 2
SETTLE_SECONDS = 420.0
"""A node is given up after a minute, and a real engine takes another to two to start."""
STANDIN_ENV = {
    "R1_STANDIN_TOKENS_PER_SECOND": "400",
    "R1_STANDIN_RANK_TOKENS_PER_SECOND": "10000",
    "R1_STANDIN_START_SECONDS": "2",
}


@dataclass(frozen=True, slots=True)
class Hit:
    """What a fault has hit: the URL of a replica's engine; empty: none. `gangs`: those that others must replace."""

    url: str = ""
    gangs: tuple[str, ...] = ()


NOBODY = Hit()


@dataclass(frozen=True, slots=True)
class Victim:
    """A replica that a fault is about to hit: its gang, the URL of its engine, and its pods and nodes by node index."""

    gang: str
    url: str
    pods: tuple[str, ...]
    nodes: tuple[str, ...]

    @property
    def replaced(self) -> Hit:
        return Hit(self.url, (self.gang,))

    @property
    def kept(self) -> Hit:
        return Hit(self.url)


class Watch:
    """The gateways' own words about whom they send requests to, as they come."""

    def __init__(self, cluster: Cluster) -> None:
        pipe, command = subprocess.PIPE, [sys.executable, watcher.__file__]
        self._process = cluster.popen_inside(command, stdin=pipe, stdout=pipe, text=True)
        self._told: list[Seen] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        self._of: Sequence[tuple[str, str]] = ()

    def of(self, gateways: Sequence[tuple[str, str]]) -> None:
        """Looks at these from now on: address and token of each."""
        if gateways != self._of:
            assert self._process.stdin is not None
            self._of = gateways
            self._process.stdin.write(json.dumps(list(gateways)) + "\n")
            self._process.stdin.flush()

    def seen(self) -> list[Seen]:
        return list(self._told)

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._thread.join()

    def _listen(self) -> None:
        for line in self._process.stdout or ():
            told = json.loads(line)
            routing = None if told["routing"] is None else frozenset(told["routing"])
            self._told.append(Seen(told["at"], told["gateway"], routing))


class Fleet:
    """One R1Deployment, what it consists of now, and whether it is as it should be."""

    def __init__(self, world: World, r1: Deployment, operators: Sequence[Operator], env: Mapping[str, str]) -> None:
        self.world, self.r1, self.cluster = world, r1, world.cluster
        self.operators, self.env = operators, dict(env)
        self._turn, self.at = 0, 0.0
        """`at`: when the fault that is under way began (Unix seconds)."""

    def victim(self) -> Victim:
        """In turn each replica; the fault begins when this returns."""
        status = self.r1.status()["replicaStatuses"]
        gang = sorted(entry["name"] for entry in status)[self._turn % len(status)]
        self._turn += 1
        pods = sorted((p for p in self.r1.pods() if p["metadata"]["name"].startswith(f"{gang}-")), key=_name)
        nodes = tuple(pod["spec"]["nodeName"] for pod in pods)
        url = f"http://{names.host(pods[0]['status']['podIP'])}:30000"
        self.at = time.time()
        return Victim(gang, url, tuple(map(_name, pods)), nodes)

    def on_node(self, node: str, pattern: str, number: int) -> None:
        """A signal to the processes of a node whose command line matches. Raises LookupError where there is none."""
        script = CHECKOUT / "tests" / "cluster" / "signalling.py"
        command = [sys.executable, str(script), pattern, str(int(number))]
        if not int(self.cluster.exec_inside(command, node, capture_output=True).stdout):
            raise LookupError(f"no process of {node} matches {pattern!r}")

    def gateway_node(self) -> str:
        """A node with one, in turn."""
        self._turn += 1
        pods = [pod for pod in self.r1.pods("gateway") if not _is_over(pod)]
        return str(sorted(pods, key=_name)[self._turn % len(pods)]["spec"]["nodeName"])

    def heal(self, node: str) -> None:
        self.cluster.heal_node(node)
        self.cluster.await_nodes(node)

    def await_node(self, node: str, condition: str, status: str) -> None:
        def seen() -> str:
            conditions = self.world.reader.get(f"/api/v1/nodes/{node}")["status"]["conditions"]
            return next(str(c["status"]) for c in conditions if c["type"] == condition)

        wait_for(f"{condition} of {node}", seen, until=lambda now: now == status)

    def stays(self, seconds: float) -> None:
        """How long a fault lasts."""
        time.sleep(seconds)

    def may_make_pods(self) -> bool:
        """Whether the API server takes a pod in its namespace now."""
        with suppress(ClusterError):
            self.r1.kubectl("run", "probe", "--image=busybox:dev", "--dry-run=server")
            return True
        return False

    def signal_component(self, name: str, number: int) -> None:
        """To a program of the control plane, also if one fault ago it was killed and is being started again."""

        def is_sent() -> bool:
            with suppress(ClusterError):
                self.cluster.signal_component(name, number)
                return True
            return False

        wait_for(f"{name} runs", is_sent)

    def gateways(self) -> list[tuple[str, str]]:
        """Address and token of each."""
        token = self.r1.gateway_token()
        pods = [pod for pod in self.r1.pods("gateway") if pod["status"].get("podIP") and not _is_over(pod)]
        return sorted((str(pod["status"]["podIP"]), token) for pod in pods)

    def patch_env(self, **more: str) -> None:
        """Another revision."""
        env = [{"name": name, "value": value} for name, value in {**self.env, **more}.items()]
        self.patch({"engine": {"env": env}})

    def patch(self, spec: Mapping[str, Any]) -> None:
        self.r1.kubectl("patch", "r1d", "r1", "--type=merge", "--patch", json.dumps({"spec": spec}))

    def unsettled(self) -> str:
        """What is not as before a fault; empty when all is. Also where nobody answers."""
        try:
            return self._unsettled()
        except (OSError, ClusterError, KeyError, subprocess.SubprocessError) as error:
            return f"{type(error).__name__}: {error}"

    def _unsettled(self) -> str:
        resource = self.r1.resource()
        status: dict[str, Any] = resource.get("status") or {}
        if status.get("observedGeneration") != resource["metadata"]["generation"]:
            return "the newest spec has not been seen"
        counts = [status.get(f, 0) for f in ("desiredReplicas", "replicas", "readyReplicas", "updatedReplicas")]
        if set(counts) != {REPLICAS}:
            return f"{counts} of {REPLICAS} desired, made, ready, updated; {self.r1.gangs()}"
        engines = [pod for pod in self.r1.pods() if not _is_over(pod)]
        if len(engines) != REPLICAS * NODES_PER_REPLICA or not all(map(is_ready, engines)):
            return f"{len(engines)} engine pods, {sum(map(is_ready, engines))} ready"
        gateways = [pod for pod in self.r1.pods("gateway") if not _is_over(pod)]
        if len(gateways) != GATEWAYS or not all(map(is_ready, gateways)):
            return f"{len(gateways)} gateway pods, {sum(map(is_ready, gateways))} ready"
        ready = self.r1.condition("Ready")
        return "" if ready.get("status") == "True" else str(ready.get("message"))

    def rest(self, most: int) -> None:
        """Replicas that have failed more often in a row than `most` would come back later and later: new ones."""
        if max(entry.get("restarts", 0) for entry in self.r1.status()["replicaStatuses"]) > most:
            self.r1.kubectl("scale", "r1d", "r1", "--replicas=0")
            wait_for("none is left", self.r1.pods, until=lambda pods: pods == [])
            self.r1.kubectl("scale", "r1d", "r1", f"--replicas={REPLICAS}")
        self.settle()

    def settle(self, hit: Hit = NOBODY) -> None:
        """Until all is as before a fault, with others in the place of what it has hit, and the operator has looked."""

        def why_not() -> str:
            here = set(hit.gangs) & self.r1.gangs().keys() if hit.gangs and not self.unsettled() else set()
            return f"{', '.join(here)} is still there" if here else self.unsettled()

        wait_for("the operator looks", self._looks, seconds=SETTLE_SECONDS)
        wait_for("all is as wanted", why_not, until=lambda why: why == "", seconds=SETTLE_SECONDS)

    def _looks(self) -> bool:
        """Whether some operator makes a round for a change that is made now."""
        try:
            before = self._rounds()
            self.r1.kubectl("annotate", "r1d", "r1", "--overwrite", f"faults/look={time.time()}")
            wait_for("a round", self._rounds, until=lambda count: count not in (0.0, before), seconds=10)
        except (OSError, ClusterError, NeverCame, subprocess.SubprocessError):
            return False
        return True

    def _rounds(self) -> float:
        """Of all operators that answer."""
        made = 0.0
        for operator in self.operators:
            with suppress(subprocess.SubprocessError):
                made += operator.metric(r"^r1_operator_reconcile_seconds_count")
        return made

    def gateway_lives(self) -> frozenset[tuple[str, int]]:
        """Each gateway pod with the number of its restarts."""
        pods = self.r1.pods("gateway")
        return frozenset(
            (_name(pod), sum(c["restartCount"] for c in pod["status"].get("containerStatuses", ()))) for pod in pods
        )


def _name(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"]["name"])


def _is_over(pod: Mapping[str, Any]) -> bool:
    """It holds nothing any more, or is on the way there."""
    return "deletionTimestamp" in pod["metadata"] or pod["status"].get("phase") in ("Failed", "Succeeded")


def _spec(engine: str) -> dict[str, Any]:
    hosts = [{"key": "kubernetes.io/hostname", "values": list(ENGINE_NODES)}]
    spec: dict[str, Any] = {
        "hardware": "engines",
        "hardwareProfile": {"name": "engines", "extends": "CPUx1", "nodeLabels": hosts},
        "replicas": REPLICAS,
        "topology": {"nodesPerReplica": NODES_PER_REPLICA},
        "drain": {"seconds": 30},
    }
    if engine == "real":
        real = yaml.safe_load((CHECKOUT / "examples" / "tiny.yaml").read_text())["spec"]
        weights = {"hostPath": {"path": str(CHECKOUT / "engine" / "tiny_model" / "weights")}}
        kept = {name: real[name] for name in ("topology", "engine", "startup")}
        spec |= {**kept, "model": real["model"] | {"weights": weights}}
    return spec


@contextmanager
def cluster_and_operators(folder: Path) -> Iterator[tuple[World, list[Operator]]]:
    """A cluster with nodes for gateways, and two operators, the first of them kept running."""
    with Cluster.start(ClusterConfig(name=f"faults-{os.getpid()}", nodes=NODES, gpus_per_node=1)) as cluster:
        cluster.kubectl("taint", "node", *ENGINE_NODES, "nvidia.com/gpu=present:NoSchedule")
        cluster.kubectl("apply", "-f", str(CRD))
        await_crd(cluster.kubectl)
        operators = [Operator(cluster, folder / f"{name}.log", name, 18080 + i) for i, name in enumerate(("a", "b"))]
        operators[0].environment |= preload.operator_environment(folder)
        operators[0].keep()
        try:
            yield World(cluster, operators[0]), operators
        finally:
            for operator in operators:
                if operator.is_running():
                    operator.end()


@contextmanager
def fleet(world: World, operators: Sequence[Operator], engine: str) -> Iterator[Fleet]:
    """The R1Deployment in a namespace of its own; at the end it is deleted, and nothing of it is left."""
    namespace = f"faults-{engine}-{time.monotonic_ns() // 10**6}"
    world.cluster.kubectl("create", "namespace", namespace)
    r1 = Deployment(world, namespace, "r1")
    env = {**preload.engine_environment(engine), **(STANDIN_ENV if engine == "standin" else {})}
    r1.apply(env=env, **_spec(engine))
    env = {each["name"]: each["value"] for each in r1.resource()["spec"]["engine"].get("env", [])}
    try:
        yield Fleet(world, r1, operators, env)
    finally:
        with suppress(ClusterError):
            r1.kubectl("delete", "r1d", "--all", "--wait=false")
            wait_for("nothing of it is left", r1.left, until=lambda left: left == [])
