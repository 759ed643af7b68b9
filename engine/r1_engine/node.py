"""What every pod of a gang does for itself: its Ray processes, its NodeActor's reports, and the end of all of it."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from r1_engine import nccl, preflight, processes, ray_group, reading
from r1_engine.config import ConfigError, Settings
from r1_engine.fabric import read_fabric
from r1_engine.fabric_verdict import NodeFabric, judge
from r1_engine.node_paths import AGENT_SOCKET
from r1_engine.outcome import Cause, Exit
from r1_engine.output import Output
from r1_engine.refusal import explain
from r1_engine.stages import BEFORE_SERVING, Progress, Stage
from r1_engine.starvation import Meter
from r1_engine.supervise import Ended

# A start of Ray that hangs is tried again; one that is only slow must not be.
_RAY_UP_SECONDS = 300.0
_RAY_ATTEMPTS = 3
# A load that reads less than this between two looks goes nowhere: 100 KiB/s. What idle processes read to wake each
# other, a few bytes at a time, stays far below it.
_LOOK_SECONDS = 5.0
_READ_BYTES = 512 * 1024


def log(text: str) -> None:
    print(f"r1-engine {time.strftime('%H:%M:%S')} {text}", flush=True)


class Ending:
    """The first cause wins; later ones are consequences. One that reads like a consequence itself waits `settle`
    seconds for what caused it: the node where it happened may be slower to report than those that lost their peer."""

    def __init__(self, settle: float = 0.0) -> None:
        self._settle = settle
        self._cause: asyncio.Future[Cause] = asyncio.get_running_loop().create_future()

    def set(self, cause: Cause) -> None:
        if cause.consequence and self._settle:
            asyncio.get_running_loop().call_later(self._settle, self._take, cause)
        else:
            self._take(cause)

    def _take(self, cause: Cause) -> None:
        if not self._cause.done():
            log(f"ending: {cause.reason}: {cause.message}")
            self._cause.set_result(cause)

    @property
    def is_set(self) -> bool:
        return self._cause.done()

    async def wait(self) -> Cause:
        return await asyncio.shield(self._cause)


class Node:
    """The local half of an agent. Reports through `changed` (its progress moved) and `ending` (something ended)."""

    def __init__(self, settings: Settings, ending: Ending, changed: Callable[[], None]) -> None:
        self.settings = settings
        self.progress = Progress(Stage.RAY, "Starting Ray.", time.time())
        self.engine_processes: set[int] = set()
        self.server_ended = asyncio.Event()
        self._ending, self._changed = ending, changed
        self._watch = processes.Watch()
        self._actor: asyncio.StreamWriter | None = None
        self._stopping = False
        self._ray: ray_group.RayGroup | None = None
        self.server: int | None = None
        self.compiling = False
        self.steps = 0  # how often the start has gone forward here; never falls
        self.progress_at = time.time()  # when it last did
        self._output = Output()
        self._nccl = nccl.Heard()
        self.fabric: NodeFabric | None = None  # once read, in a gang of several nodes with GPUs
        self._ray_runs = False
        self._starvation, self._http_starvation = Meter(), Meter()
        self.awaited: set[int] = set()  # children with a Popen of their own, which reaps them

    def enter(self, stage: Stage, message: str) -> None:
        before, self.progress = self.progress, self.progress.enter(stage, message, time.time())
        if before.stage is not self.progress.stage:
            log(f"{self.progress.stage}: {self.progress.message}")
        if before != self.progress:
            self.step()
            self._changed()

    def step(self) -> None:
        """The start has gone forward here."""
        self.steps += 1
        self.progress_at = time.time()

    def fail(self, code: Exit, reason: str, message: str, *, consequence: bool = False) -> None:
        self._ending.set(Cause(code, reason, message, self.settings.pod.node_name, consequence))

    def failed(self, error: BaseException) -> None:
        """A fault of the agent's own ends the gang like any other."""
        self.fail(Exit.DIED, "AgentFailed", f"{self.settings.label}: the agent failed: {type(error).__name__}: {error}")

    async def check(self) -> bool:
        """The pre-flight checks; False when they ended the gang. On a dead volume they never end."""
        if not await self._check_fabric():
            return False
        config, expected = self.settings.config, self.settings.config.expected
        try:
            if expected.hardware is not None and config.device == "cuda":
                self.enter(Stage.RAY, "Comparing this node's GPUs with the plan.")
                await asyncio.to_thread(preflight.check_hardware, expected.hardware, os.environ, log)
            self.enter(Stage.RAY, f"Checking the files in {config.model_path}.")
            await asyncio.to_thread(preflight.check_model, config.model_path, expected.model)
        except ConfigError as error:
            self.fail(Exit.CONFIGURATION, error.reason, f"{self.settings.label}: {error}")
            return False
        self.enter(Stage.RAY, "Starting Ray.")
        return True

    async def _check_fabric(self) -> bool:
        """Whether the network between the nodes lets the engine come up at all. Anything less is told and started."""
        config = self.settings.config
        if config.fabric is None or config.nodes == 1 or config.device != "cuda":
            return True
        self.fabric = judge(await asyncio.to_thread(read_fabric), config.fabric)
        verdict = self.fabric.verdict
        log(f"fabric: {verdict.reason}: {verdict.message}")
        self._changed()
        if verdict.fatal:
            self.fail(Exit.CONFIGURATION, verdict.reason, f"{self.settings.label}: {verdict.message}.")
        return not verdict.fatal

    def launch_ray(self) -> None:
        """Lets `ray start` do what needs no other node: its imports."""
        self._ray = ray_group.launch(self.settings, os.environ)
        self.awaited.add(self._ray.process.pid)

    async def start_ray(self, head_ip: str) -> None:
        """Starts this node's part of the Ray cluster and listens for its NodeActor."""
        path = self.settings.pod.run_dir / AGENT_SOCKET
        path.unlink(missing_ok=True)
        await asyncio.start_unix_server(self._serve_actor, str(path), limit=1 << 20)
        for attempt in range(1, _RAY_ATTEMPTS + 1):
            if self._ray is None:
                self.launch_ray()
            assert self._ray is not None
            group, self._ray = self._ray, None
            group.join(ray_group.address(self.settings, head_ip))
            try:
                await ray_group.wait_up(group, self.settings, _RAY_UP_SECONDS)
            except ray_group.RayStartError as error:
                log(f"Ray did not start (attempt {attempt} of {_RAY_ATTEMPTS}): {error}")
                await asyncio.to_thread(group.end)
                if attempt == _RAY_ATTEMPTS:
                    self.fail(Exit.DIED, "RayFailed", f"{self.settings.label}: {error}")
            else:
                for pid, part in group.parts.items():
                    self.watch(pid, part)
                self._ray_runs = True
                self.enter(Stage.RAY, "Ray runs here; waiting for the whole gang.")
                return

    def watch(self, pid: int, part: str, *, follows: bool = False) -> None:
        """Ends the gang when the process ends; with `follows` one that ends when another part has."""
        if pid in self._watch:
            return
        if not self._watch.add(pid, part):
            self._part_ended(part, follows)
            return
        descriptor = self._watch.fileno_by_pid()[pid]
        asyncio.get_running_loop().add_reader(descriptor, self._on_death, pid, descriptor, follows)

    def _on_death(self, pid: int, descriptor: int, follows: bool) -> None:
        asyncio.get_running_loop().remove_reader(descriptor)
        self._part_ended(self._watch.remove(pid), follows)

    def _part_ended(self, part: str, follows: bool) -> None:
        self.fail(Exit.DIED, "PartDied", f"{self.settings.label}: {part} ended.", consequence=follows)

    async def _serve_actor(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._actor = writer
        if self._stopping:
            self._command({"expectEnd": True})
        try:
            while line := await reader.readline():
                self._on_report(json.loads(line))
        except (OSError, ValueError) as error:
            log(f"the NodeActor's reports broke off: {error}")
        finally:
            self._actor = None
            if not self.server_ended.is_set():
                # An actor ends with its raylet: which of the two is seen first is chance.
                self.fail(Exit.DIED, "ActorDied", f"{self.settings.label}: its Ray actor ended.", consequence=True)
            with suppress(OSError):
                writer.close()

    def _on_report(self, report: dict[str, Any]) -> None:
        if "log" in report:
            if self._keep(report["log"]):
                print(report["log"], flush=True)
                self._hear(report["log"])
        elif "bar" in report:
            self._hear(report["bar"])
        elif "child" in report:
            self.server = int(report["child"])
            self.engine_processes.add(self.server)
            self.enter(Stage.WEIGHTS, "The server starts.")
        elif "compiling" in report:
            self.compiling = bool(report["compiling"])
        elif "part" in report:
            self.engine_processes.add(int(report["pid"]))
            self.step()
        elif "ended" in report:
            self.server_ended.set()
            if not self._stopping:
                ended = Ended(**{**report["ended"], "tail": tuple(report["ended"]["tail"])})
                self._ending.set(explain(ended, self.settings.pod.node_name, self.settings.label))

    def _keep(self, line: str) -> bool:
        """Takes what NCCL says of the network; False for more of it than anybody reads."""
        before, (self._nccl, keep) = self._nccl, self._nccl.after(line)
        if not keep and self._nccl.lines == nccl.KEPT_LINES + 1:
            log("more of NCCL's lines are left out; spec.engine.env NCCL_DEBUG_FILE writes all of them to a file")
        if self.fabric is not None and (before.network, before.gpu_direct) != (
            self._nccl.network,
            self._nccl.gpu_direct,
        ):
            self.fabric = replace(self.fabric, nccl=self._nccl)
            self._changed()
        return keep

    def _hear(self, line: str) -> None:
        if self.progress.stage not in BEFORE_SERVING:
            return
        self._output, heard = self._output.heard(line, time.monotonic())
        if heard.moved:
            self.step()
        if heard.detail:
            self.enter(Stage.WEIGHTS, heard.detail)

    async def watch_start(self) -> None:
        """Sees what a start does without a word: it imports and reads weights, it compiles."""
        meter = reading.Meter()
        while self.progress.stage in BEFORE_SERVING:
            await asyncio.sleep(_LOOK_SECONDS)
            read = await asyncio.to_thread(lambda: meter.read(self._readers()))
            if self.compiling or read >= _READ_BYTES:
                self.step()

    def _readers(self) -> list[int]:
        """Processes that read because the start goes on. Ray's are among them only until it runs: afterwards it reads
        figures of this machine all the time; so does a server that is asked for tokens and allocates."""
        if not self._ray_runs:
            return processes.descendants(os.getpid())
        if self.server is None or self.progress.stage is not Stage.WEIGHTS:
            return []
        return [self.server, *processes.descendants(self.server)]

    def waited(self) -> float:
        """Seconds this node's server processes and this agent have been ready to run without a CPU; while Ray starts,
        so have its processes."""
        starting = processes.descendants(os.getpid()) if self.progress.stage is Stage.RAY else ()
        return self._starvation.read({os.getpid(), *self.engine_processes, *starting})

    def http_waited(self) -> float:
        """The same of those that answer or ask an HTTP request that concerns no rank: the server and this agent."""
        return self._http_starvation.read({os.getpid(), *([self.server] if self.server else [])})

    def stop_server(self, *, terminate: bool) -> None:
        """From now on the end of the server is wanted; with `terminate` it is asked to end (only rank 0's can be)."""
        self._stopping = True
        self._command({"stop": True} if terminate else {"expectEnd": True})

    def _command(self, message: dict[str, Any]) -> None:
        if self._actor is not None:
            self._actor.write(json.dumps(message).encode() + b"\n")

    async def reap(self) -> None:
        """Reaps orphans for ever: as the pod's first process nobody else does."""
        while True:
            await asyncio.sleep(5)
            processes.reap_orphans(frozenset(self.awaited))

    async def kill_everything(self) -> None:
        left = await asyncio.to_thread(processes.kill_below, os.getpid(), 10.0)
        if left:
            log(f"these processes cannot be killed: {[(pid, processes.title(pid)) for pid in left]}")
