"""One streamed chat completion, timed as a client sees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from r1_bench.statistics import Failure, Record
from r1_bench.workload import Planned, Prompt

MESSAGE_LIMIT = 160  # characters of a server's error message that a report keeps


@dataclass(frozen=True)
class Target:
    """Where and how to send. `url` without /v1; `timeout` in seconds for a whole request."""

    url: str
    model: str
    api_key: str | None = None
    timeout: float = 600.0
    temperature: float | None = None
    max_tokens: int | None = None
    ignore_eos: bool = False

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}


class EndpointError(Exception):
    """The endpoint cannot be used at all; the message says why and what to do."""


@dataclass
class _Stream:
    """What one stream brought so far."""

    clock: Callable[[], float]
    first_thought: float | None = None
    first_answer: float | None = None
    token_times: list[float] = field(default_factory=list)
    thought_pieces: int = 0
    usage: Mapping[str, Any] | None = None
    finish: str | None = None
    done: bool = False

    def take(self, data: str) -> Failure | None:
        """Account for one server-sent event; a failure if it is an error event."""
        if data == "[DONE]":
            self.done = True
            return None
        event = json.loads(data)
        if "error" in event or event.get("object") == "error":
            return Failure("cut", _message(event))
        self.usage = event.get("usage") or self.usage
        for choice in event.get("choices") or ():
            self._delta(choice.get("delta") or {})
            self.finish = choice.get("finish_reason") or self.finish
        return None

    def _delta(self, delta: Mapping[str, Any]) -> None:
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        answer = delta.get("content")
        if not thought and not answer:
            return
        now = self.clock()
        self.token_times.append(now)
        if thought:
            self.thought_pieces += 1
            self.first_thought = now if self.first_thought is None else self.first_thought
        if answer and (answer.strip() or self.first_answer is not None):
            self.first_answer = now if self.first_answer is None else self.first_answer


def request_body(target: Target, prompt: Prompt) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": target.model,
        "messages": [{"role": role, "content": content} for role, content in prompt.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    limit = target.max_tokens if target.max_tokens is not None else prompt.max_tokens
    if limit is not None:
        body["max_tokens"] = limit
    if target.temperature is not None:
        body["temperature"] = target.temperature
    if target.ignore_eos:
        body["ignore_eos"] = True
    return body


async def send(session: aiohttp.ClientSession, target: Target, planned: Planned, clock: Callable[[], float]) -> Record:
    """Send one request and read its stream to the end. Never raises for what the server does; that is in the record."""
    sent = clock()
    stream = _Stream(clock)
    failure: Failure | None
    try:
        async with asyncio.timeout(target.timeout):
            failure = await _exchange(session, target, planned.prompt, stream)
    except TimeoutError:
        failure = Failure("timeout", f"not finished after {target.timeout:g} s")
    except aiohttp.ClientConnectorError as error:
        failure = Failure("connect", str(error.os_error.strerror or error.os_error))
    except (aiohttp.ClientError, ConnectionError) as error:
        failure = Failure("cut" if stream.token_times else "connect", type(error).__name__)
    except ValueError as error:
        failure = Failure("protocol", f"unreadable event: {error}"[:MESSAGE_LIMIT])
    return _record(planned, sent, clock(), stream, failure)


async def _exchange(session: aiohttp.ClientSession, target: Target, prompt: Prompt, stream: _Stream) -> Failure | None:
    body = request_body(target, prompt)
    async with session.post(f"{target.url}/v1/chat/completions", json=body, headers=target.headers()) as answer:
        if answer.status != 200:
            return Failure("status", f"{answer.status} {_text_message(await answer.text())}".strip())
        async for data in events(answer.content):
            failure = stream.take(data)
            if failure is not None:
                return failure
    return None if stream.done else Failure("cut", "the stream ended without [DONE]")


async def events(content: aiohttp.StreamReader) -> AsyncIterator[str]:
    """The data of server-sent events, one at a time."""
    lines: list[str] = []
    async for raw in content:
        line = raw.decode("utf-8").rstrip("\r\n")
        if line.startswith("data:"):
            lines.append(line[5:].removeprefix(" "))
        elif not line and lines:
            yield "\n".join(lines)
            lines = []
    if lines:
        yield "\n".join(lines)


def _record(planned: Planned, sent: float, ended: float, stream: _Stream, failure: Failure | None) -> Record:
    usage = stream.usage or {}
    details = usage.get("completion_tokens_details") or {}
    thought = usage.get("reasoning_tokens") or details.get("reasoning_tokens") or stream.thought_pieces
    return Record(
        index=planned.index,
        intended=sent if planned.at is None else planned.at,
        sent=sent,
        ended=ended,
        first_thought=stream.first_thought,
        first_answer=stream.first_answer,
        token_times=tuple(stream.token_times),
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        output_tokens=int(usage.get("completion_tokens") or len(stream.token_times)),
        thought_tokens=int(thought),
        counted=stream.usage is not None,
        finish=stream.finish,
        failure=failure,
    )


async def find_model(session: aiohttp.ClientSession, url: str, api_key: str | None, wanted: str | None) -> str:
    """The model to ask for, after checking that the endpoint answers. Raises EndpointError."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        async with session.get(f"{url}/v1/models", headers=headers, timeout=aiohttp.ClientTimeout(10)) as answer:
            status, text = answer.status, await answer.text()
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise EndpointError(f"{url} does not answer ({error or type(error).__name__}); check --url") from error
    if status in (401, 403):
        raise EndpointError(f"{url} answers {status}: pass its API key with --api-key or in R1_API_KEY")
    if status == 503:
        raise EndpointError(f"{url} answers 503: no replica is ready ({_text_message(text)}); wait and try again")
    if wanted:
        return wanted
    try:
        names = [entry["id"] for entry in json.loads(text)["data"]] if status == 200 else []
    except (ValueError, KeyError, TypeError):
        names = []
    if len(names) != 1:
        listed = ", ".join(names) or f"none, status {status}"
        raise EndpointError(f"{url}/v1/models names {len(names)} models ({listed}); choose one with --model")
    return str(names[0])


def _text_message(text: str) -> str:
    try:
        return _message(json.loads(text))
    except ValueError:
        return " ".join(text.split())[:MESSAGE_LIMIT]


def _message(document: Any) -> str:
    """The message of an error body, in OpenAI's or SGLang's form."""
    error = document.get("error", document) if isinstance(document, dict) else document
    message = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(message).split())[:MESSAGE_LIMIT]
