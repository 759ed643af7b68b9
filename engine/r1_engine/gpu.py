"""What NVML says of this node's GPUs: one reading as frozen values. A question it does not answer is None: unknown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

_T = TypeVar("_T")

_NVLINKS = 18  # NVML_NVLINK_MAX_LINKS; a GPU with fewer answers "not supported" for the others

DRIVER_NOT_LOADED = 9  # NVML_ERROR_DRIVER_NOT_LOADED
DRIVER_MISMATCH = 18  # NVML_ERROR_LIB_RM_VERSION_MISMATCH


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU. Sizes are bytes; `memory_used` is without what the driver keeps for itself; `compute_capability` is
    times ten. `fault`: NVML's words for a GPU that is lost or must be reset, of which nothing else can be read."""

    index: int
    name: str | None = None
    uuid: str | None = None
    pci: str | None = None
    temperature: int | None = None  # °C
    memory_total: int | None = None
    memory_used: int | None = None
    compute_capability: int | None = None
    mig: bool | None = None
    ecc_uncorrected: int | None = None  # since the last driver load
    rows: Rows | None = None
    nvlinks: tuple[int, int] | None = None  # that are up, of how many
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of memory replaced by spare ones: after corrected and uncorrected errors; whether one waits for the next
    reset; whether one could not be replaced."""

    corrected: int
    uncorrected: int
    pending: bool
    failed: bool


@dataclass(frozen=True, slots=True)
class Found:
    """One reading. `error`: why NVML gave none, with its code where NVML itself said so. `cuda`: the newest CUDA that
    the driver runs, as 1000 × major + 10 × minor."""

    devices: tuple[Device, ...] = ()
    driver: str | None = None
    cuda: int | None = None
    error: str = ""
    code: int | None = None


def read_gpus() -> Found:
    """Asks NVML. Takes milliseconds; a driver in trouble may take seconds, so not on the event loop."""
    try:
        import pynvml
    except ImportError:
        return Found(error="nvidia-ml-py is not installed")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Found(error=str(error), code=int(error.value))
    try:
        devices = tuple(_device(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount()))
        driver = _ask(pynvml, lambda: str(pynvml.nvmlSystemGetDriverVersion()))
        # v2 asks the libcuda that is loaded, a forward-compatible one of the image too; v1 asks the driver alone.
        return Found(devices, driver, _ask(pynvml, lambda: int(pynvml.nvmlSystemGetCudaDriverVersion_v2())))
    except pynvml.NVMLError as error:
        return Found(error=str(error), code=int(error.value))
    finally:
        pynvml.nvmlShutdown()


def _device(nvml: Any, index: int) -> Device:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        used, total = _memory(nvml, handle)
        return Device(
            index=index,
            name=_ask(nvml, lambda: str(nvml.nvmlDeviceGetName(handle))),
            uuid=_ask(nvml, lambda: str(nvml.nvmlDeviceGetUUID(handle))),
            pci=_ask(nvml, lambda: str(nvml.nvmlDeviceGetPciInfo(handle).busId)),
            temperature=_ask(nvml, lambda: int(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))),
            memory_total=total,
            memory_used=used,
            compute_capability=_ask(nvml, lambda: _capability(*nvml.nvmlDeviceGetCudaComputeCapability(handle))),
            mig=_ask(nvml, lambda: bool(nvml.nvmlDeviceGetMigMode(handle)[0])),
            ecc_uncorrected=_ask(nvml, lambda: _uncorrected(nvml, handle)),
            rows=_ask(nvml, lambda: _rows(*nvml.nvmlDeviceGetRemappedRows(handle))),
            nvlinks=_nvlinks(nvml, handle),
        )
    except nvml.NVMLError as error:  # a GPU that fell off the bus answers so
        return Device(index, fault=str(error))


def _ask(nvml: Any, question: Callable[[], _T]) -> _T | None:
    """The answer, or None where this GPU or driver has none. What is true of the whole GPU is raised."""
    try:
        return question()
    except nvml.NVMLError as error:
        if error.value in (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED):
            raise
        return None


def _memory(nvml: Any, handle: Any) -> tuple[int | None, int | None]:
    """Used and all, in bytes. Only the second version tells what the driver keeps from what is in use; a driver
    without it (before 510) leaves `used` unknown."""
    split = _ask(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle, nvml.nvmlMemory_v2))
    if split is not None:
        return int(split.used), int(split.total)
    whole = _ask(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    return None, None if whole is None else int(whole.total)


def _capability(major: int, minor: int) -> int:
    return major * 10 + minor


def _uncorrected(nvml: Any, handle: Any) -> int:
    kind = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
    return int(nvml.nvmlDeviceGetTotalEccErrors(handle, kind, nvml.NVML_VOLATILE_ECC))


def _rows(corrected: int, uncorrected: int, pending: int, failed: int) -> Rows:
    return Rows(int(corrected), int(uncorrected), bool(pending), bool(failed))


def _nvlinks(nvml: Any, handle: Any) -> tuple[int, int] | None:
    known: list[int] = []
    for link in range(_NVLINKS):
        state = _ask(nvml, partial(nvml.nvmlDeviceGetNvLinkState, handle, link))
        if state is not None:
            known.append(int(state))
    return (sum(known), len(known)) if known else None
