"""Rolls, scale-downs, deleted gateways and drained nodes in a row under users who never pause:
`python -m tests.campaigns.rotation --count 30 --load 4`.

The users (`clients.py`) ask through the gateway's Service, from a node. An operation is complete when the status says
so and nothing of what it replaced is left; only then comes the next one. Exit code 1 if a single request was lost.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.behaviour.operator_process import CHECKOUT, Operator
from tests.behaviour.world import CRD, Deployment, Deployments, World, wait_for
from tests.campaigns import clients
from tests.campaigns.clients import Loss, Tally
from tests.cluster.cluster import Cluster
from tests.cluster.config import ClusterConfig
from tests.crd import await_crd

NODES = 5
"""Two replicas, one that is made before another goes, one drained, and one to spare."""
FOR_GATEWAYS = 2
"""Nodes without the taint of GPU nodes."""
GATEWAYS = 2
SETTLE_SECONDS = 900.0
"""A real engine loads for a minute or more on two busy cores."""
FAST = {"R1_STANDIN_TOKENS_PER_SECOND": "400", "R1_STANDIN_RANK_TOKENS_PER_SECOND": "10000"}


@dataclass(frozen=True, slots=True)
class Done:
    """One operation that is complete, and what came of the requests that ended meanwhile."""

    name: str
    what: str
    seconds: float
    tally: Tally

    def line(self) -> str:
        tally = self.tally
        answered = f"{tally.new} + {tally.kept} answered, {tally.retried} retried, {len(tally.lost)} lost"
        return f"{self.name:<15} {self.seconds:6.1f} s  {answered}, the slowest in {tally.slowest:.1f} s  ({self.what})"


class Crowd:
    """The users, in a process on a node."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def tally(self) -> Tally:
        """Of the requests that ended since the last call."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Tally.from_json(self.read())

    def read(self) -> str:
        assert self._process.stdout is not None
        line = str(self._process.stdout.readline())
        assert line, f"the users ended with exit code {self._process.wait()}"
        return line

    def end(self) -> None:
        """They end with the answers that they wait for."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(SETTLE_SECONDS)


