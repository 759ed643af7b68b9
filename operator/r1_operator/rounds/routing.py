"""Which replicas the gateways are told to route to. Make before break: one leaves only for others in rotation."""

from __future__ import annotations

from ..lifecycle.actions import Decision, ReplicaView
from ..lifecycle.gangs import GangState
from .facts import Facts

_OUT_OF_ROTATION = frozenset({"Draining", "Failed"})
QUIET_SECONDS = 30.0
"""A replica that is not ready and says nothing stays in the list for so long: the gateways' own look at it, every
second, knows better whether it answers."""


def workers(facts: Facts, decision: Decision) -> frozenset[str]:
    """URLs of node 0 of the gangs that may get requests.

    Ready ones, but for those whose own agent says otherwise: it knows before the kubelet's probe does. One that was
    ready and is silent stays while it may be a blink, and as long as there is no other: a gateway sends nothing to a
    replica that does not answer, but it cannot send to one that it is not told of.
    """
    views = [v for v in decision.replicas if v.gang is not None]
    ready = [v for v in views if v.name in decision.serving and not _out(facts, v)]
    unready = [v for v in views if v.state is GangState.UNREADY and not _out(facts, v)]
    quiet = [v for v in unready if not ready or facts.engines.silence.get(v.name, 0.0) < QUIET_SECONDS]
    return frozenset(v.gang.url for v in (*ready, *quiet) if v.gang is not None and v.gang.url is not None)


def _out(facts: Facts, view: ReplicaView) -> bool:
    heard = facts.engines.heard.get(view.name)
    return heard is not None and heard.stage in _OUT_OF_ROTATION
