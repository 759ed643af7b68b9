"""Processes of one pod: start them tied to us, know of a death at once, leave none behind.

The agent is a "child subreaper": whatever Ray or SGLang leave behind becomes its child, so the tree below it is
complete and one walk of that tree kills everything. All of it is Linux only, as the engine is.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Orphans below this process become its children instead of init's."""
    if _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def start(
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Starts a child in a session of its own that the kernel kills when the calling thread ends.

    The kernel ties the child to the *thread* that started it: call this from one that lives as long as the child.
    """
    parent = os.getpid()

    def tie() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died between fork and prctl
            os._exit(1)

    return subprocess.Popen(
        list(argv),
        env=dict(environment),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        preexec_fn=tie,
    )


def children(pid: int) -> list[int]:
    """Direct children of all threads of `pid`; empty when it is gone."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, parents before their children."""
    found, at = [pid], 0
    while at < len(found):
        found += [child for child in children(found[at]) if child not in found]
        at += 1
    return found[1:]


def titles_below(pid: int) -> dict[int, str]:
    """All processes below `pid` that show a title of their own, with it.

    Between fork and exec a child shows its parent's, for long where the machine is busy: taken for what it shows, the
    end of an `lscpu` would be that of the rank which asked it. So what looks like one of its ancestors is left out.
    """
    found: dict[int, str] = {}
    level: list[tuple[int, frozenset[str]]] = [(pid, frozenset({title(pid)}))]
    while level:
        parent, seen = level.pop()
        for child in children(parent):
            shown = title(child)
            if shown and shown not in seen:
                found[child] = shown
            level.append((child, seen | {shown}))
    return found


def is_running(pid: int) -> bool:
    """False for a process that is gone or only waits to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def exit_status(pid: int) -> int | None:
    """How a process ended that its parent has not asked about yet, negative for a signal; None if that is not known.

    Of a process that is not our child nothing else tells it: `man proc`, field 52 of /proc/PID/stat.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return os.waitstatus_to_exitcode(int(fields[-1])) if fields[0] in "ZX" else None


def title(pid: int) -> str:
    """The process's command line as it shows itself, or '' when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def program(title: str) -> str:
    """The name of the program in a process's title, without its folder."""
    return Path(title.split(" ", 1)[0]).name


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def kill(pids: Iterable[int], seconds: float) -> None:
    """Kills these processes and waits up to `seconds` until none runs."""
    deadline = time.monotonic() + seconds
    left = set(pids)
    while (left := {pid for pid in left if is_running(pid)}) and time.monotonic() < deadline:
        signal_all(left, signal.SIGKILL)
        time.sleep(0.02)


def kill_below(pid: int, seconds: float, now: Callable[[], float] = time.monotonic) -> list[int]:
    """Kills all processes below `pid` until none runs. Returns those that still run after `seconds` (uninterruptible).

    Ours to end: all were started by this pod's agent or by its children.
    """
    deadline = now() + seconds
    while running := [child for child in descendants(pid) if is_running(child)]:
        if now() > deadline:
            return running
        signal_all(running, signal.SIGKILL)
        reap_orphans(frozenset())
        time.sleep(0.02)
    return []


def reap_orphans(known: frozenset[int]) -> None:
    """Reaps dead children that no Popen of ours (`known`) waits for."""
    for pid in children(os.getpid()):
        if pid not in known and not is_running(pid):
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


class Watch:
    """Pidfds of processes, children or not: one becomes readable within a millisecond of its process's end."""

    def __init__(self) -> None:
        self._descriptors: dict[int, tuple[int, str]] = {}  # pid -> (pidfd, name)

    def __contains__(self, pid: int) -> bool:
        return pid in self._descriptors

    def add(self, pid: int, name: str) -> bool:
        """Starts watching; False when the process is already gone."""
        if pid in self._descriptors:
            return True
        try:
            self._descriptors[pid] = (os.pidfd_open(pid), name)
        except ProcessLookupError:
            return False
        return True

    def fileno_by_pid(self) -> dict[int, int]:
        return {pid: descriptor for pid, (descriptor, _) in self._descriptors.items()}

    def remove(self, pid: int) -> str:
        """Stops watching; returns the name given for it."""
        descriptor, name = self._descriptors.pop(pid)
        os.close(descriptor)
        return name

    def close(self) -> None:
        for pid in list(self._descriptors):
            self.remove(pid)
