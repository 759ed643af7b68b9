"""Container logs in the format the kubelet reads: `<RFC 3339 time> <stream> <F|P> <text>`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import BinaryIO

# A longer line is written in parts (tag P, the last F); the size is the one other runtimes use.
MAX_LINE_BYTES = 16 << 10


def timestamp(nanoseconds: int) -> str:
    """`nanoseconds` since 1970 as RFC 3339 in UTC with nine digits, as the kubelet parses it."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:09d}Z"


class LineSplitter:
    """Cuts a byte stream into (text, complete) parts; text is without its newline and at most MAX_LINE_BYTES long."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[bytes, bool]]:
        """The parts that `data` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        parts = [part for line in lines for part in _cut(line)]
        while len(self._rest) > MAX_LINE_BYTES:
            parts.append((self._rest[:MAX_LINE_BYTES], False))
            self._rest = self._rest[MAX_LINE_BYTES:]
        return parts

    def finish(self) -> list[tuple[bytes, bool]]:
        """What is left when the stream ends without a newline: a partial line."""
        rest, self._rest = self._rest, b""
        return [(rest, False)] if rest else []


def _cut(line: bytes) -> list[tuple[bytes, bool]]:
    starts = range(0, max(len(line), 1), MAX_LINE_BYTES)
    return [(line[start : start + MAX_LINE_BYTES], start + MAX_LINE_BYTES >= len(line)) for start in starts]


class ContainerLog:
    """The log file of one container; without a path nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._splitters = {"stdout": LineSplitter(), "stderr": LineSplitter()}
        self._file: BinaryIO | None = None
        self.tail: list[bytes] = []
        self.reopen()

    def reopen(self) -> None:
        """Open the path anew: the kubelet has moved the old file away (rotation)."""
        self.close()
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab", buffering=0)
            self._path.chmod(0o640)

    def write(self, stream: str, data: bytes) -> None:
        """Add what the container wrote to `stream` (stdout or stderr); empty data ends the stream."""
        splitter = self._splitters[stream]
        parts = splitter.feed(data) if data else splitter.finish()
        if not parts:
            return
        head = f"{timestamp(time.time_ns())} {stream} "
        if stream == "stderr":
            self.tail = [*self.tail, *(text for text, _ in parts)][-5:]
        if self._file is not None:
            self._file.write(b"".join(f"{head}{'F' if full else 'P'} ".encode() + text + b"\n" for text, full in parts))

    def close(self) -> None:
        """Close the file; later writes are dropped."""
        if self._file is not None:
            self._file.close()
            self._file = None
