"""The cache against a real API server: resume, relist after a 410, our own writes, what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from r1_operator.api.names import LABEL_MANAGED_BY, MANAGED_BY
from r1_operator.cluster import Cache, Change, Client, Interest
from r1_operator.cluster.resources import CONFIG_MAPS, PODS, SECRETS
from r1_operator.cluster.trim import trim_pod

from tests.integration.cluster.apiserver import ApiServer
from tests.waiting import PATIENCE_SECONDS

pytestmark = [pytest.mark.cluster, pytest.mark.asyncio(loop_scope="session")]

INTERESTS = (Interest(CONFIG_MAPS, f"{LABEL_MANAGED_BY}={MANAGED_BY}"), Interest(PODS, trim=trim_pod))


def config_map(namespace: str, name: str, **data: str) -> dict:
    labels = {LABEL_MANAGED_BY: MANAGED_BY}
    metadata = {"namespace": namespace, "name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


@asynccontextmanager
async def running(client: Client, namespace: str) -> AsyncIterator[tuple[Cache, list[Change]]]:
    cache, changes = Cache(client, INTERESTS, namespaces=[namespace]), []
    cache.subscribe(changes.append)
    task = asyncio.create_task(cache.run())
    try:
        await cache.wait_synced(PATIENCE_SECONDS)
        yield cache, changes
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def names(cache: Cache) -> list[str]:
    return [obj["metadata"]["name"] for obj in cache.snapshot(CONFIG_MAPS)]


async def test_follows_changes_and_tells_each_once(client: Client, namespace: str) -> None:
    async with running(client, namespace) as (cache, changes):
        await client.apply(config_map(namespace, "a", x="1"))
        await until(lambda: names(cache) == ["a"])
        await client.apply(config_map(namespace, "a", x="2"))
        await client.create({**config_map(namespace, "b"), "metadata": {"namespace": namespace, "name": "unlabelled"}})
        await client.delete(CONFIG_MAPS, namespace, "a")
        await until(lambda: names(cache) == [])
        assert [change.type for change in changes] == ["Added", "Modified", "Deleted"]
        assert changes[1].old["data"] == {"x": "1"}
        assert "managedFields" not in changes[1].new["metadata"]


async def test_a_listener_that_fails_does_not_stop_the_watch(client: Client, namespace: str) -> None:
    async with running(client, namespace) as (cache, _):
        cache.subscribe(lambda change: 1 / 0)
        for name in ("a", "b"):
            await client.apply(config_map(namespace, name))
        await until(lambda: names(cache) == ["a", "b"])


async def test_own_write_is_seen_at_once_and_not_undone_by_an_older_event(client: Client, namespace: str) -> None:
    async with running(client, namespace) as (cache, changes):
        older = await client.apply(config_map(namespace, "a", x="1"))
        newest = await client.apply(config_map(namespace, "a", x="2"))
        cache.remember(newest)
        cache.remember(older)
        assert cache.get(CONFIG_MAPS, namespace, "a")["data"] == {"x": "2"}
        await client.apply(config_map(namespace, "end"))
        await until(lambda: "end" in names(cache))
        assert cache.get(CONFIG_MAPS, namespace, "a")["data"] == {"x": "2"}
        assert changes[-1].new["metadata"]["name"] == "end"


async def test_resumes_after_a_restart_of_the_api_server(api_server: ApiServer, client: Client, namespace: str) -> None:
    async with running(client, namespace) as (cache, changes):
        await client.apply(config_map(namespace, "before"))
        await until(lambda: names(cache) == ["before"])
        api_server.kill()
        await api_server.start()
        await client.apply(config_map(namespace, "after"))
        await until(lambda: names(cache) == ["after", "before"])
        assert [change.type for change in changes] == ["Added", "Added"], "what was known is not told again"


async def test_lists_again_when_history_is_gone(api_server: ApiServer, client: Client, namespace: str) -> None:
    async with running(client, namespace) as (cache, changes):
        for name in ("stays", "goes"):
            await client.apply(config_map(namespace, name))
        await until(lambda: names(cache) == ["goes", "stays"])
        api_server.freeze()  # its watches stay open and silent while another one changes things
        api_server.kill()
        await api_server.start()
        await client.delete(CONFIG_MAPS, namespace, "goes")
        for index in range(3):
            secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": namespace, "name": f"s{index}"}}
            await client.create(secret)
        api_server.compact()
        api_server.kill()
        await api_server.start()
        await client.delete(SECRETS, namespace, "s0")
        await client.apply(config_map(namespace, "new"))
        await until(lambda: names(cache) == ["new", "stays"])
        assert [(change.type, change.obj["metadata"]["name"]) for change in changes] == [
            ("Added", "stays"),
            ("Added", "goes"),
            ("Deleted", "goes"),
            ("Added", "new"),
        ]


async def test_knows_how_old_its_knowledge_of_a_kind_is(api_server: ApiServer, client: Client, namespace: str) -> None:
    assert Cache(client, INTERESTS).age_seconds() == float("inf")
    async with running(client, namespace) as (cache, _):
        api_server.freeze()
        try:
            await until(lambda: min(cache.age_seconds(CONFIG_MAPS), cache.age_seconds(PODS)) > 0.5)
        finally:
            api_server.thaw()
        await client.apply(config_map(namespace, "news"))
        await until(lambda: cache.age_seconds(CONFIG_MAPS) < 0.5)
        assert cache.age_seconds() == pytest.approx(cache.age_seconds(PODS), abs=0.1)
        assert cache.age_seconds() > 0.5, "of the kind heard of least recently"
        with pytest.raises(KeyError, match="not watched"):
            cache.age_seconds(SECRETS)


async def test_two_namespaces_and_no_other(client: Client, namespace: str) -> None:
    other = f"{namespace}-2"
    await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other}})
    cache = Cache(client, (Interest(CONFIG_MAPS),), namespaces=[namespace, other])
    task = asyncio.create_task(cache.run())
    try:
        await cache.wait_synced(PATIENCE_SECONDS)
        for place in (namespace, other, "default"):
            await client.apply(config_map(place, "x"))
        await until(lambda: names(cache).count("x") == 2)
        assert cache.get(CONFIG_MAPS, other, "x")
        assert not cache.get(CONFIG_MAPS, "default", "x")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_keeps_little_of_a_strangers_pod(client: Client, namespace: str) -> None:
    container = {
        "name": "c",
        "image": "x",
        "command": ["sleep"],
        "resources": {"limits": {"nvidia.com/gpu": "8"}, "requests": {"cpu": "1"}},
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": "p"},
        "spec": {"nodeName": "n1", "containers": [container]},
    }
    async with running(client, namespace) as (cache, _):
        await client.create(pod)
        await until(lambda: len(cache.snapshot(PODS)) == 1)
        kept = cache.snapshot(PODS)[0]
        assert kept["spec"]["nodeName"] == "n1"
        assert kept["spec"]["containers"] == [
            {
                "name": "c",
                "resources": {"limits": {"nvidia.com/gpu": "8"}, "requests": {"cpu": "1", "nvidia.com/gpu": "8"}},
            }
        ]
