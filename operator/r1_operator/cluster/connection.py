"""How to reach the API server: the configuration of `kubernetes.aio`, and one connection pool with keep-alive.

From the `kubernetes` package come the kubeconfig and in-cluster loaders (with token refresh) and the TLS set-up.
Requests are made by `cluster.client`: the generated API classes send PATCH bodies of custom resources with a type the
server refuses and give every call 300 s.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject

from .errors import UNREACHABLE, ApiError

# A peer that is gone without a FIN (node lost, network cut) is noticed after 15 + 5 s of silence: the probes obey the
# time-out below as well. client-go's HTTP/2 pings need 30 + 15 s, Linux by itself two hours.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
# How long a request may be on its way: half of it until a connection stands, half until the other side has acknowledged
# all. Then the kernel takes it back; by itself it would go on for a quarter of an hour, even after this process is
# gone, and a write must not arrive when somebody else leads.
DELIVERY_SECONDS = 4.0
_REMEDY = "Give a kubeconfig (--kubeconfig or KUBECONFIG), or run in a pod"


def _keepalive_socket(address: Any, delivery_seconds: float) -> socket.socket:
    family, kind, protocol, _, _ = address
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(delivery_seconds / 2 * 1000))
    return sock


class _Transport(RESTClientObject):  # type: ignore[misc]
    """The library's pool, without its limit of 100 connections, which watches would eat up, and with keep-alive."""

    def __init__(self, configuration: Configuration, delivery_seconds: float) -> None:
        super().__init__(configuration)
        self._delivery_seconds = delivery_seconds

    def _create_connector(self) -> aiohttp.TCPConnector:
        def make(address: Any) -> socket.socket:
            return _keepalive_socket(address, self._delivery_seconds)

        return aiohttp.TCPConnector(limit=0, ssl=self.ssl_context, socket_factory=make)


async def load_configuration(kubeconfig: str | None = None) -> Configuration:
    """The API server's address and our credentials.

    Order: the given kubeconfig, `KUBECONFIG`, the pod's service account, `~/.kube/config`.
    Raises ApiError: without credentials nobody can be asked.
    """
    configuration = Configuration()
    path = kubeconfig or os.environ.get("KUBECONFIG")
    try:
        if path is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            kube_config.load_incluster_config(client_configuration=configuration)
            return configuration
        path = path or "~/.kube/config"
        if not _any_file(path):
            raise ApiError(0, UNREACHABLE, f"{path}: no such file. {_REMEDY}")
        await kube_config.load_kube_config(config_file=path, client_configuration=configuration, persist_config=False)
        return configuration
    except (kube_config.ConfigException, OSError, ValueError, yaml.YAMLError) as error:
        where = path or "the pod's service account"
        raise ApiError(0, UNREACHABLE, f"{where}: {' '.join(str(error).split())}. {_REMEDY}") from error
    except (TypeError, AttributeError, KeyError) as error:
        # The library takes what it finds for a kubeconfig: an empty file, or one that is just being written.
        raise ApiError(0, UNREACHABLE, f"{path}: empty, or something else than a kubeconfig. {_REMEDY}") from error


def _any_file(paths: str) -> bool:
    return any(Path(part).expanduser().is_file() for part in paths.split(os.pathsep) if part)


class Connection:
    """One pool of connections to one API server, with the credentials of the moment."""

    def __init__(
        self,
        configuration: Configuration,
        kubeconfig: str | None = None,
        *,
        delivery_seconds: float = DELIVERY_SECONDS,
    ) -> None:
        self.delivery_seconds = delivery_seconds
        """A request that has not arrived this long after it was sent does not arrive any more."""
        self._configuration = configuration
        self._kubeconfig = kubeconfig
        self._transport = _Transport(configuration, delivery_seconds)

    @classmethod
    async def open(cls, kubeconfig: str | None = None, *, delivery_seconds: float = DELIVERY_SECONDS) -> Connection:
        return cls(await load_configuration(kubeconfig), kubeconfig, delivery_seconds=delivery_seconds)

    @property
    def server(self) -> str:
        return str(self._configuration.host)

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path_and_query: str,
        *,
        timeout: aiohttp.ClientTimeout,
        body: Any = None,
        content_type: str = "application/json",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One HTTP exchange; the response is open inside the `with`. Raises what aiohttp raises."""
        headers = {"Accept": "application/json", "Content-Type": content_type, "User-Agent": "r1-operator"}
        for setting in (await self._configuration.auth_settings()).values():
            headers[setting["key"]] = setting["value"]
        answer = await self._transport.request(
            method, self.server + path_and_query, headers=headers, body=body, _request_timeout=timeout
        )
        response: aiohttp.ClientResponse = answer.response
        try:
            yield response
        finally:
            response.release()

    async def reload(self) -> None:
        """Read the credentials again: a projected token rotates, a plugin's token or a client certificate expires."""
        old, configuration = self._transport, await load_configuration(self._kubeconfig)
        self._configuration, self._transport = configuration, _Transport(configuration, self.delivery_seconds)
        await old.close()

    async def close(self) -> None:
        await self._transport.close()
