from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from r1_operator.api.crd import custom_resource_definition
from r1_operator.cluster import ApiError, Client
from r1_operator.cluster.resources import R1_DEPLOYMENTS

from tests.integration.cluster.apiserver import ApiServer, find_programs
from tests.waiting import PATIENCE_SECONDS


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def api_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ApiServer]:
    server = ApiServer(tmp_path_factory.mktemp("apiserver"), await asyncio.to_thread(find_programs))
    try:
        await server.start()
        yield server
    finally:
        server.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def client(api_server: ApiServer) -> AsyncIterator[Client]:
    async with await api_server.client() as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def namespace(client: Client) -> str:
    """A namespace of the test's own."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def crd(api_server: ApiServer) -> None:
    """The custom resource is served."""
    async with await api_server.client() as client:
        await client.apply(custom_resource_definition())
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                await client.list(R1_DEPLOYMENTS)
                return
            except ApiError as error:
                if not error.not_found or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)
