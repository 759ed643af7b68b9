"""What was written to a cluster, by whom and when, from the API server's own audit log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.cluster.cluster import Cluster


@dataclass(frozen=True, slots=True)
class Write:
    """One request that changes an object, answered. Times are the API server's, in Unix seconds.

    verb: create, update, patch, delete or deletecollection. uid: the life of the object that a delete named, if it did.
    body: the request's, of leases and deletes alone.
    """

    received: float
    answered: float
    user: str
    agent: str
    verb: str
    resource: str
    namespace: str
    name: str
    subresource: str
    code: int
    uid: str
    body: dict[str, Any]

    @property
    def target(self) -> tuple[str, str, str]:
        return self.resource, self.namespace, self.name

    @property
    def accepted(self) -> bool:
        return 200 <= self.code < 300


def audit_writes(cluster: Cluster) -> list[Write]:
    """All writes so far, in the order in which they were answered. Events and the nodes' leases are not in the log."""
    return list(read_audit(cluster.paths.logs))


def read_audit(folder: Path) -> Iterator[Write]:
    """Of a cluster's log folder: files that were rotated away come first."""
    for file in [*sorted(folder.glob("audit-*.log")), folder / "audit.log"]:
        for line in file.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # the last line, while it is written
            if entry["stage"] == "ResponseComplete":
                yield _write(entry)


def _write(entry: dict[str, Any]) -> Write:
    target, body = entry.get("objectRef") or {}, entry.get("requestObject") or {}
    return Write(
        received=_seconds(entry["requestReceivedTimestamp"]),
        answered=_seconds(entry["stageTimestamp"]),
        user=entry["user"]["username"],
        agent=entry.get("userAgent", ""),
        verb=entry["verb"],
        resource=target.get("resource", ""),
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        subresource=target.get("subresource", ""),
        code=int((entry.get("responseStatus") or {}).get("code", 0)),
        uid=str((body.get("preconditions") or {}).get("uid", "")),
        body=body,
    )


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
