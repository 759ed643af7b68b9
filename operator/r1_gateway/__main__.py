"""`python -m r1_gateway`: the process of a gateway pod.

Starts the router, feeds it, answers the operator and the kubelet. On SIGTERM: unready first, serve on until the Service
has noticed, then let the router finish its streams. Exit codes: 0 drained · 1 the router died · 78 configuration.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from r1_gateway.addresses import everywhere, host_of
from r1_gateway.admin import Admin
from r1_gateway.feeder import Feeder
from r1_gateway.placeholder import placeholder_app
from r1_gateway.router import Router
from r1_gateway.settings import CONFIG_FILE, ENGINE_KEY_FILE, Settings, SettingsError, read_settings
from r1_gateway.vouch import Vouching
from r1_gateway.waiting_room import WaitingRoom

log = logging.getLogger("r1_gateway")

_CALL_SECONDS = 3.0
_END_MARGIN_SECONDS = 5.0


async def serve(app: web.Application, address: str, port: int, stack: AsyncExitStack) -> int:
    """Serve an app until the stack is closed; → the port."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, host_of(address), port).start()
    return int(runner.addresses[0][1])


async def run(settings: Settings) -> int:
    """The whole life of a gateway; → the exit code."""
    terminate = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, terminate.set)
    async with AsyncExitStack() as stack:
        timeout = aiohttp.ClientTimeout(total=_CALL_SECONDS)
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
        placeholder = await serve(placeholder_app(settings.served_name), "127.0.0.1", 0, stack)
        room = WaitingRoom(settings.served_name, time.monotonic)
        waiting = await serve(room.app(), "127.0.0.1", 0, stack)
        # Made anew at each start and known to nobody outside this pod.
        router = Router(settings, secrets.token_urlsafe(32), session)
        await router.start()
        vouching = Vouching(session, settings.engine_key, settings.api_key)
        feeder = Feeder(
            router,
            f"http://127.0.0.1:{placeholder}",
            vouching,
            settings.workers,
            settings.epoch,
            room=(room, f"http://127.0.0.1:{waiting}"),
        )
        admin = Admin(feeder, router, settings.admin_hash, time.monotonic)
        await serve(admin.app(), settings.address, settings.admin_port, stack)
        tasks: dict[str, asyncio.Task[Any]] = {
            "router": asyncio.create_task(router.wait()),
            "terminate": asyncio.create_task(terminate.wait()),
            "feeder": asyncio.create_task(feeder.run()),
        }
        try:
            await _until_end(tasks)
            if tasks["router"].done():
                log.error("the router ended by itself with exit code %s", tasks["router"].result())
                return 1
            await _leave(settings, admin, router, tasks["router"])
            return 0
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
            await router.stop(0)


async def _until_end(tasks: Mapping[str, asyncio.Task[Any]]) -> None:
    """Wait for a SIGTERM, for the router's end, or for a fault of our own, which is raised."""
    while not tasks["router"].done() and not tasks["terminate"].done():
        running = [task for task in tasks.values() if not task.done()]
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        if tasks["feeder"].done():
            tasks["feeder"].result()


async def _leave(settings: Settings, admin: Admin, router: Router, ended: asyncio.Task[int]) -> None:
    log.info("terminating: unready, %g s more for connections that are on their way", settings.linger_seconds)
    admin.leaving.set()
    await asyncio.wait([ended], timeout=settings.linger_seconds)
    log.info("terminating: requests in flight have %g s to finish", settings.drain_seconds)
    await router.stop(settings.drain_seconds + _END_MARGIN_SECONDS)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m r1_gateway", description="Feed and supervise the router of a pod.")
    parser.add_argument("--config", type=Path, default=CONFIG_FILE)
    parser.add_argument("--engine-key-file", type=Path, default=ENGINE_KEY_FILE)
    parser.add_argument("--address", default=everywhere(), help="where to listen; default: everywhere")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = read_settings(options.config, options.engine_key_file, os.environ, options.address)
    except SettingsError as error:
        log.error("%s", error)
        return 78
    return asyncio.run(run(settings))


if __name__ == "__main__":
    sys.exit(main())
