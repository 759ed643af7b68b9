"""What the status remembers of each replica: the only memory the lifecycle has beside the pods themselves.

Back-off must survive a restart of the operator and the loss of a gang's pods, so a failure is first written to the
status (`replicaStatuses`: gang name with its attempt, stage, restarts, since) and acted upon in a later round.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..api import names
from ..api.timestamps import unix_time
from ..api.types import ReplicaStatus
from .gangs import Failure, Gang, GangState

STABLE_SECONDS = 600
"""A replica that was ready for so long starts counting its restarts anew."""

NEXT_ATTEMPT = "; next attempt at "
"""In the status, between a failed gang's failure and the time of what comes after it."""

_NEVER_READY = frozenset({"Gated", "Pending", "Ray", "Weights", "WarmUp", "Failed"})

FIRST_DELAY_SECONDS = 1.0
BASE_DELAY_SECONDS = 10.0
MAX_DELAY_SECONDS = 300.0
CONFIGURATION_DELAY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Record:
    """Last known gang of one replica."""

    replica: int
    attempt: int
    restarts: int
    stage: str
    since: float
    revision: str = ""
    """What it was made as; empty if the status does not say."""
    message: str = ""

    @property
    def was_ready(self) -> bool:
        """Whether this attempt has been ready. A word of another version says that it is not known: then it was."""
        return self.stage not in _NEVER_READY


def records_of(statuses: Iterable[ReplicaStatus], now: float) -> dict[int, Record]:
    """Newest gang of each replica in a status. Entries whose name is no gang name are skipped.

    A time that lies in the future was written by a leader with another clock: it counts as now.
    """
    records: dict[int, Record] = {}
    listed = list(statuses)
    for status, (replica, attempt) in zip(listed, _numbers(listed), strict=True):
        if replica < 0:
            continue
        known = records.get(replica)
        if known is None or attempt > known.attempt:
            since, message = min(unix_time(status.since) or 0.0, now), status.message.partition(NEXT_ATTEMPT)[0]
            records[replica] = Record(
                replica, attempt, status.restarts, status.stage, since, status.revision or "", message
            )
    return records


def gangs_in(statuses: Iterable[ReplicaStatus]) -> list[tuple[int, int]]:
    """Replica and attempt of each gang in a status. Entries whose name is no gang name are skipped."""
    return [numbers for numbers in _numbers(statuses) if numbers[0] >= 0]


def _numbers(statuses: Iterable[ReplicaStatus]) -> list[tuple[int, int]]:
    found = []
    for status in statuses:
        try:
            found.append((names.replica_of(status.name), names.attempt_of(status.name)))
        except ValueError:
            found.append((-1, -1))
    return found


def restarts_of(gang: Gang, state: GangState, record: Record | None, now: float) -> int:
    """How often in a row this replica had to be started again before `gang`."""
    if record is None or record.attempt > gang.attempt:
        return 0
    if record.attempt < gang.attempt:
        return record.restarts + 1 if record.stage == GangState.FAILED else 0
    if record.stage in {GangState.READY, GangState.UNREADY} and now - record.since >= STABLE_SECONDS:
        return 0
    return record.restarts


def delay_before_restart(restarts: int, failure: Failure | None) -> float:
    """Seconds from a failure to the next attempt, after `restarts` restarts in a row.

    The first one is nearly immediate (one lost GPU should not cost more than the start itself); then exponential. A
    configuration error is retried rarely: the volume may have been filled meanwhile, which no watch would tell.
    """
    if failure is not None and failure.configuration:
        return min(CONFIGURATION_DELAY_SECONDS * 2.0 ** min(restarts, 10), MAX_DELAY_SECONDS)
    if restarts == 0:
        return FIRST_DELAY_SECONDS
    return min(BASE_DELAY_SECONDS * 2.0 ** min(restarts - 1, 10), MAX_DELAY_SECONDS)
