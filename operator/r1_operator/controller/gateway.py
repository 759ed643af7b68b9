"""The gateway's step: its objects, and which replicas it may route to."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..api import names
from ..api.reasons import Reason
from ..api.types import R1DeploymentSpec
from ..cluster import ApiError, Cache, Client
from ..cluster.resources import PODS, SECRETS
from ..status.observation import Finding
from ..telemetry.gateway import Worker
from .ports import Gateways
from .queue import Key


@dataclass(frozen=True, slots=True)
class GatewayRound:
    """What came of feeding the gateway. `told`: no gateway pod that serves users routes to a replica not wanted.
    `routed`: how many replicas all gateway pods that serve users send requests to; None if they were not asked."""

    finding: Finding
    told: bool
    routed: int | None = None


async def missing_api_key(client: Client, namespace: str, spec: R1DeploymentSpec) -> Finding | None:
    """What is wrong with spec.gateway.apiKeySecret, or None. The gateway's pods cannot start without it."""
    wanted = spec.gateway.api_key_secret
    if wanted is None:
        return None
    field = "spec.gateway.apiKeySecret"
    try:
        secret = await client.get(SECRETS, namespace, wanted.name)
    except ApiError as error:
        if not error.not_found:
            raise
        message = f"{field}.name: there is no Secret {wanted.name!r} in namespace {namespace}; create it"
        return Finding("False", Reason.SECRET_NOT_FOUND, message)
    if wanted.key not in (secret.get("data") or {}):
        message = f"{field}.key: Secret {wanted.name!r} has no key {wanted.key!r}; add it or name another"
        return Finding("False", Reason.SECRET_NOT_FOUND, message)
    return None


def gateway_token(cache: Cache, key: Key) -> str | None:
    """The admin token of the gateway's pods, or None before its Secret exists."""
    secret = cache.get(SECRETS, key[0], names.gateway_name(key[1]))
    encoded = ((secret or {}).get("data") or {}).get(names.GATEWAY_TOKEN_KEY)
    return base64.b64decode(encoded).decode() if encoded else None


def gateway_pods(cache: Cache, key: Key, uid: str) -> dict[str, bool]:
    """Addresses of the gateway's running pods, and whether each is ready (serves users).

    `uid`: the R1Deployment's. A pod that is left of a predecessor serves that one's last requests, with its token.
    """
    pods: dict[str, bool] = {}
    for pod in cache.snapshot(PODS, key[0], names.base_labels(key[1], names.COMPONENT_GATEWAY)):
        if (pod["metadata"].get("annotations") or {}).get(names.ANNOTATION_OWNER_UID, uid) != uid:
            continue
        status: Mapping[str, Any] = pod.get("status") or {}
        if status.get("phase") == "Running" and status.get("podIP"):
            ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or [])
            pods[status["podIP"]] = ready
    return pods


async def feed(
    gateways: Gateways, pods: Mapping[str, bool], wanted: frozenset[Worker], token: str | None
) -> GatewayRound:
    """Tell every running gateway pod which replicas to route to."""
    if not pods or token is None:
        waiting = Finding("False", Reason.GATEWAY_STARTING, "no pod of the gateway runs yet")
        return GatewayRound(waiting, True)  # it routes nothing, so nothing has to leave its rotation
    result = await gateways.sync(list(pods), wanted, token)
    deaf = {address: failure.why for address, failure in result.failures.items() if pods[address]}
    if deaf:
        _, why = min(deaf.items())
        text = f"{len(deaf)} of {len(pods)} gateway pods could not be told of the replicas: {why}"
        return GatewayRound(Finding("False", Reason.GATEWAY_SYNC_FAILED, text), False)
    ready = sum(pods.values())
    if ready == 0:
        return GatewayRound(
            Finding("False", Reason.GATEWAY_STARTING, f"none of {len(pods)} gateway pods is ready"), True
        )
    serving = [reports for address, reports in result.reports.items() if pods[address]]
    routing = [{report.url for report in reports if report.state == "Routing"} for reports in serving]
    routed = {worker.url for worker in wanted}.intersection(*routing)
    return GatewayRound(Finding("True", Reason.GATEWAY_READY, f"{ready} gateway pods are ready"), True, len(routed))
