"""How much the server's processes read: the only sign of a load that prints nothing, as on every node but the first.

From the kernel, per process: /proc/PID/io has what went through system calls (`rchar`) and what came from a disk
(`read_bytes`); a mapped file on a file system that does not account for it shows in the major page faults of
/proc/PID/stat. One read may be counted twice: this is a sign of life, not a measurement.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

# A major fault brings in a window of read-ahead, by default this much (read_ahead_kb).
_FAULT_BYTES = 128 * 1024
_MAJOR_FAULTS = 9  # its place in /proc/PID/stat, counted after the program's name


def read_bytes(pid: int) -> int:
    """Bytes that the process, and its children that have ended, have read since it began; 0 when it is gone."""
    total = 0
    with suppress(OSError, IndexError, ValueError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[_MAJOR_FAULTS]) * _FAULT_BYTES
    with suppress(OSError, IndexError, ValueError):
        for line in Path(f"/proc/{pid}/io").read_text().splitlines():
            if line.startswith(("rchar:", "read_bytes:")):
                total += int(line.split()[1])
    return total


class Meter:
    """What processes that come and go have read between two looks."""

    def __init__(self) -> None:
        self._before: dict[int, int] = {}

    def read(self, pids: Iterable[int]) -> int:
        """Bytes since the last look. What a process read before its first look does not count."""
        now = {pid: read_bytes(pid) for pid in pids}
        grown = sum(max(0, value - self._before.get(pid, value)) for pid, value in now.items())
        self._before = now
        return grown
