"""Answers of pods by HTTP, with errors as values: a replica that does not answer is news, not an exception."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp

Answer = TypeVar("Answer")
PROBE_SECONDS = 2.0
PARALLEL = 32
"""Pods asked at the same time: enough for a large fleet within a period, few enough for the memory."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer, in words for a status message; `status` and `text` of one that was no 200."""

    why: str
    status: int | None = None
    text: str = ""


def open_session() -> aiohttp.ClientSession:
    """A session for scraping: short time-outs, no proxy from the environment (pods are near)."""
    timeout = aiohttp.ClientTimeout(total=PROBE_SECONDS, sock_connect=1.0)
    return aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=15))


async def fetch_json(
    session: aiohttp.ClientSession, method: str, url: str, **options: Any
) -> Mapping[str, Any] | Failure:
    """The JSON object of a 200 answer."""
    try:
        async with session.request(method, url, **options) as response:
            if response.status != 200:
                text = (await response.text())[:200].strip()
                why = f"{method} {url}: status {response.status}{': ' if text else ''}{text}"
                return Failure(why, response.status, text)
            parsed = await response.json(content_type=None)
    except TimeoutError:
        return Failure(f"{method} {url}: no answer in time")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Failure(f"{method} {url}: {error or type(error).__name__}")
    return parsed if isinstance(parsed, dict) else Failure(f"{method} {url}: the answer is not a JSON object")


async def fetch_text(session: aiohttp.ClientSession, url: str) -> str | Failure:
    """The text of a 200 answer."""
    try:
        async with session.get(url) as response:
            if response.status != 200:
                return Failure(f"GET {url}: status {response.status}")
            return await response.text()
    except TimeoutError:
        return Failure(f"GET {url}: no answer in time")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Failure(f"GET {url}: {error or type(error).__name__}")


async def ask_all(
    addresses: Collection[str], ask: Callable[[str], Awaitable[Answer]], parallel: int = PARALLEL
) -> dict[str, Answer]:
    """`ask` every address, at most `parallel` at a time; → the answers by address."""
    gate = asyncio.Semaphore(parallel)

    async def one(address: str) -> tuple[str, Answer]:
        async with gate:
            return address, await ask(address)

    return dict(await asyncio.gather(*(one(address) for address in addresses)))
