"""Why did the server end? Read from its exit status and last words. Pure."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import replace

from r1_engine.outcome import Cause, Exit
from r1_engine.supervise import Ended
from r1_engine.xids import Xid

_ARGPARSE = re.compile(r"error: (.+)$")
_EXCEPTION = re.compile(r"^(?:\S*\s)?((?:[A-Za-z_][\w.]*)(?:Error|Exception|Exit)): (.+)$")
# How gloo, torch's store and NCCL say that another node went away.
_LOST_PEER = re.compile(
    r"(?:closed|reset) by (?:remote )?peer|remote process exited|ncclRemoteError|failed to recv, got 0 bytes"
    r"|collective operation timeout",
    re.IGNORECASE,
)
_ARGUMENT_ERRORS = ("ValueError", "AssertionError", "ArgumentError", "TypeError")


def explain(ended: Ended, node: str, label: str) -> Cause:
    """The cause of a server's end: its arguments were refused (before any of its schedulers ran), or it died."""
    if not ended.served:
        if ended.status == 2 and (words := _last(_ARGPARSE, ended.tail)):
            return _refused(words[0], node)
        if ended.status == 1 and (words := _last(_EXCEPTION, ended.tail)) and words[0].endswith(_ARGUMENT_ERRORS):
            return _refused(f"{words[0]}: {words[1]}", node)
    how = "" if ended.status is None else f" with {_status(ended.status)}"
    last = _last(_EXCEPTION, ended.tail)
    words_of = f" Its last error: {last[0]}: {last[1]}" if last else ""
    lost_peer = any(_LOST_PEER.search(line) for line in ended.tail)
    return Cause(Exit.DIED, "EngineDied", f"{label}: {ended.what} ended{how}.{words_of}", node, lost_peer)


_XID_SECONDS = 60.0
"""A process whose GPU has faulted ends within this time; one whose collective waits for it takes longer."""


def with_xids(cause: Cause, node: str, xids: Sequence[Xid], now: float) -> Cause:
    """The cause of an end on this node with the Xid errors that came before it: they say more than the exit status."""
    heard = [x for x in xids if now - x.at <= _XID_SECONDS]
    if cause.code in (Exit.DRAINED, Exit.CONFIGURATION) or cause.node != node or not heard:
        return cause
    words = ", ".join(f"{x} on {'an unknown GPU' if x.index is None else f'GPU {x.index}'}" for x in heard)
    return replace(cause, message=f"{cause.message} Just before: {words}.")


def _refused(words: str, node: str) -> Cause:
    message = f"SGLang refuses its arguments: {words}. Correct spec.engine.args or spec.topology."
    return Cause(Exit.CONFIGURATION, "EngineArgumentRefused", message, node)


def _status(status: int) -> str:
    if status == -signal.SIGKILL:
        return "signal 9 (SIGKILL), which comes from outside; if for want of memory, see spec.engine.resources.memory"
    return f"signal {-status}" if status < 0 else f"status {status}"


def _last(pattern: re.Pattern[str], tail: Sequence[str]) -> tuple[str, ...] | None:
    for line in reversed(tail):
        if match := pattern.search(line.strip()):
            return match.groups()
    return None
