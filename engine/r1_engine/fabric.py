"""What this pod has of the network between the nodes: RDMA ports, the right to pin memory, GPUDirect. Read, not judged.

The files are the kernel's (Documentation/ABI/stable/sysfs-class-infiniband, infiniband_verbs) and the NVIDIA driver's.
/sys shows every device of the node, whatever the pod was given: what it may open stands in /dev/infiniband alone.
What cannot be read is None, which is neither yes nor no.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INFINIBAND, ETHERNET = "InfiniBand", "Ethernet"
ROCE_V2 = "RoCE v2"

_CAP_IPC_LOCK = 14  # linux/capability.h
_DMA_BUF_KERNEL = (5, 12)  # the first whose verbs register memory of another device by a dma-buf
_GPU_VENDOR, _DISPLAY_CLASS = 0x10DE, 0x03
_UNLIMITED = -1
# A channel adapter, AWS's EFA, or a node type that cannot be read; not iWARP's RNIC, over which neither NCCL nor
# NVSHMEM sends.
_ADAPTERS = ("CA", "unspecified", "")
_PEERMEM = {"nvidia_peermem", "nv_peer_mem", "efa_nv_peermem"}


@dataclass(frozen=True)
class Gid:
    """One address of a port. `address` as in an interface's list: `10.0.0.7` of a GID that wraps IPv4."""

    index: int
    kind: str
    address: str


@dataclass(frozen=True)
class Port:
    """One port of an RDMA device. `opened`: the pod has its device file, and can use it; None: the kernel does not say
    which file that is. `virtual`: a virtual function (SR-IOV). `near_gpu`: below the same PCI root as a GPU."""

    device: str
    number: int
    state: str = "ACTIVE"
    physical: str = "LinkUp"
    link: str = INFINIBAND
    gbits: float = 0.0
    gids: tuple[Gid, ...] = ()
    opened: bool | None = True
    adapter: bool = True
    virtual: bool = False
    near_gpu: bool = False
    numa: int | None = None

    @property
    def name(self) -> str:
        """As NCCL_IB_HCA and NVSHMEM_HCA_LIST name it."""
        return f"{self.device}:{self.number}"

    @property
    def up(self) -> bool:
        return self.state == "ACTIVE" and self.physical in ("LinkUp", "")


@dataclass(frozen=True)
class Fabric:
    """One node's, as its pod sees it.

    addresses: of the pod's own network interfaces. memlock: bytes that may be pinned, -1 for no limit; `ipc_lock`: the
    capability that lifts it. peermem, dma_buf: the two ways to GPUDirect RDMA. stream_mem_ops, peer_mapping: driver
    parameters that GPU-initiated RDMA (IBGDA) needs, where there is no gdrdrv.
    """

    readable: bool = True
    ports: tuple[Port, ...] = ()
    gpus: int = 0
    addresses: frozenset[str] = frozenset()
    memlock: int | None = None
    ipc_lock: bool | None = None
    peermem: bool | None = None
    dma_buf: bool | None = None
    stream_mem_ops: bool | None = None
    peer_mapping: bool | None = None
    gdrdrv: bool = False

    @property
    def gpu_direct(self) -> bool | None:
        """Whether the NIC can reach the GPUs' memory; None when one way is closed and the other not known."""
        if self.peermem or self.dma_buf:
            return True
        return False if self.peermem is False and self.dma_buf is False else None

    @property
    def gpu_initiated(self) -> bool | None:
        """Whether a GPU can start a transfer by itself (IBGDA), as far as the driver's parameters tell."""
        if self.gdrdrv:
            return True
        known = (self.stream_mem_ops, self.peer_mapping)
        return None if None in known else all(known)


def read_fabric(root: Path = Path("/"), addresses: Collection[str] | None = None) -> Fabric:
    """This pod's. `root` has /sys, /proc and /dev below it; `addresses` of its interfaces, by default asked for."""
    sys, proc, dev = root / "sys", root / "proc", root / "dev"
    found = _interface_addresses() if addresses is None else addresses
    params = _text(proc / "driver/nvidia/params")
    try:
        devices = sorted((sys / "class/infiniband").iterdir(), key=lambda path: _natural(path.name))
        readable = True
    except FileNotFoundError:  # no device, or a kernel without the subsystem
        devices, readable = [], (sys / "class").is_dir()
    except OSError:
        devices, readable = [], False
    gpus = _gpus(sys)
    return Fabric(
        readable=readable,
        ports=tuple(port for device in devices for port in _ports(device, _opened(sys, dev, device.name), gpus)),
        gpus=len(gpus),
        addresses=frozenset(found),
        memlock=_memlock(_text(proc / "self/limits")),
        ipc_lock=_capability(_text(proc / "self/status"), _CAP_IPC_LOCK),
        peermem=_peermem(sys),
        dma_buf=_dma_buf(_text(proc / "driver/nvidia/version"), _text(proc / "sys/kernel/osrelease")),
        stream_mem_ops=_parameter(params, "EnableStreamMemOPs"),
        peer_mapping=_parameter(params, "PeerMappingOverride"),
        gdrdrv=(dev / "gdrdrv").exists(),
    )


