"""Ports for programs that must be told theirs before they listen: a chosen one stays free until they do.

A port that was bound once to find a free one and let go again may be anybody's a moment later: the kernel gives it to
the next connection or to the next test that asks. So ports come from below the kernel's own range, and a process takes
a whole block of them by an abstract Unix socket, which is one network namespace's, as ports are, and ends with it.
"""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Iterator
from typing import Final

FIRST: Final = 20_000
LAST: Final = 29_999
"""Below net.ipv4.ip_local_port_range (32768 to 60999), and below NodePorts and SGLang's 30000."""

BLOCK: Final = 50
_lock = threading.Lock()
_blocks: list[tuple[socket.socket, Iterator[int]]] = []


def free_port() -> int:
    """A port nobody listens on, and that nobody who asks here in another process gets. This one gets it again after
    `BLOCK` more calls, if it is free then."""
    with _lock:
        for _, ports in _blocks:
            for port in itertools.islice(ports, BLOCK):
                if _is_free(port):
                    return port
        _blocks.append(_take_block())
        return next(port for port in itertools.islice(_blocks[-1][1], BLOCK) if _is_free(port))


def _take_block() -> tuple[socket.socket, Iterator[int]]:
    for first in range(FIRST, LAST + 1 - BLOCK, BLOCK):
        held = socket.socket(socket.AF_UNIX)
        try:
            held.bind(f"\0r1-operator-tests-ports-{first}")
        except OSError:
            held.close()
            continue
        return held, itertools.cycle(range(first, first + BLOCK))
    raise RuntimeError(f"all ports from {FIRST} to {LAST} are taken by tests that run; end some")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True
