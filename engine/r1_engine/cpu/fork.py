"""Forked instead of spawned engine processes, in CPU mode only.

Importing SGLang costs 16-18 s of one core, and with "spawn" each of its processes pays it: the server, the DP
controller, every scheduler and the detokenizer. Without a CUDA context nothing forbids "fork": SGLang starts its
processes from the main thread, before any threads of its own exist, and they share the memory of what was imported.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import pickle
import signal
from typing import Any

_RESET = (signal.SIGQUIT, signal.SIGTERM, signal.SIGINT)


def _private_copy(value: Any) -> Any:
    """SGLang's configuration may be published once per object; a spawned process would have got a copy as well."""
    return pickle.loads(pickle.dumps(value)) if type(value).__name__ in ("ServerArgs", "PortArgs") else value


def _run_as_spawned(process: Any) -> None:
    """Begins as a spawned process would: with default signal handlers and arguments of its own."""
    for number in _RESET:
        signal.signal(number, signal.SIG_DFL)
    process._args = tuple(_private_copy(value) for value in process._args)
    process._kwargs = {name: _private_copy(value) for name, value in process._kwargs.items()}
    multiprocessing.process.BaseProcess.run(process)


def install() -> None:
    """From now on "spawn" as the start method means fork, for this process and those it forks."""
    original = multiprocessing.set_start_method

    def set_start_method(method: str | None, force: bool = False) -> None:
        original("fork" if method == "spawn" else method, force=force)

    module: Any = multiprocessing
    module.set_start_method = set_start_method
    module.Process.run = _run_as_spawned
