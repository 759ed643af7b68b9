"""Forced fail-overs between processes that write all the time: no write of an earlier leader lands after a later one's.

`R1_SLOW=1` makes it a hundred.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
from contextlib import suppress

import pytest
from r1_operator.cluster import Client
from r1_operator.cluster.deadman import EXIT_LEASE_OVER
from r1_operator.cluster.resources import CONFIG_MAPS, LEASES

from tests.integration.cluster.apiserver import ApiServer

pytestmark = [pytest.mark.cluster, pytest.mark.asyncio(loop_scope="session")]

FAILOVERS = 100 if os.environ.get("R1_SLOW") else 4
WRITES_OF_A_TERM = 50
PATIENCE_SECONDS = 60


class Candidates:
    """Three processes that stand for one lease; each is brought back after what was done to it."""

    def __init__(self, api_server: ApiServer, client: Client, namespace: str) -> None:
        self._api_server, self._client, self._namespace = api_server, client, namespace
        self._processes: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, identity: str) -> None:
        self._processes[identity] = await asyncio.create_subprocess_exec(
            "setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "tests.integration.cluster.lease_writer",
            str(self._api_server.kubeconfig), self._namespace, identity,
        )  # fmt: skip

    async def leader(self, but: str = "") -> str:
        """Who leads, once it is somebody else than `but`."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                leases = (await self._client.list(LEASES, self._namespace)).items
                holder = leases[0]["spec"]["holderIdentity"] if leases else ""
                if holder not in ("", but):
                    return str(holder)
                await asyncio.sleep(0.05)

    async def overthrow(self, leader: str, how: signal.Signals) -> str:
        """→ the next leader."""
        process = self._processes[leader]
        process.send_signal(how)
        if how == signal.SIGSTOP:
            successor = await self.leader(but=leader)
            process.send_signal(signal.SIGCONT)
            assert await process.wait() == EXIT_LEASE_OVER
        else:
            await process.wait()
            successor = await self.leader(but=leader)
        await self.start(leader)
        return successor

    async def stop(self) -> None:
        for process in self._processes.values():
            with suppress(ProcessLookupError):  # one that failed by itself says more than that
                process.kill()
            await process.wait()


async def follow(client: Client, namespace: str, version: str, found: list[int]) -> None:
    """Puts down the epochs in the order in which the API server stored them."""
    query = {"resourceVersion": version, "fieldSelector": "metadata.name=stamp"}
    async with client.open_watch(CONFIG_MAPS, namespace, query, silence_seconds=PATIENCE_SECONDS) as lines:
        async for line in lines:
            found.append(int(json.loads(line)["object"]["data"]["epoch"]))


async def until_written(terms: int, found: list[int]) -> None:
    """Until leaders of so many terms have written, the last of them a good deal."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(set(found)) < terms or found.count(max(found)) < WRITES_OF_A_TERM:
            await asyncio.sleep(0.02)


@pytest.mark.timeout(1200)
async def test_epochs_of_what_is_written_never_go_back(api_server: ApiServer, client: Client, namespace: str) -> None:
    stamp = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": namespace, "name": "stamp"}}
    version = (await client.create(stamp))["metadata"]["resourceVersion"]
    candidates, found = Candidates(api_server, client, namespace), list[int]()
    following = asyncio.create_task(follow(client, namespace, version, found))
    try:
        for identity in "abc":
            await candidates.start(identity)
        leader = await candidates.leader()
        ways = itertools.cycle([signal.SIGTERM, signal.SIGSTOP, signal.SIGKILL])
        for done, how in zip(range(FAILOVERS), ways, strict=False):
            await until_written(done + 1, found)
            leader = await candidates.overthrow(leader, how)
        await until_written(FAILOVERS + 1, found)
    finally:
        following.cancel()
        await candidates.stop()
    print(f"{len(found)} writes in {len(set(found))} terms")
    assert found == sorted(found)
