"""Meets the controller's ports with r1_operator.telemetry."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import aiohttp

from ..api.types import CanaryQuestion
from ..autoscaling.window import ReplicaLoad
from ..telemetry.agent import AgentStatus, scrape_status
from ..telemetry.gateway import SyncResult, Worker, sync_workers
from ..telemetry.http import Failure, fetch_json
from ..telemetry.loads import EngineLoad, scrape_loads
from ..telemetry.metrics import Metrics
from .ports import AgentReading

ANSWER_SECONDS = 600.0
"""For one answer to a canary's question: a long chain of thought."""


class HttpEngines:
    """Engines by HTTP; failures are counted in the metrics."""

    def __init__(self, session: aiohttp.ClientSession, metrics: Metrics) -> None:
        self._session, self._metrics = session, metrics

    async def readings(self, addresses: Collection[str]) -> Mapping[str, AgentReading | Failure]:
        answers = await scrape_status(self._session, addresses)
        self._metrics.count_scrape_failures("agent", _failures(answers.values()))
        return {address: _reading(answer) for address, answer in answers.items()}

    async def loads(self, ranks: Mapping[str, int | None]) -> Mapping[str, ReplicaLoad | Failure]:
        expected = {address: count for address, count in ranks.items() if count is not None}
        answers = await scrape_loads(self._session, list(ranks), expected_ranks=expected)
        self._metrics.count_scrape_failures("loads", _failures(answers.values()))
        return {address: _load(answer) for address, answer in answers.items()}

    async def ask(self, url: str, key: str, model: str, question: CanaryQuestion) -> str | Failure:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": question.ask}],
            "temperature": 0,
            "max_tokens": question.max_tokens,
        }
        headers = {"Authorization": f"Bearer {key}"}
        where, timeout = f"{url}/v1/chat/completions", aiohttp.ClientTimeout(ANSWER_SECONDS)
        answer = await fetch_json(self._session, "POST", where, json=body, headers=headers, timeout=timeout)
        if isinstance(answer, Failure):
            return answer
        try:
            return str(answer["choices"][0]["message"].get("content") or "")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            return Failure(f"POST {where}: no chat completion: {type(error).__name__}: {error}")


class HttpGateways:
    """Gateways by their admin port."""

    def __init__(self, session: aiohttp.ClientSession, metrics: Metrics) -> None:
        self._session, self._metrics = session, metrics

    async def sync(
        self,
        addresses: Collection[str],
        wanted: frozenset[Worker],
        token: str,
        epoch: int | None = None,
        retry_after: int | None = None,
    ) -> SyncResult:
        result = await sync_workers(self._session, addresses, wanted, token=token, epoch=epoch, retry_after=retry_after)
        self._metrics.count_scrape_failures("gateway", len(result.failures))
        return result


def _failures(answers: Iterable[object]) -> int:
    return sum(1 for answer in answers if isinstance(answer, Failure))


def _reading(answer: AgentStatus | Failure) -> AgentReading | Failure:
    if isinstance(answer, Failure):
        return answer
    return AgentReading(
        answer.stage,
        answer.message,
        answer.start,
        answer.sick_gpus,
        answer.progress_at,
        answer.fabric,
        answer.served,
    )


def _load(answer: EngineLoad | Failure) -> ReplicaLoad | Failure:
    if isinstance(answer, Failure):
        return answer
    return ReplicaLoad(
        answer.kv_usage, answer.tokens_per_second, answer.running, answer.waiting, kv_usage_max=answer.kv_usage_max
    )
