"""HTTP proxies of the cluster never stand between the parts of a gang. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from r1_engine.config import Settings

_VARIABLES = ("NO_PROXY", "no_proxy")
_HERE = ("localhost", "127.0.0.1", "::1")
# Names of the cluster's Services and pods end so, whatever its domain.
_CLUSTER = ".svc"


def without_proxy(environment: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """The environment with this pod, node 0 and the cluster's names among those that are reached directly.

    SGLang asks its own server over HTTP while it starts, and obeys a proxy that a webhook or `spec.engine.env` set for
    the world outside, which is kept. Clients differ in which spelling wins, so both say the same. `*` is left alone.
    """
    said = [host.strip() for name in _VARIABLES for host in environment.get(name, "").split(",") if host.strip()]
    if "*" in said:  # some clients know it only when it stands alone
        return {**environment, **dict.fromkeys(_VARIABLES, "*")}
    direct = ",".join(dict.fromkeys((*said, *_HERE, _CLUSTER, settings.pod.ip, settings.config.head_address)))
    return {**environment, **dict.fromkeys(_VARIABLES, direct)}
