"""How long this pod's part of the engine stood ready to run and got no CPU: time in which silence proves nothing.

The kernel counts it per thread (the second number of /proc/PID/schedstat, nanoseconds). It tells a starved process from
a frozen, blocked or crashed one, which is not ready to run and so waits for no CPU. We read the main thread of each
process: there SGLang schedules, runs the forward pass and answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def waited(pid: int) -> float:
    """Seconds the main thread of `pid` has waited for a CPU since it began; 0 where the kernel does not say."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


class Meter:
    """Adds up the waiting of processes that come and go; `total` (seconds) never falls."""

    def __init__(self) -> None:
        self.total = 0.0
        self._before: dict[int, float] = {}

    def read(self, pids: Iterable[int]) -> float:
        """The total, after a look at `pids`. What a process waited before its first look does not count."""
        now = {pid: waited(pid) for pid in pids}
        self.total += sum(max(0.0, value - self._before.get(pid, value)) for pid, value in now.items())
        self._before = now
        return self.total
