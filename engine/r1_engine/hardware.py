"""Are these the GPUs that were planned for? One reading of NVML against the profile. Pure.

Unknown is no mismatch: where NVML cannot be read (a container with compute rights only has no libnvidia-ml) or does not
answer a question, nothing is compared, and the log says so. What surely ends the start is told, however little is
known: no GPU device in the pod, a driver that its own library does not fit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from r1_engine.expected import ExpectedHardware
from r1_engine.gpu import DRIVER_MISMATCH, DRIVER_NOT_LOADED, Device, Found
from r1_engine.gpu_health import ailment, cuda_words

MEMORY_TOLERANCE = 0.03
"""Boards of one name differ by what ECC and the driver take: an H100 shows 81,559 MiB, some hosts' 1 or 2 % less."""
NOT_FREE = "GpuNotFree"
"""The reason that may pass by itself in seconds."""
IN_USE_MIB = 1024
"""A context of CUDA alone takes about half of it; monitoring and MPS take less. Plans leave several GiB of slack."""
_MIB = 1024 * 1024
# CUDA's first driver branch of each major version (CUDA Compatibility, table of minor version compatibility).
_DRIVERS = {12: "525", 13: "580"}


@dataclass(frozen=True, slots=True)
class Problem:
    """Why these GPUs cannot serve the plan. `reason` is a word of contracts.md."""

    reason: str
    why: str
    remedy: str


def problem(
    found: Found, expected: ExpectedHardware, image_cuda: int | None, *, devices: bool = True
) -> Problem | None:
    """The first thing that does not fit, in the order in which it explains the others; None if nothing is known to.

    `image_cuda`: the CUDA of the image's PyTorch, as NVML counts. `devices`: whether the pod has NVIDIA's device files.
    """
    if found.error:
        return _unreadable(found, expected, devices)
    used = found.devices[: expected.gpus]
    checks: Sequence[Callable[[], Problem | None]] = (
        lambda: _driver(found, image_cuda),
        lambda: _lost(found.devices),
        lambda: _product(used, expected),
        lambda: _split(found.devices),
        lambda: _count(found.devices, expected),
        lambda: _capability(used, expected),
        lambda: _memory(used, expected),
        lambda: _in_use(used),
    )
    return next((p for check in checks if (p := check())), None)


def unknown(found: Found, expected: ExpectedHardware) -> str:
    """What could not be compared, in words; empty if all could."""
    if found.error:
        return f"NVML: {found.error}: the GPUs are not compared with profile {expected.profile}"
    missing = [
        name
        for name, unread in (
            ("name", any(d.name is None for d in found.devices)),
            ("memory", any(d.memory_total is None for d in found.devices)),
            ("memory in use", any(d.memory_used is None for d in found.devices)),
            ("compute capability", any(d.compute_capability is None for d in found.devices)),
            ("the driver's CUDA", found.cuda is None),
        )
        if unread
    ]
    return f"NVML does not tell {', '.join(missing)}: not compared" if missing else ""


def _unreadable(found: Found, expected: ExpectedHardware, devices: bool) -> Problem | None:
    if found.code in (DRIVER_NOT_LOADED, DRIVER_MISMATCH):
        remedy = "Load the driver that fits on that node (after an update: restart the node)"
        return Problem("DriverUnusable", f"the NVIDIA driver cannot be used: {found.error}", remedy)
    if devices:
        return None
    why = f"profile {expected.profile} expects {expected.gpus} GPUs, and the pod has none ({found.error})"
    remedy = "Let NVIDIA's container runtime handle the pod (its runtime class, where it is not the node's default)"
    return Problem("HardwareMismatch", why, remedy)


def _driver(found: Found, image_cuda: int | None) -> Problem | None:
    """Within a major version of CUDA any driver of it runs a newer image; beyond it none does."""
    if found.cuda is None or image_cuda is None or found.cuda // 1000 >= image_cuda // 1000:
        return None
    major = image_cuda // 1000
    driver = f"driver {found.driver}" if found.driver else "the driver"
    why = f"{driver} runs CUDA up to {cuda_words(found.cuda)}, and the image needs CUDA {cuda_words(image_cuda)}"
    newer = f"Install driver {_DRIVERS[major]} or newer" if major in _DRIVERS else f"Install a driver for CUDA {major}"
    remedy = f"{newer} on that node, or set spec.engine.image to one made for CUDA {found.cuda // 1000}"
    return Problem("DriverTooOld", why, remedy)


