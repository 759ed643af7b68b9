"""A replica whose pod and address are gone before the gateway is told: nothing there refuses a connection."""

from __future__ import annotations

import asyncio
import time
import uuid
from pathlib import Path

from tests.integration.gateway.engines import engines, swallowing
from tests.integration.gateway.test_fast_clients import serving, until_state

THE_ROUTERS_OWN_PATIENCE_SECONDS = 10.0
"""So long each request stood still that was sent there; a drain of a node held up all users."""


async def test_requests_sent_to_an_address_that_is_gone_are_soon_tried_elsewhere(tmp_path: Path) -> None:
    async with engines(2) as running, serving(tmp_path, running) as target:
        gone = running[0]
        await gone.die()
        with swallowing(gone.url):

            async def ask() -> tuple[int, float]:
                began = time.monotonic()
                answer = await target.ask(f"{uuid.uuid4()}")
                return answer.status, time.monotonic() - began

            answers = await asyncio.gather(*(ask() for _ in range(20)))
            await until_state(target, gone, "Unhealthy")
    assert {status for status, _ in answers} == {200}
    assert max(seconds for _, seconds in answers) < THE_ROUTERS_OWN_PATIENCE_SECONDS
