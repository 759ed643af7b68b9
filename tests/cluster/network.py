"""Addresses and links of a cluster, as values and as scripts for `ip -batch`.

One flat network, 10.244.0.0/16. The control plane's namespace holds the switch (a bridge, 10.244.0.1), which also
routes Services (kube-proxy's rules live there). Each node has a network namespace of its own with a bridge `br0`
(10.244.i.1) whose uplink is plugged into the switch; its pods are plugged into its bridge and take 10.244.i.2 and up.
"""

from __future__ import annotations

from typing import Final

SWITCH: Final = "br0"
CONTROL_PLANE: Final = "10.244.0.1"
POD_NETWORK: Final = "10.244.0.0/16"
SERVICE_NETWORK: Final = "10.96.0.0/16"
KUBERNETES_SERVICE: Final = "10.96.0.1"
DNS_SERVICE: Final = "10.96.0.10"
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


def node_address(index: int) -> str:
    return f"10.244.{index}.1"


def pod_cidr(index: int) -> str:
    return f"10.244.{index}.0/24"


def switch_port(index: int) -> str:
    """The switch's side of a node's uplink. Setting it down is pulling the node's network plug."""
    return f"port{index}"


def switch_script() -> str:
    return "\n".join(
        (
            "link set lo up",
            f"link add {SWITCH} type bridge",
            f"addr add {CONTROL_PLANE}/16 dev {SWITCH}",
            f"link set {SWITCH} up",
            # Without a route, processes beside the control plane could not reach a ClusterIP at all.
            f"route add {SERVICE_NETWORK} dev {SWITCH}",
        )
    )


SWITCH_SYSCTLS: Final = {
    "ipv4/ip_forward": "1",
    # The switch routes Service traffic back out of the port it came in by; a redirect would tell pods to go around it.
    "ipv4/conf/all/send_redirects": "0",
    "ipv4/conf/default/send_redirects": "0",
    # With br_netfilter loaded, the bridge would translate a Service address itself and then find the pod behind
    # the port the frame came in by, where it sends nothing back: no Service would have a pod on the client's own node.
    "bridge/bridge-nf-call-iptables": "0",
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


def node_script(index: int) -> str:
    """Sets up the node's side. Run with `ip -netns NODE`."""
    return "\n".join(
        (
            "link set lo up",
            f"link add {SWITCH} type bridge",
            f"addr add {node_address(index)}/16 dev {SWITCH}",
            f"link set uplink master {SWITCH} up",
            f"link set {SWITCH} up",
            f"route add default via {CONTROL_PLANE}",
        )
    )


def plug_script(index: int, plugged: bool) -> str:
    return f"link set {switch_port(index)} {'up' if plugged else 'down'}"
