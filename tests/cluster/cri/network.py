"""Addresses and links of pods: one veth pair each, from the node's bridge into the pod's network namespace."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from tests.cluster.cri.processes import check, run

Range = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class NetworkConfig:
    """The node's part of the cluster network. `prefix_length` is that of the whole pod network on the bridge."""

    pod_cidr: Range
    bridge: str
    gateway: str
    node_ip: str
    prefix_length: int = 16


class NoAddressLeft(RuntimeError):
    """All addresses of the node's range are in use."""


@dataclass
class AddressPool:
    """Hands out the range's addresses round-robin, so that a freed one is not reused at once."""

    network: Range
    reserved: frozenset[str]
    _used: set[str] = field(default_factory=set)
    _last: int = 9  # the first ten are left to the node itself

    def take(self) -> str:
        """An address nobody has.

        Raises:
            NoAddressLeft: there is none.
        """
        size = self.network.num_addresses
        for _ in range(size):
            self._last = (self._last + 1) % (size - 1)
            address = str(self.network[self._last])
            if self._last and address not in self._used and address not in self.reserved:
                self._used.add(address)
                return address
        raise NoAddressLeft(f"no address of {self.network} is free; use a larger --pod-cidr")

    def give_back(self, address: str) -> None:
        """Free an address; an unknown one is ignored."""
        self._used.discard(address)


def link_name(address: str) -> str:
    """Name of the host's end of a pod's link: `pod<node>-<number>`, as the address has them."""
    node, number = _numbers(address)
    return f"pod{int.from_bytes(node)}-{int.from_bytes(number)}"


def _numbers(address: str) -> tuple[bytes, bytes]:
    """A node's number and that of a pod on it: 10.244.<node>.<number>, fd00:10:244:<node>::<number>."""
    whole = ipaddress.ip_address(address)
    return (whole.packed[2:3], whole.packed[3:]) if whole.version == 4 else (whole.packed[6:8], whole.packed[14:])


def hardware_address(address: str) -> str:
    """A MAC address made from the IP address: whoever remembers the last owner's finds the new one."""
    whole = ipaddress.ip_address(address)
    told = whole.packed if whole.version == 4 else b"".join(_numbers(address))
    return "0a:58:" + ":".join(f"{byte:02x}" for byte in told)


def host_batch(config: NetworkConfig, address: str, pid: int) -> str:
    """`ip -batch` commands on the host's side. Hairpin lets a pod reach itself through a Service."""
    link = link_name(address)
    return (
        f"link add {link} type veth peer name eth0 address {hardware_address(address)} netns {pid}\n"
        f"link set {link} master {config.bridge} up\n"
        f"link set {link} type bridge_slave hairpin on\n"
    )


def pod_batch(config: NetworkConfig, address: str) -> str:
    """`ip -batch` commands inside the pod's network namespace."""
    # An IPv6 address is used only after a second in which nobody else claimed it, unless one says otherwise.
    at_once = " nodad" if ":" in address else ""
    return (
        "link set lo up\n"
        f"addr add {address}/{config.prefix_length} dev eth0{at_once}\n"
        "link set eth0 up\n"
        f"route add default via {config.gateway}\n"
    )


async def connect(config: NetworkConfig, address: str, pid: int) -> None:
    """Give the network namespace of process `pid` the address. The link goes when the namespace does."""
    await check(["ip", "-batch", "-"], stdin=host_batch(config, address, pid).encode())
    inside = ["/usr/bin/nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-batch", "-"]
    await check(inside, stdin=pod_batch(config, address).encode())


async def disconnect(address: str) -> None:
    """Remove the pod's link at once: the kernel tears a dead namespace down in its own time, the name must be free."""
    await run(["ip", "link", "del", link_name(address)], timeout=60)
