"""Proxies as a cluster gives them to every pod: by variables, in either spelling."""

from __future__ import annotations


def proxied(url: str) -> dict[str, str]:
    """Environment that sends everything through the proxy at this URL."""
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    return {spelling: url for name in names for spelling in (name, name.lower())}
