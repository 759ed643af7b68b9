"""Nodes other than node 0: one connection to node 0's agent, which is told everything and says what to do.

Messages are JSON objects over a web socket, any subset of these keys:
  to node 0    hello {index, name} · report {stage, message, gpus, fabric} · failed {cause} · terminate · serverEnded ·
               the beat: waited (seconds its engine has waited for a CPU) · compiling (whether it does) ·
               steps (how often its start has gone forward)
  from node 0  ray (its address) · gang {stage, message} · stopping · end {cause} · or nothing (the beat)
Whoever hears nothing for `limits.lease` seconds ends its side: that is the lease.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

import aiohttp

from r1_engine.config import Settings
from r1_engine.deadlines import deadlines
from r1_engine.gpu_watch import GpuWatch
from r1_engine.node import Ending, Node, log
from r1_engine.outcome import Cause, Exit
from r1_engine.ray_group import bracketed
from r1_engine.stages import Stage
from r1_engine.tasks import Tasks, overslept
from r1_engine.xids import Xid

LINK_PATH = "/gang"
# Node 0 judges the start first; a member that never reached it must end by itself, a little later.
_HEAD_FIRST_SECONDS = 10.0
_FAREWELL_SECONDS = 1.5
# What fails before the first connection (a model directory, say) is still to be told to node 0, which may start later.
_LINK_FOR_FAREWELL_SECONDS = 15.0
# How long node 0 may be silent is the lease's to say; aiohttp's own limit would count time in which we did not run.
_NO_LIMIT = aiohttp.ClientWSTimeout(ws_receive=None, ws_close=1.0)


class MemberRole:
    """The part of an agent that belongs to a node other than node 0."""

    def __init__(self, settings: Settings, ending: Ending) -> None:
        self.node = Node(settings, ending, self._report)
        self._gpus = GpuWatch(self._report, log)
        self.gang_stage = Stage.RAY
        self._settings, self._ending = settings, ending
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._heard = time.monotonic()
        self._ray_started = False
        self._why_unreached = ""
        self._verdict = asyncio.Event()
        self._final: Cause | None = None
        self._tasks = Tasks(self.node.failed)

    @property
    def ready(self) -> bool:
        return self.gang_stage is Stage.READY and not self._ending.is_set

    @property
    def in_flight(self) -> int:
        return 0

    @property
    def served(self) -> dict[str, Any] | None:
        return None  # only node 0 is asked by users

    @property
    def gpus(self) -> dict[str, Any]:
        return self._gpus.report

    @property
    def xids(self) -> tuple[Xid, ...]:
        return self._gpus.xids

    @property
    def progress_at(self) -> float:
        return self.node.progress_at

    def fabric(self) -> dict[str, Any] | None:
        return self.node.fabric.to_json() if self.node.fabric is not None else None

    def status_nodes(self) -> list[dict[str, Any]]:
        pod, progress = self._settings.pod, self.node.progress
        return [{"index": pod.index, "name": pod.node_name, "stage": str(progress.stage), "message": progress.message}]

    async def run(self) -> None:
        self._tasks.start(self._limit_start())
        self._tasks.start(self._gpus.run())
        self._tasks.start(self.node.reap())
        self._tasks.start(self.node.watch_start())
        self._tasks.start(self._check())
        await self._link()

    async def _check(self) -> None:
        if await self.node.check() and not self._ray_started:
            self.node.launch_ray()

    async def _link(self) -> None:
        """Tries until node 0 answers; the first connection is the only one."""
        config = self._settings.config
        url = f"http://{bracketed(config.head_address)}:{config.ports.agent}{LINK_PATH}"
        headers = {"Authorization": f"Bearer {self._settings.token}"}
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    self._socket = await session.ws_connect(url, headers=headers, timeout=_NO_LIMIT)
                    break
                except aiohttp.WSServerHandshakeError as error:
                    if error.status in (401, 409):
                        why = "another token" if error.status == 401 else "another attempt or node index"
                        self.node.fail(Exit.CONFIGURATION, "GangRefused", f"Node 0 has {why}; restart the whole gang.")
                        self._verdict.set()  # node 0 will not talk to us
                        return
                    self._unreached(error)
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    self._unreached(error)
                await asyncio.sleep(0.5)
            await self._converse(self._socket)

    def _unreached(self, error: Exception) -> None:
        """A name that does not resolve reads otherwise than a pod that does not run yet: the words are aiohttp's."""
        self._why_unreached = str(error) or type(error).__name__
        self.node.enter(Stage.RAY, f"Waiting for node 0: {self._why_unreached}")

    async def _converse(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._heard = time.monotonic()
        pod, config = self._settings.pod, self._settings.config
        if self._why_unreached:
            self.node.enter(Stage.RAY, "Its agent has joined.")
        await socket.send_json({"hello": {"index": pod.index, "name": pod.node_name, "attempt": config.attempt}})
        self._report()
        if self._ending.is_set:
            await self._send({"failed": (await self._ending.wait()).to_json()})
        self._tasks.start(self._beat())
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                break
            self._heard = time.monotonic()
            await self._on_message(message.json())
        self._lost("the connection to its agent ended")

    async def _on_message(self, message: dict[str, Any]) -> None:
        if (ray := message.get("ray")) and not self._ray_started:
            self._ray_started = True
            self._tasks.start(self.node.start_ray(ray))
        if gang := message.get("gang"):
            self.gang_stage = Stage(gang["stage"])
            if self.gang_stage in (Stage.WARM_UP, Stage.READY, Stage.DRAINING):
                self.node.enter(self.gang_stage, gang["message"])
        if message.get("stopping"):
            self.node.stop_server(terminate=False)
            self._tasks.start(self._tell_server_end())
        if end := message.get("end"):
            self._final = Cause.from_json(end)
            self._ending.set(self._final)
            self._verdict.set()

    async def _tell_server_end(self) -> None:
        await self.node.server_ended.wait()
        await self._send({"serverEnded": True})

    async def _beat(self) -> None:
        limits = self._settings.limits
        while not self._ending.is_set:
            node = self.node
            await self._send({"waited": node.waited(), "compiling": node.compiling, "steps": node.steps})
            late = await overslept(limits.beat)
            self._heard = min(time.monotonic(), self._heard + late)
            if (silence := time.monotonic() - self._heard) > limits.lease:
                self._lost(f"nothing heard for {silence:.0f} s (the lease is {limits.lease:g} s)")

    def _lost(self, how: str) -> None:
        head = self._settings.config.head_address
        self.node.fail(Exit.DIED, "NodeLost", f"node 0 ({head}): {how}. Look at that node and the network to it.")
        self._verdict.set()

    async def _limit_start(self) -> None:
        """A member that never reached node 0 stands still by itself; later on node 0 judges, or the lease ends."""
        config, began = self._settings.config, time.monotonic()
        while (left := began + deadlines(self._settings).stall + _HEAD_FIRST_SECONDS - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 1.0))
        if self._socket is None:
            limit = f"spec.startup.stallSeconds = {deadlines(self._settings).stall:g}"
            message = (
                f"{self._settings.label}: node 0 ({config.head_address}) was not reached in {limit}: "
                f"{self._why_unreached or 'no answer'}. See whether its pod runs and its name resolves."
            )
            self.node.fail(Exit.NEVER_READY, "StartStoodStill", message)

    def drain(self) -> None:
        """Only node 0 serves requests: a drain asked for here is node 0's to do."""
        self._tasks.start(self._send({"drain": True}))

    def terminate(self) -> None:
        if self._socket is None:
            self._ending.set(Cause(Exit.DRAINED, "Drained", "Ended before it joined.", self._settings.pod.node_name))
            return
        log("SIGTERM: asking node 0 to drain the gang")
        self._tasks.start(self._send({"terminate": True}))

    async def farewell(self, cause: Cause) -> Cause:
        """Tells node 0 and returns the cause that counts for the gang, if node 0 says it in time."""
        if self._final is not None or (self._socket is not None and self._socket.closed):
            return self._final or cause
        linked = self._socket is not None
        await self._send({"failed": cause.to_json()})
        try:
            await asyncio.wait_for(self._verdict.wait(), _FAREWELL_SECONDS if linked else _LINK_FOR_FAREWELL_SECONDS)
        except TimeoutError:
            log("node 0 did not confirm the end")
        return self._final or cause

    def _report(self) -> None:
        progress = self.node.progress
        report = {"stage": str(progress.stage), "message": progress.message, "gpus": self.gpus}
        self._tasks.start(self._send({"report": {**report, "fabric": self.fabric()}}))

    async def _send(self, message: dict[str, Any]) -> None:
        if self._socket is not None and not self._socket.closed:
            with suppress(OSError, aiohttp.ClientError):  # _converse and the lease notice
                await self._socket.send_json(message)
