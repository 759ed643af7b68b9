"""Unix seconds that never jump."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..cluster.clock import boot_seconds


def steady_clock() -> Callable[[], float]:
    """Wall time as it was at this call, and from then on what has really passed, a suspended machine's sleep included.

    What is decided by it compares it with times in objects that others wrote, so it is wall time; but an administrator
    or a time daemon that sets the clock by an hour must not make every start an hour late.
    """
    began = time.time() - boot_seconds()
    return lambda: began + boot_seconds()
