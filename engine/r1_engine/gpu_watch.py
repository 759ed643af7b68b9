"""Keeps the agent's account of this node's GPUs: read every half minute, and at once when an Xid is heard."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from r1_engine import gpu_health
from r1_engine.gpu import read_gpus
from r1_engine.xids import Xid, listen

_PERIOD_SECONDS = 30.0


class GpuWatch:
    """`report` is what /status shows; `changed` is called after each reading, `warn` with what cannot be heard."""

    def __init__(self, changed: Callable[[], None], warn: Callable[[str], None]) -> None:
        self.report: dict[str, Any] = gpu_health.NOT_READ
        self._changed, self._warn = changed, warn
        self._heard: dict[tuple[int, int | None], Xid] = {}
        self._news = asyncio.Event()

    @property
    def xids(self) -> tuple[Xid, ...]:
        """The last one heard of each number and GPU: a program that faults all the time hides no other."""
        return tuple(self._heard.values())

    async def run(self) -> None:
        """Never ends by itself."""
        loop, stop = asyncio.get_running_loop(), threading.Event()

        def tell(xid: Xid) -> None:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._hear, xid)

        # A thread that ends with the process: one that hangs in a dead driver must not keep it.
        ears = threading.Thread(target=listen, args=(tell, self._warn, stop), name="xids", daemon=True)
        try:
            while True:
                self._news.clear()
                found = await asyncio.to_thread(read_gpus)
                if found.devices and not ears.ident:
                    ears.start()
                self.report = gpu_health.report(found, self.xids)
                self._changed()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), _PERIOD_SECONDS)
        finally:
            stop.set()

    def _hear(self, xid: Xid) -> None:
        which = (xid.number, xid.index)
        if which not in self._heard:
            where = "an unknown GPU" if xid.index is None else f"GPU {xid.index}"
            self._warn(f"{xid} on {where}, severity {xid.severity}")
        self._heard[which] = xid
        self._news.set()
