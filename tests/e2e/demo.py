"""`make demo`: the main job end to end on a Kubernetes of its own, shown step by step; nothing of it stays."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from tests.cluster import build, preflight
from tests.cluster.cluster import Cluster
from tests.cluster.config import ClusterConfig
from tests.e2e import main_path, site

NODES = 4
NAMESPACE = "demo"


class Teller:
    """Prints a numbered headline for each step and indented lines under it, with the seconds since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._steps = 0

    def step(self, text: str) -> None:
        self._steps += 1
        print(f"\n[{time.monotonic() - self._began:4.0f} s] {self._steps}. {text}", flush=True)

    def line(self, text: str) -> None:
        for part in text.splitlines():
            print(f"[{time.monotonic() - self._began:4.0f} s]    {part}", flush=True)


def run(tell: Teller) -> None:
    """All steps. Raises on the first thing that is not as it should be."""
    tell.step("Kubernetes: etcd, API server, controllers, scheduler, kube-proxy, CoreDNS, kubelets, Helm")
    tell.line("built from source at pinned versions the first time (about 10 min), then taken from the cache")
    build.ensure_binaries()
    tell.step(f"A cluster of {NODES} nodes, in namespaces of its own")
    with Cluster.start(
        ClusterConfig(name=f"demo-{int(time.time()) % 100000}", nodes=NODES, gpus_per_node=1), report=tell.line
    ) as cluster:
        tell.line(cluster.kubectl("get", "nodes"))
        tell.step("helm install r1 charts/r1-operator")
        tell.line(site.install_operator(cluster).partition("NOTES:")[0].strip())
        tell.line(cluster.kubectl("get", "pods", "--namespace", site.OPERATOR_NAMESPACE))
        _serve(cluster, tell)
        tell.step("helm uninstall r1; the cluster goes")
        tell.line(site.uninstall_operator(cluster))
    tell.step("Done: nothing is left running")


def _serve(cluster: Cluster, tell: Teller) -> None:
    manifest = main_path.demo_manifest()
    tell.step("kubectl apply: an R1Deployment, two nodes a replica, TP 2, attention DP 2, EP 2, one to two replicas")
    with site.deployed(cluster, NAMESPACE, manifest) as r1:
        r1.wait_ready(1, main_path.START_SECONDS, tell.line)
        tell.line(r1.kubectl("get", "r1d,pods,svc", "--output", "wide"))
        url = r1.gateway()
        main_path.answered(url, 200)
        tell.step("An OpenAI client asks; the chain of thought has a field of its own")
        for known in main_path.questions()[:3]:
            reply = main_path.ask(url, known["question"])
            tell.line(f"question  {known['question']}")
            tell.line(f"thought   {reply.thought}")
            tell.line(f"answer    {reply.answer}")
            if reply.answer != known["answer"]:
                raise AssertionError(f"{known['question']}: expected {known['answer']!r}, got {reply.answer!r}")
        tell.step("r1 bench pushes KV cache and throughput up; the autoscaler adds a replica; the load goes; it drains")
        scaled = main_path.scale_with_load(r1, url, tell.line)
        for name, report in (("load", scaled.during_load), ("drain", scaled.during_drain)):
            summary = report["summary"]
            if summary["failed"] or summary["unfinished"]:
                raise AssertionError(f"requests were lost in the phase {name!r}: {summary}")
        tell.line(r1.kubectl("get", "r1d"))
        tell.line(r1.kubectl("get", "events", "--field-selector", "involvedObject.kind=R1Deployment"))
        tell.step("kubectl delete: everything of the resource goes with it")
        r1.kubectl("delete", "r1d", r1.name, "--timeout=240s")
        main_path.wait_for(
            "no pod of the resource", lambda: r1.pods() + r1.pods("gateway"), 120, until=lambda p: not p, describe=len
        )


def main() -> int:
    argparse.ArgumentParser(prog="python -m tests.e2e.demo", description=__doc__).parse_args()
    tell = Teller()
    try:
        preflight.check(install=True)
        run(tell)
    except (AssertionError, subprocess.SubprocessError, RuntimeError, ValueError) as error:
        detail = getattr(error, "stderr", None) or ""
        print(f"\nThe demo failed: {error}\n{detail}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; the cluster is gone.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
