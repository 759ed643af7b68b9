"""Nodes as the agent's pod sees them: trees of /sys, /proc and /dev, in the formats of real devices.

The formats of the RDMA files were compared with a soft RoCE device of Linux 6.1, those of the driver, the limits and a
node without RDMA devices with an H200 of driver 580.159.04.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PEERMEM, GDRDRV = "nvidia_peermem", "gdrdrv"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.158.01  Release Build  (dvs-builder@U22)\n"
CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\n"
IBGDA = 'EnableStreamMemOPs: 1\nRegistryDwords: "PeerMappingOverride=1;"\nRegistryDwordsPerDevice: ""\n'
NO_IBGDA = 'EnableStreamMemOPs: 0\nRegistryDwords: ""\nRegistryDwordsPerDevice: ""\n'
ALL_CAPABILITIES, NO_IPC_LOCK, IPC_LOCK = "000001ffffffffff", "0000000000000000", "0000000000004000"


@dataclass(frozen=True)
class Hca:
    """One RDMA device with one port. `gids`: kind and address (as in gids/N) by index. `root`: of its PCI slot."""

    name: str
    link: str = "InfiniBand"
    state: str = "4: ACTIVE"
    physical: str = "5: LinkUp"
    rate: str = "400 Gb/sec (4X NDR)"
    gids: Mapping[int, tuple[str, str]] = field(
        default_factory=lambda: {0: ("IB/RoCE v1", "fe80:0000:0000:0000:946d:ae03:00a0:0000")}
    )
    root: str = "pci0000:15"
    node_type: str = "1: CA"
    virtual: bool = False
    given: bool = True


def roce(name: str, address: str | None = "10.9.0.1", index: int = 3, **changes: object) -> Hca:
    """A RoCE port with the four usual addresses: link-local and IPv4, each as v1 and v2. `index`: of IPv4 as v2."""
    local = "fe80:0000:0000:0000:946d:aeff:fea0:0000"
    gids = {0: ("IB/RoCE v1", local), 1: ("RoCE v2", local)}
    if address is not None:
        numbers = [int(part) for part in address.split(".")]
        mapped = "0000:0000:0000:0000:0000:ffff:{:02x}{:02x}:{:02x}{:02x}".format(*numbers)
        gids |= {index - 1: ("IB/RoCE v1", mapped), index: ("RoCE v2", mapped)}
    return Hca(name, "Ethernet", gids=gids, **changes)  # type: ignore[arg-type]


def down(name: str, **changes: object) -> Hca:
    return Hca(name, state="1: DOWN", physical="3: Disabled", **changes)  # type: ignore[arg-type]


def write_tree(
    root: Path,
    hcas: Iterable[Hca] = (),
    *,
    gpu_roots: Iterable[str] = ("pci0000:15",) * 8,
    memlock: str = "unlimited",
    capabilities: str = IPC_LOCK,
    modules: Iterable[str] = (PEERMEM,),
    driver: str | None = OPEN,
    kernel: str = "5.15.0-113-generic",
    params: str | None = IBGDA,
    infiniband: bool = True,
) -> Path:
    """Writes what a pod of such a node sees. `infiniband`: whether the kernel has the subsystem at all."""
    for number, hca in enumerate(hcas):
        _write_hca(root, number, hca)
    for number, slot in enumerate(gpu_roots):
        device = f"0000:{0xA0 + number:x}:00.0"
        _write_pci(root, root / "sys/devices" / slot / device, "0x10de", "0x030200")
    if infiniband:
        (root / "sys/class/infiniband").mkdir(parents=True, exist_ok=True)
    (root / "sys/class/net").mkdir(parents=True, exist_ok=True)
    for module in ("nvidia", *modules):
        (root / "sys/module" / module).mkdir(parents=True)
    files = {
        "self/limits": f"Limit                     Soft Limit           Hard Limit           Units     \n"
        f"Max locked memory         {memlock:<20} {memlock:<20} bytes     \n",
        "self/status": f"Name:\tpython\nCapPrm:\t{capabilities}\nCapEff:\t{capabilities}\n",
        "sys/kernel/osrelease": f"{kernel}\n",
    }
    files |= {"driver/nvidia/version": driver} if driver is not None else {}
    files |= {"driver/nvidia/params": params} if params is not None else {}
    for name, text in files.items():
        _write(root / "proc" / name, text)
    if GDRDRV in modules:
        _write(root / "dev/gdrdrv", "")
    return root


def _write_hca(root: Path, number: int, hca: Hca) -> None:
    pci = root / "sys/devices" / hca.root / f"0000:{number:02x}:00.0"
    kind = "0x020700" if hca.link == "InfiniBand" else "0x020000"
    _write_pci(root, pci, "0x15b3", kind)
    if hca.virtual:
        (pci / "physfn").symlink_to("../0000:ff:00.0")
        (pci.parent / "0000:ff:00.0").mkdir(exist_ok=True)
    device = pci / "infiniband" / hca.name
    port = {"state": hca.state, "phys_state": hca.physical, "rate": hca.rate, "link_layer": hca.link}
    for index in range(8):  # unused entries read as zeros
        kind, address = hca.gids.get(index, ("", "0000:0000:0000:0000:0000:0000:0000:0000"))
        port[f"gids/{index}"] = address
        port |= {f"gid_attrs/types/{index}": kind} if kind else {}
    for name, text in {"node_type": hca.node_type, **{f"ports/1/{key}": text for key, text in port.items()}}.items():
        _write(device / name, f"{text}\n")
    (device / "device").symlink_to("../..")
    _write(root / f"sys/class/infiniband_verbs/uverbs{number}/ibdev", f"{hca.name}\n")
    (root / "sys/class/infiniband").mkdir(parents=True, exist_ok=True)
    (root / "sys/class/infiniband" / hca.name).symlink_to(device)
    if hca.given:
        _write(root / f"dev/infiniband/uverbs{number}", "")


def _write_pci(root: Path, device: Path, vendor: str, kind: str) -> None:
    for name, text in {"vendor": vendor, "class": kind, "numa_node": "0"}.items():
        _write(device / name, f"{text}\n")
    link = root / "sys/bus/pci/devices" / device.name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(device)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
