"""The few calls that the supervisor itself makes to the API server, on the standard library alone."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.cluster.config import ClusterPaths
from tests.cluster.network import APISERVER_PORT, Addresses


class ApiError(RuntimeError):
    """The API server answered with an error: status code and its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """Blocking calls as the cluster's admin. Every call makes its own connection."""

    def __init__(self, paths: ClusterPaths, addresses: Addresses) -> None:
        self._host = addresses.control_plane
        self._tls = ssl.create_default_context(cafile=str(paths.pki / "ca.crt"))
        self._tls.load_cert_chain(str(paths.pki / "admin.crt"), str(paths.pki / "admin.key"))

    def is_ready(self) -> bool:
        try:
            self.call("GET", "/readyz")
        except (OSError, ApiError, http.client.HTTPException):
            return False
        return True

    def get(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.call("GET", path))
        return answer

    def exists(self, path: str) -> bool:
        try:
            self.call("GET", path)
        except ApiError as error:
            if error.status != http.HTTPStatus.NOT_FOUND:
                raise
            return False
        return True

    def create(self, path: str, body: dict[str, Any]) -> None:
        """Creates an object; one that is there already is left as it is."""
        try:
            self.call("POST", path, json.dumps(body))
        except ApiError as error:
            if error.status != http.HTTPStatus.CONFLICT:
                raise

    def ready_nodes(self) -> dict[str, dict[str, Any]]:
        """Name → node, of all nodes whose condition Ready is True."""
        return {
            node["metadata"]["name"]: node
            for node in self.get("/api/v1/nodes")["items"]
            if any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", ()))
        }

    def service_address(self, namespace: str, name: str, port: int | str) -> tuple[str, int]:
        """Address and port of a Service. Raises LookupError if it has none, OSError if nobody answers."""
        try:
            spec = self.get(f"/api/v1/namespaces/{namespace}/services/{name}")["spec"]
        except ApiError as error:
            raise LookupError(f"service {namespace}/{name}: {error}") from error
        if spec.get("clusterIP", "None") == "None":
            raise LookupError(f"service {namespace}/{name} is headless: expose the pod's address instead")
        for known in spec["ports"]:
            if port in (known["port"], known.get("name")):
                return spec["clusterIP"], known["port"]
        raise LookupError(f"service {namespace}/{name} has no port {port!r}")

    def call(self, method: str, path: str, body: str | None = None) -> str:
        with self._connection() as connection:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read().decode()
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            raise ApiError(response.status, text[:500])
        return text

    @contextmanager
    def _connection(self) -> Iterator[http.client.HTTPSConnection]:
        connection = http.client.HTTPSConnection(self._host, APISERVER_PORT, context=self._tls, timeout=60)
        try:
            yield connection
        finally:
            connection.close()
