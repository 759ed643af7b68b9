"""Meets the controller's ports with r1_operator.telemetry."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import aiohttp

from ..api.names import PORT_ENGINE_AGENT, PORT_ENGINE_HTTP
from ..autoscaling.window import ReplicaLoad
from ..telemetry.gateway import SyncResult, Worker, sync_workers
from ..telemetry.http import Failure, ask_all, fetch_json, host
from .ports import AgentReading, Silent


class HttpEngines:
    """Engines by HTTP."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def readings(self, addresses: Collection[str]) -> Mapping[str, AgentReading | Silent]:
        async def ask(address: str) -> AgentReading | Silent:
            url = f"http://{host(address)}:{PORT_ENGINE_AGENT}/status"
            return _reading(url, await fetch_json(self._session, "GET", url))

        return await ask_all(addresses, ask)

    async def loads(self, addresses: Collection[str]) -> Mapping[str, ReplicaLoad | Silent]:
        async def ask(address: str) -> ReplicaLoad | Silent:
            url = f"http://{host(address)}:{PORT_ENGINE_HTTP}/v1/loads"
            return _load(url, await fetch_json(self._session, "GET", url))

        return await ask_all(addresses, ask)


class HttpGateways:
    """Gateways by their admin port."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def sync(self, addresses: Collection[str], wanted: frozenset[Worker], token: str) -> SyncResult:
        return await sync_workers(self._session, addresses, wanted, token=token)


def _reading(url: str, answer: Mapping[str, Any] | Failure) -> AgentReading | Silent:
    if isinstance(answer, Failure):
        return Silent(answer.why)
    try:
        timings = [float(t) for t in answer["timings"].values()] if answer["stage"] == "Ready" else []
        return AgentReading(str(answer["stage"]), str(answer["message"]), sum(timings) if timings else None)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return Silent(f"{url}: not an agent's status: {error!r}")


def _load(url: str, answer: Mapping[str, Any] | Failure) -> ReplicaLoad | Silent:
    if isinstance(answer, Failure):
        return Silent(answer.why)
    try:
        ranks = answer["loads"]
        return ReplicaLoad(
            kv_usage=sum(float(r["token_usage"]) for r in ranks) / len(ranks),
            tokens_per_second=sum(float(r["gen_throughput"]) for r in ranks),
            running=sum(int(r["num_running_reqs"]) for r in ranks),
            waiting=sum(int(r["num_waiting_reqs"]) for r in ranks),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        return Silent(f"{url}: not the load of an engine: {error!r}")
