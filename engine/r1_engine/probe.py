"""Talks to this gang's own SGLang server on node 0: is it open, one token of a DP rank, the loads of all ranks."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import aiohttp

from r1_engine.config import Settings
from r1_engine.gate import PROBE_HEADER
from r1_engine.health import loads_by_rank
from r1_engine.ray_group import bracketed


class EngineClient:
    """HTTP client of node 0's server. Every call returns None or False instead of raising when the server fails."""

    def __init__(self, settings: Settings, probe_key: str) -> None:
        self._base = f"http://{bracketed(settings.pod.ip)}:{settings.config.ports.http}"
        self._headers = {PROBE_HEADER.decode(): probe_key}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> EngineClient:
        self._session = aiohttp.ClientSession(self._base, headers=self._headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def is_open(self, seconds: float = 2.0) -> bool:
        """Whether the server itself answers, without any rank. It opens its port when all nodes have loaded weights."""
        return await self._get("/model_info", seconds) is not None

    async def loads(self) -> dict[int, tuple[int, tuple[float, ...]]] | None:
        document = await self._get("/v1/loads?include=core", 30)
        return None if document is None else loads_by_rank(document)

    async def token(self, rank: int, seconds: float) -> bool:
        """Whether DP rank `rank` generates one token within `seconds`."""
        body = {
            "input_ids": [1],
            "sampling_params": {"max_new_tokens": 1, "temperature": 0.0},
            "routed_dp_rank": rank,
            "log_metrics": False,
        }
        assert self._session is not None
        try:
            async with self._session.post("/generate", json=body, timeout=aiohttp.ClientTimeout(seconds)) as response:
                return response.status == 200 and "text" in await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return False

    async def _get(self, path: str, seconds: float) -> Any:
        assert self._session is not None
        try:
            async with self._session.get(path, timeout=aiohttp.ClientTimeout(seconds)) as response:
                return await response.json() if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None
