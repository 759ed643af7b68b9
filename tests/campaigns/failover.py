"""Forced fail-overs of two operators under churn: `python -m tests.campaigns.failover --count 100`.

Two operators, deployments of stand-ins that are scaled and whose pods are deleted all the time, and at random moments
a leader that is killed or stands still until the other one leads, and then goes on. Afterwards the audit log says
whether anything was written twice: `fencing.double_writes` defines what that means. Exit code 1 if so.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from r1_operator.api.names import LEASE_NAME

from tests.behaviour.operator_process import METRICS_PORT, Operator
from tests.behaviour.world import CRD, Deployment, Deployments, World, wait_for
from tests.campaigns.fencing import DoubleWrite, double_writes, holds
from tests.cluster.audit import Write, audit_writes
from tests.cluster.cluster import Cluster, ClusterError
from tests.cluster.config import ClusterConfig
from tests.crd import await_crd

NODES = 6
LEASE_NAMESPACE = "default"
KINDS = ("kill", "freeze")


@dataclass(frozen=True, slots=True)
class FailOver:
    """One forced fail-over: seconds from the fault until the lease was the other one's."""

    kind: str
    seconds: float


class Pair:
    """Two operators, of which one leads."""

    def __init__(self, world: World, operators: Sequence[Operator]) -> None:
        self._world, self._operators = world, operators

    def start(self) -> None:
        for operator in self._operators:
            operator.start()
        wait_for("one leads", self._holder)

    def end(self) -> None:
        for operator in self._operators:
            if operator.is_running():
                operator.signal(signal.SIGCONT)
                operator.end()

    def fail_over(self, kind: str) -> FailOver:
        """Breaks the leader until the other one leads; both run when this returns."""
        holder = wait_for("one leads", self._holder)
        leader = next(o for o in self._operators if o.identity == holder)
        began = time.monotonic()
        if kind == "kill":
            leader.end(signal.SIGKILL)
        else:
            leader.signal(signal.SIGSTOP)
        wait_for("the other one leads", self._holder, until=lambda now: now not in ("", holder))
        seconds = time.monotonic() - began
        if kind == "freeze":
            leader.signal(signal.SIGCONT)
            leader.wait()  # it finds its lease lost, and ends
        leader.start()
        return FailOver(kind, seconds)

    def _holder(self) -> str:
        lease = self._world.reader.get(
            f"/apis/coordination.k8s.io/v1/namespaces/{LEASE_NAMESPACE}/leases",
            fieldSelector=f"metadata.name={LEASE_NAME}",
        )["items"]
        return str(lease[0]["spec"].get("holderIdentity") or "") if lease else ""


class Churn(threading.Thread):
    """Scales the deployments and deletes their pods, one thing after the other, until told to stop."""

    def __init__(self, deployments: Sequence[Deployment], seed: int) -> None:
        super().__init__(name="churn", daemon=True)
        self._deployments, self._random = deployments, random.Random(seed)
        self._over = threading.Event()
        self.done: Counter[str] = Counter()

    def run(self) -> None:
        while not self._over.wait(self._random.uniform(0.2, 2.0)):
            target = self._random.choice(self._deployments)
            act = self._random.choice((self._scale, self._scale, self._delete_pod))
            try:
                self.done[act(target)] += 1
            except (ClusterError, OSError) as error:
                self.done[f"refused: {type(error).__name__}"] += 1

    def stop(self) -> None:
        self._over.set()
        self.join()

    def _scale(self, target: Deployment) -> str:
        target.kubectl("scale", "r1d", target.name, f"--replicas={self._random.randint(0, 2)}")
        return "scaled"

    def _delete_pod(self, target: Deployment) -> str:
        pods = target.pods()
        if not pods:
            return "no pod to delete"
        name = self._random.choice(pods)["metadata"]["name"]
        target.kubectl("delete", "pod", name, "--wait=false", "--ignore-not-found")
        return "pod deleted"


