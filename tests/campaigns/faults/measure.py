"""What a fault cost, from what the users got and what the gateways said. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tests.campaigns.clients import Loss, Tally


@dataclass(frozen=True, slots=True)
class Seen:
    """From `at` (Unix seconds) on the gateway sends requests to these URLs; None: it does not answer, or is gone."""

    at: float
    gateway: str
    routing: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Rotation:
    """Seconds after the fault. `left`: no gateway that answers sends requests to the victim any more; None: it never
    left, or the fault has no victim. `back`: for good, every gateway that answers sends to as many replicas as before
    it; None: they always did."""

    left: float | None
    back: float | None


def rotation(seen: Iterable[Seen], at: float, victim: str, replicas: int) -> Rotation:
    """What the gateways said around a fault of `at`. `victim`: the URL of the replica that it hits; empty: none."""
    now: dict[str, frozenset[str]] = {}
    left = back = None
    short = False
    for each in sorted(seen, key=lambda one: one.at):
        if each.routing is None:
            now.pop(each.gateway, None)
        else:
            now[each.gateway] = each.routing
        if each.at < at:
            continue
        if victim and left is None and now and not any(victim in routing for routing in now.values()):
            left = each.at - at
        whole = bool(now) and all(len(routing) >= replicas for routing in now.values())
        if short and whole:
            back = each.at - at
        short = not whole
    return Rotation(left, None if short else back)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One fault. `settled`: seconds until all was as before it; None: it never was, and `told` says how it stood.

    `remains`: whether a healthy replica remained all the time. `cuts`: whether answers that had begun could be cut,
    because what was giving them is what the fault destroys. `refuses`: what the fault destroys has taken connections
    itself, and those that the Service sends there are refused until kube-proxy has been told.
    """

    group: str
    name: str
    remains: bool
    cuts: bool
    tally: Tally
    rotation: Rotation
    settled: float | None
    told: str = ""
    refuses: bool = False

    @property
    def cut(self) -> list[Loss]:
        """Streams that had begun and did not end."""
        return [loss for loss in self.tally.lost if loss.begun]

    @property
    def lost(self) -> list[Loss]:
        """Requests that were turned away, or broken before an answer had begun."""
        return [loss for loss in self.tally.lost if not loss.begun]

    @property
    def is_as_promised(self) -> bool:
        """Nobody is turned away while a replica remains, nothing is cut that could go on, and all comes back."""
        if self.settled is None:
            return False
        lost = [loss for loss in self.lost if not (self.refuses and loss.kind == "new" and loss.fault == "broken")]
        return not self.remains or (not lost and (self.cuts or not self.cut))
