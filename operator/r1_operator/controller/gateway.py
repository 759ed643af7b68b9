"""The gateway's step: which replicas its pods are told of, and what they answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..api import names
from ..api.reasons import Reason
from ..cluster.resources import JsonObject
from ..status.gateway_trouble import gateway_trouble
from ..status.observation import Finding
from ..telemetry.gateway import SyncResult, Worker
from .ports import Gateways


@dataclass(frozen=True, slots=True)
class GatewayPods:
    """The gateway's pods. `running`: address → ready, that is, serves users. `trouble`: what keeps others from it."""

    running: Mapping[str, bool] = field(default_factory=dict)
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class GatewayRound:
    """What came of feeding the gateway, by replicas' URLs. None is unknown: a pod that serves could not be asked.

    `serving_pods`: gateway pods that serve users; with none, nothing is routed and no user's request can be lost.
    `routed`: what every pod that serves sends requests to. `sending`: what any pod may still send new requests to,
    wanted or not: a pod keeps an unwanted one until a wanted one routes. `in_flight`: requests on the way, as long as
    the routers list the replica: wanted ones, and others for 5 s.
    `trouble`: why some pods do not come up, also while others serve. `newer_epoch`, `asked`: see SyncResult.
    """

    finding: Finding
    serving_pods: int = 0
    routed: frozenset[str] | None = None
    sending: frozenset[str] | None = None
    in_flight: Mapping[str, int] | None = None
    trouble: str | None = None
    newer_epoch: int | None = None
    asked: float | None = None

    def may_be_sent_to(self, url: str) -> bool:
        """False once no gateway pod sends a new request to this replica: only then may its engine drain."""
        return self.sending is None or url in self.sending


NOT_FED = GatewayRound(Finding("Unknown", Reason.GATEWAY_SYNC_FAILED, "not fed in this round"))


def gateway_pods(pods: Iterable[JsonObject], deployment: JsonObject | None, uid: str) -> GatewayPods:
    """The gateway's pods of the R1Deployment with this `uid`, among those that carry its name.

    A pod that is left of a predecessor serves that one's last requests, with its token.
    """
    ours = [pod for pod in pods if pod["metadata"]["labels"].get(names.LABEL_OWNER) == uid]
    return GatewayPods(dict(filter(None, map(_running, ours))), gateway_trouble(deployment, ours))


def _running(pod: JsonObject) -> tuple[str, bool] | None:
    status: Mapping[str, Any] = pod.get("status") or {}
    if status.get("phase") != "Running" or not status.get("podIP"):
        return None
    return status["podIP"], any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or [])


async def feed(
    gateways: Gateways,
    pods: GatewayPods,
    wanted: frozenset[Worker],
    token: str,
    epoch: int | None = None,
    retry_after: int | None = None,
) -> GatewayRound:
    """Tell every running gateway pod which replicas to route to."""
    if not pods.running:
        return _round(pods, wanted, SyncResult({}, {}))
    return _round(pods, wanted, await gateways.sync(list(pods.running), wanted, token, epoch, retry_after))


def _round(pods: GatewayPods, wanted: frozenset[Worker], result: SyncResult) -> GatewayRound:
    serving = {address for address, ready in pods.running.items() if ready}
    deaf = sorted(serving & result.failures.keys())
    if deaf or serving - result.reports.keys():
        why = result.failures[deaf[0]].why if deaf else "it was not asked"
        text = (
            f"{len(deaf) or len(serving)} of {len(pods.running)} gateway pods could not be told of the replicas: {why}"
        )
        finding = Finding("False", Reason.GATEWAY_SYNC_FAILED, text)
        return GatewayRound(
            finding, len(serving), trouble=pods.trouble, newer_epoch=result.newer_epoch, asked=result.asked
        )
    # A pod that is not ready counts where it answers: one that terminates still serves connections it has.
    routing = {
        address: {report.url for report in reports if report.state == "Routing"}
        for address, reports in result.reports.items()
    }
    urls = frozenset(worker.url for worker in wanted)
    in_flight = {report.url: 0 for reports in result.reports.values() for report in reports}
    return GatewayRound(
        _finding(pods, len(serving)),
        len(serving),
        routed=urls.intersection(*(routing[address] for address in serving)) if serving else frozenset(),
        sending=frozenset().union(*routing.values(), urls if routing else ()),
        in_flight={url: result.in_flight(url) for url in in_flight},
        trouble=pods.trouble,
        newer_epoch=result.newer_epoch,
        asked=result.asked,
    )


def _finding(pods: GatewayPods, serving: int) -> Finding:
    if serving:
        rest = f"; another is not: {pods.trouble}" if pods.trouble else ""
        return Finding("True", Reason.GATEWAY_READY, f"{serving} gateway pods are ready{rest}")
    if pods.trouble:
        return Finding("False", Reason.GATEWAY_BLOCKED, pods.trouble)
    if pods.running:
        return Finding("False", Reason.GATEWAY_STARTING, f"none of {len(pods.running)} gateway pods is ready")
    return Finding("False", Reason.GATEWAY_STARTING, "no pod of the gateway runs yet")
