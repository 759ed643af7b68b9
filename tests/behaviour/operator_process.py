"""The operator as a process in the cluster's network."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests import waiting
from tests.cluster import identities
from tests.cluster.cluster import Cluster
from tests.cluster.processes import first_child
from tests.waiting import PATIENCE_SECONDS

CHECKOUT = Path(__file__).resolve().parents[2]
METRICS_PORT = 18080
REACH = CHECKOUT / "tests" / "behaviour" / "reach.yaml"


class Operator:
    """`python -m r1_operator` in the cluster's network.

    identity: under which it leads, and by which the audit log tells it from others: its certificate's name is `user`.
    port: of its metrics; each operator of a cluster needs one of its own.
    """

    def __init__(self, cluster: Cluster, log: Path, identity: str = "operator", port: int = METRICS_PORT) -> None:
        self._cluster, self._log = cluster, log
        self.folder = log.parent
        """Of its log; pods may mount what lies below."""
        self.identity, self._port = identity, port
        self.user = f"test-operator:{identity}"
        self._kubeconfig = log.parent / f"{identity}.kubeconfig"
        certificate = {"name": identity, "commonName": self.user, "organizations": ["system:masters"]}
        identities.make_certificates(cluster.binaries, cluster.paths, {"leaves": [certificate]})
        identities.write_kubeconfig(cluster.paths, identity, self._kubeconfig, cluster.config.addresses.inner_server)
        self._process: subprocess.Popen[bytes] | None = None
        self._guard, self._wanted = threading.Lock(), False
        self.engine_image = "r1-standin:dev"
        """What the next process is told."""
        self.environment: dict[str, str] = {}
        """More variables of the next process."""

    def keep(self) -> None:
        """Starts it and, until `end`, again whenever it ended by itself, as the kubelet does with its pod: where the
        API server of a busy machine answers nobody for 10 s, a leader gives up its lease and ends."""
        self.start()
        threading.Thread(target=self._keep, name="keeps the operator", daemon=True).start()

    def _keep(self) -> None:
        while (process := self._process) is not None:
            process.wait()
            with self._guard:
                if not self._wanted:
                    return
                if process is self._process:
                    self.start()

    def crashes(self) -> list[str]:
        """Where the log tells of an exception that nobody caught; a lost lease is none."""
        return [line for line in self._log.read_text(errors="replace").splitlines() if line.startswith("Traceback")]

    def restart(self, number: int) -> None:
        """Signal the operator; another process takes its place once it has ended."""
        with self._guard:
            self.signal(number)
            self.wait()
            self.start()

    def start(self) -> None:
        flags = ["--kubeconfig", str(self._kubeconfig), "--port", str(self._port), "--log-level", "debug"]
        # The checkout's weights lie anywhere, and a test's beside the log; no network here enforces the policies.
        flags += ["--host-path-prefixes", f"{CHECKOUT},/nowhere,{self.folder}", "--network-policies", str(REACH)]
        images = ["--engine-image", self.engine_image, "--gateway-image", "r1-gateway:dev"]
        command = [sys.executable, "-m", "r1_operator", *flags, *images]
        with self._log.open("ab") as log:
            # POD_NAME: the same identity after a crash takes its lease back at once, as a restarted container does.
            # TMPDIR: the kubernetes package keeps the kubeconfig's keys in files there, which a kill -9 leaves behind.
            own = {"POD_NAME": self.identity, "TMPDIR": str(self._log.parent)}
            environment = {**os.environ, **own, **self.environment}
            self._process = self._cluster.popen_inside(command, env=environment, stdout=log, stderr=log, cwd=CHECKOUT)
        self._wanted = True

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signal the operator; → its exit code."""
        with self._guard:
            self._wanted = False
            self.signal(number)
            return self.wait()

    def signal(self, number: int) -> None:
        """SIGSTOP makes it stand still as on a machine that hangs, SIGCONT lets it go on."""
        assert self._process is not None
        pid = first_child(self._process.pid, time.monotonic() + PATIENCE_SECONDS)
        waiting.freeze(pid) if number == signal.SIGSTOP else os.kill(pid, number)
        if number == signal.SIGCONT:
            self._process.send_signal(number)  # nsenter stands still with its child, and does not go on with it

    def wait(self) -> int:
        """Until it has ended; → its exit code."""
        assert self._process is not None
        return self._process.wait(timeout=PATIENCE_SECONDS)

    def set_clock(self, ahead: int) -> None:
        """For one with R1_CLOCK in its environment: its time of day is so many seconds off from now on."""
        file = Path(self.environment["R1_CLOCK"])
        file.with_suffix(".new").write_text(str(ahead))
        file.with_suffix(".new").rename(file)

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def metric(self, pattern: str) -> float:
        """Sum of the samples whose name and labels match."""
        text = self._cluster.exec_inside(
            ["curl", "-sf", "-m", "10", f"http://127.0.0.1:{self._port}/metrics"], capture_output=True
        ).stdout
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.search(pattern, line))
