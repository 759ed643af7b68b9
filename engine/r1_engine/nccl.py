"""NCCL's own words in the server's output: over which network it sends, and whether from the GPUs' memory. Pure.

With NCCL_DEBUG=INFO each rank says some hundred lines for each of its communicators. They are counted on, not kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

INFO = "NCCL INFO"
_NETWORK = re.compile(r"NCCL INFO Using network (.+?)\s*$")
_CHANNEL = re.compile(r"\[(?:send|receive)\] via NET/(.+?)/\d+(?:\(\d+\))?(/GDRDMA)?(?:/|\s|$)")
KEPT_LINES = 200
"""Of one server. A rank's first communicator says what there is to know."""
_PLAIN_CHANNELS = 8
"""So many channels without GPUDirect, and none with, are no accident of a GPU that is far from its NIC."""


@dataclass(frozen=True)
class Heard:
    """`network`: as NCCL names it (IB, Socket, AWS Libfabric); None: not said yet. `gpu_direct`: whether channels
    between nodes go from GPU memory to the network; None: too few were told of."""

    network: str | None = None
    gpu_direct: bool | None = None
    plain: int = 0
    lines: int = 0

    def after(self, line: str) -> tuple[Heard, bool]:
        """Takes a line of output → what is known then, and whether the line is worth keeping."""
        if INFO not in line:
            return self, True
        known = replace(self, lines=self.lines + 1)
        if match := _NETWORK.search(line):
            # Communicators may differ: one over sockets is the news.
            known = replace(known, network="Socket" if self.network == "Socket" else match[1])
        elif (match := _CHANNEL.search(line)) and match[1] != "Socket":
            plain = self.plain + (not match[2])
            direct = True if match[2] or self.gpu_direct else False if plain >= _PLAIN_CHANNELS else None
            known = replace(known, plain=plain, gpu_direct=direct)
        news = (known.network, known.gpu_direct) != (self.network, self.gpu_direct)
        return known, news or known.lines <= KEPT_LINES