@contextmanager
def two_operators(folder: Path) -> Iterator[tuple[World, Pair, frozenset[str]]]:
    """A cluster with the CRD and both operators, neither of them started."""
    with Cluster.start(ClusterConfig(name=f"failover-{os.getpid()}", nodes=NODES, gpus_per_node=1)) as cluster:
        cluster.kubectl("apply", "-f", str(CRD))
        await_crd(cluster.kubectl)
        operators = [
            Operator(cluster, folder / f"{name}.log", identity=name, port=METRICS_PORT + index)
            for index, name in enumerate(("operator-a", "operator-b"))
        ]
        world = World(cluster, operators[0])
        pair = Pair(world, operators)
        try:
            yield world, pair, frozenset(operator.user for operator in operators)
        finally:
            pair.end()


def run(count: int, seed: int, folder: Path) -> tuple[list[FailOver], list[Write], frozenset[str], Counter[str]]:
    """The campaign; → its fail-overs, all that was written, the operators' users and what the churn did."""
    chance = random.Random(seed)
    with two_operators(folder) as (world, pair, users):
        pair.start()
        deploy = Deployments(world, "failover")
        fast = {"R1_STANDIN_START_SECONDS": "1"}
        deployments = [deploy(env=fast), deploy(env=fast, topology={"nodesPerReplica": 1})]
        churn = Churn(deployments, seed)
        churn.start()
        made: list[FailOver] = []
        try:
            for number in range(1, count + 1):
                churn.join(chance.uniform(0, 4))  # any moment of a reconcile
                made.append(pair.fail_over(KINDS[number % 2]))
                _say(f"{number}/{count}  {made[-1].kind:<6}  the other leads after {made[-1].seconds:.1f} s")
        finally:
            churn.stop()
        for deployment in deployments:
            deployment.kubectl("scale", "r1d", deployment.name, "--replicas=1")
        for deployment in deployments:
            ready = wait_for(
                "one replica each", deployment.gangs, until=lambda gangs: list(gangs.values()) == ["Ready"]
            )
            _say(f"{deployment.namespace} has settled: {ready}")
        return made, audit_writes(world.cluster), users, churn.done


def table(
    made: Sequence[FailOver],
    writes: Sequence[Write],
    users: frozenset[str],
    churn: Counter[str],
    found: Sequence[DoubleWrite],
) -> str:
    kinds, told = Counter(each.kind for each in made), Counter(each.kind for each in found)
    seconds = [each.seconds for each in made]
    by_user = Counter(w.user for w in writes if w.user in users and w.accepted and w.resource != "leases")
    leaders = [hold.user for hold in holds(writes)]
    changes = sum(before != after for before, after in itertools.pairwise(leaders))
    rows = [
        ("forced fail-overs", ", ".join(f"{kinds[kind]} x {kind}" for kind in KINDS)),
        ("changes of the lease's holder", str(changes)),
        ("seconds until the other leads", f"median {statistics.median(seconds):.1f}, longest {max(seconds):.1f}"),
        ("churn", ", ".join(f"{times} x {what}" for what, times in sorted(churn.items()))),
        *((f"accepted writes of {user}", str(by_user[user])) for user in sorted(users)),
        *((f"double writes: {kind}", str(told[kind])) for kind in ("late", "expired", "made-twice", "deleted-twice")),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"| {name:<{width}} | {value} |" for name, value in rows)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.failover", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="forced fail-overs (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of churn and moments (default: %(default)s)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="r1-failover-"))
    made, writes, users, churn = run(options.count, options.seed, folder)
    found = double_writes(writes, users)
    print(table(made, writes, users, churn, found))
    for each in found:
        write = each.write
        print(f"{each.kind}: {write.user} {write.verb} {'/'.join(write.target)} {write.subresource}: {each.told}")
    _say(f"the operators' logs: {folder}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
