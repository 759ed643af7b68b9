"""Ways out of the cluster's network for the host's own programs.

A socket belongs to the network namespace it was made in, whoever holds it. So the host makes a listening socket on
its loopback and passes it in over the control socket (a Unix socket); the supervisor accepts on it, dials inside, and
copies bytes both ways. Nothing has to run on the host, and the port closes with the cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable

Dial = Callable[[], Awaitable[tuple[str, int]]]
"""Says where a new connection goes: (address, port). Raises OSError or LookupError if nowhere."""

_CHUNK = 65536


async def serve(listener: socket.socket, dial: Dial) -> asyncio.Server:
    """Relays each connection that `listener` accepts to where `dial` says, until the server is closed."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            address, port = await dial()
            inner_reader, inner_writer = await asyncio.open_connection(address, port)
        except (OSError, LookupError):
            # Closing without lingering resets the connection: the client sees an error, not an empty answer.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return
        await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))
        for side in (writer, inner_writer):
            side.close()

    listener.setblocking(False)
    return await asyncio.start_server(relay, sock=listener, limit=_CHUNK)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Copies until the end, then ends the other direction's writing only: a client may half-close and still read."""
    try:
        while chunk := await source.read(_CHUNK):
            target.write(chunk)
            await target.drain()
        if target.can_write_eof():
            target.write_eof()
    except OSError:
        with contextlib.suppress(OSError):
            target.transport.abort()
