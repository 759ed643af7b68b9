"""The real operator under the rights that the chart gives it: it does all its work and is refused nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.conftest import CHART, Server
from tests.chart.test_rendering import container, one
from tests.ports import free_port
from tests.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.cluster
_WRITTEN = {"pods", "services", "secrets", "configmaps", "deployments", "networkpolicies", "r1deployments", "leases"}
EXAMPLE = yaml.safe_load((CHART.parents[1] / "examples" / "tiny.yaml").read_text())


@contextmanager
def operator(server: Server, objects: list[dict[str, Any]], namespace: str, folder: Path) -> Iterator[int]:
    """Runs the rendered command line as the rendered ServiceAccount; gives its port."""
    account = one(objects, "ServiceAccount")["metadata"]["name"]
    config = json.loads(server.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": server.kubectl("create", "token", account, "-n", namespace).strip()}
    (folder / "kubeconfig").write_text(json.dumps(config))
    files = one(objects, "ConfigMap")["data"]
    (folder / "profiles.yaml").write_text(files["hardware-profiles.yaml"])
    (folder / "policies.yaml").write_text(files["network-policies.yaml"])
    port = free_port()
    meant = {
        "$(POD_NAMESPACE)": namespace,
        "/etc/r1-operator/hardware-profiles.yaml": str(folder / "profiles.yaml"),
        "/etc/r1-operator/network-policies.yaml": str(folder / "policies.yaml"),
        "--port=8080": f"--port={port}",
    }
    spec = container(objects)
    arguments = [*spec["command"][1:], *spec["args"], f"--kubeconfig={folder / 'kubeconfig'}"]
    for text, value in meant.items():
        arguments = [argument.replace(text, value) for argument in arguments]
    with (folder / "operator.log").open("wb") as log:
        command = ["setpriv", "--pdeathsig", "KILL", sys.executable, *arguments]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield port
        assert process.poll() is None, (folder / "operator.log").read_text()[-3000:]
    finally:
        process.kill()
        process.wait()


def requests_made(port: int) -> dict[tuple[str, str], set[str]]:
    """(verb, resource) → status codes that the API server answered with, by the operator's own metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    made: dict[tuple[str, str], set[str]] = {}
    for line in lines:
        if line.startswith("r1_operator_api_requests_total{"):
            pairs = (pair.split("=") for pair in line[line.index("{") + 1 : line.index("}")].split(","))
            labels = {key: value.strip('"') for key, value in pairs}
            made.setdefault((labels["verb"], labels["resource"]), set()).add(labels["code"])
    return made


@pytest.mark.parametrize("watched", [(), ("bounded-work",)], ids=["all namespaces", "one namespace"])
def test_it_needs_no_other_rights(with_crd: Server, tmp_path: Path, watched: tuple[str, ...]) -> None:
    server, system = with_crd, f"r1-rights-{len(watched)}"
    work = watched[0] if watched else "any-work"
    for namespace in (system, work):
        server.kubectl("create", "namespace", namespace)
    settings = ("--set", f"watchNamespaces={{{','.join(watched)}}}", "--set", "crds.install=false") if watched else ()
    objects = [o for o in server.rendered(*settings, namespace=system) if o["kind"] != "CustomResourceDefinition"]
    server.kubectl("apply", "-f", "-", objects=objects)
    resource = EXAMPLE | {"metadata": {"name": "tiny", "namespace": work}}
    server.kubectl("apply", "-f", "-", objects=[resource])
    try:
        with operator(server, objects, system, tmp_path) as port:
            # No node has a GPU here: the gang waits, which is as far as the operator gets without a kubelet.
            server.kubectl(
                "wait", "-n", work, "r1d/tiny", f"--timeout={PATIENCE_SECONDS:.0f}s",
                "--for=jsonpath={.status.conditions[?(@.type=='GangsPlaced')].reason}=InsufficientNodes",
            )  # fmt: skip
            deadline = time.monotonic() + PATIENCE_SECONDS
            while ("create", "events") not in (made := requests_made(port)):
                assert time.monotonic() < deadline, f"no event was written: {made}"
                time.sleep(0.5)
        refused = {what: codes for what, codes in made.items() if codes & {"401", "403"}}
        assert refused == {}
        written = {resource for verb, resource in made if verb in {"create", "apply", "patch"}}
        assert written >= _WRITTEN
        read = {verb for verb, resource in made if resource == "secrets"}
        assert read <= {"create", "get"}, "get: its own, by name"
    finally:
        server.kubectl("delete", "-f", "-", objects=[resource, *objects])


def test_the_refusal_would_be_seen(with_crd: Server, tmp_path: Path) -> None:
    """With no rights but those in its own namespace the same operator is refused, and its metrics say so."""
    system = "r1-rights-none"
    with_crd.kubectl("create", "namespace", system)
    rendered = with_crd.rendered("--set", "crds.install=false", namespace=system)
    objects = [o for o in rendered if not o["kind"].startswith("ClusterRole")]
    with_crd.kubectl("apply", "-f", "-", objects=objects)
    with operator(with_crd, objects, system, tmp_path) as port:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            assert time.monotonic() < deadline, "no request was refused"
            try:
                if any("403" in codes for codes in requests_made(port).values()):
                    break
            except OSError:
                pass  # it does not listen yet
            time.sleep(0.5)
