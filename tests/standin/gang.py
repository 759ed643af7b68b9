"""The link between the nodes of a gang: each node holds one connection to node 0, on Ray's port.

JSON lines both ways every `lease / 5` seconds. A closed connection means the other side died (exit 70), a silent one
that it is frozen or cut off (exit 71); "done" means that node 0 drained, "drain" asks node 0 to do so.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from tests.standin.pod import HUNG, PART_DIED, Member, Pod


async def _read(reader: asyncio.StreamReader, lease: float) -> dict[str, Any] | None:
    """The next message, or None at the end of the connection. Raises TimeoutError after `lease` seconds of silence."""
    try:
        async with asyncio.timeout(lease):
            line = await reader.readline()
        return dict(json.loads(line)) if line else None
    except (ConnectionError, ValueError):
        return None


def _write(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    if not writer.is_closing():
        writer.write(json.dumps(message).encode() + b"\n")


async def _change(pod: Pod) -> None:
    """Wait for a change worth telling, or for the next sign of life."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(pod.settings.lease_seconds / 5):
            await pod.changed.wait()
    pod.changed.clear()


class Head:
    """Node 0's side."""

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self.writers: dict[int, asyncio.StreamWriter] = {}
        self.all_joined = asyncio.Event()
        self.done = False
        if pod.settings.nodes == 1:
            self.all_joined.set()

    async def serve(self) -> None:
        chosen = self.pod.settings
        await asyncio.start_server(self._member, chosen.address, chosen.ports["ray"])
        while True:
            for writer in self.writers.values():
                _write(writer, {"stage": self.pod.stage, "loads": self.pod.loads()})
            await _change(self.pod)

    def missing(self) -> str:
        absent = [str(i) for i in range(1, self.pod.settings.nodes) if i not in self.writers]
        return "node " + ", ".join(absent) if absent else ""

    async def say_done(self) -> None:
        self.done = True
        for writer in self.writers.values():
            _write(writer, {"done": True})
            with contextlib.suppress(ConnectionError):
                await writer.drain()

    async def _member(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pod, lease = self.pod, self.pod.settings.lease_seconds
        hello = await _read(reader, lease)
        if (
            hello is None
            or hello.get("token") != pod.settings.ray_token
            or hello.get("attempt") != pod.settings.attempt
        ):
            _write(writer, {"refused": "the Ray token or the attempt differs from node 0's"})
            writer.close()
            return
        index, name = int(hello["index"]), str(hello["name"])
        member = pod.members[index] = Member(index, name, message="joined")
        self.writers[index] = writer
        if len(self.writers) == pod.settings.nodes - 1:
            self.all_joined.set()
        try:
            while (message := await _read(reader, lease)) is not None:
                member.stage, member.message = message["stage"], message["message"]
                member.progressAt = message["progressAt"]
                if message.get("drain"):
                    pod.terminating.set()
        except TimeoutError:
            pod.end(HUNG, "NodeLost", f"node {index} ({name}) was silent for {lease:g} s", name)
        else:
            if not self.done:
                pod.end(PART_DIED, "NodeLost", f"node {index} ({name}) died: its connection to node 0 closed", name)
        finally:
            writer.close()


async def follow_head(pod: Pod) -> None:
    """The side of nodes other than 0: join, report, obey; end the process when node 0 does."""
    chosen = pod.settings
    reader, writer = await _connect(chosen.head_address, chosen.ports["ray"])
    hello = {"index": chosen.node_index, "name": chosen.node_name, "token": chosen.ray_token, "attempt": chosen.attempt}
    _write(writer, hello)
    reports = asyncio.create_task(_report(pod, writer))
    try:
        while (message := await _read(reader, chosen.lease_seconds)) is not None:
            if "refused" in message:
                pod.end(
                    PART_DIED, "JoinRefused", f"node 0 ({chosen.head_address}) refused this node: {message['refused']}"
                )
            elif message.get("done"):
                pod.end(0, "Drained", "node 0 drained")
            else:
                pod.head_stage, pod.head_loads = message["stage"], message["loads"]
    except TimeoutError:
        pod.end(HUNG, "NodeLost", f"node 0 ({chosen.head_address}) was silent for {chosen.lease_seconds:g} s")
    else:
        pod.end(PART_DIED, "NodeLost", f"node 0 ({chosen.head_address}) died: the connection to it closed")
    finally:
        reports.cancel()


async def _connect(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while True:
        try:
            return await asyncio.open_connection(host, port)
        except OSError:  # the head's pod may still be starting, its DNS name may not exist yet
            await asyncio.sleep(0.1)


async def _report(pod: Pod, writer: asyncio.StreamWriter) -> None:
    while True:
        report = {"stage": pod.stage, "message": pod.message, "progressAt": pod.progress_at}
        _write(writer, {**report, "drain": pod.terminating.is_set()})
        await _change(pod)
