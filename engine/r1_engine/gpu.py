"""What NVML says of this node's GPUs; on a machine without any, that, in plain words."""

from __future__ import annotations

from typing import Any


def read_gpus() -> dict[str, Any]:
    """{"available", "message", "devices": [{"index", "name", "uuid", "temperatureCelsius", "memoryUsedBytes",
    "memoryTotalBytes", "uncorrectedEccErrors", "healthy"}]}. A device that cannot be read is unhealthy and says why.
    """
    try:
        import pynvml
    except ImportError:
        return _none("nvidia-ml-py is not installed")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return _none(f"No GPU: {error}")
    try:
        devices = [_device(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()
    bad = [str(device["index"]) for device in devices if not device["healthy"]]
    message = f"unhealthy: {', '.join(bad)}" if bad else f"{len(devices)} healthy"
    return {"available": bool(devices), "message": message, "devices": devices}


def _none(message: str) -> dict[str, Any]:
    return {"available": False, "message": message, "devices": []}


def _device(nvml: Any, index: int) -> dict[str, Any]:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        errors = _ecc(nvml, handle)
        return {
            "index": index,
            "name": str(nvml.nvmlDeviceGetName(handle)),
            "uuid": str(nvml.nvmlDeviceGetUUID(handle)),
            "temperatureCelsius": int(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            "memoryUsedBytes": int(memory.used),
            "memoryTotalBytes": int(memory.total),
            "uncorrectedEccErrors": errors,
            "healthy": not errors,
        }
    except nvml.NVMLError as error:  # a GPU that fell off the bus answers so
        return {"index": index, "healthy": False, "message": str(error)}


def _ecc(nvml: Any, handle: Any) -> int | None:
    """Uncorrected ECC errors since the last driver load; None where the GPU does not count them."""
    try:
        return int(
            nvml.nvmlDeviceGetTotalEccErrors(handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC)
        )
    except nvml.NVMLError:
        return None
