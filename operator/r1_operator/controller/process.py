"""Life of the process: connect, lead, work, end cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from dataclasses import replace

from ..api.names import LEASE_NAME
from ..cluster import ApiError, Cache, Client, Events, Lease, LeaseLost
from ..cluster.deadman import end_process_in
from ..cluster.master_key import MasterKeyBroken, master_key
from ..manifests.keys import Keys
from ..telemetry.http import open_session
from ..telemetry.logs import configure_logging
from ..telemetry.metrics import Metrics
from ..telemetry.server import health_app, serving
from .adapters import HttpEngines, HttpGateways
from .feeding import Term
from .operator import Operator
from .options import Options

log = logging.getLogger(__name__)

EXIT_OK, EXIT_FAILED = 0, 1


def run(options: Options) -> int:
    """Until SIGTERM or SIGINT. → exit code."""
    configure_logging(options.log_level)
    return asyncio.run(_run(options))


async def _run(options: Options) -> int:
    task = asyncio.ensure_future(_serve(options))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        log.info("ended by signal")
        return EXIT_OK
    except LeaseLost as error:
        log.error("leads no more: %s", error)
        return EXIT_FAILED
    except (ApiError, MasterKeyBroken, TimeoutError) as error:
        log.error("%s", error)
        return EXIT_FAILED
    return EXIT_OK


async def _serve(options: Options) -> None:
    metrics = Metrics()
    client = await Client.connect(options.kubeconfig, observe=metrics.observe_api_call)
    async with client, open_session() as session:
        keys = Keys(await master_key(client, options.lease_namespace))
        lease = Lease(client, options.lease_namespace, LEASE_NAME, options.identity, on_term=end_process_in)
        client.fence_writes(lease.write_seconds)
        cache = Cache(client, namespaces=options.namespaces)
        events = Events(client, options.identity)
        operator = Operator(
            client,
            cache,
            events,
            HttpEngines(session, metrics),
            HttpGateways(session, metrics),
            metrics,
            replace(options.settings, keys=keys),
            namespaces=options.namespaces,
            own_namespace=options.lease_namespace,
            term=Term(lambda: lease.epoch, lease.advance),
        )
        app = health_app(
            metrics.registry,
            alive={"operator": operator.alive},
            ready={"watches": lambda: None if cache.synced() else "the cluster has not been listed yet"},
        )
        # A follower watches as well, so that it takes over with a full picture.
        background = [asyncio.ensure_future(cache.run()), asyncio.ensure_future(events.run())]
        leading = asyncio.ensure_future(lease.lead(lambda: _lead(operator, events, metrics)))
        try:
            async with serving(app, options.port):
                await _first_to_end(leading, *background)
        finally:
            await _end(leading)  # first: it releases the lease with what the others still do
            await _end(*background)


async def _lead(operator: Operator, events: Events, metrics: Metrics) -> None:
    metrics.set_leader(True)
    try:
        await operator.run()
    finally:
        metrics.set_leader(False)
        with contextlib.suppress(ApiError):
            await events.flush()


async def _first_to_end(*tasks: asyncio.Future[None]) -> None:
    """None of them is meant to end; → nothing, or what the first one raised."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def _end(*tasks: asyncio.Future[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
