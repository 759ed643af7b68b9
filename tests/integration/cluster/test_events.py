"""Events against a real API server: counted instead of repeated, bounded, never in the way."""

from __future__ import annotations

import asyncio

import pytest
from r1_operator.cluster import Client, Events
from r1_operator.cluster.resources import EVENTS

pytestmark = [pytest.mark.cluster, pytest.mark.asyncio(loop_scope="session")]


async def test_repetitions_are_counted_and_variants_bounded(client: Client, namespace: str) -> None:
    now = [0.0]
    events = Events(client, "pod-0", clock=lambda: now[0])
    subject = {
        "apiVersion": "r1operator.dev/v1alpha1",
        "kind": "R1Deployment",
        "metadata": {"namespace": namespace, "name": "r1", "uid": "u-1"},
    }
    task = asyncio.create_task(events.run())
    try:
        for _ in range(3):
            events.emit(subject, "ScaledUp", "1 to 2 replicas: KV use 83% > 70%")
            await events.flush(60)
            now[0] += 31
        for index in range(50):
            events.emit(subject, "GangFailed", f"variant {index}", type="Warning")
        events.emit({"kind": "Broken"}, "NoMetadata", "is dropped, and said in the log")
        await events.flush(60)
    finally:
        task.cancel()
    found = (await client.list(EVENTS, namespace)).items
    scaled = [event for event in found if event["reason"] == "ScaledUp"]
    assert [(event["count"], event["type"]) for event in scaled] == [(3, "Normal")]
    assert scaled[0]["involvedObject"]["uid"] == "u-1"
    assert len([event for event in found if event["reason"] == "GangFailed"]) == 20


async def test_a_dead_api_server_costs_nobody_anything(api_server, namespace: str) -> None:
    async with await api_server.client(call_seconds=5) as client:
        events = Events(client, "pod-0")
        task = asyncio.create_task(events.run())
        subject = {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": "p"}}
        api_server.freeze()
        try:
            events.emit(subject, "Lost", "nobody will read this")
            await events.flush(60)
        finally:
            api_server.thaw()
        events.emit(subject, "Found", "and this is read")
        await events.flush(60)
        assert not task.done()
        task.cancel()
        reasons = [event["reason"] for event in (await client.list(EVENTS, namespace)).items]
        assert "Found" in reasons
