"""Where a gateway listens and where it finds its own parts, on IPv4, on IPv6, and on both at once."""

from __future__ import annotations

import socket

_ANY_4, _ANY_6 = "0.0.0.0", "::"


def everywhere() -> str:
    """The address to listen on for all families that this kernel has: on `::` Linux takes connections of both."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind((_ANY_6, 0))
            return _ANY_6
    except OSError:  # started with ipv6.disable=1
        return _ANY_4


def host_of(address: str) -> str | None:
    """The same for asyncio, which takes `::` for IPv6 alone and None for everywhere."""
    return None if address in (_ANY_4, _ANY_6) else address


def local(address: str) -> str:
    """The host part of a URL by which this pod reaches what listens on `address`."""
    host = host_of(address) or "127.0.0.1"
    return f"[{host}]" if ":" in host else host
