"""The control socket: one JSON request and answer per connection, and perhaps a descriptor beside the request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

Handler = Callable[[dict[str, Any], int | None], Awaitable[dict[str, Any]]]

_MAX_REQUEST = 1 << 20


class ControlError(RuntimeError):
    """The supervisor refused or failed; the message is its own."""


@contextlib.contextmanager
def _reachable(path: Path) -> Iterator[str]:
    """A short name for the socket: an address of a Unix socket holds 107 bytes, and home folders can be long."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def serve(path: Path, handler: Handler, loop: asyncio.AbstractEventLoop) -> None:
    """Listens in threads of its own (asyncio cannot receive descriptors) and runs the handler on the loop."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _reachable(path) as address:
        listener.bind(address)
    path.chmod(0o600)
    listener.listen(64)

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_answer, args=(connection, handler, loop), daemon=True).start()

    threading.Thread(target=accept, daemon=True, name="control").start()


def _answer(connection: socket.socket, handler: Handler, loop: asyncio.AbstractEventLoop) -> None:
    with connection, contextlib.suppress(OSError):
        data, descriptors, _, _ = socket.recv_fds(connection, _MAX_REQUEST, 1)
        while data and not data.endswith(b"\n") and len(data) < _MAX_REQUEST:
            more = connection.recv(_MAX_REQUEST)
            if not more:
                return
            data += more
        if not data:
            return
        try:
            future = asyncio.run_coroutine_threadsafe(
                _as_coroutine(handler, json.loads(data), descriptors[0] if descriptors else None), loop
            )
            answer = {"ok": True, **future.result()}
        except Exception as error:  # whatever went wrong belongs to whoever asked
            answer = {"ok": False, "error": str(error) or type(error).__name__}
        connection.sendall(json.dumps(answer).encode() + b"\n")


async def _as_coroutine(handler: Handler, request: dict[str, Any], descriptor: int | None) -> dict[str, Any]:
    return await handler(request, descriptor)


def connect(path: Path, timeout: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        with _reachable(path) as address:
            connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def request(path: Path, body: dict[str, Any], descriptor: int | None = None, timeout: float = 60.0) -> dict[str, Any]:
    """Asks the supervisor.

    Raises:
        ControlError: it refused or failed.
        OSError: it cannot be reached (the cluster is not running) or did not answer in `timeout` seconds.
    """
    with connect(path, timeout) as connection:
        data = json.dumps(body).encode() + b"\n"
        if descriptor is None:
            connection.sendall(data)
        else:
            socket.send_fds(connection, [data], [descriptor])
        with connection.makefile("rb") as stream:
            line = stream.readline()
    if not line:
        raise ConnectionResetError(f"{path}: the cluster ended while it was asked to {body.get('do')}")
    answer: dict[str, Any] = json.loads(line)
    if not answer.pop("ok"):
        raise ControlError(answer["error"])
    return answer


def supervisor_pid(path: Path, timeout: float = 5.0) -> int:
    """The supervisor's process id as the caller sees it, from the kernel: no file that could be stale."""
    with connect(path, timeout) as connection:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid
