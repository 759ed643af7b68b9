"""The clock by which leases and the age of knowledge are measured."""

from __future__ import annotations

import time


def boot_seconds() -> float:
    """Seconds since boot. Unlike `time.monotonic` it also counts while a virtual machine is suspended, as others do."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