def _ports(device: Path, opened: bool | None, gpus: Collection[str]) -> list[Port]:
    pci = device / "device"
    adapter = _word(device / "node_type") in _ADAPTERS
    numbers = sorted(int(path.name) for path in _listing(device / "ports") if path.name.isdecimal())
    return [
        Port(
            device=device.name,
            number=number,
            state=_word(device / f"ports/{number}/state"),
            physical=_word(device / f"ports/{number}/phys_state"),
            link=(_text(device / f"ports/{number}/link_layer") or "").strip(),
            gbits=_rate(_text(device / f"ports/{number}/rate")),
            gids=_gids(device / f"ports/{number}"),
            opened=opened,
            adapter=adapter,
            virtual=(pci / "physfn").exists(),
            near_gpu=_pci_root(pci) in gpus,
            numa=_integer(_text(pci / "numa_node")),
        )
        for number in numbers
    ]


def _opened(sys: Path, dev: Path, device: str) -> bool | None:
    """Whether the pod was given the device's file, whose name class/infiniband_verbs tells."""
    files = {path.name for path in _listing(dev / "infiniband") if path.name.startswith("uverbs")}
    if not files:
        return False
    for verbs in _listing(sys / "class/infiniband_verbs"):
        if (_text(verbs / "ibdev") or "").strip() == device:
            return verbs.name in files
    return None


def _gids(port: Path) -> tuple[Gid, ...]:
    found = []
    for path in sorted(_listing(port / "gids"), key=lambda path: _natural(path.name)):
        address = _gid_address(_text(path) or "")
        # An unused entry reads as zeros, and its type cannot be read at all.
        if path.name.isdecimal() and address is not None:
            kind = (_text(port / "gid_attrs/types" / path.name) or "").strip()
            found.append(Gid(int(path.name), kind, address))
    return tuple(found)


def _gid_address(text: str) -> str | None:
    try:
        address = ipaddress.IPv6Address(text.strip())
    except ValueError:
        return None
    if not int(address):
        return None
    return str(address.ipv4_mapped or address)


def _gpus(sys: Path) -> list[str]:
    """The PCI root of each NVIDIA GPU."""
    return [
        _pci_root(path)
        for path in _listing(sys / "bus/pci/devices")
        if _integer(_text(path / "vendor")) == _GPU_VENDOR
        and ((_integer(_text(path / "class")) or 0) >> 16) == _DISPLAY_CLASS
    ]


def _pci_root(device: Path) -> str:
    """`pci0000:17` of a device below it; each root leads to a processor of its own."""
    return next((part for part in device.resolve().parts if part.startswith("pci")), "")


def _memlock(limits: str | None) -> int | None:
    match = re.search(r"^Max locked memory\s+(\S+)", limits or "", re.MULTILINE)
    if match is None:
        return None
    return _UNLIMITED if match[1] == "unlimited" else int(match[1])


def _capability(status: str | None, number: int) -> bool | None:
    match = re.search(r"^CapEff:\s+([0-9a-f]+)", status or "", re.MULTILINE)
    return None if match is None else bool(int(match[1], 16) >> number & 1)


def _peermem(sys: Path) -> bool | None:
    """/sys/module lists all modules of the node."""
    modules = {path.name for path in _listing(sys / "module")}
    return None if not modules else bool(modules & _PEERMEM)


def _dma_buf(driver: str | None, kernel: str | None) -> bool | None:
    """The driver's open kernel modules export GPU memory as a dma-buf; the proprietary ones do not."""
    release = re.match(r"(\d+)\.(\d+)", kernel or "")
    if not driver or release is None:
        return None
    return "Open Kernel Module" in driver and (int(release[1]), int(release[2])) >= _DMA_BUF_KERNEL


def _parameter(params: str | None, name: str) -> bool | None:
    """A parameter has a line of its own (`EnableStreamMemOPs: 1`) or stands in `RegistryDwords: "Name=1;"`."""
    if params is None:
        return None
    match = re.search(rf"\b{name}\s*[:=]\s*(\d+)", params)
    return match is not None and int(match[1]) != 0


def _interface_addresses() -> list[str]:
    import psutil  # type: ignore[import-untyped]  # comes with SGLang; what only judges does without

    addresses = [address.address for each in psutil.net_if_addrs().values() for address in each]
    return [address.split("%")[0] for address in addresses]


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _word(file: Path) -> str:
    """`ACTIVE` of `4: ACTIVE`; empty where it cannot be read."""
    return (_text(file) or "").partition(":")[2].strip()


def _rate(text: str | None) -> float:
    """400.0 of `400 Gb/sec (4X NDR)`; 0 where it cannot be read."""
    match = re.match(r"([\d.]+)\s*Gb", text or "")
    return float(match[1]) if match else 0.0


def _integer(text: str | None) -> int | None:
    try:
        return int((text or "").strip(), 0)
    except ValueError:
        return None


def _natural(name: str) -> tuple[Any, ...]:
    """mlx5_2 before mlx5_10."""
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part)
