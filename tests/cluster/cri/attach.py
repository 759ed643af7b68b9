"""Attached clients of one container: what it writes goes to each of them, what they write goes to it.

The streaming server connects to a Unix socket and exchanges frames: stream number, length (4 bytes, big-endian), bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import termios
from dataclasses import dataclass, field
from pathlib import Path

_STDIN, _STDOUT, _STDERR, _RESIZE = range(4)
_NUMBERS = {"stdout": _STDOUT, "stderr": _STDERR}
_HEAD = struct.Struct(">BI")


@dataclass
class Attachments:
    """`stdin` is our end of the container's input or terminal, -1 if it has none; `once` ends it with a client."""

    stdin: int = -1
    once: bool = False
    _server: asyncio.Server | None = None
    _clients: set[asyncio.StreamWriter] = field(default_factory=set)

    async def listen(self, socket: Path) -> None:
        """Take clients on `socket` (once; later calls change nothing)."""
        if self._server is None:
            self._server = await asyncio.start_unix_server(self._serve, str(socket))

    def write(self, stream: str, data: bytes) -> None:
        """Hand what the container wrote to all clients."""
        for client in self._clients:
            client.write(_HEAD.pack(_NUMBERS[stream], len(data)) + data)

    def close(self) -> None:
        """The container has ended: clients are let go."""
        for client in self._clients:
            client.close()
        if self._server is not None:
            self._server.close()
        self._close_input()

    def _close_input(self) -> None:
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    kind, length = _HEAD.unpack(await reader.readexactly(_HEAD.size))
                    await self._take(kind, await reader.readexactly(length))
        finally:
            self._clients.discard(writer)
            writer.close()

    async def _take(self, kind: int, data: bytes) -> None:
        if self.stdin < 0:
            return
        if kind == _RESIZE and len(data) == 4:
            rows, columns = struct.unpack(">HH", data)
            with contextlib.suppress(OSError):  # not a terminal
                fcntl.ioctl(self.stdin, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        elif kind == _STDIN and data:
            with contextlib.suppress(OSError):  # it no longer reads
                await _write_all(self.stdin, data)
        elif kind == _STDIN and self.once:
            self._close_input()


async def _write_all(descriptor: int, data: bytes) -> None:
    os.set_blocking(descriptor, False)
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            await asyncio.sleep(0.01)  # it reads slowly
