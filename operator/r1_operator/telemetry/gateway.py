"""Tells the gateway pods which replicas to route to, and learns from them when one is out of rotation."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp

from r1_operator.api.names import PORT_GATEWAY_ADMIN, host
from r1_operator.telemetry.http import Failure, ask_all, fetch_json

_STATES = ("Routing", "Unhealthy", "Draining", "Registering")

WorkerState = Literal["Routing", "Unhealthy", "Draining", "Registering"]
"""`Routing`: gets new requests. `Unhealthy`: known, gets none until it answers again. `Draining`: gets no new requests,
running ones go on. `Registering`: will get requests in a moment."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One replica as the gateway routes to it: `http://<address of node 0>:30000`."""

    url: str


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """One replica as one gateway pod sees it. `in_flight`: its requests that have not finished."""

    url: str
    state: WorkerState
    in_flight: int


@dataclass(frozen=True, slots=True)
class SyncResult:
    """What each gateway pod answered, by its address.

    `newer_epoch`: a pod has been told by an operator of this greater epoch and refused ours: either we lead no more, or
    our count was set back, and must be raised above it.
    """

    reports: dict[str, tuple[WorkerReport, ...]]
    failures: dict[str, Failure]
    newer_epoch: int | None = None
    asked: float | None = None
    """Seconds since somebody asked any pod and found that replicas sleep; None: nobody has."""

    @property
    def told(self) -> bool:
        """Every gateway pod knows exactly the wanted replicas."""
        return not self.failures

    def routed(self, url: str) -> bool:
        """True while a new request may reach the replica: some pod routes to it, or could not be asked."""
        return bool(self.failures) or any(
            report.url == url and report.state in ("Routing", "Registering")
            for reports in self.reports.values()
            for report in reports
        )

    def in_flight(self, url: str) -> int:
        """Requests that the gateway pods have running on the replica."""
        return sum(r.in_flight for reports in self.reports.values() for r in reports if r.url == url)


async def sync_workers(
    session: aiohttp.ClientSession,
    pod_ips: Collection[str],
    wanted: frozenset[Worker],
    *,
    token: str,
    epoch: int | None = None,
    retry_after: int | None = None,
    port: int = PORT_GATEWAY_ADMIN,
) -> SyncResult:
    """Make every gateway pod route to exactly `wanted`.

    Level-triggered and idempotent: call it again whenever anything changed, and every few seconds besides, because a
    pod that restarted knows nothing. When a pod has answered, a replica that is neither wanted nor `Routing` in its
    report gets no new request from it: what routes stays until a wanted one does, unless nothing is wanted.
    `token` is that of the gateway's Secret, `epoch` that of the operator's lease: pods refuse a smaller one than they
    have seen. `retry_after`: where replicas may sleep, in how many seconds one would be ready.
    Never raises for a gateway's fault; errors are in `failures`.
    """
    body: dict[str, Any] = {"workers": sorted(worker.url for worker in wanted)}
    if epoch is not None:
        body["epoch"] = epoch
    if retry_after is not None:
        body["retryAfterSeconds"] = retry_after
    asked: list[float] = []
    headers = {"Authorization": f"Bearer {token}"}

    async def tell(address: str) -> tuple[WorkerReport, ...] | Failure:
        url = f"http://{host(address)}:{port}/workers"
        answer = await fetch_json(session, "PUT", url, json=body, headers=headers)
        if isinstance(answer, Failure):
            return answer
        if isinstance(ago := answer.get("askedSecondsAgo"), int | float):
            asked.append(float(ago))
        return _reports(url, answer.get("workers"))

    answers = await ask_all(pod_ips, tell)
    failures = {address: answer for address, answer in answers.items() if isinstance(answer, Failure)}
    return SyncResult(
        {address: answer for address, answer in answers.items() if not isinstance(answer, Failure)},
        failures,
        max((seen for seen in map(_newer_epoch, failures.values()) if seen is not None), default=None),
        min(asked, default=None),
    )


def _newer_epoch(failure: Failure) -> int | None:
    if failure.status != 409:
        return None
    try:
        return int(json.loads(failure.text)["epoch"])
    except (ValueError, KeyError, TypeError):
        return None


def _reports(url: str, workers: object) -> tuple[WorkerReport, ...] | Failure:
    try:
        if not isinstance(workers, list):
            raise TypeError("no list of workers")
        reports = tuple(WorkerReport(str(w["url"]), w["state"], int(w["inFlight"])) for w in workers)
        if any(report.state not in _STATES for report in reports):
            raise ValueError("an unknown state")
    except (KeyError, TypeError, ValueError) as error:
        return Failure(f"PUT {url}: an answer of another version of the gateway: {error}")
    return reports
