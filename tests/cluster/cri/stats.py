"""What containers use, read from /proc: works with and without cgroups, as root and without."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_TICK_NANOSECONDS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# One scan of /proc serves all questions within this time.
_FRESH_SECONDS = 1.0


@dataclass(frozen=True)
class Usage:
    """CPU time since the start (ns, ended and awaited children included), memory of its own (bytes), processes.

    `nano_cores` is the CPU used per second of late, in billionths of a core.
    """

    cpu_nanoseconds: int = 0
    memory_bytes: int = 0
    processes: int = 0
    nano_cores: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.cpu_nanoseconds + other.cpu_nanoseconds,
            self.memory_bytes + other.memory_bytes,
            self.processes + other.processes,
            self.nano_cores + other.nano_cores,
        )


def parse_cpu(stat: str) -> int:
    """CPU nanoseconds from /proc/PID/stat: user and system time, its own and its awaited children's.

    The second field is the program's name in parentheses and may hold anything, so fields count from the last one.
    """
    fields = stat.rpartition(")")[2].split()
    return sum(int(fields[index]) for index in (11, 12, 13, 14)) * _TICK_NANOSECONDS


def parse_memory(statm: str) -> int:
    """Bytes of private memory from /proc/PID/statm (resident less shared pages)."""
    fields = statm.split()
    return max(int(fields[1]) - int(fields[2]), 0) * _PAGE_BYTES


def scan(proc: Path = Path("/proc")) -> dict[str, Usage]:
    """Usage by process namespace (the text of its link, `pid:[…]`). Processes that end meanwhile are left out."""
    totals: dict[str, Usage] = {}
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            space = str((entry / "ns" / "pid").readlink())
            usage = Usage(parse_cpu((entry / "stat").read_text()), parse_memory((entry / "statm").read_text()), 1)
        except (OSError, IndexError, ValueError):
            continue
        totals[space] = totals.get(space, Usage()) + usage
    return totals


@dataclass
class Meter:
    """Answers how much each container uses; CPU time never goes back, also when a process leaves unawaited."""

    read: Callable[[], Mapping[str, Usage]] = scan
    clock: Callable[[], float] = time.monotonic
    _at: float = float("-inf")
    _by_space: Mapping[str, Usage] = field(default_factory=dict)
    _last: dict[str, tuple[float, Usage]] = field(default_factory=dict)

    def usage(self, key: str, pid: int) -> Usage:
        """Usage of the container `key` whose first process is `pid` (0: it has ended, nothing but its CPU time)."""
        now = self.clock()
        if now - self._at > _FRESH_SECONDS:
            self._by_space, self._at = self.read(), now
        found = self._by_space.get(_space_of(pid), Usage()) if pid else Usage()
        before, last = self._last.get(key, (self._at, Usage(found.cpu_nanoseconds)))
        if self._at == before and key in self._last:
            return last
        cpu = max(last.cpu_nanoseconds, found.cpu_nanoseconds)
        rate = int((cpu - last.cpu_nanoseconds) / (self._at - before)) if self._at > before else 0
        self._last[key] = (self._at, Usage(cpu, found.memory_bytes, found.processes, rate))
        return self._last[key][1]

    def forget(self, keys: Iterable[str]) -> None:
        """Drop what is kept of containers that are gone."""
        for key in keys:
            self._last.pop(key, None)


def _space_of(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""


def directory_usage(directory: Path) -> tuple[int, int]:
    """Bytes and files under `directory` (as stored on disk)."""
    total = files = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            try:
                total += (Path(parent) / name).lstat().st_blocks * 512
            except OSError:
                continue
            files += 1
    return total, files
