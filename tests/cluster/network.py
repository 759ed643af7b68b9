"""Addresses and links of a cluster, as values and as scripts for `ip -batch`.

One flat network, 10.244.0.0/16 or fd00:10:244::/48. The control plane's namespace holds the switch (a bridge,
10.244.0.1), which also routes Services (kube-proxy's rules live there). Each node has a network namespace of its own
with a bridge `br0` (10.244.i.1) whose uplink is plugged into the switch; its pods are plugged into its bridge and take
10.244.i.2 and up. With IPv6 nothing but loopback has an IPv4 address.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

SWITCH: Final = "br0"


@dataclasses.dataclass(frozen=True)
class Addresses:
    """The addresses of one family (4 or 6)."""

    family: int
    prefix_length: int
    """Of the whole pod network on each bridge."""
    control_plane: str
    pod_network: str
    service_network: str
    kubernetes_service: str
    dns_service: str
    reverse_zone: str
    node_pattern: str
    pod_pattern: str

    @property
    def inner_server(self) -> str:
        """The API server for components inside."""
        return f"https://{_bracketed(self.control_plane)}:{APISERVER_PORT}"

    @property
    def kind(self) -> str:
        """As an EndpointSlice calls the family."""
        return f"IPv{self.family}"

    def node(self, index: int) -> str:
        return self.node_pattern.format(index)

    def pods_of(self, index: int) -> str:
        """The range that a node's pods take their addresses from."""
        return self.pod_pattern.format(index)


ADDRESSES: Final[Mapping[int, Addresses]] = {
    4: Addresses(
        family=4,
        prefix_length=16,
        control_plane="10.244.0.1",
        pod_network="10.244.0.0/16",
        service_network="10.96.0.0/16",
        kubernetes_service="10.96.0.1",
        dns_service="10.96.0.10",
        reverse_zone="in-addr.arpa",
        node_pattern="10.244.{}.1",
        pod_pattern="10.244.{}.0/24",
    ),
    6: Addresses(
        family=6,
        prefix_length=48,
        control_plane="fd00:10:244::1",
        pod_network="fd00:10:244::/48",
        service_network="fd00:10:96::/112",
        kubernetes_service="fd00:10:96::1",
        dns_service="fd00:10:96::a",
        reverse_zone="ip6.arpa",
        node_pattern="fd00:10:244:{:x}::1",
        pod_pattern="fd00:10:244:{:x}::/64",
    ),
}


def _bracketed(address: str) -> str:
    """As a URL's host."""
    return f"[{address}]" if ":" in address else address


def _at_once(address: str) -> str:
    """An IPv6 address is used only after a second in which nobody else claimed it, unless one says otherwise."""
    return " nodad" if ":" in address else ""


APISERVER_PORT: Final = 6443
DOMAIN: Final = "r1.test"
"""The cluster's DNS domain: not the usual one, so that nothing may take that for granted."""


def node_name(index: int) -> str:
    return f"n{index}"


def node_index(node: str) -> int:
    """The inverse of node_name. Raises ValueError for anything else."""
    if node[:1] != "n" or not node[1:].isdigit():
        raise ValueError(f"{node!r} is not the name of a node of this cluster (n1, n2, …)")
    return int(node[1:])


def switch_port(index: int) -> str:
    """The switch's side of a node's uplink. Setting it down is pulling the node's network plug."""
    return f"port{index}"


def switch_script(addresses: Addresses) -> str:
    return "\n".join(
        (
            "link set lo up",
            f"link add {SWITCH} type bridge",
            f"addr add {_on_bridge(addresses, addresses.control_plane)}",
            f"link set {SWITCH} up",
            # Without a route, processes beside the control plane could not reach a ClusterIP at all.
            f"route add {addresses.service_network} dev {SWITCH}",
        )
    )


def _on_bridge(addresses: Addresses, address: str) -> str:
    return f"{address}/{addresses.prefix_length} dev {SWITCH}{_at_once(address)}"


SWITCH_SYSCTLS: Final = {
    "ipv4/ip_forward": "1",
    "ipv6/conf/all/forwarding": "1",
    # The switch routes Service traffic back out of the port it came in by; a redirect would tell pods to go around it.
    "ipv4/conf/all/send_redirects": "0",
    "ipv4/conf/default/send_redirects": "0",
    # With br_netfilter loaded, the bridge would translate a Service address itself and then find the pod behind
    # the port the frame came in by, where it sends nothing back: no Service would have a pod on the client's own node.
    "bridge/bridge-nf-call-iptables": "0",
    "bridge/bridge-nf-call-ip6tables": "0",
}
"""Under /proc/sys/net, for the control plane's namespace; set before the switch is made, where the kernel has them."""


def uplink_script(index: int) -> str:
    """Makes the node's namespace and plugs it in. Run beside the control plane."""
    name = node_name(index)
    return "\n".join(
        (
            f"netns add {name}",
            f"link add {switch_port(index)} type veth peer name uplink netns {name}",
            f"link set {switch_port(index)} master {SWITCH} up",
        )
    )


def node_script(addresses: Addresses, index: int) -> str:
    """Sets up the node's side. Run with `ip -netns NODE`."""
    return "\n".join(
        (
            "link set lo up",
            f"link add {SWITCH} type bridge",
            f"addr add {_on_bridge(addresses, addresses.node(index))}",
            f"link set uplink master {SWITCH} up",
            f"link set {SWITCH} up",
            f"route add default via {addresses.control_plane}",
        )
    )


def plug_script(index: int, plugged: bool) -> str:
    return f"link set {switch_port(index)} {'up' if plugged else 'down'}"
