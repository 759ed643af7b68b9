"""Calls to the Kubernetes API: get, list, create, apply, patch, delete. Thin; decisions live elsewhere."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import aiohttp

from r1_operator.api.names import FIELD_MANAGER
from r1_operator.cluster.connection import Connection
from r1_operator.cluster.errors import NOT_LEADER, TIMEOUT, UNREACHABLE, ApiError, error_from_answer
from r1_operator.cluster.resources import R1_DEPLOYMENTS, JsonObject, Resource, key_of, resource_of

CALL_SECONDS = 10.0
PAGE = 500  # objects per list answer, as client-go pages

Observer = Callable[[str, Resource, int, float], None]
"""Told of each call: verb, resource, HTTP status (0: no answer), seconds.

Verbs: `get`, `list`, `watch`, `create`, `apply`, `patch`, `update`, `delete`."""


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects of a kind at one version of the cluster."""

    items: tuple[dict[str, Any], ...]
    resource_version: str


class Client:
    """An asynchronous Kubernetes client for a handful of kinds.

    `observe` sees each call (metrics). `write_guard`, when set, is asked before each write; when it says no, the write
    is refused with `ApiError(reason="NotLeader")`, so a deposed leader that was frozen in between cannot act.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        call_seconds: float = CALL_SECONDS,
        observe: Observer | None = None,
        write_guard: Callable[[], bool] | None = None,
    ) -> None:
        self._connection = connection
        self._call_seconds = call_seconds
        self._observe = observe
        self._reloaded_at = float("-inf")
        self._reload_lock = asyncio.Lock()
        self.write_guard = write_guard

    @classmethod
    async def connect(
        cls, kubeconfig: str | None = None, *, call_seconds: float = CALL_SECONDS, observe: Observer | None = None
    ) -> Client:
        """A client by the given kubeconfig, `KUBECONFIG`, the service account or `~/.kube/config`, in this order."""
        return cls(await Connection.open(kubeconfig), call_seconds=call_seconds, observe=observe)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._connection.close()

    async def get(
        self, resource: Resource, namespace: str | None, name: str, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """One object. Raises ApiError; `.not_found` when it does not exist."""
        return await self._call("get", "GET", resource, resource.path(namespace, name), timeout=timeout)

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str | None = None,
        fields: str | None = None,
    ) -> Listing:
        """All objects that match the label and field selectors, read page by page at one consistent version.

        Items carry no apiVersion and kind on the wire; they are filled in.
        """
        items: list[dict[str, Any]] = []
        query = {"limit": str(PAGE), "labelSelector": labels, "fieldSelector": fields, "continue": None}
        while True:
            page = await self._call("list", "GET", resource, resource.path(namespace), query)
            for item in page.get("items") or ():
                items.append({"apiVersion": resource.api_version, "kind": resource.kind, **item})
            metadata = page.get("metadata") or {}
            query["continue"] = metadata.get("continue")
            if not query["continue"]:
                return Listing(tuple(items), str(metadata.get("resourceVersion", "")))

    async def create(self, obj: JsonObject) -> dict[str, Any]:
        """Create an object. Raises ApiError; `.already_exists` when the name is taken."""
        resource = resource_of(obj)
        namespace, _ = key_of(obj)
        return await self._call(
            "create", "POST", resource, resource.path(namespace), {"fieldManager": FIELD_MANAGER}, body=obj
        )

    async def apply(self, obj: JsonObject, *, force: bool = True) -> dict[str, Any]:
        """Server-side apply: our fields become as given, those we no longer give go away, the others' stay.

        `force` takes fields over that somebody else owns; without it that is an `ApiError` with `.conflict`.
        """
        resource = resource_of(obj)
        query = {"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"}
        return await self._call(
            "apply",
            "PATCH",
            resource,
            resource.path(*key_of(obj)),
            query,
            body=obj,
            content_type="application/apply-patch+yaml",
        )

    async def apply_status(self, namespace: str, name: str, status: JsonObject) -> dict[str, Any]:
        """Server-side apply of an R1Deployment's whole status: what is no longer given goes, or back to its default."""
        body = {
            "apiVersion": R1_DEPLOYMENTS.api_version,
            "kind": R1_DEPLOYMENTS.kind,
            "metadata": {"namespace": namespace, "name": name},
            "status": status,
        }
        return await self._call(
            "apply",
            "PATCH",
            R1_DEPLOYMENTS,
            R1_DEPLOYMENTS.path(namespace, name, "status"),
            {"fieldManager": FIELD_MANAGER, "force": "true"},
            body=body,
            content_type="application/apply-patch+yaml",
        )

    async def update(self, obj: JsonObject, *, timeout: float | None = None) -> dict[str, Any]:
        """Replace an object; its resourceVersion makes a write by somebody else in between a conflict."""
        resource = resource_of(obj)
        return await self._call("update", "PUT", resource, resource.path(*key_of(obj)), body=obj, timeout=timeout)

    async def patch_json(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        operations: Sequence[JsonObject],
        *,
        subresource: str | None = None,
    ) -> dict[str, Any]:
        """JSON Patch (RFC 6902), all operations or none. A failed `test` operation is an ApiError with status 422."""
        return await self._call(
            "patch",
            "PATCH",
            resource,
            resource.path(namespace, name, subresource),
            {"fieldManager": FIELD_MANAGER},
            body=list(operations),
            content_type="application/json-patch+json",
        )

    async def patch_merge(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: JsonObject,
        *,
        subresource: str | None = None,
    ) -> dict[str, Any]:
        """JSON Merge Patch (RFC 7386): null removes a field, a list replaces the whole list."""
        return await self._call(
            "patch",
            "PATCH",
            resource,
            resource.path(namespace, name, subresource),
            {"fieldManager": FIELD_MANAGER},
            body=body,
            content_type="application/merge-patch+json",
        )

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        grace_seconds: int | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: str = "Background",
    ) -> bool:
        """Delete an object. False when it was gone already; a precondition that does not hold is a conflict."""
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid or resource_version:
            body["preconditions"] = {field: value for field, value in preconditions.items() if value}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        try:
            await self._call("delete", "DELETE", resource, resource.path(namespace, name), body=body)
        except ApiError as error:
            if error.not_found:
                return False
            raise
        return True

    @asynccontextmanager
    async def open_watch(
        self,
        resource: Resource,
        namespace: str | None,
        query: Mapping[str, str | None],
        *,
        silence_seconds: float,
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The lines of a watch, without any interpretation; `cluster.watch` makes sense of them."""
        url = _url(resource.path(namespace), {**query, "watch": "true"})
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._call_seconds, sock_read=silence_seconds)
        started = time.monotonic()
        try:
            async with self._connection.request("GET", url, timeout=timeout) as response:
                self._note("watch", resource, response.status, started)
                if response.status != 200:
                    body = await response.read()
                    if response.status == 401:
                        await self._reload_credentials()
                    raise error_from_answer(response.status, body, response.headers.get("Retry-After"))
                yield _lines(response)
        except TimeoutError as error:
            raise ApiError(0, TIMEOUT, f"watch of {resource.plural}: silent for {silence_seconds:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ApiError(0, UNREACHABLE, f"watch of {resource.plural}: {error or type(error).__name__}") from error

    async def _call(
        self,
        verb: str,
        method: str,
        resource: Resource,
        path: str,
        query: Mapping[str, str | None] | None = None,
        *,
        body: Any = None,
        content_type: str = "application/json",
        timeout: float | None = None,
    ) -> dict[str, Any]:
        # The lease is exempt: it is how one becomes leader, and optimistic locking protects it already.
        guarded = method != "GET" and resource.plural != "leases"
        if guarded and self.write_guard is not None and not self.write_guard():
            raise ApiError(0, NOT_LEADER, f"{verb} {path}: refused, this process does not hold the lease any more")
        seconds = timeout or self._call_seconds
        try:
            return await self._exchange(verb, method, resource, _url(path, query), body, content_type, seconds)
        except ApiError as error:
            if error.status != 401 or not await self._reload_credentials():
                raise
        return await self._exchange(verb, method, resource, _url(path, query), body, content_type, seconds)

    async def _exchange(
        self, verb: str, method: str, resource: Resource, url: str, body: Any, content_type: str, seconds: float
    ) -> dict[str, Any]:
        started, status = time.monotonic(), 0
        try:
            async with self._connection.request(
                method, url, timeout=aiohttp.ClientTimeout(total=seconds), body=body, content_type=content_type
            ) as response:
                status = response.status
                content = await response.read()
                retry_after = response.headers.get("Retry-After")
        except TimeoutError as error:
            raise ApiError(0, TIMEOUT, f"{verb} {url}: no answer in {seconds:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ApiError(0, UNREACHABLE, f"{verb} {url}: {error or type(error).__name__}") from error
        finally:
            self._note(verb, resource, status, started)
        if not 200 <= status < 300:
            raise error_from_answer(status, content, retry_after)
        parsed = json.loads(content)
        if not isinstance(parsed, dict):
            raise ApiError(status, "BadAnswer", f"{verb} {url}: the answer is not a JSON object")
        return parsed

    async def _reload_credentials(self) -> bool:
        """Read the credentials again, at most every 10 s. False when that was done only just now, to no avail."""
        asked = time.monotonic()
        async with self._reload_lock:
            if self._reloaded_at >= asked:  # another call reloaded while this one waited
                return True
            if asked - self._reloaded_at < 10:
                return False
            await self._connection.reload()
            self._reloaded_at = time.monotonic()
            return True

    def _note(self, verb: str, resource: Resource, status: int, started: float) -> None:
        if self._observe is not None:
            self._observe(verb, resource, status, time.monotonic() - started)


def _url(path: str, query: Mapping[str, str | None] | None) -> str:
    given = {name: value for name, value in (query or {}).items() if value}
    return f"{path}?{urlencode(given)}" if given else path


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Whole lines of any length: aiohttp's own line reader gives up at 4 MB, and a broken last line is no line."""
    rest = bytearray()
    async for chunk in response.content.iter_any():
        rest += chunk
        while (end := rest.find(b"\n")) >= 0:
            line = bytes(rest[:end])
            del rest[: end + 1]
            if line.strip():
                yield line
