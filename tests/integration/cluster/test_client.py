"""The client against a real API server: apply, conflicts, status of the custom resource, preconditions, the guard."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from r1_operator.cluster import ApiError, Client, gone
from r1_operator.cluster.resources import CONFIG_MAPS, R1_DEPLOYMENTS

from tests.integration.cluster.apiserver import ApiServer

pytestmark = [pytest.mark.cluster, pytest.mark.asyncio(loop_scope="session")]


def config_map(namespace: str, name: str = "a", **data: str) -> dict:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": namespace, "name": name}, "data": data}


async def test_apply_removes_what_is_no_longer_given_and_keeps_what_others_own(client: Client, namespace: str) -> None:
    await client.apply(config_map(namespace, ours="1", dropped="1"))
    await client.patch_json(CONFIG_MAPS, namespace, "a", [{"op": "add", "path": "/data/theirs", "value": "x"}])
    # The patch went out under our own field manager by "Update", which server-side apply treats as somebody else.
    first = await client.apply(config_map(namespace, ours="2"))
    assert first["data"] == {"ours": "2", "theirs": "x"}
    second = await client.apply(config_map(namespace, ours="2"))
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"], "no change, no write"


async def test_apply_without_force_tells_who_owns_the_field(client: Client, namespace: str) -> None:
    await client.create(config_map(namespace, field="theirs"))
    with pytest.raises(ApiError) as raised:
        await client.apply(config_map(namespace, field="ours"), force=False)
    assert raised.value.conflict
    assert ".data.field" in raised.value.message
    assert (await client.apply(config_map(namespace, field="ours")))["data"] == {"field": "ours"}


async def test_status_is_applied_to_the_status_alone(client: Client, namespace: str, crd: None) -> None:
    made = await client.create(deployment(namespace))
    condition = {
        "type": "Ready",
        "status": "False",
        "reason": "Starting",
        "message": "1 of 2",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    await client.apply_status(namespace, "r1", {"readyReplicas": 1, "conditions": [condition]})
    after = await client.apply_status(namespace, "r1", {"replicas": 2})
    assert after["spec"] == made["spec"]
    assert after["metadata"]["generation"] == made["metadata"]["generation"]
    assert after["status"]["replicas"] == 2
    assert after["status"]["readyReplicas"] == 0, "a field no longer applied falls back to its default"
    assert "conditions" not in after["status"]
    with pytest.raises(ApiError) as raised:
        await client.apply_status(namespace, "gone", {"replicas": 1})
    assert raised.value.not_found, "a status makes no object"


async def test_merge_patch_works_on_a_custom_resource(client: Client, namespace: str, crd: None) -> None:
    await client.create(deployment(namespace))
    patched = await client.patch_merge(
        R1_DEPLOYMENTS, namespace, "r1", {"metadata": {"finalizers": ["r1operator.dev/drain"]}}
    )
    assert patched["metadata"]["finalizers"] == ["r1operator.dev/drain"]
    patched = await client.patch_merge(R1_DEPLOYMENTS, namespace, "r1", {"metadata": {"finalizers": None}})
    assert "finalizers" not in patched["metadata"]


async def test_refused_object_names_the_field(client: Client, namespace: str, crd: None) -> None:
    with pytest.raises(ApiError) as raised:
        await client.apply({**deployment(namespace), "spec": {"replicas": -1}})
    assert raised.value.invalid
    assert raised.value.reason == "Invalid"
    assert "spec.replicas" in raised.value.message


async def test_delete_honours_preconditions_and_tells_what_was_gone(client: Client, namespace: str) -> None:
    made = await client.create(config_map(namespace))
    changed = await client.apply(config_map(namespace, x="1"))
    with pytest.raises(ApiError) as raised:
        await client.delete(CONFIG_MAPS, namespace, "a", resource_version=made["metadata"]["resourceVersion"])
    assert raised.value.conflict
    assert await client.delete(CONFIG_MAPS, namespace, "a", uid=changed["metadata"]["uid"])
    assert not await client.delete(CONFIG_MAPS, namespace, "a")


async def test_list_reads_all_pages(client: Client, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1_operator.cluster.client.PAGE", 3)
    for index in range(8):
        await client.create(config_map(namespace, name=f"c{index}"))
    listing = await client.list(CONFIG_MAPS, namespace, fields="metadata.name!=c5")
    assert sorted(item["metadata"]["name"] for item in listing.items) == [f"c{i}" for i in range(8) if i != 5]
    assert {item["kind"] for item in listing.items} == {"ConfigMap"}


async def test_without_the_lease_writes_are_refused_and_reads_pass(client: Client, namespace: str) -> None:
    client.fence_writes(lambda: 0.0)
    with pytest.raises(ApiError) as raised:
        await client.create(config_map(namespace))
    assert raised.value.reason == "NotLeader"
    assert (await client.list(CONFIG_MAPS, namespace)).items == ()


async def test_a_fenced_write_tells_the_api_server_how_long_it_has(
    api_server: ApiServer, client: Client, namespace: str
) -> None:
    left = [10.0]
    client.fence_writes(lambda: left[0])
    made = await client.create(config_map(namespace))
    patched = await client.patch_merge(CONFIG_MAPS, namespace, "a", {"data": {"x": "1"}})
    applied = await client.apply(config_map(namespace, y="1"))
    assert applied["data"] == {"x": "1", "y": "1"}
    assert made["metadata"]["uid"] == patched["metadata"]["uid"]
    api_server.freeze_etcd()
    try:
        left[0] = 4.5  # of which half a second is the server's
        started = time.monotonic()
        with pytest.raises(ApiError) as raised:
            await client.patch_merge(CONFIG_MAPS, namespace, "a", {"data": {"x": "2"}})
        assert raised.value.status == 504, "the server gave up by itself, before the client did"
        assert time.monotonic() - started < 4
    finally:
        api_server.thaw_etcd()
    left[0] = 10.0
    assert await client.delete(CONFIG_MAPS, namespace, "a", uid=made["metadata"]["uid"])


async def test_a_write_for_another_object_is_a_conflict(client: Client, namespace: str, crd: None) -> None:
    made = await client.create(config_map(namespace))
    uid = made["metadata"]["uid"]
    assert (await client.apply(config_map(namespace, x="1"), uid=uid))["data"] == {"x": "1"}
    await client.delete(CONFIG_MAPS, namespace, "a")
    with pytest.raises(ApiError) as raised:
        await client.apply(config_map(namespace, x="2"), uid=uid)
    assert raised.value.conflict, "not made anew"
    await client.create(config_map(namespace))
    with pytest.raises(ApiError) as raised:
        await client.apply(config_map(namespace, x="2"), uid=uid)
    assert raised.value.conflict, "made anew by somebody else"

    resource = await client.create(deployment(namespace))
    version = resource["metadata"]["resourceVersion"]
    await client.apply_status(namespace, "r1", {"replicas": 1}, resource_version=version)
    with pytest.raises(ApiError) as raised:
        await client.apply_status(namespace, "r1", {"replicas": 2}, resource_version=version)
    assert raised.value.conflict, "it has changed since"


async def test_gone_is_asked_live_and_unknown_is_not_gone(
    api_server: ApiServer, client: Client, namespace: str
) -> None:
    await client.create(config_map(namespace))
    assert await gone(client, CONFIG_MAPS, namespace, "a") is False
    assert await gone(client, CONFIG_MAPS, namespace, "b") is True
    async with await api_server.client(call_seconds=0.3) as hasty:
        api_server.freeze()
        try:
            assert await gone(hasty, CONFIG_MAPS, namespace, "b") is None
        finally:
            api_server.thaw()


async def test_frozen_api_server_is_a_timeout_and_a_dead_one_unreachable(api_server: ApiServer, namespace: str) -> None:
    async with await api_server.client(call_seconds=5) as client:
        await client.list(CONFIG_MAPS, namespace)
        api_server.freeze()
        try:
            with pytest.raises(ApiError) as raised:
                await client.list(CONFIG_MAPS, namespace)
        finally:
            api_server.thaw()
        assert raised.value.reason == "Timeout"
        api_server.kill()
        try:
            with pytest.raises(ApiError) as raised:
                await client.list(CONFIG_MAPS, namespace)
        finally:
            await api_server.start()
        assert raised.value.reason == "Unreachable"


def deployment(namespace: str) -> dict:
    return {
        "apiVersion": "r1operator.dev/v1alpha1",
        "kind": "R1Deployment",
        "metadata": {"namespace": namespace, "name": "r1"},
        "spec": {
            "model": {"name": "r1-operator/tiny-r1", "weights": {"hostPath": {"path": "/models"}}},
            "hardware": "CPUx1",
        },
    }


async def test_rotated_credentials_are_read_again_without_a_restart(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    good = api_server.kubeconfig.read_text()
    kubeconfig = tmp_path / "kubeconfig"
    token = json.loads(good)["users"][0]["user"]["token"]
    kubeconfig.write_text(good.replace(token, "expired"))
    async with await Client.connect(str(kubeconfig)) as client:
        kubeconfig.write_text(good)
        assert (await client.list(CONFIG_MAPS, namespace)).items == ()


async def test_wrong_credentials_are_an_error_and_not_a_loop(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    good = api_server.kubeconfig.read_text()
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(good.replace(json.loads(good)["users"][0]["user"]["token"], "wrong"))
    calls: list[int] = []
    async with await Client.connect(str(kubeconfig), observe=lambda v, r, status, s: calls.append(status)) as client:
        for _ in range(2):
            with pytest.raises(ApiError) as raised:
                await client.list(CONFIG_MAPS, namespace)
            assert raised.value.status == 401
    assert calls == [401, 401, 401], "tried again once after reading the credentials, then not for a while"
