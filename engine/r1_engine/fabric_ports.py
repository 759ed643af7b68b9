"""Which ports carry the traffic between the nodes, and what NCCL and NVSHMEM are told of them. Pure.

A node has more RDMA ports than its fabric: those of its storage network, of which NCCL would make use as well. They
differ in link layer or rate, or hang on another PCI root than the GPUs.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby

from r1_engine.fabric import ETHERNET, INFINIBAND, ROCE_V2, Fabric, Gid, Port


@dataclass(frozen=True)
class Choice:
    """`ports`: those of the fabric that can be used now, all alike. `gid`: the index of their RoCE v2 addresses; None
    on InfiniBand. `down`: of the pod's own, without a link. `unreached`: RoCE ports that are up, with no address of an
    interface of this pod. `aside`: usable ones that do not belong to the fabric."""

    ports: tuple[Port, ...] = ()
    gid: int | None = None
    down: tuple[Port, ...] = ()
    unreached: tuple[Port, ...] = ()
    aside: tuple[Port, ...] = ()

    @property
    def link(self) -> str:
        return self.ports[0].link if self.ports else ""

    @property
    def gbits(self) -> float:
        """Of all of them together."""
        return sum(port.gbits for port in self.ports)


def choose(fabric: Fabric) -> Choice:
    """The fabric's ports among all that the pod can open."""
    own = _own(fabric.ports)
    up = [port for port in own if port.up]
    unreached = [p for p in up if p.link == ETHERNET and not _roce_gids(p, fabric.addresses)]
    usable = [port for port in up if port not in unreached]
    ports, gid = _with_common_gid(_near(_widest(usable), fabric.gpus), fabric.addresses)
    return Choice(
        ports=tuple(ports),
        gid=gid,
        down=tuple(port for port in own if not port.up),
        unreached=tuple(unreached),
        aside=tuple(port for port in usable if port not in ports),
    )


def _own(ports: Iterable[Port]) -> list[Port]:
    """Those that the pod can open. Virtual functions only where no physical one is given: beside those, on a node whose
    devices are all there, they are somebody else's."""
    given = [port for port in ports if port.opened is not False and port.adapter]
    return [port for port in given if not port.virtual] or given


def _widest(ports: Collection[Port]) -> list[Port]:
    """The kind (link layer and rate) that carries most in all; of two equal ones InfiniBand, which is no storage's or
    office's Ethernet."""

    def kind(port: Port) -> tuple[str, float]:
        return port.link, port.gbits

    kinds = [list(group) for _, group in groupby(sorted(ports, key=kind), key=kind)]
    best = max(kinds, key=lambda k: (sum(p.gbits for p in k), k[0].link == INFINIBAND), default=[])
    return [port for port in ports if port in best]


def _near(ports: list[Port], gpus: int) -> list[Port]:
    """Those beside a GPU, where each GPU has one: any more of the same kind are for something else."""
    near = [port for port in ports if port.near_gpu]
    return near if 0 < gpus <= len(near) else ports


def _with_common_gid(ports: list[Port], addresses: Collection[str]) -> tuple[list[Port], int | None]:
    """The ports that have a good address at the index which is commonest: NVSHMEM, and NCCL before 2.21, take one index
    for all."""
    if not ports or ports[0].link != ETHERNET:
        return ports, None
    best = Counter(_best(_roce_gids(port, addresses)).index for port in ports)
    index = max(best, key=lambda i: (best[i], -i))
    return [port for port in ports if any(g.index == index for g in _roce_gids(port, addresses))], index


def _roce_gids(port: Port, addresses: Collection[str]) -> list[Gid]:
    """RoCE v2 addresses of this pod's own interfaces: those of others, which /sys shows too, cannot be used here."""
    return [gid for gid in port.gids if gid.kind == ROCE_V2 and gid.address in addresses]


def _best(gids: list[Gid]) -> Gid:
    """One that can be routed, IPv4 first as NCCL has it."""

    def order(gid: Gid) -> tuple[bool, bool, int]:
        address = ipaddress.ip_address(gid.address)
        return address.is_link_local, address.version == 6, gid.index

    return min(gids, key=order)


# A user who names ports in another way has chosen them.
_CHOSEN = ("NCCL_IB_HCA", "NVSHMEM_HCA_LIST", "NVSHMEM_HCA_PE_MAPPING", "NVSHMEM_HCA_PREFIX")
_NCCL_WORDS = {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT,NET"}


def defaults(
    choice: Choice, users: Mapping[str, str], *, tcp: bool = False, interface: str | None = None
) -> dict[str, str]:
    """Variables of the engine that nobody else has set. `users`: what is set already; `tcp`: RDMA is not wanted;
    `interface`: carries the pod's address, over which the parts of NVSHMEM find each other."""
    own = {} if "NCCL_DEBUG" in users else dict(_NCCL_WORDS)
    if interface is not None:
        own["NVSHMEM_BOOTSTRAP_UID_SOCK_IFNAME"] = interface
    if tcp:
        own["NCCL_IB_DISABLE"] = "1"
    elif choice.link in (INFINIBAND, ETHERNET):
        names = [port.name for port in choice.ports]
        own["NCCL_IB_HCA"] = "=" + ",".join(names)  # exactly these: without the sign mlx5_1 means mlx5_10, too
        if not any(name in users for name in _CHOSEN):
            own["NVSHMEM_HCA_LIST"] = ",".join(names)
        # An index among the chosen ports' addresses says nothing of ports that the user has chosen.
        if choice.gid is not None and "NCCL_IB_HCA" not in users:
            own["NCCL_IB_GID_INDEX"] = str(choice.gid)
        if choice.gid is not None and "NVSHMEM_HCA_LIST" in own:
            own["NVSHMEM_IB_GID_INDEX"] = str(choice.gid)
    return {name: value for name, value in own.items() if name not in users}
