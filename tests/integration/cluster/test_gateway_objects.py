"""The gateway's objects pass the API server, and once applied nothing differs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from r1_operator.cluster import Client, resource_of
from r1_operator.manifests.differs import differs
from r1_operator.manifests.engine_secret import engine_secret
from r1_operator.manifests.gateway import gateway_objects

from tests.unit.test_gateway_manifests import context

pytestmark = [pytest.mark.cluster, pytest.mark.asyncio(loop_scope="session")]


async def test_applied_objects_differ_no_more(client: Client, namespace: str) -> None:
    base = context(apiKeySecret={"name": "keys", "key": "k"}, replicas=2)
    here = replace(base, namespace=namespace)
    for obj in [engine_secret(here), *gateway_objects(here, frozenset({"http://10.0.0.1:30000"}))]:
        await client.apply(obj)
        live = await client.get(resource_of(obj), namespace, obj["metadata"]["name"])
        assert not differs(obj, live), obj["kind"]
