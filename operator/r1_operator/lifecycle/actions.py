"""What the lifecycle may ask for. Values only; `controller/carry_out.py` does them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ..api.reasons import Reason
from .gangs import Failure, Gang, GangState


class Why(StrEnum):
    """Why pods are created or removed."""

    SCALE_UP = "ScaleUp"
    RESTART = "Restart"
    UPDATE = "Update"
    MOVE = "Move"
    COMPLETE = "Complete"
    SCALE_DOWN = "ScaleDown"
    FAILED = "Failed"
    LEAVING = "Leaving"
    TAKEN_BACK = "TakenBack"
    SUPERSEDED = "Superseded"


@dataclass(frozen=True, slots=True)
class CreateGang:
    """Create these members of a gang, gated. The others exist already. `revision`: what they are made as."""

    replica: int
    attempt: int
    members: tuple[int, ...]
    why: Why
    message: str = ""
    revision: str = ""


@dataclass(frozen=True, slots=True)
class PodRef:
    """A pod and the uid it must still have when it is deleted."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class EndPods:
    """Delete these pods of a gang. `grace_seconds` None: the pod's own grace period, in which it drains."""

    gang: str
    pods: tuple[PodRef, ...]
    grace_seconds: int | None
    why: Why
    message: str = ""

    @property
    def drains(self) -> bool:
        """Whether requests may run there, so that the gang must leave the gateway's rotation first."""
        return self.grace_seconds is None


Action = CreateGang | EndPods


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica as this round sees it. `gang` is None while it waits to be started again and no pod is left.

    A failed gang has no `failure` yet while some of its pods have not said why they end.
    """

    replica: int
    attempt: int
    name: str
    gang: Gang | None
    state: GangState
    failure: Failure | None
    restarts: int
    retry_at: float | None = None
    revision: str = ""
    """What it was made as; empty if nobody knows any more."""

    @property
    def undecided(self) -> bool:
        """It has failed, and why is not known yet."""
        return self.state is GangState.FAILED and self.gang is not None and self.failure is None


@dataclass(frozen=True, slots=True)
class Blocked:
    """Why a change does not come true, and what to do about it."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Actions of this round, the replicas they were decided on, and when to look again without any event."""

    actions: tuple[Action, ...]
    replicas: tuple[ReplicaView, ...]
    leaving: tuple[Gang, ...]
    """Gangs on their way out, those that this round sends away included."""
    serving: frozenset[str]
    """Ready gangs that this round does not send away."""
    unplaced: tuple[Gang, ...]
    """Whole gated gangs, oldest first, that want nodes."""
    look_again_in: float | None
    held_back: bool = False
    """Gangs are wanted that are not created, because the last create was refused."""
    blocked: Blocked | None = None
    """Why another revision that is wanted does not come; None while it comes, or runs."""
