"""Exec, attach and port-forward streams: a child program serves them, this module tells it what to serve.

The kubelet connects to these streams with SPDY, which Kubernetes implements in Go alone; so the program
`cri-streaming` (part of the local cluster's binary, built on k8s.io/cri-streaming) does. It starts with the first
stream and dies with the runtime. The control socket takes one JSON line per connection and answers with one:
`{"url": …}` or `{"error": …}`.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.cri.processes import kill_group

_START_SECONDS = 120


class NoStreaming(RuntimeError):
    """Streams cannot be served; the message says why and what to do."""


@dataclass
class StreamingServer:
    """The child program; `program` is its path or name."""

    program: str
    directory: Path
    _process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        """Where it takes requests."""
        return self.directory / "streaming.sock"

    async def url(self, request: dict[str, Any]) -> str:
        """The address at which the kubelet finds the stream that `request` describes.

        `{"kind": "exec", "argv": […], "tty": …, "stdin": …, "stdout": …, "stderr": …}`,
        `{"kind": "attach", "socket": path, "tty": …, …}` or `{"kind": "portforward", "netns": path, "ports": […]}`.

        Raises:
            NoStreaming: the program is missing, does not start or refuses.
        """
        reader, writer = await self._connect()
        try:
            writer.write(json.dumps(request).encode() + b"\n")
            await writer.drain()
            answer = json.loads(await reader.readline())
        finally:
            writer.close()
        if "url" not in answer:
            raise NoStreaming(f"{self.program} refused: {answer.get('error', 'no reason given')}")
        return str(answer["url"])

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Starts the program where it does not run; whoever asks while it starts waits until it listens, too."""
        if self._process is None or self._process.poll() is not None:
            self._process = self._spawn()
        process = self._process
        async with asyncio.timeout(_START_SECONDS):
            while True:
                try:
                    return await asyncio.open_unix_connection(str(self.socket))
                except OSError:
                    if process.poll() is not None:
                        raise NoStreaming(
                            f"the program {self.program} (--streaming-server) does not run, so exec, attach and "
                            f"port-forward do not work: see {self.directory / 'streaming.log'}"
                        ) from None
                await asyncio.sleep(0.02)

    def _spawn(self) -> subprocess.Popen[bytes]:
        self.socket.unlink(missing_ok=True)
        with (self.directory / "streaming.log").open("ab") as log:
            return subprocess.Popen(
                ["/usr/bin/setpriv", "--pdeathsig", "KILL", "--", self.program, "--control", str(self.socket)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def close(self) -> None:
        """End the program."""
        if self._process is not None:
            kill_group(self._process)
