"""What the cluster package makes of objects and answers, without a cluster."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from unittest.mock import AsyncMock

import pytest
from r1_operator.cluster import ApiError, Events, Lease, resource_of
from r1_operator.cluster.errors import NOT_LEADER, error_from_answer
from r1_operator.cluster.resources import KNOWN, NODES, PODS, R1_DEPLOYMENTS
from r1_operator.cluster.trim import trim_node, trim_pod


def test_paths() -> None:
    assert PODS.path("ns", "p") == "/api/v1/namespaces/ns/pods/p"
    assert PODS.path() == "/api/v1/pods"
    assert NODES.path(None, "n1") == "/api/v1/nodes/n1"
    assert R1_DEPLOYMENTS.path("ns", "r1", "status") == (
        "/apis/r1operator.dev/v1alpha1/namespaces/ns/r1deployments/r1/status"
    )
    with pytest.raises(ValueError, match="needs its namespace"):
        PODS.path(None, "p")
    for resource in KNOWN:
        assert resource_of({"apiVersion": resource.api_version, "kind": resource.kind}) is resource
    with pytest.raises(ValueError, match="Job"):
        resource_of({"apiVersion": "batch/v1", "kind": "Job"})


@pytest.mark.parametrize(
    ("status", "body", "kinds"),
    [
        (404, {"reason": "NotFound", "message": "m"}, {"not_found"}),
        (409, {"reason": "AlreadyExists", "message": "m"}, {"already_exists"}),
        (409, {"reason": "Conflict", "message": "m"}, {"conflict"}),
        (422, {"reason": "Invalid", "message": "m"}, {"invalid"}),
        (410, {"reason": "Expired", "message": "m"}, {"expired"}),
        (429, {"reason": "TooManyRequests", "message": "m", "details": {"retryAfterSeconds": 7}}, {"transient"}),
        (502, None, {"transient"}),
    ],
)
def test_kinds_of_errors(status: int, body: dict | None, kinds: set[str]) -> None:
    error = error_from_answer(status, json.dumps(body).encode() if body else b"<html>Bad Gateway</html>")
    all_kinds = ("not_found", "already_exists", "conflict", "invalid", "expired", "transient")
    assert {kind for kind in all_kinds if getattr(error, kind)} == kinds
    assert error.retry_after == (7.0 if status == 429 else None)
    assert error.message == ("m" if body else "<html>Bad Gateway</html>")


def test_unanswered_calls_are_transient() -> None:
    assert ApiError(0, "Timeout", "m").transient


def test_a_nodes_heartbeat_and_images_leave_no_trace() -> None:
    def node(heartbeat: str) -> dict:
        condition = {"type": "Ready", "status": "True", "lastHeartbeatTime": heartbeat}
        status = {"conditions": [condition], "images": [{"names": ["x"]}], "allocatable": {"nvidia.com/gpu": "8"}}
        return {"metadata": {"name": "n", "resourceVersion": "1", "managedFields": [1]}, "status": status}

    assert trim_node(node("1")) == trim_node(node("2"))
    assert trim_node(node("1"))["status"]["allocatable"] == {"nvidia.com/gpu": "8"}
    assert "images" not in trim_node(node("1"))["status"]


def test_our_own_pod_stays_whole() -> None:
    labels = {"app.kubernetes.io/managed-by": "r1-operator"}
    spec = {"containers": [{"name": "engine", "command": ["python"]}]}
    pod = {
        "metadata": {"name": "p", "labels": labels, "managedFields": [1]},
        "spec": spec,
        "status": {"podIP": "1.2.3.4"},
    }
    trimmed = trim_pod(pod)
    assert trimmed["spec"] == pod["spec"]
    assert trimmed["status"] == pod["status"]
    assert "managedFields" not in trimmed["metadata"]
    assert "command" not in trim_pod({**pod, "metadata": {"name": "p"}})["spec"]["containers"][0]


def test_a_strangers_pod_keeps_its_owners() -> None:
    """By them alone a pod that carries a label of ours is told from one of ours."""
    owner = {"kind": "ReplicaSet", "name": "x", "uid": "u", "apiVersion": "apps/v1", "controller": True}
    kept = trim_pod({"metadata": {"name": "p", "ownerReferences": [owner], "annotations": {"a": "b"}}})
    assert kept["metadata"] == {"name": "p", "ownerReferences": [owner]}


class Board:
    """Stands in for the client: the events that were made."""

    def __init__(self) -> None:
        self.made: list[dict] = []

    async def create(self, event: dict) -> dict:
        self.made.append(event)
        return event


async def test_a_fleet_that_becomes_ready_is_told_whole_and_one_replica_cannot_flood() -> None:
    board, now = Board(), [0.0]
    events = Events(board, "pod-0", clock=lambda: now[0])  # type: ignore[arg-type]
    task = asyncio.create_task(events.run())
    subject = {"apiVersion": "v1", "kind": "R1Deployment", "metadata": {"namespace": "ns", "name": "r1", "uid": "u"}}
    for replica in range(400):
        events.emit(subject, "ReplicaReady", f"r1-{replica}-0 on n{replica} serves")
    for attempt in range(100):
        events.emit(subject, "GangFailed", f"r1-7-{attempt}: exit code 1", type="Warning")
        events.emit(subject, "GangFailed", f"{attempt} of 400 pods", type="Warning")
    await events.flush(30)
    told = Counter(event["reason"] for event in board.made)
    assert told == {"ReplicaReady": 400, "GangFailed": 20 + 20}
    now[0] += 601
    events.emit(subject, "GangFailed", "r1-7-100: exit code 1", type="Warning")
    await events.flush(30)
    assert len(board.made) == 441, "after a while it is news again"
    assert len(events._seen) == len(events._variants) == 1
    task.cancel()


async def test_an_event_is_tried_again_until_it_has_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1_operator.cluster.events._PAUSES", (0.0, 0.0, 0.0))
    subject = {"apiVersion": "v1", "kind": "R1Deployment", "metadata": {"namespace": "ns", "name": "r1", "uid": "u"}}
    silent, busy = ApiError(0, "Timeout", "no answer"), ApiError(429, "TooManyRequests", "later")
    for answers, tries in (
        ([silent, busy, None], 3),
        ([silent, ApiError(409, "AlreadyExists", "the first try had arrived")], 2),
        ([ApiError(403, "Forbidden", "the namespace is going")], 1),
        ([ApiError(0, NOT_LEADER, "another leads")], 1),
        ([silent] * 4, 4),
    ):
        client = AsyncMock()
        client.create.side_effect = [*answers, None]
        events = Events(client, "pod-0")
        task = asyncio.create_task(events.run())
        events.emit(subject, "GangFailed", "r1-0-0: exit code 1", type="Warning")
        await events.flush(30)
        assert client.create.await_count == tries, answers
        assert len({call.args[0]["metadata"]["name"] for call in client.create.await_args_list}) == 1
        events.emit(subject, "Ready", "and it goes on")
        await events.flush(30)
        assert not task.done()
        task.cancel()


def test_lease_times_that_allow_two_leaders_are_refused() -> None:
    with pytest.raises(ValueError, match="two could lead"):
        Lease(None, "ns", "l", "a", lease_seconds=10, deadline_seconds=10)  # type: ignore[arg-type]
