"""Tells the gateway pods of the replicas, and what they answered as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..api.reasons import Reason
from ..cluster import Cache, Client
from ..rounds.reading import Subject
from ..status.observation import Finding
from ..telemetry.gateway import SyncResult, Worker
from .gateway import gateway_pods, gateway_token, missing_api_key
from .ports import Gateways
from .queue import Key


@dataclass(frozen=True, slots=True)
class Fed:
    """What came of telling the gateways. `serving`: pods that serve users. `rotation`: URLs that each of them sends
    requests to; `reachable`: URLs that any of them may send one to; None: not known. `in_flight`: requests by URL."""

    finding: Finding
    serving: int = 0
    rotation: frozenset[str] | None = None
    reachable: frozenset[str] | None = None
    in_flight: Mapping[str, int] = field(default_factory=dict)

    def may_send_to(self, url: str) -> bool:
        """Whether a new request may still reach this replica."""
        return self.reachable is None or url in self.reachable


UNFED = Fed(Finding("Unknown", Reason.GATEWAY_SYNC_FAILED, "not fed in this round"))


class GatewayFeeder:
    """Feeds the gateways of any R1Deployment."""

    def __init__(self, client: Client, cache: Cache, gateways: Gateways) -> None:
        self._client, self._cache, self._gateways = client, cache, gateways

    async def feed(self, key: Key, subject: Subject, workers: frozenset[str]) -> Fed:
        """Tell every running gateway pod of exactly these replicas."""
        pods, token = gateway_pods(self._cache, key, subject.metadata.uid), gateway_token(self._cache, key)
        if not pods or token is None:
            waiting = Finding("False", Reason.GATEWAY_STARTING, "no pod of the gateway runs yet")
            return Fed(waiting, 0, frozenset(), frozenset())  # nothing routes, so nothing has to leave a rotation
        result = await self._gateways.sync(list(pods), frozenset(map(Worker, workers)), token)
        missing = await missing_api_key(self._client, key[0], subject.spec) if subject.spec is not None else None
        fed = fed_of(result, pods)
        return fed if missing is None else Fed(missing, fed.serving, fed.rotation, fed.reachable, fed.in_flight)


def fed_of(result: SyncResult, pods: Mapping[str, bool]) -> Fed:
    """What the answers say. `pods`: address → whether it serves users. One that does not yet is no matter."""
    deaf = {address: failure.why for address, failure in result.failures.items() if pods[address]}
    if deaf:
        _, why = min(deaf.items())
        text = f"{len(deaf)} of {len(pods)} gateway pods could not be told of the replicas: {why}"
        return Fed(Finding("False", Reason.GATEWAY_SYNC_FAILED, text), sum(pods.values()))
    serving = [reports for address, reports in result.reports.items() if pods[address]]
    if not serving:
        waiting = Finding("False", Reason.GATEWAY_STARTING, f"none of {len(pods)} gateway pods is ready")
        return Fed(waiting, 0, frozenset(), frozenset())
    routing = [frozenset(r.url for r in reports if r.state == "Routing") for reports in serving]
    reachable = frozenset(r.url for reports in serving for r in reports if r.state in ("Routing", "Registering"))
    urls = {r.url for reports in serving for r in reports}
    return Fed(
        Finding("True", Reason.GATEWAY_READY, f"{len(serving)} gateway pods are ready"),
        len(serving),
        frozenset.intersection(*routing),
        reachable,
        {url: result.in_flight(url) for url in urls},
    )
