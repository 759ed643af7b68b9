"""Small pure pieces of a reconcile."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ..api import names
from ..lifecycle.actions import Action, CreateGang, Decision, EndPods, PodRef, Why
from ..lifecycle.decide import Wanted
from ..lifecycle.gangs import Gang, GangState, Member
from ..manifests.engine_pod import revision_of
from ..placement.place import Unplaceable
from ..status.observation import Finding, Observation
from ..telemetry.gateway import Worker
from ..telemetry.http import host
from .reading import Subject

BUSY_SECONDS = 5.0
"""Look again after this long while something is under way or the autoscaler watches the load."""
IDLE_SECONDS = 30.0
SOON_SECONDS = 1.0
"""While nothing can be done before others have done their part."""


def wanted_of(subject: Subject, replicas: int, weights: Finding) -> Wanted:
    """What the lifecycle is asked for. Without a plan, or without weights, nothing is created or replaced."""
    context, name = subject.context, subject.metadata.name
    if context is None:
        return Wanted(name, replicas, "", 1, float("inf"), hold=True)
    return Wanted(
        name=name,
        replicas=replicas,
        revision=revision_of(context),
        size=context.plan.nodes_per_replica,
        start_seconds=context.spec.startup.seconds,
        hold=weights.status == "False",
    )


def workers_of(decision: Decision, serving: Collection[str]) -> frozenset[Worker]:
    """Node 0 of every serving gang, as the gateway routes to it."""
    heads = [view.gang.head for view in decision.replicas if view.gang and view.name in serving]
    return frozenset(
        Worker(f"http://{host(head.address)}:{names.PORT_ENGINE_HTTP}")
        for head in heads
        if head is not None and head.address
    )


def undo(gang: Gang, why: Unplaceable) -> EndPods:
    """Take back a gang that is half placed and cannot be completed."""
    return EndPods(gang.name, _refs(gang.members), 0, Why.SUPERSEDED, why.message)


def force(gang: Gang, lost: Iterable[Member]) -> EndPods:
    """Remove pods whose kubelet will never confirm their end."""
    return EndPods(gang.name, _refs(lost), 0, Why.LEAVING, "their node is lost")


def _refs(members: Iterable[Member]) -> tuple[PodRef, ...]:
    return tuple(PodRef(m.name, m.uid) for m in members)


def describe(action: Action) -> str:
    """An action as one line of the log."""
    if isinstance(action, CreateGang):
        members = ", ".join(map(str, action.members))
        return (
            f"{action.why}: create replica {action.replica} attempt {action.attempt}, pods {members} {action.message}"
        )
    grace = "their own grace period" if action.grace_seconds is None else f"{action.grace_seconds} s"
    pods = ", ".join(pod.name for pod in action.pods)
    return f"{action.why}: end {pods} within {grace}: {action.message}"


def next_look(observation: Observation, decision: Decision) -> float:
    """Seconds until the next round if nothing happens before."""
    busy = (
        observation.scaling is not None
        or bool(decision.leaving)
        or any(view.state is not GangState.READY for view in decision.replicas)
        or len(decision.replicas) != observation.desired
        or observation.gateway.status != "True"
    )
    usual = BUSY_SECONDS if busy else IDLE_SECONDS
    ready = sum(view.state is GangState.READY for view in decision.replicas)
    if observation.routed is not None and observation.routed < min(ready, observation.desired):
        usual = SOON_SECONDS  # the router's own look at a replica that is new to it takes a second
    return usual if decision.look_again_in is None else min(usual, decision.look_again_in)