def _lost(devices: Sequence[Device]) -> Problem | None:
    sick = [f"GPU {d.index}: {words}" for d in devices if (words := ailment(d))]
    return Problem("GpuUnhealthy", "; ".join(sick), "Until then, cordon the node") if sick else None


def _product(devices: Sequence[Device], expected: ExpectedHardware) -> Problem | None:
    names = [d.name for d in devices if d.name is not None]
    if not expected.products or all(label(name) in expected.products for name in names):
        return None
    return _mismatch(expected, f"{_counted(names)}, and not {' or '.join(expected.products)}")


def _split(devices: Sequence[Device]) -> Problem | None:
    split = [str(d.index) for d in devices if d.mig]
    if split:
        remedy = "Turn MIG off on that node (nvidia-smi -mig 0), or take its label from the hardware profile"
        return Problem("HardwareMismatch", f"GPU {', '.join(split)} is split by MIG", remedy)
    shared = [uuid for uuid, count in Counter(d.uuid for d in devices if d.uuid is not None).items() if count > 1]
    if shared:
        return Problem("HardwareMismatch", f"one GPU is handed out several times ({', '.join(shared)})", _SHARING)
    return None


_SHARING = "Turn time slicing (sharing) off in the configuration of that node's device plugin"


def _count(devices: Sequence[Device], expected: ExpectedHardware) -> Problem | None:
    if len(devices) >= expected.gpus:
        return None  # a privileged pod sees those of other pods, too
    why = f"the pod has {len(devices)} of {expected.gpus} GPUs of profile {expected.profile}"
    remedy = f"See nvidia-smi on that node: one is missing, or the node has fewer. {_SHARING}, if it is on"
    return Problem("HardwareMismatch", why, remedy)


def _capability(devices: Sequence[Device], expected: ExpectedHardware) -> Problem | None:
    wanted = expected.compute_capability
    other = sorted({d.compute_capability for d in devices if d.compute_capability is not None} - {wanted})
    if wanted is None or not other:
        return None
    words = ", ".join(f"{value / 10:.1f}" for value in other)
    return _mismatch(expected, f"GPUs of compute capability {words}, and not {wanted / 10:.1f}")


def _memory(devices: Sequence[Device], expected: ExpectedHardware) -> Problem | None:
    wanted = expected.memory_mib
    if wanted is None:
        return None
    known = [d.memory_total // _MIB for d in devices if d.memory_total is not None]
    other = sorted({mib for mib in known if abs(mib - wanted) > wanted * MEMORY_TOLERANCE})
    if not other:
        return None
    return _mismatch(expected, f"GPUs of {', '.join(map(str, other))} MiB, and not {wanted} (memoryMib)")


def _in_use(devices: Sequence[Device]) -> Problem | None:
    used = {d.index: d.memory_used // _MIB for d in devices if d.memory_used is not None}
    taken = [f"GPU {index} ({mib} MiB)" for index, mib in used.items() if mib > IN_USE_MIB]
    if not taken:
        return None
    why = f"memory is in use before the engine starts: {', '.join(taken)}"
    remedy = f"End the other process (nvidia-smi on that node names it). {_SHARING}, if it is on"
    return Problem(NOT_FREE, why, remedy)


def _mismatch(expected: ExpectedHardware, what: str) -> Problem:
    remedy = (
        "Set spec.hardware to the profile of these GPUs, or keep the gang off such nodes by node labels of the "
        "profile (a label nvidia.com/gpu.product, where nodes carry it, does so by itself)"
    )
    return Problem("HardwareMismatch", f"profile {expected.profile} is planned, and this node has {what}", remedy)


def label(name: str) -> str:
    """NVML's name of a board as NVIDIA's node labels spell it."""
    return name.replace(" ", "-")


def _counted(names: Sequence[str]) -> str:
    return ", ".join(f"{count} × {label(name)}" for name, count in Counter(names).items())
