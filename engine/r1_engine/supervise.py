"""Runs one node's server as a child and ends it, all of it, as soon as any part of it ends. One thread, no polling.

Reports go straight to this pod's agent over a Unix socket, one JSON object a line:
  to the agent    {"child": pid} · {"part": name, "pid"}, now watched · {"log": text} · {"compiling": whether it does}
                  {"bar": text}, of a line without an end as yet · {"ended": {"what", "status", "tail", "served"}}
  from the agent  {"expectEnd": true}: from now on parts of the server may end · {"stop": true}: that, and SIGTERM to it
The agent closing the socket (it died, or lost the gang) kills the child at once.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

from r1_engine import compiling, nccl, processes

TAIL_LINES = 120
# New processes of the server are looked for this often; a death is known at once.
_RESCAN_SECONDS = 1.0
# Parts that are tied to the server die with it and may be seen to first: so long we look whether it was the server.
_TOGETHER_SECONDS = 0.05
# How much of an unfinished line can be its last progress bar.
_BAR_BYTES = 1000
# SGLang's long-lived processes name themselves so; anything else below the server may come and go.
_PART_PREFIX = "sglang::"


@dataclass(frozen=True)
class Ended:
    """How a server ended. `status` is the exit status of `what`, negative for a signal; None when it is not known, as
    of a part whose parent was faster. `tail` holds its last lines of output; `served` says whether its parts had been
    started."""

    what: str
    status: int | None
    tail: tuple[str, ...]
    served: bool


def supervise(argv: Sequence[str], environment: Mapping[str, str], agent_socket: str) -> Ended:
    """Blocks until the server ends. The child dies with the calling thread (parent-death signal)."""
    with socket.socket(socket.AF_UNIX) as agent:
        agent.connect(agent_socket)
        child = processes.start(argv, environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        supervision = _Supervision(child, agent)
        try:
            ended = supervision.run()
            # Before the rest is killed, which takes a while: other nodes may already be reporting what follows from it.
            supervision.tell({"ended": asdict(ended)})
        finally:
            supervision.kill()
        return ended


class _Supervision:
    def __init__(self, child: subprocess.Popen[bytes], agent: socket.socket) -> None:
        assert child.stdout is not None
        self._child, self._agent, self._out = child, agent, child.stdout
        self._watch = processes.Watch()
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._partial = b""
        self._bar = b""
        self._commands = b""
        self._stopping = self._served = self._compiling = False
        self._selector = selectors.DefaultSelector()

    def tell(self, message: Mapping[str, object]) -> None:
        with suppress(OSError):  # the agent is gone: run() sees the closed socket
            self._agent.sendall(json.dumps(message).encode() + b"\n")

    def run(self) -> Ended:
        os.set_blocking(self._out.fileno(), False)
        self._selector.register(self._out, selectors.EVENT_READ, self._on_output)
        self._selector.register(self._agent, selectors.EVENT_READ, self._on_agent)
        self._watch_process(self._child.pid, "server")
        self.tell({"child": self._child.pid})
        rescan_at = 0.0
        while True:
            if time.monotonic() >= rescan_at:
                self._find_parts()
                self._tell_bar()
                rescan_at = time.monotonic() + _RESCAN_SECONDS
            for key, _ in self._selector.select(max(0.0, rescan_at - time.monotonic())):
                ended: Ended | None = key.data()
                if ended:
                    return ended

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        processes.signal_all(self._watch.fileno_by_pid(), signal.SIGKILL)
        self._child.wait()
        self._watch.close()
        self._selector.close()

    def _watch_process(self, pid: int, name: str) -> None:
        if self._watch.add(pid, name):
            self._selector.register(
                self._watch.fileno_by_pid()[pid], selectors.EVENT_READ, lambda: self._on_death(pid, name)
            )

    def _find_parts(self) -> None:
        found = {pid: title for pid, title in processes.titles_below(self._child.pid).items() if pid not in self._watch}
        if (seen := compiling.compiles(found.values())) != self._compiling:
            self._compiling = seen
            self.tell({"compiling": seen})
        for pid, title in found.items():
            if title.startswith(_PART_PREFIX):
                self._served = self._served or title.startswith(_PART_PREFIX + "scheduler")
                name = title.split(" ", 1)[0]
                self._watch_process(pid, name)
                self.tell({"part": name, "pid": pid})

    def _tell_bar(self) -> None:
        """Progress bars overwrite their line for minutes: what the last one shows is the only sign of their work."""
        bar = self._partial[-_BAR_BYTES:].rpartition(b"\r")[2]
        if bar and bar != self._bar:
            self._bar = bar
            self.tell({"bar": bar.decode(errors="replace")})

    def _on_death(self, pid: int, name: str) -> Ended | None:
        self._selector.unregister(self._watch.fileno_by_pid()[pid])
        self._watch.remove(pid)
        status = processes.exit_status(pid)
        if pid != self._child.pid and self._stopping:
            return None
        self._on_output()
        served = self._served
        try:
            status, pid, name = self._child.wait(_TOGETHER_SECONDS), self._child.pid, "server"
        except subprocess.TimeoutExpired:
            served = True
        return Ended(f"{name} (process {pid})", status, tuple(self._tail), served)

    def _on_output(self) -> None:
        try:
            while block := os.read(self._out.fileno(), 65536):
                *lines, self._partial = (self._partial + block).split(b"\n")
                for line in lines:
                    text = line.decode(errors="replace")
                    if nccl.INFO not in text:  # hundreds of a communicator's lines would bury an error
                        self._tail.append(text)
                    self.tell({"log": text})
            if self._out in self._selector.get_map():
                self._selector.unregister(self._out)
        except BlockingIOError:
            pass

    def _on_agent(self) -> Ended | None:
        block = self._agent.recv(4096)
        if not block:
            return Ended("the agent", None, tuple(self._tail), self._served)
        *lines, self._commands = (self._commands + block).split(b"\n")
        for line in lines:
            self._stopping = True
            if json.loads(line).get("stop"):
                os.kill(self._child.pid, signal.SIGTERM)
        return None
