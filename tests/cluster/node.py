"""First process of a node: its runtime, kubelet and device plugin, in mount and process namespaces of the node's own.

Killing it is pulling the node's power cord: the kernel ends everything on the node. SIGHUP restarts the kubelet, as
`systemctl restart kubelet` would: containers live on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.cluster.nodes import KUBELET_FOLDER, NodeSpec, Program
from tests.waiting import listens

_RESTART_SECONDS = 1.0
"""Pause before a program that ended is started again, as systemd's RestartSec would have it."""


class Node:
    """The running programs of one node."""

    def __init__(self, spec: NodeSpec) -> None:
        self._spec = spec
        self._running: dict[int, Program] = {}
        self._pid_of: dict[str, int] = {}

    def boot(self) -> None:
        self._mount()
        for program in self._spec.programs:
            self._start(program)
            if program.ready is not None:
                self._await(Path(program.ready))

    def serve(self) -> None:
        """Reaps orphans and restarts programs that end, for ever."""
        while True:
            try:
                self._ended(*os.wait())
            except ChildProcessError:
                time.sleep(_RESTART_SECONDS)

    def _ended(self, pid: int, status: int) -> None:
        program = self._running.pop(pid, None)
        if program is not None:
            print(f"{program.name} ended with {os.waitstatus_to_exitcode(status)}; starting it again", flush=True)
            time.sleep(_RESTART_SECONDS)
            self._start(program)

    def restart_kubelet(self) -> None:
        with contextlib.suppress(KeyError, ProcessLookupError):  # not running just now: it starts with the new settings
            os.kill(self._pid_of["kubelet"], signal.SIGTERM)

    def _mount(self) -> None:
        for folder, options in (("/run", "mode=755,size=64m"), ("/var/lib", f"mode=755,size={self._spec.disk_gib}g")):
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "node", folder], check=True)
        Path("/run/netns").mkdir()
        Path(KUBELET_FOLDER, "device-plugins").mkdir(parents=True)

    def _start(self, program: Program) -> None:
        with Path(program.log).open("ab") as log:
            while True:
                try:
                    process = subprocess.Popen(
                        program.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                    )
                    break
                except OSError as error:
                    print(f"{program.name} cannot be started ({error}); trying again", flush=True)
                    time.sleep(_RESTART_SECONDS)
        self._running[process.pid] = program
        self._pid_of[program.name] = process.pid
        process.returncode = 0  # reaped in serve(): the object must not wait for it as well

    def _await(self, path: Path) -> None:
        """Waits until a program listens. Ever longer, never giving up: a node without a runtime is simply not ready."""
        pause = 0.02
        while not listens(path):
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid:
                self._ended(pid, status)
            time.sleep(pause)
            pause = min(pause * 1.2, 0.5)


def main() -> None:
    node = Node(NodeSpec.from_json(Path(sys.argv[1]).read_text()))
    signal.signal(signal.SIGHUP, lambda *_: node.restart_kubelet())
    node.boot()
    node.serve()


if __name__ == "__main__":
    main()
