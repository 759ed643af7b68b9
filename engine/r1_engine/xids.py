"""Xid errors, the driver's own news of a GPU: whose fault each number is, and the thread that hears them.

The numbers are read in NVIDIA's Xid catalog; that those of an application leave the GPU well is also what NVIDIA's
device plugin goes by. Nothing is done about any of them here: the status tells them.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

_LOOK_MS = 1000
_AGAIN_SECONDS = 5.0


class Severity(StrEnum):
    """What an Xid says of the GPU."""

    APPLICATION = "Application"
    """A program's own fault: an illegal address, say. The GPU is well."""
    CONTAINED = "Contained"
    """A memory error that hit one program; the page is not used again, and the GPU serves on. A reset mends it."""
    GPU = "Gpu"
    """The GPU's, its link's or its driver's fault; also every number that is not known here."""


_APPLICATION = frozenset({13, 31, 43, 45, 68, 109})
_CONTAINED = frozenset({63, 94})
_WORDS = {
    13: "graphics engine exception",
    31: "memory page fault",
    43: "the GPU stopped processing for one program",
    45: "a program's channels were removed",
    48: "double bit ECC error",
    63: "a row of memory was replaced",
    64: "a row of memory could not be replaced",
    68: "video processor exception",
    74: "NVLink error",
    79: "the GPU has fallen off the bus",
    94: "contained memory error",
    95: "uncontained memory error",
    109: "context switch timeout",
    119: "the GPU's own processor (GSP) does not answer",
    120: "fault of the GPU's own processor (GSP)",
}


def severity(number: int) -> Severity:
    """Whose fault an Xid is."""
    if number in _APPLICATION:
        return Severity.APPLICATION
    return Severity.CONTAINED if number in _CONTAINED else Severity.GPU


@dataclass(frozen=True, slots=True)
class Xid:
    """One event. `index`: of the GPU, None where NVML could not say which; `at`: Unix seconds, when it was heard."""

    number: int
    index: int | None
    at: float

    @property
    def severity(self) -> Severity:
        return severity(self.number)

    def __str__(self) -> str:
        words = _WORDS.get(self.number, "see NVIDIA's Xid catalog")
        return f"Xid {self.number} ({words})"

    def to_json(self) -> dict[str, Any]:
        return {"xid": self.number, "index": self.index, "at": self.at, "severity": self.severity, "message": str(self)}


def listen(tell: Callable[[Xid], None], warn: Callable[[str], None], stop: threading.Event) -> None:
    """Tells every Xid from now on until `stop`; blocks, so on a thread of its own. Returns at once where NVML cannot be
    read. NVML's own failures are warned of when they begin and asked about again, not spun on."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except (ImportError, OSError) as error:
        return warn(f"Xid errors are not heard: {error}")
    except pynvml.NVMLError as error:
        return warn(f"Xid errors are not heard: {error}")
    try:
        _hear(pynvml, tell, warn, stop)
    except pynvml.NVMLError as error:
        warn(f"Xid errors are not heard: {error}")
    finally:
        pynvml.nvmlShutdown()


def _hear(nvml: Any, tell: Callable[[Xid], None], warn: Callable[[str], None], stop: threading.Event) -> None:
    events = nvml.nvmlEventSetCreate()
    try:
        indices = _register(nvml, events, warn)
        failing = ""
        while not stop.is_set():
            try:
                event = nvml.nvmlEventSetWait_v2(events, _LOOK_MS)
            except nvml.NVMLError as error:
                if error.value != nvml.NVML_ERROR_TIMEOUT:
                    if failing != str(error):
                        failing = str(error)
                        warn(f"Waiting for Xid errors fails: {failing}")
                    stop.wait(_AGAIN_SECONDS)
                continue
            failing = ""
            if event.eventType & nvml.nvmlEventTypeXidCriticalError:
                tell(Xid(int(event.eventData), indices.get(_address(event.device)), time.time()))
    finally:
        nvml.nvmlEventSetFree(events)


def _register(nvml: Any, events: Any, warn: Callable[[str], None]) -> dict[int | None, int]:
    """Asks for the Xids of every GPU; the index of each by its handle, which still tells a lost GPU apart."""
    indices: dict[int | None, int] = {}
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, events)
        except nvml.NVMLError as error:
            warn(f"Xid errors of GPU {index} are not heard: {error}")
        else:
            indices[_address(handle)] = index
    return indices


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value
