"""Long-running programs of the control plane, and the tree of processes under one of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

_RESTART_SECONDS = 1.0


class ProgramEnded(RuntimeError):
    """A program that must run has ended; the message holds the last lines of its log."""


class Component:
    """A program that is started again when it ends, as a static pod or a systemd unit would be."""

    def __init__(self, name: str, argv: list[str], log: Path, before_restart: Callable[[], None] | None = None) -> None:
        self.name = name
        self.restarts = 0
        self._argv = argv
        self._log = log
        self._before_restart = before_restart
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._spawn()
        self._task = asyncio.create_task(self._keep_running())

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    def require_running(self) -> None:
        """Raises ProgramEnded if the program has ended since it was started."""
        if self.restarts or self.pid is None:
            raise ProgramEnded(f"{self.name} ended. The end of {self._log}:\n{last_lines(self._log)}")

    async def _spawn(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    async def _keep_running(self) -> None:
        while True:
            assert self._process is not None
            status = await self._process.wait()
            self.restarts += 1
            print(f"{self.name} ended with {status}; starting it again", flush=True)
            await asyncio.sleep(_RESTART_SECONDS)
            if self._before_restart is not None:
                await asyncio.to_thread(self._before_restart)
            await self._spawn()


def last_lines(log: Path, count: int = 15) -> str:
    with contextlib.suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
    return "(no log)"


def children_of() -> dict[int, list[int]]:
    """Parent → children, of all processes of this process namespace and of those nested in it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            # After the last ")": state, parent. The name before it may hold anything.
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    return children


def descendants(root: int) -> list[int]:
    """`root` and all processes below it."""
    children = children_of()
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def signal_tree(root: int, number: signal.Signals) -> int:
    """Sends a signal to `root` and everything below it, until no process is new. Returns how many got it."""
    reached: set[int] = set()
    while new := set(descendants(root)) - reached:
        for pid in new:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        reached |= new
    return len(reached)


def first_child(pid: int, deadline: float) -> int:
    """The first child of a process, waited for until `deadline` (monotonic seconds). Raises TimeoutError."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    while time.monotonic() < deadline:
        try:
            listed = path.read_text().split()
        except FileNotFoundError:
            listed = [str(child) for child in children_of().get(pid, ())]
        if listed:
            return int(listed[0])
        time.sleep(0.01)
    raise TimeoutError(f"process {pid} has no child")
