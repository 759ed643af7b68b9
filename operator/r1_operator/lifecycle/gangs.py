"""Gangs as observed. What state one is in is said in judging.py."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ..api import names


@dataclass(frozen=True, slots=True)
class Termination:
    """How a pod ended. `exit_code` -1: no container ended, the kubelet gave up on the pod. Unix seconds."""

    exit_code: int
    reason: str
    message: str
    finished_at: float
    node: str = ""
    """Kubernetes node that the engine blames; empty: it names none."""


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
    scheduled_at: float | None = None
    """When it was bound to its node."""
    running_since: float | None = None
    """When its engine container was started; None while that does not run."""
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
        """Its engine has ended. The pod need not be over: a container that somebody injected may run on."""
        return self.termination is not None

    @property
    def over(self) -> bool:
        """No container of it runs any more: it holds nothing, and is kept for its logs alone."""
        return self.phase in {"Failed", "Succeeded"}

    @property
    def holds(self) -> str | None:
        """The node whose devices this pod holds or is about to hold."""
        if self.over:
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

    @property
    def url(self) -> str | None:
        """Where the gateways reach it; None before its node 0 has an address."""
        head = self.head
        return names.engine_url(head.address) if head is not None and head.address else None


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
    """Trying again cannot help until somebody changes something (exit code 78, an image that does not exist)."""
    node: str = ""
    """Kubernetes node that it happened on; empty: on none, or nobody knows."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What the agent of a gang's node 0 said last, at most moments ago. `progress_at`: when its start last moved on."""

    stage: str
    message: str
    progress_at: float | None = None


@dataclass(frozen=True, slots=True)
class Hang:
    """What keeps a pod's containers from being made, as the kubelet tells it: a waiting reason, or an event.

    `since`: when this operator saw it first; neither the pod's status nor its events tell.
    """

    reason: str
    message: str
    since: float
