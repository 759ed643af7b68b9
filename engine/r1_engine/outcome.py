"""Why a gang ended: the reasons, the exit code of each, and the one line Kubernetes shows for it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any


class Exit(IntEnum):
    """Exit codes of the agent; the operator reads them, so they are part of the contract."""

    DRAINED = 0
    DIED = 70
    HUNG = 71
    NEVER_READY = 72
    NOT_PLACED = 75
    CONFIGURATION = 78


@dataclass(frozen=True)
class Cause:
    """The first thing that went wrong in a gang (or a clean drain), told to every member of it.

    consequence: it may well follow from something else, here or on another node, whose report is then still on its way.
    """

    code: Exit
    reason: str
    message: str
    node: str
    consequence: bool = False

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "code": int(self.code)}

    @staticmethod
    def from_json(value: dict[str, Any]) -> Cause:
        told = bool(value.get("consequence"))
        return Cause(Exit(value["code"]), str(value["reason"]), str(value["message"]), str(value["node"]), told)


def drained(node: str, message: str = "All requests finished; every part ended.") -> Cause:
    return Cause(Exit.DRAINED, "Drained", message, node)


# Kubernetes keeps 4096 bytes of a termination message, and 12 KiB for all containers of a pod together.
TERMINATION_LIMIT = 4000


def termination_line(cause: Cause) -> str:
    """One JSON line of at most `TERMINATION_LIMIT` bytes; only the message is ever shortened, from its middle."""
    message = cause.message
    while True:
        line = json.dumps({"reason": cause.reason, "message": message, "node": cause.node}, ensure_ascii=False)
        excess = len(line.encode()) - TERMINATION_LIMIT
        if excess <= 0 or not message:
            return line
        keep = max(0, len(message) - excess - 5) // 2
        message = f"{message[:keep]} … {message[len(message) - keep :]}" if keep else ""


def write_termination_log(path: Path, cause: Cause) -> None:
    """Writes the line; a pod without a termination log (or with a read-only one) still exits with its code."""
    try:
        path.write_text(termination_line(cause) + "\n", encoding="utf-8")
    except OSError as error:
        print(f"r1-engine: cannot write {path}: {error.strerror}", flush=True)
