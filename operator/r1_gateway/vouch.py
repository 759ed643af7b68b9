"""Tells the engines whose requests this gateway passes on.

smg shows an engine our key, but where a client sent an `Authorization` of its own it passes that on instead (measured,
1.13.0). So each engine is told beforehand, with our key, for which users' key we vouch: by its hash, or for anybody
where this gateway asks for none. An engine holds that for ten minutes; it is told again every minute.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Iterable

import aiohttp

log = logging.getLogger(__name__)

PATH = "/r1/users"
AGAIN_SECONDS = 60.0
_CALL_SECONDS = 2.0


class Vouching:
    """`told` says whether an engine knows us: before that, the router must send it no user.

    `engine_key` None: the pod was given none, so the engines ask for none.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        engine_key: str | None,
        users_key: str | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session, self._key, self._clock = session, engine_key, clock
        self._users = hashlib.sha256(users_key.encode()).hexdigest() if users_key is not None else None
        self._told: dict[str, float] = {}
        self._telling: dict[str, asyncio.Task[None]] = {}

    def told(self, url: str) -> bool:
        """Whether this engine has heard, or asks for no key."""
        return self._key is None or url in self._told

    async def tell(self, urls: Iterable[str], patience: float) -> None:
        """Tell these engines, and forget all others. Waits at most `patience` seconds; what takes longer goes on."""
        if self._key is None:
            return
        wanted = frozenset(urls)
        self._told = {url: at for url, at in self._told.items() if url in wanted}
        now = self._clock()
        due = [u for u in wanted if u not in self._telling and now - self._told.get(u, -AGAIN_SECONDS) >= AGAIN_SECONDS]
        self._telling |= {url: asyncio.create_task(self._tell(url)) for url in due}
        waited = [task for url, task in self._telling.items() if url in wanted and url not in self._told]
        if waited:
            await asyncio.wait(waited, timeout=patience)

    async def _tell(self, url: str) -> None:
        headers, body = {"Authorization": f"Bearer {self._key}"}, {"sha256": self._users}
        timeout = aiohttp.ClientTimeout(total=_CALL_SECONDS)
        try:
            async with self._session.put(url + PATH, json=body, headers=headers, timeout=timeout) as answer:
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.debug("%s: %s", url, error or type(error).__name__)
        else:
            # An engine of an older version does not know the path, and asks nobody for a key.
            if status == 401:
                log.warning("%s does not take our key: its Secret is another; no request is sent there", url)
                self._told.pop(url, None)
            else:
                self._told[url] = self._clock()
        finally:
            self._telling.pop(url, None)
