"""Faults on command: POST /fault on the agent's port, or R1_STANDIN_FAULT at a stage of the start."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from typing import Any

from tests.standin.pod import HUNG, PART_DIED, Pod

KINDS = "die, freeze, exit, exit70, exit78, hang, stall, stuck, unready, refuse, silent, load, clear, fabric"


def inject(pod: Pod, fault: Mapping[str, Any]) -> None:
    """Apply a fault. Raises ValueError for an unknown kind or a bad field.

    die: SIGKILL to itself · freeze: SIGSTOP to itself · exit: {code, reason, message} · exit70, exit78: short forms ·
    hang: no more tokens, then exit 71 · stall: the start stands still from here on, exit 72 after stallSeconds ·
    stuck: requests never finish · unready: /ready is 503 · refuse: chat completions answer 500 ·
    silent: no load figures · load: {kvUsage, tokensPerSecond, running, waiting} reported in place of the real ones ·
    clear: undo the last five · fabric: {ready, reason, message} told in /status of the network between the nodes.
    """
    kind = fault.get("kind")
    match kind:
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "exit":
            message = str(fault.get("message", "asked to exit by a test"))
            pod.end(int(fault.get("code", PART_DIED)), str(fault.get("reason", "Injected")), message)
        case "exit70":
            pod.end(PART_DIED, "PartDied", "a rank died (injected)")
        case "exit78":
            pod.end(78, "ArgumentRefused", "unrecognized arguments: --bogus (injected); correct spec.engine.args")
        case "hang":
            pod.hung = True
            message = f"no rank made progress for {pod.settings.hang_seconds:g} s (injected)"
            asyncio.get_running_loop().call_later(pod.settings.hang_seconds, pod.end, HUNG, "RankHung", message)
        case "stall":
            pod.stalled = True
        case "stuck":
            pod.stuck = True
            for rank in pod.ranks:
                for request in [*rank.running, *rank.waiting]:
                    request.stuck = True
        case "unready":
            pod.unready = True
        case "refuse":
            pod.refusing = True
        case "silent":
            pod.silent = True
        case "fabric":
            pod.fabric = {name: fault[name] for name in ("ready", "reason", "message")}
        case "load":
            names = ("kvUsage", "tokensPerSecond", "running", "waiting")
            pod.synthetic_load = {name: float(fault[name]) for name in names if name in fault}
        case "clear":
            pod.stuck = pod.unready = pod.silent = pod.refusing = False
            pod.synthetic_load = {}
            for rank in pod.ranks:
                for request in [*rank.running, *rank.waiting]:
                    request.stuck = False
        case _:
            raise ValueError(f"kind {kind!r} is not one of {KINDS}")
