"""One candidate for a lease, as a process of its own: while it leads, it writes as fast as it can, each write stamped.

    python -m tests.integration.cluster.lease_writer KUBECONFIG NAMESPACE IDENTITY

The stamp is the epoch, in the ConfigMap `stamp`. SIGTERM: ends in order. It stands again when it loses the lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import sys

from r1_operator.cluster import ApiError, Client, Lease, LeaseLost
from r1_operator.cluster.deadman import end_process_in
from r1_operator.cluster.resources import CONFIG_MAPS

WRITERS = 4
TIMES = {"lease_seconds": 2.0, "deadline_seconds": 1.0, "retry_seconds": 0.1, "call_seconds": 0.5}


async def write_on(client: Client, lease: Lease, namespace: str) -> None:
    for count in itertools.count():  # a write that changes nothing would not be stored
        data = {"epoch": str(lease.epoch), "count": str(count)}
        try:
            await client.patch_merge(CONFIG_MAPS, namespace, "stamp", {"data": data})
        except ApiError as error:
            if error.reason == "NotLeader":
                await asyncio.sleep(0.01)  # LeaseLost is about to end this


async def stand(kubeconfig: str, namespace: str, identity: str) -> None:
    async with await Client.connect(kubeconfig, delivery_seconds=0.4) as client:
        lease = Lease(client, namespace, "l", identity, **TIMES, on_term=end_process_in)
        client.fence_writes(lease.write_seconds)

        async def work() -> None:
            await asyncio.gather(*(write_on(client, lease, namespace) for _ in range(WRITERS)))

        while True:
            with contextlib.suppress(LeaseLost):
                await lease.lead(work)


async def main() -> None:
    task = asyncio.ensure_future(stand(*sys.argv[1:]))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


if __name__ == "__main__":
    asyncio.run(main())
