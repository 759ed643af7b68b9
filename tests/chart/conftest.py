"""One real API server for all tests of the CRD and the chart: no nodes, no controllers, nothing is ever started."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
import yaml
from r1_operator.api.crd import custom_resource_definition

from tests.crd import await_crd
from tests.integration.cluster.apiserver import ApiServer, find_programs
from tests.waiting import PATIENCE_SECONDS

CHART = Path(__file__).parents[2] / "charts" / "r1-operator"


@dataclass(frozen=True)
class Server:
    """kubectl and helm against the API server."""

    programs: Path
    kubeconfig: Path

    def run(self, program: str, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        home = self.kubeconfig.parent
        environment = {"PATH": os.environ["PATH"], "HOME": str(home), "KUBECONFIG": str(self.kubeconfig)}
        command = [str(self.programs / program), *arguments]
        return subprocess.run(
            command, input=stdin, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS + 60
        )

    def refusal(self, program: str, *arguments: str) -> str:
        """What the program says when it fails, as it must."""
        done = self.run(program, *arguments)
        assert done.returncode != 0, f"{program} {' '.join(arguments)}: went through"
        return done.stderr

    def kubectl(self, *arguments: str, objects: list[dict[str, Any]] | None = None) -> str:
        """What kubectl prints. Raises AssertionError with what it said if it fails."""
        done = self.run("kubectl", *arguments, stdin=yaml.safe_dump_all(objects) if objects is not None else None)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def helm(self, *arguments: str) -> str:
        """What helm prints. Raises AssertionError with what it said if it fails."""
        done = self.run("helm", *arguments)
        assert done.returncode == 0, f"helm {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def rendered(self, *arguments: str, namespace: str = "r1-system") -> list[dict[str, Any]]:
        """The chart's objects for a release called r1-operator."""
        text = self.helm("template", "r1-operator", str(CHART), "--namespace", namespace, *arguments)
        return [obj for obj in yaml.safe_load_all(text) if obj]

    def dry_run(self, obj: dict[str, Any]) -> dict[str, Any]:
        """The R1Deployment as the API server would store it, or the `Status` with which it refuses it.

        Without kubectl, which takes a tenth of a second each time; like kubectl, unknown fields are refused.
        """
        config = json.loads(self.kubeconfig.read_text())
        address = config["clusters"][0]["cluster"]["server"].removeprefix("https://")
        # The certificate is the server's own, made at its start; the token alone says that it is ours.
        connection = HTTPSConnection(address, timeout=60, context=ssl._create_unverified_context())
        path = "/apis/r1operator.dev/v1alpha1/namespaces/default/r1deployments?dryRun=All&fieldValidation=Strict"
        headers = {
            "Authorization": f"Bearer {config['users'][0]['user']['token']}",
            "Content-Type": "application/json",
        }
        try:
            connection.request("POST", path, json.dumps(obj), headers)
            return dict(json.load(connection.getresponse()))
        finally:
            connection.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    programs = find_programs()
    running = ApiServer(tmp_path_factory.mktemp("apiserver"), programs)
    try:
        asyncio.run(running.start())
        yield Server(programs, running.kubeconfig)
    finally:
        running.stop()


@pytest.fixture(scope="module")
def with_crd(server: Server) -> Server:
    """The server, with the CRD established."""
    server.kubectl("apply", "--server-side", "-f", "-", objects=[custom_resource_definition()])
    await_crd(server.kubectl)
    # Established is not yet discovered: kubectl learns the new kind and its documentation a little later.
    deadline = time.monotonic() + PATIENCE_SECONDS
    while server.run("kubectl", "explain", "r1d.spec").returncode != 0:
        assert time.monotonic() < deadline, "the API server never published the schema of r1deployments"
        time.sleep(0.2)
    return server
