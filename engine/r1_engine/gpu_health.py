"""Is a GPU sick? Judged from one reading and the Xids heard since. Pure.

An uncorrected ECC error is no sickness by itself: from Ampere on the driver takes the page out of use or replaces the
row, and new work may start (NVIDIA GPU Memory Error Management). Sick is a GPU that is gone, that must be reset, whose
rows can no longer be replaced, or of which an Xid says so; and one that counts such errors and cannot replace rows.
Told as unhealthy, so that the next gang prefers other nodes, but no reason to refuse a start: a row that is replaced
only at the next reset, and NVLinks that are down while others of the node are up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from r1_engine.gpu import Device, Found
from r1_engine.xids import Severity, Xid

NOT_READ: dict[str, Any] = {"available": False, "message": "not read yet", "devices": [], "xids": []}
"""Before the first reading."""


def ailment(device: Device) -> str:
    """What makes this GPU unfit by NVML's reading alone, with the remedy; empty for a healthy or unknown one."""
    if device.fault:
        return f"{device.fault}; reset it or restart the node"
    if device.rows is not None and device.rows.failed:
        return "its memory has rows that cannot be replaced any more; have the GPU exchanged"
    return ""


def ailments(device: Device, xids: Sequence[Xid], wired: bool = False) -> tuple[str, ...]:
    """All that somebody should know of this GPU, worst first. `wired`: GPUs of this node have NVLinks that are up."""
    told = [ailment(device)]
    told += _heard(device, xids, Severity.GPU)
    if device.rows is None and device.ecc_uncorrected:
        told.append(f"{device.ecc_uncorrected} uncorrected ECC errors")
    if wired and device.nvlinks is not None and device.nvlinks[0] < device.nvlinks[1]:
        told.append(f"{device.nvlinks[1] - device.nvlinks[0]} of its {device.nvlinks[1]} NVLinks are down")
    if device.rows is not None and device.rows.pending:
        told.append("a row of its memory is replaced at the next reset")
    return tuple(words for words in told if words)


def notices(device: Device, xids: Sequence[Xid]) -> tuple[str, ...]:
    """What leaves the GPU well but is worth a look: it has contained an error."""
    return tuple(_heard(device, xids, Severity.CONTAINED))


def report(found: Found, xids: Sequence[Xid] = ()) -> dict[str, Any]:
    """`gpus` of the agent's /status (docs/design/contracts.md)."""
    if found.error:
        return NOT_READ | {"message": f"No GPU: {found.error}"}
    wired = any(device.nvlinks is not None and device.nvlinks[0] > 0 for device in found.devices)
    devices = [_device(device, xids, wired) for device in found.devices]
    bad = [str(device["index"]) for device in devices if not device["healthy"]]
    return {
        "available": bool(devices),
        "message": f"unhealthy: {', '.join(bad)}" if bad else f"{len(devices)} healthy",
        "driverVersion": found.driver,
        "cudaDriverVersion": None if found.cuda is None else cuda_words(found.cuda),
        "devices": devices,
        "xids": [x.to_json() for x in xids],
    }


def cuda_words(version: int) -> str:
    """12080 → "12.8"."""
    return f"{version // 1000}.{version % 1000 // 10}"


def _device(device: Device, xids: Sequence[Xid], wired: bool) -> dict[str, Any]:
    told, noticed = ailments(device, xids, wired), notices(device, xids)
    health = {"healthy": not told, "message": "; ".join([*told, *noticed])}
    if device.fault:
        return {"index": device.index, **health}
    rows = device.rows
    return {
        "index": device.index,
        "name": device.name,
        "uuid": device.uuid,
        "pciBusId": device.pci,
        "temperatureCelsius": device.temperature,
        "memoryUsedBytes": device.memory_used,
        "memoryTotalBytes": device.memory_total,
        "computeCapability": device.compute_capability,
        "mig": device.mig,
        "uncorrectedEccErrors": device.ecc_uncorrected,
        "remappedRows": None
        if rows is None
        else {
            "corrected": rows.corrected,
            "uncorrected": rows.uncorrected,
            "pending": rows.pending,
            "failed": rows.failed,
        },
        "nvlinks": None if device.nvlinks is None else {"up": device.nvlinks[0], "of": device.nvlinks[1]},
        **health,
    }


def _heard(device: Device, xids: Sequence[Xid], severity: Severity) -> list[str]:
    """Each number once. An event of which NVML could not say whose it is may be any GPU's."""
    mine = (x for x in xids if x.severity is severity and x.index in (device.index, None))
    return list(dict.fromkeys(map(str, mine)))
