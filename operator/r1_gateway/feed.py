"""Which replicas the router should have, which it has, and what to do about the difference. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["Routing", "Unhealthy", "Draining", "Registering"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One worker as the router lists it: a replica is one entry, or one for each attention-DP rank."""

    id: str
    url: str
    status: str
    healthy: bool
    load: int

    @property
    def leaving(self) -> bool:
        return self.status == "draining"


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica as this gateway sees it. `in_flight`: requests the router has sent there and not finished."""

    url: str
    state: State
    in_flight: int


@dataclass(frozen=True, slots=True)
class Actions:
    """Calls that bring the router nearer to what is wanted."""

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()  # ids of entries


def entries_of(listing: Mapping[str, Any]) -> tuple[Entry, ...]:
    """The router's `GET /workers`. A rank's entry has the URL `base@rank` and names its base separately."""
    return tuple(
        Entry(
            id=str(worker["id"]),
            url=str(worker.get("dp_base_url") or worker["url"]),
            status=str(worker.get("status") or ""),
            healthy=bool(worker.get("is_healthy")),
            load=int(worker.get("load") or 0),
        )
        for worker in listing["workers"]
    )


def plan_actions(wanted: frozenset[str], entries: Iterable[Entry], asked: Mapping[str, float], now: float) -> Actions:
    """Add what is absent, remove what is not wanted.

    `asked`: URL → when its registration was last asked for; the router registers in the background and lists a worker
    only then, so it is asked again only after ASK_AGAIN_SECONDS. One that is leaving (the router keeps it listed for
    5 s) can be added only when it has left.
    """
    by_url = _by_url(entries)
    add = [
        url for url in sorted(wanted) if url not in by_url and now - asked.get(url, float("-inf")) >= ASK_AGAIN_SECONDS
    ]
    remove = [
        entry.id for url, group in sorted(by_url.items()) if url not in wanted for entry in group if not entry.leaving
    ]
    return Actions(tuple(add), tuple(remove))


ASK_AGAIN_SECONDS = 5.0


def kept_of(wanted: frozenset[str], entries: Iterable[Entry]) -> frozenset[str]:
    """Replicas that stay in the rotation though they are not wanted: all that take requests, while no wanted one does.

    Make before break: the router needs a second or two until it holds a new worker healthy, and users would get a 503
    meanwhile. An empty list is obeyed at once: nothing that could come is waited for.
    """
    routing = routing_of(entries)
    return routing if wanted and not routing & wanted else frozenset()


def routing_of(entries: Iterable[Entry]) -> frozenset[str]:
    """Replicas that take requests."""
    return frozenset(url for url, group in _by_url(entries).items() if _state(group) == "Routing")


def replicas_of(wanted: frozenset[str], entries: Iterable[Entry]) -> tuple[Replica, ...]:
    """What a gateway tells the operator: every replica that is wanted or still known, by URL."""
    by_url = _by_url(entries)
    return tuple(
        Replica(url, _state(by_url.get(url, [])), sum(entry.load for entry in by_url.get(url, [])))
        for url in sorted(wanted | by_url.keys())
    )


def _state(group: list[Entry]) -> State:
    """Routing as soon as one rank takes requests: only when none does may the engine be drained."""
    if any(entry.healthy and not entry.leaving for entry in group):
        return "Routing"
    if any(entry.leaving for entry in group):
        return "Draining"
    return "Unhealthy" if group else "Registering"


def _by_url(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    grouped: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        grouped[entry.url].append(entry)
    return dict(grouped)
