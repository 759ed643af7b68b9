"""Gangs as observed, and what state one is in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Termination:
    """How a pod ended. `exit_code` -1: no container ended, the kubelet gave up on the pod. Unix seconds."""

    exit_code: int
    reason: str
    message: str
    finished_at: float


@dataclass(frozen=True, slots=True)
class Member:
    """One engine pod. Times in unix seconds."""

    name: str
    uid: str
    index: int
    gated: bool
    pinned: str | None
    """Node that its affinity names: chosen, but perhaps not bound yet."""
    node: str | None
    address: str | None
    phase: str
    ready: bool
    changed_at: float
    """When its Ready or PodScheduled condition last changed; 0 if it has neither."""
    created_at: float
    delete_deadline: float | None = None
    """Set once it is being deleted: when its grace period ends."""
    unschedulable: str | None = None
    waiting: str | None = None
    termination: Termination | None = None

    @property
    def deleting(self) -> bool:
        return self.delete_deadline is not None

    @property
    def finished(self) -> bool:
        return self.termination is not None

    @property
    def holds(self) -> str | None:
        """The node whose devices this pod holds or is about to hold."""
        if self.finished:
            return None
        return self.node or (None if self.gated else self.pinned)


@dataclass(frozen=True, slots=True)
class Gang:
    """All pods of one attempt of one replica. `size` is how many there should be."""

    name: str
    replica: int
    attempt: int
    size: int
    revision: str
    members: tuple[Member, ...]

    @property
    def missing(self) -> tuple[int, ...]:
        present = {m.index for m in self.members}
        return tuple(i for i in range(self.size) if i not in present)

    @property
    def head(self) -> Member | None:
        """Node 0, which serves HTTP for the whole gang."""
        return next((m for m in self.members if m.index == 0), None)


class GangState(StrEnum):
    GATED = "Gated"
    """Created, holds no node: waiting for room, or half-way through being placed."""
    STARTING = "Starting"
    READY = "Ready"
    UNREADY = "Unready"
    """Was ready in this attempt and is not at the moment: a blink, or the beginning of an end."""
    LEAVING = "Leaving"
    """Being deleted on purpose (drained, evicted, deleted by a user): it finishes its requests and goes."""
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a gang counts as failed."""

    reason: str
    message: str
    at: float
    configuration: bool = False
    """Trying again cannot help until somebody changes something (exit code 78)."""


EXIT_CONFIGURATION = 78  # contracts.md, exit codes

# A pod pinned to a node that somebody else took in the meantime stays unschedulable: give the scheduler this long.
UNSCHEDULABLE_SECONDS = 30
# Beyond the engine's own start limit, for image pull and mounts; after that the operator ends what the engine cannot.
START_MARGIN_SECONDS = 300


def state_of(gang: Gang, dead_nodes: Mapping[str, str], start_seconds: float, now: float) -> GangState:
    """State of a gang. `dead_nodes`: node name → why it counts as lost."""
    if failure_of(gang, dead_nodes, start_seconds, now) is not None:
        return GangState.FAILED
    if any(m.deleting for m in gang.members):
        return GangState.LEAVING
    if any(m.gated for m in gang.members) or gang.missing:
        return GangState.GATED
    if all(m.ready for m in gang.members):
        return GangState.READY
    return GangState.STARTING


def failure_of(gang: Gang, dead_nodes: Mapping[str, str], start_seconds: float, now: float) -> Failure | None:
    """Why the whole gang counts as failed, or None. A cause beats its consequences, the first in time wins."""
    deaths = [m for m in gang.members if m.termination and not m.deleting]
    leaving = any(m.deleting for m in gang.members)
    blamed = [m for m in deaths if m.termination and m.termination.exit_code != 0]
    if blamed:
        return _death(gang, blamed)
    if leaving:
        return None  # members that finished with 0 or are gone already are what a drain looks like
    if deaths:
        return _death(gang, deaths)
    for member in gang.members:
        if member.node is not None and member.node in dead_nodes:
            return Failure("NodeLost", f"node {member.node} is lost: {dead_nodes[member.node]}", now)
    started = [m for m in gang.members if not m.gated]
    if gang.missing and started:
        indices = ", ".join(map(str, gang.missing))
        return Failure("MemberGone", f"pod {indices} of gang {gang.name} is gone though nobody drained it", now)
    return _stuck(gang, start_seconds, now)


def _death(gang: Gang, dead: list[Member]) -> Failure:
    # When one part dies the others end as well ("a peer is gone"): a configuration error or the first end is the cause.
    def order(member: Member) -> tuple[bool, float, int]:
        end = member.termination
        assert end is not None
        return end.exit_code != EXIT_CONFIGURATION, end.finished_at, member.index

    first = min(dead, key=order)
    end = first.termination
    assert end is not None
    where = f"pod {first.name}" + (f" on node {first.node}" if first.node else "")
    message = f"{where}: {end.message}"
    return Failure(end.reason, message, end.finished_at, end.exit_code == EXIT_CONFIGURATION)


def _stuck(gang: Gang, start_seconds: float, now: float) -> Failure | None:
    if gang.missing or any(m.gated for m in gang.members):
        return None
    for member in gang.members:
        if member.unschedulable is not None and now - member.changed_at > UNSCHEDULABLE_SECONDS:
            return Failure("NodeTaken", f"pod {member.name} no longer fits its node: {member.unschedulable}", now)
    waiting = [m for m in gang.members if not m.ready]
    if not waiting:
        return None
    limit = start_seconds + START_MARGIN_SECONDS
    last_change = max(max(m.changed_at, m.created_at) for m in gang.members)
    if now - last_change <= limit:
        return None
    late = waiting[0]
    why = late.waiting or "its readiness probe never passed"
    return Failure(
        "NotReadyInTime",
        f"pod {late.name} on node {late.node or late.pinned} was not ready within {limit:.0f} s "
        f"(spec.startup.seconds {start_seconds:.0f} + {START_MARGIN_SECONDS}): {why}",
        now,
    )
