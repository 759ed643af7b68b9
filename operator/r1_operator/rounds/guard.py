"""How much a round may end without a human's word. The one place that limits harm.

A replica is sixteen GPUs and up to an hour of loading, so whoever is wrong about "it is dead" or "it is too many" must
be wrong about little. What counts as a human's word: spec.replicas, a delete, an eviction, the out-of-service taint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..api.reasons import Reason
from ..api.timestamps import rfc3339
from ..lifecycle.gangs import Gang, GangState
from ..lifecycle.judging import Verdict
from ..lifecycle.observed import NO_LIMIT, Allowance
from ..placement.nodes import Node
from ..status.observation import Finding
from ..status.wording import some_of
from .facts import Facts, Fleet

STALE_SECONDS = 120.0
"""Bookmarks come about once a minute on each watch. One that is silent for two of them is dead, and what it showed is
old news: a pod that seems gone may be there, a node that seems dead may be back."""
BREAKER_NODES = 2
BREAKER_SHARE = 0.3
"""More nodes than both fall silent together when the control plane has lost sight of them, not when they die."""
SCALE_DOWN_SHARE = 0.25
"""Of the serving replicas, those that the autoscaler may take away in one round; at least one."""


@dataclass(frozen=True, slots=True)
class Losses:
    """Nodes that count as lost, with the reason; `suspended` when more seem to be, and nothing is forced there.
    `left_alone`: others are not Ready, but their engines are heard."""

    dead: Mapping[str, str] = field(default_factory=dict)
    suspended: Finding | None = None
    left_alone: Finding | None = None


def losses(facts: Facts, now: float) -> Losses:
    """Which of the nodes that our gangs hold are lost.

    Not one on which an engine answers its agent's port or the gateways: its users' traffic does not go through the
    control plane. A Node object that is gone counts once a live look has confirmed it. Old news tells of no loss.
    """
    if _blind(facts):
        return Losses()
    nodes = facts.nodes.by_name()
    holders: dict[str, list[Gang]] = {}
    for gang in facts.gangs:
        for member in gang.members:
            if member.node and not member.over:
                holders.setdefault(member.node, []).append(gang)
    dead: dict[str, str] = {}
    silent: dict[str, str] = {}
    heard: list[str] = []
    for name, gangs in sorted(holders.items()):
        node = nodes.get(name)
        if node is not None and node.out_of_service:
            dead[name] = "it carries the taint out-of-service"
        elif any(answers(facts, gang) for gang in gangs):
            if node is not None and _silent_for(node, now) >= facts.settings.node_lost_seconds:
                heard.append(name)
        elif node is None and name in facts.nodes.gone:
            dead[name] = "the Node object is gone"
        elif node is not None and _silent_for(node, now) >= facts.settings.node_lost_seconds:
            assert node.silent_since is not None
            silent[name] = f"not Ready since {rfc3339(node.silent_since)} ({node.silent_why})"
    alone = _left_alone(heard) if heard else None
    if silent and _together(facts.nodes.fleet, facts.nodes.all):
        return Losses(dead, _suspended(facts.nodes.fleet, sorted(silent)), alone)
    if silent and _deaf(facts, set(silent)):
        why = "this operator reaches no engine at all, and "
        return Losses(dead, _suspended(facts.nodes.fleet, sorted(silent), why), alone)
    return Losses(dead | silent, left_alone=alone)


def answers(facts: Facts, gang: Gang) -> bool:
    """Whether anybody hears of this gang apart from the kubelets: its own agent, or the gateways.

    An agent that could be asked and has not been silent for long, or was not asked yet (a leader's first round), counts
    as one that answers.
    """
    heard = facts.engines.heard.get(gang.name)
    if heard is not None:
        return heard.stage != "Failed"
    if routed(facts, gang):
        return True
    silence, head = facts.engines.silence.get(gang.name), gang.head
    if silence is None:
        return head is not None and head.address is not None and head.phase == "Running"
    return silence < facts.settings.node_lost_seconds


def unheard(facts: Facts) -> Mapping[str, float]:
    """For how long the agents of gangs have said nothing for which no gateway speaks either, by gang.

    None where the gateways could not be asked, and none where several gangs run and not one of them is heard: then it
    is our own way to them that is cut, or a policy that shuts a port.
    """
    if facts.gateways.rotation is None or facts.gateways.serving == 0:
        return {}
    running = [g for g in facts.gangs if g.name in facts.engines.silence]
    silent = [g for g in running if g.name not in facts.engines.heard and not routed(facts, g)]
    if len(running) > 1 and len(silent) == len(running):
        return {}
    return {g.name: facts.engines.silence[g.name] for g in silent}


def routed(facts: Facts, gang: Gang) -> bool:
    """Whether every gateway pod sends requests to this gang, as far as is known."""
    return gang.url is not None and gang.url in (facts.gateways.rotation or ())


def _silent_for(node: Node, now: float) -> float:
    return 0.0 if node.silent_since is None else now - node.silent_since


def _together(fleet: Fleet, nodes: tuple[Node, ...]) -> bool:
    if not any(node.ready for node in nodes):
        return True  # Kubernetes stops its evictions then, too ("master disruption")
    return len(fleet.silent) > max(BREAKER_NODES, BREAKER_SHARE * len(fleet.holding))


def _deaf(facts: Facts, silent: set[str]) -> bool:
    """Whether not even those answer whose nodes are well: then it is our own way to them that is cut."""
    well = [
        g for g in facts.gangs if g.head and g.head.phase == "Running" and all(m.node not in silent for m in g.members)
    ]
    return bool(well) and not any(answers(facts, gang) for gang in well)


def _left_alone(nodes: list[str]) -> Finding:
    return Finding(
        "False",
        Reason.NODES_SILENT,
        f"{some_of(nodes)}: not Ready, but what runs there answers and is left alone. Kubernetes takes pods of such "
        "nodes out of Services, gateways too: see what keeps their kubelets from the API server",
    )


def _suspended(fleet: Fleet, silent: list[str], why: str = "") -> Finding:
    return Finding(
        "False",
        Reason.NODE_LOSS_SUSPENDED,
        f"{why}{len(fleet.silent)} of the {len(fleet.holding)} nodes that hold replicas are silent together "
        f"({some_of(silent)} among them): nothing is ended or started anew until they answer. If they are off for "
        "certain, delete their Node objects or taint them node.kubernetes.io/out-of-service=nodeshutdown:NoExecute",
    )


def allowance(facts: Facts, verdicts: Mapping[str, Verdict], by_user: bool) -> Allowance:
    """What this round may end. `by_user`: a human's word, not the autoscaler's, says how many replicas there are."""
    ready = [g for g in facts.gangs if verdicts[g.name].state is GangState.READY]
    share = max(1, int(SCALE_DOWN_SHARE * len(ready))) if facts.remembers else 1
    return Allowance(nothing=_blind(facts), scale_down=NO_LIMIT if by_user else share, rotation=_rotation(facts, ready))


def _blind(facts: Facts) -> str:
    kind, age = facts.watch_age
    if age <= STALE_SECONDS:
        return ""
    return f"the API server has said nothing about {kind} for {age:.0f} s: nothing is ended on news that old"


def _rotation(facts: Facts, ready: list[Gang]) -> frozenset[str] | None:
    gateways = facts.gateways
    if gateways.rotation is None:
        return None
    if gateways.serving == 0:
        return frozenset(gang.name for gang in ready)  # nobody routes anywhere: nothing can be cut
    return frozenset(gang.name for gang in ready if routed(facts, gang))
