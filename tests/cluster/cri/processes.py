"""Child processes on the event loop: start, wait by pidfd, read pipes. No threads and no child watcher."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_CHUNK = 64 << 10


class CommandFailed(RuntimeError):
    """A helper program failed; the message has its command and what it printed."""


def exit_code(returncode: int) -> int:
    """The code a shell would report: 128 + n for a death by signal n."""
    return returncode if returncode >= 0 else 128 - returncode


async def wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end of `process` and return its exit code (128 + n for a signal)."""
    if process.poll() is None:
        descriptor = os.pidfd_open(process.pid)
        try:
            await _readable(descriptor)
        finally:
            os.close(descriptor)
    return exit_code(process.wait())


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def notice() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(descriptor, notice)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


async def read_pipe(descriptor: int, sink: Callable[[bytes], None]) -> None:
    """Hand what comes out of the pipe to `sink` until its end, then close it. A closed terminal counts as the end."""
    os.set_blocking(descriptor, False)
    try:
        while True:
            try:
                data = os.read(descriptor, _CHUNK)
            except BlockingIOError:
                await _readable(descriptor)
                continue
            except OSError:  # EIO: the last process at the other end of a terminal has gone
                return
            if not data:
                return
            sink(data)
            await asyncio.sleep(0)  # a container that only writes must not keep the others from being served
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Result:
    """What a finished command left."""

    code: int
    stdout: bytes
    stderr: bytes


async def run(argv: Sequence[str], *, stdin: bytes = b"", timeout: float | None = None) -> Result:
    """Run a command to its end with `stdin` (small: it must fit a pipe) and collect its output.

    Raises:
        TimeoutError: it took more than `timeout` seconds; it and its process group have been killed.
    """
    process = _spawn(argv, stdin)
    out, err = bytearray(), bytearray()
    readers = [
        asyncio.ensure_future(read_pipe(detach(process, name), sink))
        for name, sink in (("stdout", out.extend), ("stderr", err.extend))
    ]
    try:
        async with asyncio.timeout(timeout):
            code = await wait(process)
        await finish(readers)
        return Result(code, bytes(out), bytes(err))
    finally:
        kill_group(process)
        for reader in readers:
            reader.cancel()


def _spawn(argv: Sequence[str], stdin: bytes) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    if process.stdin is not None:
        process.stdin.write(stdin)
        process.stdin.close()
    return process


def detach(process: subprocess.Popen[bytes], name: str) -> int:
    """A descriptor of our own of the process's stdout or stderr pipe."""
    pipe = getattr(process, name)
    descriptor = os.dup(pipe.fileno())
    pipe.close()
    return descriptor


async def finish(readers: Sequence[asyncio.Future[None]], seconds: float = 1.0) -> None:
    """Give readers a moment to reach the end of their pipes, which a left-behind grandchild may still hold open."""
    _, pending = await asyncio.wait(readers, timeout=seconds)
    for reader in pending:
        reader.cancel()


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads its own group, with the group, and reap it; nothing if it has ended."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def check(argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60) -> None:
    """Run a helper program that must succeed.

    Raises:
        CommandFailed: it did not.
    """
    result = await run(argv, stdin=stdin, timeout=timeout)
    if result.code:
        text = (result.stderr or result.stdout).decode(errors="replace").strip()
        raise CommandFailed(f"{' '.join(argv)} ended with {result.code}: {text}")
