"""Looks at gateways' lists of replicas all the time: `python watcher.py`.

A process of its own, because it runs in the cluster's network; so it imports nothing of this project. Each line on
stdin is a JSON list of [address, token], the gateways to look at from now on; each line on stdout, as JSON, what one of
them said that it had not said before: `at` (Unix seconds), `gateway`, `routing` (URLs; null: no answer). It ends with
stdin.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import aiohttp

LOOK_SECONDS = 0.05
ANSWER_SECONDS = 1.0
ADMIN_PORT = 8001


class Watcher:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def watch(self, gateways: list[tuple[str, str]]) -> None:
        wanted = dict(gateways)
        for address in self._tasks.keys() - wanted.keys():
            self._tasks.pop(address).cancel()
            _say(address, None)
        for address in wanted.keys() - self._tasks.keys():
            self._tasks[address] = asyncio.create_task(self._look_on(address, wanted[address]))

    async def _look_on(self, address: str, token: str) -> None:
        told: object = ()
        while True:
            routing = await self._look(address, token)
            if routing != told:
                _say(address, routing)
                told = routing
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self, address: str, token: str) -> list[str] | None:
        host = f"[{address}]" if ":" in address else address
        try:
            async with self._session.get(
                f"http://{host}:{ADMIN_PORT}/workers", headers={"Authorization": f"Bearer {token}"}
            ) as answer:
                workers = (await answer.json())["workers"] if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, ValueError, LookupError):
            return None
        return None if workers is None else sorted(w["url"] for w in workers if w["state"] == "Routing")


def _say(address: str, routing: list[str] | None) -> None:
    print(json.dumps({"at": time.time(), "gateway": address, "routing": routing}), flush=True)


async def main() -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS)) as session:
        watcher = Watcher(session)
        while line := await asyncio.to_thread(sys.stdin.readline):
            watcher.watch(json.loads(line))
        watcher.watch([])


if __name__ == "__main__":
    asyncio.run(main())
