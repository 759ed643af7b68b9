"""A real etcd and a real API server as plain processes, to test the client against: no nodes, no controllers."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import signal
import ssl
import subprocess
import urllib.request
from functools import cached_property
from pathlib import Path
from typing import Any

from r1_operator.cluster import Client

from tests.cluster.build import ensure_binaries
from tests.ports import free_port
from tests.waiting import PATIENCE_SECONDS, freeze

GROUP_VERSION = "r1operator.dev/v1alpha1"


class ApiServer:
    """Starts, stops, freezes and restarts one API server over one etcd."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self._programs = folder, programs
        self.port, self._etcd_port, self._peer_port = free_port(), free_port(), free_port()
        self._token = secrets.token_hex(16)
        self._etcd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        (folder / "tokens.csv").write_text(f"{self._token},admin,admin,system:masters\n")
        key = ["openssl", "genrsa", "-out", str(folder / "sa.key"), "2048"]
        subprocess.run(key, check=True, capture_output=True)

    @cached_property
    def kubeconfig(self) -> Path:
        """Written once: others may be reading it."""
        path = self.folder / "kubeconfig"
        cluster = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority": str(self.folder / "apiserver.crt"),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": self._token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
        path.write_text(json.dumps(config))
        return path

    async def start(self) -> None:
        if self._etcd is None:
            url, peer = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{self._peer_port}"
            self._etcd = self._launch(
                "etcd",
                f"--data-dir={self.folder / 'etcd'}",
                "--unsafe-no-fsync",
                f"--listen-client-urls={url}",
                f"--advertise-client-urls={url}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
            )
        self._server = self._launch(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--cert-dir={self.folder}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.folder / 'sa.key'}",
            f"--service-account-signing-key-file={self.folder / 'sa.key'}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--disable-admission-plugins=ServiceAccount",
            "--allow-privileged=true",
            "--shutdown-delay-duration=0s",
        )
        await self._wait_ready()

    def kill(self) -> None:
        """End the API server as a crash would; its watches break."""
        assert self._server is not None
        self._server.kill()
        self._server.wait()

    def freeze(self) -> None:
        """The API server accepts connections and answers nothing."""
        assert self._server is not None
        freeze(self._server.pid)

    def thaw(self) -> None:
        assert self._server is not None
        self._server.send_signal(signal.SIGCONT)

    def freeze_etcd(self) -> None:
        """The API server answers, but cannot store or read anything."""
        assert self._etcd is not None
        freeze(self._etcd.pid)

    def thaw_etcd(self) -> None:
        assert self._etcd is not None
        self._etcd.send_signal(signal.SIGCONT)

    def compact(self) -> None:
        """Make etcd forget all history up to now, so that no watch can be resumed from before."""
        key = base64.b64encode(b"/").decode()
        revision = self._ask_etcd("kv/range", {"key": key})["header"]["revision"]
        self._ask_etcd("kv/compaction", {"revision": revision, "physical": True})

    def stop(self) -> None:
        for process in (self._server, self._etcd):
            if process is not None:
                process.kill()
                process.wait()

    def _launch(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{program}.log").open("ab") as log:
            # It ends with the test even where the test is killed.
            command = ["setpriv", "--pdeathsig", "KILL", str(self._programs / program), *arguments]
            return subprocess.Popen(command, stdout=log, stderr=log)

    async def _wait_ready(self) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        request = urllib.request.Request(
            f"https://127.0.0.1:{self.port}/readyz", headers={"Authorization": f"Bearer {self._token}"}
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                assert self._server is not None
                assert self._server.poll() is None, (self.folder / "kube-apiserver.log").read_text()[-2000:]
                try:
                    await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=5, context=context).close())
                    return
                except OSError:
                    await asyncio.sleep(0.2)

    def _ask_etcd(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._etcd_port}/v3/{method}", data=json.dumps(body).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return dict(json.load(answer))

    async def client(self, *, call_seconds: float = 10.0) -> Client:
        return await Client.connect(str(self.kubeconfig), call_seconds=call_seconds)


def find_programs() -> Path:
    """The folder of `etcd` and `kube-apiserver`: `R1_KUBERNETES_BIN`, or the local cluster's, built at need."""
    given = os.environ.get("R1_KUBERNETES_BIN")
    return Path(given) if given else ensure_binaries()
