"""One node's server as a child process: its words, its death, the death of its parts, the order to end. No SGLang."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from r1_engine import processes
from r1_engine.supervise import Ended, supervise

# A server with one part that names itself as SGLang's do and dies with it (parent-death signal, option 1 of prctl);
# SIGTERM ends the part first, then the server with status 0.
SERVER = """
import ctypes, os, signal, subprocess, sys, time
tie = lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL)
part = subprocess.Popen(["bash", "-c", "exec -a sglang::scheduler_TP0 sleep 60"], preexec_fn=tie)
def end(*_):
    part.kill(); part.wait(); sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("part", part.pid, flush=True)
while True:
    time.sleep(60)
"""

# A part that forks a child which goes on for several looks as it is, and then ends.
FORKS = (
    "import os, time; os.fork() or (time.sleep(3), os._exit(0)); os.wait(); print('its child has ended', flush=True)"
)
PART_THAT_FORKS = f"""
import subprocess
subprocess.run(["sglang::scheduler_TP0", "-c", {FORKS + "; time.sleep(60)"!r}], executable={sys.executable!r})
"""


class Agent:
    """The agent's side of the socket: collects the reports of one supervision that runs in a thread."""

    def __init__(self, directory: Path, code: str) -> None:
        path = str(directory / "socket")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self.ended: list[Ended] = []
        argv = [sys.executable, "-c", code]
        self.thread = threading.Thread(target=lambda: self.ended.append(supervise(argv, os.environ, path)))
        self.thread.start()
        self.connection, _ = self._listener.accept()
        self._lines = self.connection.makefile()

    def until(self, key: str) -> Any:
        return self.first(key)

    def first(self, *keys: str) -> Any:
        """What the next report with one of these keys says."""
        for line in self._lines:
            if found := [report[key] for report in [json.loads(line)] for key in keys if key in report]:
                return found[0]
        raise AssertionError(f"the supervision ended without {' or '.join(keys)}")

    def tell(self, message: dict[str, Any]) -> None:
        self.connection.sendall(json.dumps(message).encode() + b"\n")

    def result(self) -> Ended:
        self.thread.join(60)
        return self.ended[0]

    def close(self) -> None:
        self._lines.close()
        self.connection.close()
        self._listener.close()
        self.thread.join(60)


def gone(pid: int) -> bool:
    """Whether a killed process ends soon: the kernel takes a moment when the machine is busy."""
    deadline = time.monotonic() + 60
    while processes.is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not processes.is_running(pid)


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[tuple[Agent, int, int]]:
    """An agent, its server's process and its part's."""
    agent = Agent(tmp_path, SERVER)
    server = int(agent.until("child"))
    part = int(str(agent.until("log")).split()[1])
    agent.until("part")
    yield agent, server, part
    agent.close()
    assert gone(server)
    assert gone(part)


def test_a_part_that_dies_ends_the_server(serving: tuple[Agent, int, int]) -> None:
    agent, server, part = serving
    os.kill(part, signal.SIGKILL)
    ended = agent.until("ended")
    assert (ended["what"], ended["status"]) == (f"sglang::scheduler_TP0 (process {part})", -signal.SIGKILL)
    assert agent.result().served
    assert gone(server)


def test_a_killed_server_takes_its_parts_along(serving: tuple[Agent, int, int]) -> None:
    agent, server, _ = serving
    os.kill(server, signal.SIGKILL)
    ended = agent.until("ended")
    assert (ended["status"], ended["what"]) == (-signal.SIGKILL, f"server (process {server})")


def test_told_to_stop_a_dying_part_is_no_failure(serving: tuple[Agent, int, int]) -> None:
    agent, _, _ = serving
    agent.tell({"stop": True})
    ended = agent.until("ended")
    assert (ended["status"], ended["what"].split()[0]) == (0, "server")


def test_a_lost_agent_ends_the_server(serving: tuple[Agent, int, int]) -> None:
    agent, server, _ = serving
    agent.connection.shutdown(socket.SHUT_RDWR)
    assert agent.result().what == "the agent"
    assert gone(server)


def test_the_last_words_are_kept(tmp_path: Path) -> None:
    agent = Agent(tmp_path, "import sys; print('usage'); print('x: error: unrecognized arguments: --y'); sys.exit(2)")
    ended = agent.result()
    assert (ended.status, ended.served) == (2, False)
    assert ended.tail[-1].endswith("unrecognized arguments: --y")
    agent.close()


def test_a_progress_bar_is_told_before_its_line_ends(tmp_path: Path) -> None:
    code = "import sys, time; print('begin'); print(end='\\rwarmup: 1/8\\rwarmup: 2/8', flush=True); time.sleep(60)"
    agent = Agent(tmp_path, code)
    assert agent.until("bar") == "warmup: 2/8"
    agent.close()


def test_what_a_part_has_forked_is_no_part_before_it_becomes_another_program(tmp_path: Path) -> None:
    """Seen on a busy machine: before its exec `lscpu` looked like the rank that asked for it, and so did its end."""
    agent = Agent(tmp_path, PART_THAT_FORKS)
    rank = agent.until("part")
    assert agent.first("log", "ended", "part") == "its child has ended"
    agent.tell({"stop": True})
    ended = agent.until("ended")
    assert (rank, ended["what"].split()[0]) == ("sglang::scheduler_TP0", "server")
    agent.close()


def test_a_compiler_below_the_server_is_seen_while_it_runs(tmp_path: Path) -> None:
    compiler = tmp_path / "ptxas"
    compiler.symlink_to("/bin/sleep")
    agent = Agent(tmp_path, f"import subprocess, time; subprocess.run([{str(compiler)!r}, '2']); time.sleep(60)")
    assert agent.until("compiling") is True
    assert agent.until("compiling") is False
    agent.close()
