"""Users of one gateway without a pause between two questions: `python tests/campaigns/clients.py URL`.

A process of its own, because it runs in the cluster's network; so it imports nothing of this project. It says "ready"
once it is answered; then for each line on stdin it prints what came of the requests that ended since the line before,
as JSON; at the end of stdin it ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import aiohttp

Fault = Literal["turned away", "broken"]
ANSWER_SECONDS = 180.0
"""Longer than any operation may hold an answer up on a busy machine."""
FIRST_SECONDS = 120.0
"""For the first answer: kube-proxy hears of a pod a moment after it is ready."""
PAUSE_AFTER_LOSS_SECONDS = 0.02
RETRY_SECONDS = (0.5, 1.0)
SHORT, LONG = 5, 200
"""Tokens of an answer."""


@dataclass(frozen=True, slots=True)
class User:
    """`kept`: one connection for all requests, and two retries, after 0.5 and 1 s, where it is refused, or reset before
    the first byte of an answer, as OpenAI's SDKs do; others connect anew for each request and try nothing twice."""

    kept: bool
    streamed: bool
    tokens: int

    @property
    def kind(self) -> str:
        return "kept" if self.kept else "new"


USERS = (
    User(kept=False, streamed=True, tokens=SHORT),
    User(kept=False, streamed=False, tokens=SHORT),
    User(kept=True, streamed=True, tokens=SHORT),
    User(kept=True, streamed=False, tokens=SHORT),
    User(kept=True, streamed=True, tokens=LONG),
    User(kept=False, streamed=True, tokens=LONG),
)


@dataclass(frozen=True, slots=True)
class Loss:
    """A request that got no whole answer. `at`: time of day in UTC, for comparing with logs. `begun`: it was a stream,
    and the stream had begun."""

    kind: str
    fault: Fault
    told: str
    at: str
    begun: bool = False


@dataclass
class Tally:
    """What came of requests. `retried`: how often a user of the kept kind tried again. `oldest`: when the oldest one
    that nothing has come of yet was sent (Unix seconds); 0: there is none."""

    new: int = 0
    kept: int = 0
    retried: int = 0
    slowest: float = 0.0
    oldest: float = 0.0
    lost: list[Loss] = field(default_factory=list)

    @classmethod
    def from_json(cls, text: str) -> Tally:
        fields: dict[str, Any] = json.loads(text)
        return cls(**{**fields, "lost": [Loss(**each) for each in fields["lost"]]})

    def plus(self, later: Tally) -> Tally:
        """Both, one after the other."""
        return Tally(
            self.new + later.new,
            self.kept + later.kept,
            self.retried + later.retried,
            max(self.slowest, later.slowest),
            later.oldest,
            [*self.lost, *later.lost],
        )

    def answered(self, user: User, seconds: float) -> None:
        if user.kept:
            self.kept += 1
        else:
            self.new += 1
        self.slowest = max(self.slowest, round(seconds, 1))


class Lost(Exception):
    """No whole answer."""

    def __init__(self, fault: Fault, told: str, begun: bool = False) -> None:
        super().__init__(told)
        self.fault, self.begun = fault, begun


class Users:
    """Closed loops until `over`."""

    def __init__(self, base: str, model: str) -> None:
        self._url, self._model = f"{base}/v1/chat/completions", model
        self._over, self._tally = asyncio.Event(), Tally()
        self._sent: dict[User, float] = {}

    async def run(self, users: Sequence[User]) -> None:
        await self._first_answer()
        print("ready", flush=True)
        tasks = [asyncio.create_task(self._ask_on(user)) for user in users]
        while await asyncio.to_thread(sys.stdin.readline):
            tally, self._tally = self._tally, Tally()
            tally.oldest = min(self._sent.values(), default=0.0)
            print(json.dumps(asdict(tally)), flush=True)
        self._over.set()
        await asyncio.gather(*tasks)

    async def _first_answer(self) -> None:
        async with asyncio.timeout(FIRST_SECONDS):
            while True:
                async with _session(kept=False) as session:
                    try:
                        return await self._ask(session, User(False, False, SHORT))
                    except (Lost, aiohttp.ClientError):
                        await asyncio.sleep(0.2)

    async def _ask_on(self, user: User) -> None:
        async with _session(user.kept) as session:
            while not self._over.is_set():
                began, self._sent[user] = time.monotonic(), time.time()
                try:
                    await self._ask_as(session, user)
                    self._tally.answered(user, time.monotonic() - began)
                except (Lost, aiohttp.ClientError, TimeoutError) as error:
                    fault = error.fault if isinstance(error, Lost) else "broken"
                    what = f"{user.tokens} tokens {'streamed' if user.streamed else 'whole'}"
                    told = f"{what}, after {time.monotonic() - began:.2f} s: {error!r}"
                    at = datetime.now(UTC).isoformat(timespec="milliseconds")
                    begun = isinstance(error, Lost) and error.begun
                    self._tally.lost.append(Loss(user.kind, fault, told, at, begun))
                    await asyncio.sleep(PAUSE_AFTER_LOSS_SECONDS)

    async def _ask_as(self, session: aiohttp.ClientSession, user: User) -> None:
        for pause in RETRY_SECONDS if user.kept else ():
            try:
                await self._ask(session, user)
                return
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                self._tally.retried += 1
                await asyncio.sleep(pause)
        await self._ask(session, user)

    async def _ask(self, session: aiohttp.ClientSession, user: User) -> None:
        """Raises Lost, and aiohttp.ClientConnectionError where the connection ended before a byte of an answer."""
        # No two prompts alike, or all go to the replica that has seen them.
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": f"{uuid.uuid4()} What is 2 + 2?"}],
            "max_tokens": user.tokens,
            "ignore_eos": True,
            "stream": user.streamed,
        }
        async with session.post(self._url, json=body) as answer:
            try:
                if answer.status != 200:
                    raise Lost("turned away", f"{answer.status} {(await answer.text())[:200]}")
                choice = await _last_of_stream(answer) if user.streamed else (await answer.json())["choices"][0]
            except (aiohttp.ClientError, ValueError, LookupError, TypeError) as error:
                raise Lost("broken", f"midway: {error!r}", user.streamed) from error
            if choice["finish_reason"] not in ("stop", "length"):
                raise Lost("broken", f"not all of it: {choice}")


async def _last_of_stream(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    """The last choice of a stream that is whole."""
    last: dict[str, Any] = {"finish_reason": None}
    data = ""
    async for line in answer.content:
        if not line.startswith(b"data: "):
            continue
        data = line[6:].decode().strip()
        if data == "[DONE]":
            continue
        event = json.loads(data)
        if "error" in event:
            raise Lost("broken", data[:200], True)
        last = event["choices"][0] if event["choices"] else last
    if data != "[DONE]":
        raise Lost("broken", f"the stream ended without [DONE], after {data[:100]!r}", True)
    return last


def _session(kept: bool) -> aiohttp.ClientSession:
    """With a connection of its own."""
    connector = aiohttp.TCPConnector(limit=1, force_close=not kept)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="of the gateway, without /v1")
    parser.add_argument("--model", default="tiny-r1", help="its name (default: %(default)s)")
    options = parser.parse_args()
    asyncio.run(Users(options.url, options.model).run(USERS))


if __name__ == "__main__":
    main()
