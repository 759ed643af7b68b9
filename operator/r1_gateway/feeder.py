"""Keeps the router's list of workers equal to what the operator last said, level-triggered."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from r1_gateway.feed import Entry, Replica, kept_of, plan_actions, replicas_of, routing_of
from r1_gateway.router import Router, RouterError
from r1_gateway.vouch import Vouching
from r1_gateway.waiting_room import WaitingRoom

log = logging.getLogger(__name__)

_PERIOD_SECONDS, _UNSETTLED_PERIOD_SECONDS = 1.0, 0.1
# A worker shows up in the router's list some 0.1 s after it was asked for; looking at once would show nothing.
_SETTLE_SECONDS, _SETTLE_STEP_SECONDS = 0.5, 0.05
# An engine answers in milliseconds; one that does not holds up the others no longer, and is asked again.
_INTRODUCE_SECONDS = 0.2
# For so long a gateway that starts waits for the operator and for replicas that do not answer, before it serves.
_PATIENCE_SECONDS = 5.0


class Outdated(Exception):
    """The list is of an operator that leads no more. `seen`: the epoch of the newest one that spoke."""

    def __init__(self, seen: int) -> None:
        super().__init__(f"an operator of epoch {seen} has spoken already")
        self.seen = seen


class Feeder:
    """`feed` sets what is wanted; `run` keeps it so, also when the router forgets or refuses something. A replica is
    added once its engine knows whose requests we pass on (`vouch`): it would refuse users before.

    `first` is what to serve with until the operator speaks, `epoch` the leadership it is of: an older one is refused.
    `room`: the waiting room and its URL, where requests go while replicas sleep.
    """

    def __init__(
        self,
        router: Router,
        placeholder: str,
        vouching: Vouching,
        first: frozenset[str] = frozenset(),
        epoch: int = 0,
        *,
        room: tuple[WaitingRoom, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._router, self._placeholder, self._vouching, self._clock = router, placeholder, vouching, clock
        self._room: WaitingRoom | None = room[0] if room is not None else None
        self._room_url = room[1] if room is not None else ""
        self._own = frozenset({placeholder, self._room_url})
        self._wanted, self._told, self._served = first, False, False
        self._epoch = epoch
        self._kept: frozenset[str] = frozenset()
        self._asked: dict[str, float] = {}
        self._entries: tuple[Entry, ...] = ()
        self._since = clock()
        self._lock = asyncio.Lock()
        self.beat = clock()
        """When the router last listed its workers."""

    async def feed(self, wanted: frozenset[str], epoch: int | None = None, retry_after: float | None = None) -> None:
        """Take over a list of replicas and act on it. On return, `replicas` says what still gets new requests.

        `retry_after`: where replicas may sleep, in how many seconds the first one would be ready.

        Raises Outdated, and RouterError when the router could not be told; `run` goes on trying.
        """
        if epoch is not None:
            if epoch < self._epoch:
                raise Outdated(self._epoch)
            self._epoch = epoch
        if self._wanted != wanted or not self._told:
            log.info("told of %d replicas: %s", len(wanted), ", ".join(sorted(wanted)) or "none")
        if not self._told:
            self._told, self._since = True, self._clock()
        self._wanted = wanted
        if self._room is not None:
            self._room.expect(retry_after)
        await self._step()
        deadline = self._clock() + _SETTLE_SECONDS
        while self._unsettled() and self._clock() < deadline:
            await asyncio.sleep(_SETTLE_STEP_SECONDS)
            await self._step()

    def replicas(self) -> tuple[Replica, ...]:
        """The replicas as the router listed them last, without what is ours."""
        return replicas_of(self._wanted, [entry for entry in self._entries if entry.url not in self._own])

    @property
    def asked_seconds_ago(self) -> float | None:
        """Since somebody asked and found that the replicas sleep; None: nobody has."""
        return self._room.asked_seconds_ago if self._room is not None else None

    def ready(self) -> bool:
        """True once told of the replicas and routing to them, or after waiting for that long enough.

        One that cannot be reached must not keep the gateway from serving the others, nor an absent operator for ever.
        Once served, always: without a replica users get a 503 from here, out of the Service a refused connection.
        """
        placeholder = [entry for entry in self._entries if entry.url == self._placeholder]
        if not placeholder or any(entry.healthy for entry in placeholder):
            return False
        settled = all(replica.state == "Routing" for replica in self.replicas()) and (self._told or bool(self._wanted))
        self._served = self._served or settled or self._clock() - self._since >= _PATIENCE_SECONDS
        return self._served

    async def run(self) -> None:
        """Wait for the router, then look and act every second until cancelled."""
        while not await self._router.alive():
            await asyncio.sleep(_SETTLE_STEP_SECONDS)
        self._since = self._clock()
        while True:
            try:
                await self._step()
            except RouterError as error:
                log.warning("feeding the router: %s", error)
            await asyncio.sleep(_UNSETTLED_PERIOD_SECONDS if self._unsettled() else _PERIOD_SECONDS)

    async def _step(self) -> None:
        async with self._lock:
            entries = await self._router.workers()
            others = [entry for entry in entries if entry.url not in self._own]
            kept = kept_of(self._wanted, others)
            if kept != self._kept:
                log.info("kept until a new one serves: %s", ", ".join(sorted(kept)) or "none")
            self._kept = kept
            await self._vouching.tell(self._wanted | kept, _INTRODUCE_SECONDS)
            known = frozenset(url for url in self._wanted if self._vouching.told(url))
            wanted = known | kept | {self._placeholder}
            if self._room is not None and self._room.open and not routing_of(others):
                wanted |= {self._room_url}
            actions = plan_actions(wanted, entries, self._asked, self._clock())
            self._asked = {url: at for url, at in self._asked.items() if url in wanted}
            self._asked |= dict.fromkeys(actions.add, self._clock())
            await asyncio.gather(*map(self._router.add, actions.add), *map(self._router.remove, actions.remove))
            if actions.remove:
                entries = await self._router.workers()
            self._entries = entries
            self.beat = self._clock()

    def _unsettled(self) -> bool:
        """Something was asked of the router that its list does not show yet."""
        if all(entry.url != self._placeholder for entry in self._entries):
            return True
        return any(
            replica.state == ("Registering" if replica.url in self._wanted else "Routing")
            for replica in self.replicas()
            if replica.url not in self._kept
        )
