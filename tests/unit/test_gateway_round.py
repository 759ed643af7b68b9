"""What the controller learns of feeding the gateway, and what it says where the gateway does not come up."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from r1_operator.api.reasons import Reason
from r1_operator.controller.gateway import GatewayPods, GatewayRound, feed
from r1_operator.status.gateway_trouble import gateway_trouble
from r1_operator.telemetry.gateway import SyncResult, Worker, WorkerReport, WorkerState
from r1_operator.telemetry.http import Failure

KEY = ("n", "r1")
WANTED = frozenset({Worker("a"), Worker("b")})


class Told:
    """Gateway pods that answer what they were made with; None: not at all. Each has one request on each replica."""

    def __init__(self, **states: dict[str, WorkerState] | None) -> None:
        self._states = states

    async def sync(
        self,
        addresses: Collection[str],
        wanted: frozenset[Worker],
        token: str,
        epoch: int | None = None,
        retry_after: int | None = None,
    ) -> SyncResult:
        reports = {
            address: tuple(WorkerReport(url, state, 1) for url, state in states.items())
            for address in addresses
            if (states := self._states[address]) is not None
        }
        return SyncResult(reports, {address: Failure("deaf") for address in addresses if address not in reports})


async def fed(gateways: Told, **pods: bool) -> GatewayRound:
    return await feed(gateways, GatewayPods(pods), WANTED, "t")


async def test_a_replica_counts_as_routed_when_every_gateway_pod_that_serves_routes_to_it() -> None:
    gateways = Told(
        one={"a": "Routing", "b": "Unhealthy"}, two={"a": "Routing", "b": "Routing"}, starting={"a": "Registering"}
    )
    assert (await fed(gateways, one=True, two=True, starting=False)).routed == {"a"}
    assert (await fed(gateways, two=True, starting=False)).routed == {"a", "b"}
    assert (await fed(gateways, one=True, two=True)).in_flight == {"a": 2, "b": 2}
    for nobody in (await fed(gateways, starting=False), await fed(gateways)):
        assert (nobody.routed, nobody.serving_pods, nobody.finding.status) == (frozenset(), 0, "False")


async def test_an_old_replica_may_end_only_when_no_gateway_pod_sends_it_anything() -> None:
    gateways = Told(done={"a": "Routing", "old": "Draining"}, keeps={"old": "Routing", "a": "Registering"}, silent=None)
    assert not (await fed(gateways, done=True)).may_be_sent_to("old")
    assert (await fed(gateways, done=True, keeps=True)).may_be_sent_to("old")
    assert (await fed(gateways, done=True, keeps=False)).may_be_sent_to("old"), "it serves connections it has"
    assert not (await fed(gateways, done=True, silent=False)).may_be_sent_to("old")
    assert (await fed(gateways, done=True)).may_be_sent_to("b"), "a wanted one will be sent to in a moment"
    unknown = await fed(gateways, done=True, silent=True)
    assert unknown.may_be_sent_to("old")
    assert (unknown.routed, unknown.in_flight, unknown.serving_pods) == (None, None, 2), "unknown is not zero"


def pod(*, waiting: dict[str, Any] | None = None, conditions: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    container = {"name": "gateway", "image": "g:1", "state": {"waiting": waiting} if waiting else {}}
    return {
        "metadata": {"name": "r1-gateway-x"},
        "status": {"containerStatuses": [container], "conditions": conditions},
    }


def deployment(kind: str, status: str, message: str) -> dict[str, Any]:
    return {"status": {"conditions": [{"type": kind, "status": status, "message": message}]}}


@pytest.mark.parametrize(
    ("found", "pods", "words"),
    [
        (
            deployment("ReplicaFailure", "True", 'pods "r1-gateway-x" is forbidden: failed quota: q: must specify cpu'),
            [],
            ["failed quota: q: must specify cpu", "LimitRange"],
        ),
        (
            deployment("ReplicaFailure", "True", "pods is forbidden: exceeded quota: q, requested: pods=1"),
            [],
            ["exceeded quota: q", "raise it"],
        ),
        (None, [pod(waiting={"reason": "ImagePullBackOff"})], ["g:1", "spec.gateway.image"]),
        (None, [pod(waiting={"reason": "ErrImagePull", "message": "x"})], ["g:1", "spec.gateway.image"]),
        (
            None,
            [pod(waiting={"reason": "CreateContainerConfigError", "message": 'secret "keys" not found'})],
            ['secret "keys" not found', "spec.gateway.apiKeySecret"],
        ),
        (
            None,
            [pod(conditions=({"type": "PodScheduled", "status": "False", "message": "0/3 nodes: Insufficient cpu"},))],
            ["Insufficient cpu", "spec.gateway.replicas"],
        ),
        (deployment("Progressing", "False", "ReplicaSet has timed out progressing"), [pod()], ["timed out"]),
    ],
)
async def test_what_keeps_the_gateway_from_running_is_said_with_its_remedy(
    found: dict[str, Any] | None, pods: list[dict[str, Any]], words: list[str]
) -> None:
    trouble = gateway_trouble(found, pods)
    assert trouble is not None
    assert all(word in trouble for word in words), trouble
    nobody = await feed(Told(), GatewayPods({}, trouble), WANTED, "t")
    assert (nobody.finding.reason, nobody.finding.message) == (Reason.GATEWAY_BLOCKED, trouble)
    one_serves = await feed(Told(one={}), GatewayPods({"one": True}, trouble), WANTED, "t")
    assert one_serves.finding.status == "True"
    assert one_serves.trouble == trouble


def test_a_gateway_that_starts_or_runs_is_no_trouble() -> None:
    starting = pod(waiting={"reason": "ContainerCreating"})
    assert gateway_trouble(deployment("Progressing", "True", "creating"), [starting, pod()]) is None


@pytest.mark.parametrize("words", ['secret "keys" not found', "couldn't find key k in Secret n/keys"])
def test_a_users_secret_that_is_not_there_is_named_by_its_field(words: str) -> None:
    """The kubelet says so: the operator may read no Secret of the namespace."""
    trouble = gateway_trouble(None, [pod(waiting={"reason": "CreateContainerConfigError", "message": words})])
    assert trouble is not None
    assert words in trouble
    assert "spec.gateway.apiKeySecret" in trouble
    assert "create it" in trouble
