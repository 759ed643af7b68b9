"""First process of a cluster's process namespace: when it ends, however it ends, the kernel ends all the others.

It runs the supervisor as its child, reaps orphans, and ends when the supervisor does or when the lifeline breaks: a
pipe whose other end is held by whoever the cluster belongs to, so that a `kill -9` there ends the cluster too.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable


def run_as_first_process(child_main: Callable[[], int], lifeline: int | None) -> int:
    """Forks `child_main`, reaps everything, returns the child's exit status (or 143 when the lifeline broke)."""
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in (wake_read, wake_write, *(() if lifeline is None else (lifeline,))):
            os.close(descriptor)
        _exit_with(child_main)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    poller = select.poll()
    poller.register(wake_read, select.POLLIN)
    if lifeline is not None:
        poller.register(lifeline, select.POLLIN)
    while True:
        status = _reap(child)
        if status is not None:
            return status
        for descriptor, _ in poller.poll():
            if descriptor == lifeline:
                return 128 + signal.SIGTERM
            os.read(wake_read, 4096)


def _exit_with(main: Callable[[], int]) -> None:
    status = 1
    try:
        status = main()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _reap(awaited: int) -> int | None:
    """Reaps all that has ended; the exit status of `awaited` if it is among them."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return 1
        if pid == 0:
            return None
        if pid == awaited:
            return os.waitstatus_to_exitcode(status) & 0xFF


def main() -> int:
    parser = argparse.ArgumentParser(
        description="First process of a local cluster. Started by `python -m tests.cluster up`."
    )
    parser.add_argument("folder")
    parser.add_argument(
        "--lifeline", type=int, help="descriptor of a pipe's reading end; its end of file ends the cluster"
    )
    arguments = parser.parse_args()

    def supervise() -> int:
        from tests.cluster import supervisor  # here: the first process itself stays small

        return supervisor.main(arguments.folder)

    return run_as_first_process(supervise, arguments.lifeline)


if __name__ == "__main__":
    sys.exit(main())
