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
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject

# A peer that is gone without a FIN (node lost, network cut) is noticed after 15 + 3·5 s of silence, as client-go's
# HTTP/2 pings do after 30 + 15 s. Linux would wait two hours.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
_UNACKNOWLEDGED_MILLISECONDS = 30_000


def _keepalive_socket(address: Any) -> socket.socket:
    family, kind, protocol, _, _ = address
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MILLISECONDS)
    return sock


class _Transport(RESTClientObject):  # type: ignore[misc]
    """The library's pool, without its limit of 100 connections, which watches would eat up, and with keep-alive."""

    def _create_connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(limit=0, ssl=self.ssl_context, socket_factory=_keepalive_socket)


async def load_configuration(kubeconfig: str | None = None) -> Configuration:
    """The API server's address and our credentials.

    Order: the given kubeconfig, `KUBECONFIG`, the pod's service account, `~/.kube/config`.
    Raises `kubernetes.aio.config.ConfigException` with what is missing.
    """
    configuration = Configuration()
    path = kubeconfig or os.environ.get("KUBECONFIG")
    if path is None and "KUBERNETES_SERVICE_HOST" in os.environ:
        kube_config.load_incluster_config(client_configuration=configuration)
        return configuration
    path = path or "~/.kube/config"
    if not _any_file(path):
        raise kube_config.ConfigException(
            f"{path}: no such file. Give a kubeconfig (--kubeconfig or KUBECONFIG), or run in a pod"
        )
    await kube_config.load_kube_config(config_file=path, client_configuration=configuration, persist_config=False)
    return configuration


def _any_file(paths: str) -> bool:
    return any(Path(part).expanduser().is_file() for part in paths.split(os.pathsep) if part)


class Connection:
    """One pool of connections to one API server, with the credentials of the moment."""

    def __init__(self, configuration: Configuration, kubeconfig: str | None = None) -> None:
        self._configuration = configuration
        self._kubeconfig = kubeconfig
        self._transport = _Transport(configuration)

    @classmethod
    async def open(cls, kubeconfig: str | None = None) -> Connection:
        return cls(await load_configuration(kubeconfig), kubeconfig)

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
        self._configuration, self._transport = configuration, _Transport(configuration)
        await old.close()

    async def close(self) -> None:
        await self._transport.close()
