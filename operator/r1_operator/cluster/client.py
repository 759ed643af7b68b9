"""Calls to the Kubernetes API: get, list, create, apply, patch, delete. Thin; decisions live elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from r1_operator.api.names import FIELD_MANAGER
from r1_operator.cluster.calls import Call, Calls, Observer
from r1_operator.cluster.connection import DELIVERY_SECONDS, Connection
from r1_operator.cluster.errors import ApiError
from r1_operator.cluster.resources import R1_DEPLOYMENTS, JsonObject, Resource, key_of, resource_of

CALL_SECONDS = 10.0
PARALLEL_WRITES = 16
PAGE = 500  # objects per list answer, as client-go pages
_APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects of a kind at one version of the cluster."""

    items: tuple[dict[str, Any], ...]
    resource_version: str


class Client:
    """An asynchronous Kubernetes client for a handful of kinds.

    `observe` sees each call (metrics). At most `parallel_writes` writes are under way at a time; more wait.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        call_seconds: float = CALL_SECONDS,
        parallel_writes: int = PARALLEL_WRITES,
        observe: Observer | None = None,
    ) -> None:
        self._calls = Calls(connection, call_seconds=call_seconds, parallel_writes=parallel_writes, observe=observe)

    @classmethod
    async def connect(
        cls,
        kubeconfig: str | None = None,
        *,
        call_seconds: float = CALL_SECONDS,
        delivery_seconds: float = DELIVERY_SECONDS,
        observe: Observer | None = None,
    ) -> Client:
        """A client by the given kubeconfig, `KUBECONFIG`, the service account or `~/.kube/config`, in this order."""
        connection = await Connection.open(kubeconfig, delivery_seconds=delivery_seconds)
        return cls(connection, call_seconds=call_seconds, observe=observe)

    def fence_writes(self, write_seconds: Callable[[], float]) -> None:
        """Bound all writes but the Lease's by what `write_seconds()` says at the moment each is sent.

        Too little (0 without the lease): the write is refused with `ApiError(reason="NotLeader")`, so a deposed leader
        that was frozen in between cannot act.
        """
        self._calls.write_seconds = write_seconds

    async def settle(self, seconds: float) -> bool:
        """Wait until no write of ours can take effect any more. False when `seconds` do not suffice for that."""
        return await self._calls.settle(seconds)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._calls.close()

    async def get(
        self, resource: Resource, namespace: str | None, name: str, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """One object. Raises ApiError; `.not_found` when it does not exist."""
        return await self._calls.make(Call("get", "GET", resource, resource.path(namespace, name)), timeout)

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
            page = await self._calls.make(Call("list", "GET", resource, resource.path(namespace), query))
            for item in page.get("items") or ():
                items.append({"apiVersion": resource.api_version, "kind": resource.kind, **item})
            metadata = page.get("metadata") or {}
            query["continue"] = metadata.get("continue")
            if not query["continue"]:
                return Listing(tuple(items), str(metadata.get("resourceVersion", "")))

    async def create(self, obj: JsonObject, *, dry_run: bool = False) -> dict[str, Any]:
        """Create an object, or with `dry_run` only ask. Raises ApiError; `.already_exists` when the name is taken."""
        resource = resource_of(obj)
        namespace, _ = key_of(obj)
        query = {"fieldManager": FIELD_MANAGER} | ({"dryRun": "All"} if dry_run else {})
        return await self._calls.make(Call("create", "POST", resource, resource.path(namespace), query, obj))

    async def apply(self, obj: JsonObject, *, force: bool = True, uid: str | None = None) -> dict[str, Any]:
        """Server-side apply: our fields become as given, those we no longer give go away, the others' stay.

        `force` takes fields over that somebody else owns; without it that is an `ApiError` with `.conflict`. With `uid`
        it is a `.conflict`, too, when the object is another one by now, or none.
        """
        return await self._apply(resource_of(obj), obj, force=force, uid=uid)

    async def apply_status(
        self,
        namespace: str,
        name: str,
        status: JsonObject,
        *,
        resource_version: str | None = None,
    ) -> dict[str, Any]:
        """Server-side apply of an R1Deployment's whole status: what is no longer given goes, or back to its default.

        `resource_version`: of the object that the status was decided on. When it has changed since, or another one has
        its name, that is a `.conflict`: read again, decide again. (A uid the API server ignores here.)
        """
        body = {
            "apiVersion": R1_DEPLOYMENTS.api_version,
            "kind": R1_DEPLOYMENTS.kind,
            "metadata": {"namespace": namespace, "name": name},
            "status": status,
        }
        return await self._apply(
            R1_DEPLOYMENTS, body, force=True, resource_version=resource_version, subresource="status"
        )

    async def _apply(
        self,
        resource: Resource,
        obj: JsonObject,
        *,
        force: bool,
        uid: str | None = None,
        resource_version: str | None = None,
        subresource: str | None = None,
    ) -> dict[str, Any]:
        expected = {"uid": uid, "resourceVersion": resource_version}
        metadata = {**obj["metadata"], **{field: value for field, value in expected.items() if value}}
        query = {"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"}
        path = resource.path(*key_of(obj), subresource)
        call = Call("apply", "PATCH", resource, path, query, {**obj, "metadata": metadata}, _APPLY)
        try:
            return await self._calls.make(call)
        except ApiError as error:
            if uid and any(cause.get("field") == "metadata.uid" for cause in error.details.get("causes") or ()):
                # The API server calls that invalid (422); it is the precondition that does not hold.
                raise ApiError(409, "Conflict", error.message, details=error.details) from error
            raise

    async def update(self, obj: JsonObject, *, timeout: float | None = None) -> dict[str, Any]:
        """Replace an object; its resourceVersion makes a write by somebody else in between a conflict."""
        resource = resource_of(obj)
        return await self._calls.make(Call("update", "PUT", resource, resource.path(*key_of(obj)), body=obj), timeout)

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
        path, query = resource.path(namespace, name, subresource), {"fieldManager": FIELD_MANAGER}
        return await self._calls.make(
            Call("patch", "PATCH", resource, path, query, list(operations), "application/json-patch+json")
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
        path, query = resource.path(namespace, name, subresource), {"fieldManager": FIELD_MANAGER}
        return await self._calls.make(
            Call("patch", "PATCH", resource, path, query, body, "application/merge-patch+json")
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
            await self._calls.make(Call("delete", "DELETE", resource, resource.path(namespace, name), body=body))
        except ApiError as error:
            if error.not_found:
                return False
            raise
        return True

    def open_watch(
        self,
        resource: Resource,
        namespace: str | None,
        query: Mapping[str, str | None],
        *,
        silence_seconds: float,
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The lines of a watch, without any interpretation; `cluster.watch` makes sense of them."""
        return self._calls.open_watch(resource, namespace, query, silence_seconds=silence_seconds)


async def gone(client: Client, resource: Resource, namespace: str | None, name: str) -> bool | None:
    """Whether the API server itself says now that an object does not exist. None: it could not be asked.

    For what is decided on an object's absence: a copy may be old, and unknown is not gone.
    """
    try:
        await client.get(resource, namespace, name)
    except ApiError as error:
        return True if error.not_found else None
    return False