@contextmanager
def crowd(r1: Deployment, node: str | None) -> Iterator[Crowd]:
    """Users who are answered already. `node`: where they are; None: beside the control plane."""
    address = r1.kubectl("get", "service", f"{r1.name}-gateway", "--output", "jsonpath={.spec.clusterIP}")
    command = [sys.executable, clients.__file__, f"http://{address}:8000"]  # a node has a current folder of its own
    process = r1.cluster.popen_inside(command, node, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    users = Crowd(process)
    try:
        assert users.read().strip() == "ready"
        yield users
    finally:
        users.end()


class Rotation:
    """One R1Deployment and what is done to it."""

    def __init__(self, r1: Deployment, env: Sequence[Mapping[str, Any]]) -> None:
        self._r1, self._env = r1, env
        self._rolls = 0
        self._replicas = 1

    def settle(self) -> None:
        """Until the last operation is complete."""
        wait_for("all is as wanted", self._unsettled, until=lambda why: why == "", seconds=SETTLE_SECONDS)

    def roll(self) -> str:
        self._rolls += 1
        env = [*self._env, {"name": "ROLL", "value": str(self._rolls)}]
        self._r1.kubectl(
            "patch", "r1d", "r1", "--type=merge", "--patch", json.dumps({"spec": {"engine": {"env": env}}})
        )
        return f"{self._replicas} replicas"

    def scale_up(self) -> str:
        return self._scale(2)

    def scale_down(self) -> str:
        return self._scale(1)

    def delete_gateway(self) -> str:
        """In turn the one that is there for the longest time, so that each meets every state of the other."""
        pods = sorted(self._r1.pods("gateway"), key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
        name = str(pods[0]["metadata"]["name"])
        self._r1.kubectl("delete", "pod", name)
        return name

    def drain_node(self) -> str:
        """A node with a replica, and perhaps with a gateway, while another replica serves."""
        node = str(self._r1.status()["replicaStatuses"][0]["nodes"][0])
        options = ("--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={SETTLE_SECONDS:.0f}s")
        try:
            self._r1.cluster.kubectl("drain", node, *options, timeout=SETTLE_SECONDS)
            self.settle()
        finally:
            self._r1.cluster.kubectl("uncordon", node)
        return node

    def _scale(self, replicas: int) -> str:
        self._replicas = replicas
        self._r1.kubectl("scale", "r1d", "r1", f"--replicas={replicas}")
        return f"to {replicas}"

    def _unsettled(self) -> str:
        """What is not as wanted yet; empty when all is."""
        resource = self._r1.resource()
        status: dict[str, Any] = resource.get("status") or {}
        if status.get("observedGeneration") != resource["metadata"]["generation"]:
            return "the newest spec has not been seen"
        counts = [status.get(f, 0) for f in ("desiredReplicas", "replicas", "readyReplicas", "updatedReplicas")]
        if set(counts) != {self._replicas} or status["currentRevision"] != status["updateRevision"]:
            return f"{counts} of {self._replicas} desired, made, ready, updated; {self._r1.gangs()}"
        engines, gateways = self._r1.pods(), self._r1.pods("gateway")
        if len(engines) != self._replicas:
            return f"{len(engines)} engine pods"
        if len(gateways) != GATEWAYS or not all(map(is_ready, gateways)):
            return f"{len(gateways)} gateway pods, {sum(map(is_ready, gateways))} ready"
        ready = self._r1.condition("Ready")
        return "" if ready.get("status") == "True" else str(ready.get("message"))


def is_ready(pod: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" not in pod["metadata"] and any(
        c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ())
    )


OPERATIONS: tuple[tuple[str, Callable[[Rotation], str]], ...] = (
    ("roll", Rotation.roll),
    ("delete gateway", Rotation.delete_gateway),
    ("scale up", Rotation.scale_up),
    ("roll", Rotation.roll),
    ("drain node", Rotation.drain_node),
    ("delete gateway", Rotation.delete_gateway),
    ("scale down", Rotation.scale_down),
)


@contextmanager
def load(count: int) -> Iterator[None]:
    """So many processes that are always busy."""
    busy = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """A cluster with nodes for gateways, and the operator."""
    with Cluster.start(ClusterConfig(name=f"rotation-{os.getpid()}", nodes=NODES, gpus_per_node=1)) as cluster:
        nodes = [f"n{number}" for number in range(FOR_GATEWAYS + 1, NODES + 1)]
        cluster.kubectl("taint", "node", *nodes, "nvidia.com/gpu=present:NoSchedule")
        cluster.kubectl("apply", "-f", str(CRD))
        await_crd(cluster.kubectl)
        operator = Operator(cluster, folder / "operator.log")
        operator.keep()
        try:
            yield World(cluster, operator)
        finally:
            operator.end()


def _deploy(made: World, engine: str) -> tuple[Deployment, list[dict[str, Any]]]:
    """One replica of one node; → it and the environment of its engine."""
    spec: dict[str, Any] = {"topology": {"nodesPerReplica": 1}, "replicas": 1, "drain": {"seconds": 60}}
    if engine == "real":
        real = yaml.safe_load((CHECKOUT / "examples" / "tiny.yaml").read_text())["spec"]
        weights = {"hostPath": {"path": str(CHECKOUT / "engine" / "tiny_model" / "weights")}}
        spec |= {"model": real["model"] | {"weights": weights}, "engine": real["engine"], "startup": real["startup"]}
    r1 = Deployments(made, "rotation")(env=FAST, **spec)
    return r1, r1.resource()["spec"]["engine"].get("env", [])


def run(count: int, engine: str, folder: Path, only: Sequence[str] = ()) -> list[Done]:
    """The campaign; → its operations."""
    with world(folder) as made:
        r1, env = _deploy(made, engine)
        rotation = Rotation(r1, env)
        rotation.settle()
        done: list[Done] = []
        chosen = [each for each in OPERATIONS if not only or each[0] in only]
        with crowd(r1, "n1") as users:
            for number, (name, act) in enumerate(itertools.islice(itertools.cycle(chosen), count), start=1):
                began = time.monotonic()
                what = act(rotation)
                rotation.settle()
                done.append(Done(name, what, time.monotonic() - began, users.tally()))
                _say(f"{number:>3}/{count}  {done[-1].line()}")
                for loss in done[-1].tally.lost[:5]:
                    _say(f"         {_words(loss)}")
        return done


def table(done: Sequence[Done]) -> str:
    """A row for each kind of operation, and their sum."""
    head = (
        "operation",
        "times",
        "median s",
        "answered",
        "of them retried",
        "turned away",
        "broken",
        "slowest answer s",
    )
    names = list(dict.fromkeys(each.name for each in done))
    rows = [head, *(_row(name, [each for each in done if each.name == name]) for name in names), _row("all", done)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _row(name: str, done: Sequence[Done]) -> tuple[str, ...]:
    tallies = [each.tally for each in done]
    faults = Counter(loss.fault for tally in tallies for loss in tally.lost)
    return (
        name,
        str(len(done)),
        f"{statistics.median(each.seconds for each in done):.1f}",
        f"{sum(t.new + t.kept for t in tallies):,}",
        str(sum(t.retried for t in tallies)),
        str(faults["turned away"]),
        str(faults["broken"]),
        f"{max(t.slowest for t in tallies):.1f}",
    )


def _words(loss: Loss) -> str:
    return f"{loss.at}  {loss.fault}  {loss.kind} connection, {loss.told}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.rotation", description=__doc__)
    parser.add_argument("--count", type=int, default=30, help="operations in a row (default: %(default)s)")
    parser.add_argument("--load", type=int, default=0, help="busy processes beside it (default: %(default)s)")
    parser.add_argument("--engine", choices=("standin", "real"), default="standin", help="default: %(default)s")
    names = sorted({name for name, _ in OPERATIONS})
    parser.add_argument("--only", action="append", choices=names, default=[], help="these operations alone; repeatable")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="r1-rotation-"))
    _say(f"the operator's log: {folder}")
    with load(options.load):
        done = run(options.count, options.engine, folder, options.only)
    print(table(done))
    lost = [loss for each in done for loss in each.tally.lost]
    for loss in lost:
        print(_words(loss))
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
