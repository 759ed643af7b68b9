"""Node 0: it hears every member, runs the Ray driver, asks every DP rank for tokens, and decides when the gang ends."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

from aiohttp import WSMsgType, web

from r1_engine import compiling, health, pace, processes, ray_group, startup
from r1_engine import gang as gangs
from r1_engine.config import Settings
from r1_engine.deadlines import deadlines
from r1_engine.doors import has_token
from r1_engine.fabric_verdict import GangFabric, NodeFabric
from r1_engine.gate import GateFile
from r1_engine.gpu_watch import GpuWatch
from r1_engine.launch import PROBE_KEY_VARIABLE
from r1_engine.node import Ending, Node, log
from r1_engine.node_paths import GATE_FILE
from r1_engine.outcome import Cause, Exit, drained
from r1_engine.probe import EngineClient
from r1_engine.stages import BEFORE_SERVING, Member, Stage
from r1_engine.tasks import Tasks, overslept
from r1_engine.xids import Xid


class HeadRole:
    """The part of an agent that belongs to node 0."""

    def __init__(self, settings: Settings, ending: Ending) -> None:
        self.node = Node(settings, ending, self._changed)
        self._gpus = GpuWatch(lambda: None, log)
        self._settings, self._ending = settings, ending
        self._gang = gangs.Gang(settings.config.nodes, {}, {})
        self._links: dict[int, web.WebSocketResponse] = {}
        self._gate = GateFile(settings.pod.run_dir / GATE_FILE, create=True)
        self._ranks = health.Ranks.of(settings.config.attention_data_parallel)
        self._pace = pace.Pace(pace.chunk_of(settings.config.engine_args))
        self._fabrics: dict[int, NodeFabric] = {}  # of the members
        self._waited: dict[int, float] = {}  # by member, see `starvation`
        self._compiling: dict[int, bool] = {}  # by member, see `compiling`
        self._compile_clock = compiling.Clock(time.monotonic())
        self._server_heard = health.Moment(0.0)
        self._course = startup.Course(health.Moment(time.monotonic()))
        self.progress_at = time.time()  # when any node's start last went forward
        self._ray_up = False
        self._terminating = self._stopping = False
        self._servers_ended: dict[int, asyncio.Event] = {
            index: asyncio.Event() for index in range(1, settings.config.nodes)
        }
        self._tasks = Tasks(self.node.failed)
        self._probes: dict[int, asyncio.Task[None]] = {}

    # ── what the agent's endpoints show ──────────────────────────────────────────────────────────────────────────────

    @property
    def ready(self) -> bool:
        return self.node.progress.stage is Stage.READY and not self._ending.is_set

    @property
    def in_flight(self) -> int:
        return self._gate.in_flight()

    @property
    def served(self) -> dict[str, Any] | None:
        """What the gate has counted since the start."""
        tally = self._gate.tally()
        return {
            "requests": tally.requests,
            "failed": tally.failed,
            "begun": tally.begun,
            "firstByteSeconds": tally.first_byte_seconds,
        }

    @property
    def gpus(self) -> dict[str, Any]:
        return self._gpus.report

    @property
    def xids(self) -> tuple[Xid, ...]:
        return self._gpus.xids

    def status_nodes(self) -> list[dict[str, Any]]:
        return [member.to_json() for _, member in sorted(self._gang.members.items())]

    def fabric(self) -> dict[str, Any] | None:
        gang = self._gang_fabric()
        return gang.to_json() if gang is not None else None

    def _gang_fabric(self) -> GangFabric | None:
        if self.node.fabric is None:
            return None
        known = {0: self.node.fabric, **self._fabrics}
        names = {index: member.name for index, member in self._gang.members.items()}
        nodes = {index: (names.get(index, ""), node) for index, node in known.items()}
        return GangFabric(nodes, self._settings.config.nodes)

    # ── the start ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        self._tasks.start(self._limit_start())
        self._tasks.start(self._watch_leases())
        self._tasks.start(self.node.reap())
        self._tasks.start(self.node.watch_start())
        self._tasks.start(self._gpus.run())
        self._changed()
        if not await self.node.check():
            return
        driver = self._start_driver()
        await self.node.start_ray(self._settings.pod.ip)
        if self._ending.is_set:
            return
        self._ray_up = True
        await self._broadcast({"ray": self._settings.pod.ip})
        assert driver.stdin is not None
        driver.stdin.write(f"{ray_group.address(self._settings, self._settings.pod.ip)}\n".encode())
        driver.stdin.flush()
        async with EngineClient(self._settings, os.environ[PROBE_KEY_VARIABLE]) as engine:
            await self._wait_open(engine)
            self._tasks.start(self._observe(engine))
            self._server_heard = self._http_now()
            self._tasks.start(self._listen(engine))
            await self._judge(engine)

    def _start_driver(self) -> subprocess.Popen[bytes]:
        """The driver imports Ray and waits for the address of the cluster."""
        environment = ray_group.environment(os.environ, self._settings)
        driver = processes.start(
            [sys.executable, "-m", "r1_engine.driver"], environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.node.awaited.add(driver.pid)
        self.node.watch(driver.pid, "the Ray driver", follows=True)
        self._tasks.start(self._hear_driver(driver))
        return driver

    async def _hear_driver(self, driver: subprocess.Popen[bytes]) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), driver.stdout)
        while line := await reader.readline():
            try:
                message = json.loads(line)
            except ValueError:
                log(f"driver: {line.decode(errors='replace').rstrip()}")
                continue
            if placed := message.get("placed"):
                log(f"placed on {', '.join(placed)}")
            elif failed := message.get("failed"):
                was_placed = failed["reason"] != "NotPlaced"
                code = Exit.DIED if was_placed else Exit.NOT_PLACED
                self.node.fail(code, failed["reason"], failed["message"], consequence=was_placed)
            elif (ended := message.get("ended")) and not self._stopping:
                # The agent of that node knows more, and has told of it before if its link is alive.
                message = f"{self._gang.describe(ended['index'])}: {ended['what']} ended."
                self.node.fail(Exit.DIED, "EngineDied", message, consequence=True)

    async def _wait_open(self, engine: EngineClient) -> None:
        while not await engine.is_open():
            await asyncio.sleep(0.25 if self._gang.all_servers_started() else 0.5)
        self.node.enter(Stage.WARM_UP, "The server is open; waiting for a token of every DP rank.")

    async def _limit_start(self) -> None:
        config = self._settings.config
        while self.node.progress.stage in BEFORE_SERVING and not self._ending.is_set:
            late = await overslept(self._settings.limits.beat)
            self._course = self._course.excused(late, time.monotonic())
            silent = health.silent_ranks(self._ranks)
            now = deadlines(self._settings)
            limits = startup.Limits(now.stall, now.start)
            self._hear_course(0, self.node.steps + config.attention_data_parallel - len(silent))
            if cause := startup.verdict(self._course, self._gang, silent, self._now(), limits):
                self._ending.set(cause)

    def _hear_course(self, index: int, steps: int) -> None:
        before, self._course = self._course, self._course.heard(index, steps, self._now())
        if self._course is not before:
            self.progress_at = time.time()

    # ── health ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _now(self) -> health.Moment:
        waited = self.node.waited() + sum(self._waited.values())
        return health.Moment(time.monotonic(), waited, self._compile_clock.seconds)

    def _http_now(self) -> health.Moment:
        return health.Moment(time.monotonic(), self.node.http_waited())

    def _look_again(self) -> float:
        return self._settings.limits.probe if self.node.progress.stage is not Stage.WARM_UP else 0.2

    async def _observe(self, engine: EngineClient) -> None:
        """Counters of busy ranks. Apart from `_judge`, which a frozen server must not hold up."""
        while not self._ending.is_set and not self._stopping:
            if (loads := await engine.loads()) is not None:
                now = self._now()
                self._ranks, self._pace = self._ranks.observed(loads, now), self._pace.observed(loads, now)
            await asyncio.sleep(self._look_again())

    async def _listen(self, engine: EngineClient) -> None:
        """Does the server itself answer? Apart from the ranks, whose waits for a CPU do not excuse a frozen server."""
        limits = self._settings.limits
        while not self._ending.is_set and not self._stopping:
            if await engine.is_open(limits.longest_silence):
                self._server_heard = self._http_now()
            await asyncio.sleep(limits.probe)

    async def _judge(self, engine: EngineClient) -> None:
        """Readiness at first, health afterwards; ranks without proof are asked for a token."""
        limits = self._settings.limits
        while not self._ending.is_set and not self._stopping:
            now = self._now()
            for rank in health.ranks_to_probe(self._ranks, now, limits.probe):
                if rank not in self._probes:
                    self._probes[rank] = self._tasks.start(self._probe(engine, rank))
            if self.node.progress.stage is Stage.WARM_UP:
                if not health.silent_ranks(self._ranks):
                    self.node.enter(Stage.READY, "Every DP rank gives tokens.")
            elif not self._stopping and (cause := self._hung(now)):
                self._ending.set(cause)
            await asyncio.sleep(self._look_again())

    def _hung(self, now: health.Moment) -> Cause | None:
        pod, limits, heard = self._settings.pod, self._settings.limits, self._server_heard
        patience = health.Patience(limits.hang, limits.starved, limits.compiling)
        if patience.exhausted(heard, self._http_now()):
            return gangs.server_hung(self._settings.label, pod.node_name, now.at - heard.at)
        fabric = self._gang_fabric()
        doubtful = fabric is not None and not fabric.as_planned
        patience = replace(patience, limit=self._pace.limit(limits, now.at, doubtful=doubtful))
        if silence := health.hung_ranks(self._ranks, now, patience):
            return gangs.hung(silence, pod.node_name)
        return None

    async def _probe(self, engine: EngineClient, rank: int) -> None:
        try:
            limits = self._settings.limits
            if await engine.token(rank, limits.longest_silence):
                self._ranks = self._ranks.answered(rank, self._now())
            else:
                await asyncio.sleep(0.5)
        finally:
            self._probes.pop(rank, None)

    async def _watch_leases(self) -> None:
        limits = self._settings.limits
        while not self._ending.is_set:
            late = await overslept(limits.beat)
            self._gang = self._gang.excused(late, time.monotonic())
            self._compile_clock.tick(time.monotonic(), self.node.compiling or any(self._compiling.values()))
            await self._broadcast({})
            if expired := gangs.expired_member(self._gang, time.monotonic(), limits.lease):
                index, silence = expired
                how = f"nothing heard from its agent for {silence:.0f} s (the lease is {limits.lease:g} s)"
                self._ending.set(gangs.lost(self._gang, index, how))

    # ── the members ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def serve_link(self, request: web.Request) -> web.StreamResponse:
        """The connection of one member's agent; see `member` for the messages."""
        if not has_token(request.headers.get("Authorization", ""), self._settings.token):
            return web.Response(status=401)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        hello = (await socket.receive_json(timeout=5))["hello"]
        index = int(hello["index"])
        if (
            hello["attempt"] != self._settings.config.attempt
            or index not in self._servers_ended
            or index in self._links
        ):
            await socket.close(message=b"not a member of this gang, or already connected")
            return socket
        self._links[index] = socket
        self._gang = self._gang.heard(
            Member(index, str(hello["name"]), Stage.RAY, "Its agent has joined."), time.monotonic()
        )
        log(f"{self._gang.describe(index)} joined")
        try:
            await self._greet(socket)
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    break
                self._gang = self._gang.touched(index, time.monotonic())
                self._on_member(index, message.json())
        finally:
            if not self._stopping:
                self._ending.set(gangs.lost(self._gang, index, "its agent closed the connection"))
            self._servers_ended[index].set()
        return socket

    async def _greet(self, socket: web.WebSocketResponse) -> None:
        if self._ending.is_set:
            await socket.send_json({"end": (await self._ending.wait()).to_json()})
        elif self._ray_up:
            await socket.send_json({"ray": self._settings.pod.ip})

    def _on_member(self, index: int, message: dict[str, Any]) -> None:
        if report := message.get("report"):
            name = self._gang.members[index].name
            member = Member(index, name, Stage(report["stage"]), report["message"], report.get("gpus", {}))
            self._gang = self._gang.heard(member, time.monotonic())
            if fabric := report.get("fabric"):
                self._fabrics[index] = NodeFabric.from_json(fabric)
        if failed := message.get("failed"):
            self._ending.set(Cause.from_json(failed))
        if (waited := message.get("waited")) is not None:
            self._waited[index] = float(waited)
            self._compiling[index] = bool(message.get("compiling"))
            self._hear_course(index, int(message.get("steps", 0)))
        if message.get("serverEnded"):
            self._servers_ended[index].set()
        if message.get("drain"):
            self.drain()
        if message.get("terminate"):
            log(f"{self._gang.describe(index)} was told to end: draining the gang")
            self.terminate()

    async def _broadcast(self, message: dict[str, Any]) -> None:
        """Sends to all members at once; one that cannot take it (cut off, frozen) holds nobody up."""
        sends = [asyncio.wait_for(socket.send_json(message), 0.5) for socket in self._links.values()]
        await asyncio.gather(*sends, return_exceptions=True)

    def _changed(self) -> None:
        """Node 0's own progress moved: it is the gang's, too."""
        pod, progress = self._settings.pod, self.node.progress
        self._gang = self._gang.heard(Member(0, pod.node_name, progress.stage, progress.message), time.monotonic())
        self._tasks.start(self._broadcast({"gang": {"stage": str(progress.stage), "message": progress.message}}))

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def drain(self) -> None:
        """New requests are refused from this moment; those in flight go on."""
        self._gate.drain()
        self.node.enter(Stage.DRAINING, "Draining: new requests are refused.")

    def terminate(self) -> None:
        if self._terminating:
            return
        self._terminating = True
        starting = self.node.progress.stage in BEFORE_SERVING
        self.drain()
        if starting:
            self._ending.set(drained(self._settings.pod.node_name, "Told to end before it was ready."))
        else:
            self._tasks.start(self._finish())

    async def _finish(self) -> None:
        """Waits for the requests in flight, then for the servers; cuts what does not end in time."""
        limits, began = self._settings.limits, time.monotonic()
        while (count := self._gate.in_flight()) and time.monotonic() - began < deadlines(self._settings).drain:
            self.node.enter(Stage.DRAINING, f"Draining: {count} requests in flight.")
            await asyncio.sleep(0.1)
        name = self._settings.pod.node_name
        if count:
            limit = f"drain.seconds = {deadlines(self._settings).drain:g}"
            self._ending.set(drained(name, f"{count} requests cut after {limit}."))
            return
        self._stopping = True
        await self._broadcast({"stopping": True})
        self.node.stop_server(terminate=True)
        waits = [self.node.server_ended.wait(), *(event.wait() for event in self._servers_ended.values())]
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*waits), limits.stop)
        self._ending.set(drained(name))

    async def farewell(self, cause: Cause) -> Cause:
        """Tells every member why the gang ends, before anything is killed here."""
        await self._broadcast({"end": cause.to_json()})
        return cause
