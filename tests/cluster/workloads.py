"""Pods that the local cluster's tests run, and waiting for what they wait for."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import waiting
from tests.cluster.cluster import Cluster
from tests.waiting import PATIENCE_SECONDS

IMAGE = "r1-operator:dev"


def pod(name: str, *command: str, **spec: Any) -> dict[str, Any]:
    """A pod that runs a command once."""
    container = {"name": "main", "image": IMAGE, "command": list(command), **spec.pop("container", {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container], **spec},
    }


def output_of(cluster: Cluster, namespace: str, manifest: dict[str, Any]) -> str:
    """Runs a pod to its end; what it printed. Raises ClusterError if it does not succeed."""
    manifest["metadata"]["namespace"] = namespace
    name = manifest["metadata"]["name"]
    cluster.apply(manifest)
    await_state(cluster, f"pod/{name}", "jsonpath={.status.phase}=Succeeded", namespace)
    return cluster.kubectl("-n", namespace, "logs", name)


def await_state(cluster: Cluster, thing: str, state: str, namespace: str = "default") -> None:
    """kubectl wait --for=`state`. Raises ClusterError if it does not come."""
    limit = f"--timeout={PATIENCE_SECONDS:.0f}s"
    cluster.kubectl("-n", namespace, "wait", thing, f"--for={state}", limit, timeout=PATIENCE_SECONDS + 60)


def node_becomes(cluster: Cluster, node: str, ready: str) -> None:
    """Waits until a node's condition Ready is True, False or Unknown."""
    await_state(cluster, f"node/{node}", f"jsonpath={{.status.conditions[?(@.type=='Ready')].status}}={ready}")


def wait_for(condition: Callable[[], bool]) -> None:
    waiting.wait_for("the condition", condition, PATIENCE_SECONDS, interval=0.1)


def http_status(url: str) -> int:
    """Status of a GET, or 0 where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=20) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def marks_of(folder: Path) -> list[str]:
    """Traces that a cluster has left on the host: processes that name its folder, and mounts."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                arguments = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if str(folder).encode() + b"/" in arguments or arguments.endswith(str(folder).encode() + b"\0"):
                found.append(f"process {process.name}: {arguments[:200]!r}")
    found += [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(folder) in line]
    return found
