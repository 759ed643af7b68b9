"""What state a gang is in, and why it counts as failed. Pure.

The order of trust: what the engine's container and the pod say of their own end; then the agent of node 0, which
watches all ranks and is asked every half second; then the kubelet's probes and the node's Ready condition, which fall
silent together with the control plane's way to the node while the engine serves on. *Was ready and is not* is another
thing than *never was ready*: the first may be a blink and is left alone for long, the second has served nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .gangs import Failure, Gang, GangState, Hang, Heard, Member
from .records import Record

EXIT_CONFIGURATION = 78  # contracts.md, exit codes
_NODE_LOST = "NodeLost"  # the engine's reason of an end whose cause is another node

UNSCHEDULABLE_SECONDS = 30
"""A pod pinned to a node that somebody else took in the meantime stays unschedulable: the scheduler has this long."""
START_MARGIN_SECONDS = 300
"""Beyond the engine's own limits on a start; after that the operator ends what the engine cannot."""
UNREADY_SECONDS = 300
"""A replica that was ready, is not, and whose agent is silent, is given up after this long: six times what Kubernetes
waits before it calls a node lost, and half of what a new start takes at best."""

_HANGS_FOR_SECONDS = {
    # Nothing but a change by somebody helps; the kubelet may only have been faster than the object it looks for.
    "InvalidImageName": 60.0,
    "ErrImageNeverPull": 60.0,
    "CreateContainerConfigError": 60.0,
    "CreateContainerError": 60.0,
    "RunContainerError": 60.0,
    # A registry may be back in a moment.
    "ErrImagePull": 120.0,
    "ImagePullBackOff": 120.0,
    # A volume is let go by the node that had it after up to 2 min, and the kubelet looks every 2 min.
    "FailedMount": 300.0,
    "FailedAttachVolume": 300.0,
}
_REMEDIES = {
    "ErrImagePull": "check spec.engine.image and the pull secrets of the namespace",
    "ImagePullBackOff": "check spec.engine.image and the pull secrets of the namespace",
    "InvalidImageName": "check spec.engine.image",
    "ErrImageNeverPull": "check spec.engine.image",
    "CreateContainerConfigError": "make the Secret or ConfigMap that it names",
    "FailedMount": "check spec.model.weights and the volume",
    "FailedAttachVolume": "another node holds the volume; use one with ReadOnlyMany, or wait until it is let go",
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for or against gangs beside their pods. By gang name unless said otherwise; seconds.

    `dead_nodes`: node → why it counts as lost, as the guard allows. `hangs`: by pod uid. `silence`: for how long the
    agent of node 0 has not answered; a gang that is missing there has not been asked yet. `remembers`: the records
    were read back; without them a gang that runs counts as one that was ready.
    """

    start_seconds: float
    stall_seconds: float = float("inf")
    drain_seconds: float = float("inf")
    records: Mapping[int, Record] = field(default_factory=dict)
    remembers: bool = True
    dead_nodes: Mapping[str, str] = field(default_factory=dict)
    heard: Mapping[str, Heard] = field(default_factory=dict)
    silence: Mapping[str, float] = field(default_factory=dict)
    hangs: Mapping[str, Hang] = field(default_factory=dict)

    def was_ready(self, gang: Gang) -> bool:
        """Whether this attempt has been ready before, as far as anybody knows."""
        record = self.records.get(gang.replica)
        if record is None:
            return not self.remembers
        # A record of another attempt: a status that could not be written, or one from a backup. Then it is not known.
        return record.was_ready if record.attempt == gang.attempt else True


@dataclass(frozen=True, slots=True)
class Verdict:
    """State of a gang; `failure` with FAILED only."""

    state: GangState
    failure: Failure | None = None


def judge(gang: Gang, evidence: Evidence, now: float) -> Verdict:
    """State of a gang now, and why it has failed if it has."""
    failure = _failure(gang, evidence, now)
    if failure is not None:
        return Verdict(GangState.FAILED, failure)
    if any(m.deleting for m in gang.members):
        return Verdict(GangState.LEAVING)
    if any(m.gated for m in gang.members) or gang.missing:
        return Verdict(GangState.GATED)
    if all(m.ready for m in gang.members):
        return Verdict(GangState.READY)
    if not evidence.was_ready(gang):
        return Verdict(GangState.STARTING)
    heard = evidence.heard.get(gang.name)
    # The probe asks the agent what we ask it: where both differ, the kubelet is late or cut off.
    return Verdict(GangState.READY if heard is not None and heard.stage == "Ready" else GangState.UNREADY)


def remembered(record: Record) -> Failure | None:
    """Why the gang of a record failed, as far as the status has room for it: its pods are gone."""
    reason, colon, message = record.message.partition(": ")
    if not colon or not reason.isalnum():
        return None
    remedy = _REMEDIES.get(reason, "")
    if remedy and remedy not in message:
        message = f"{message}; {remedy}"
    return Failure(reason, message, record.since, configuration=reason in _HANGS_FOR_SECONDS)


def _failure(gang: Gang, evidence: Evidence, now: float) -> Failure | None:
    """A cause beats its consequences, the first in time wins."""
    deaths = [m for m in gang.members if m.termination and not m.deleting]
    blamed = [m for m in deaths if m.termination and m.termination.exit_code != 0]
    if blamed:
        return _death(gang, blamed)
    if any(m.deleting for m in gang.members):
        return None  # members that finished with 0 or are gone already are what a drain looks like
    if deaths:
        return _death(gang, deaths)
    for member in gang.members:
        if member.node is not None and member.node in evidence.dead_nodes:
            why = evidence.dead_nodes[member.node]
            return Failure("NodeLost", f"node {member.node} is lost: {why}", now, node=member.node)
    if gang.missing and any(not m.gated for m in gang.members):
        indices = ", ".join(map(str, gang.missing))
        return Failure("MemberGone", f"pod {indices} of gang {gang.name} is gone though nobody drained it", now)
    if gang.missing or any(m.gated for m in gang.members):
        return None
    return _unplaceable(gang, now) or _hung(gang, evidence, now) or _silent(gang, evidence, now)


def _death(gang: Gang, dead: list[Member]) -> Failure:
    # When one part dies the others end as well: a configuration error is the cause, then what speaks of itself and not
    # of a peer (on a busy machine the survivors may be gone before the dead one's container is), then the first end.
    def order(member: Member) -> tuple[bool, bool, float, int]:
        end = member.termination
        assert end is not None
        return end.exit_code != EXIT_CONFIGURATION, end.reason == _NODE_LOST, end.finished_at, member.index

    first = min(dead, key=order)
    end = first.termination
    assert end is not None
    where = f"pod {first.name}" + (f" on node {first.node}" if first.node else "")
    message = f"{where}: {end.message}"
    # Who lost node 0 does not know its machine's name.
    lost = gang.head if end.reason == _NODE_LOST and first.index != 0 else None
    node = (lost.node if lost is not None else None) or end.node or first.node or ""
    return Failure(end.reason, message, end.finished_at, end.exit_code == EXIT_CONFIGURATION, node)


def _unplaceable(gang: Gang, now: float) -> Failure | None:
    for member in gang.members:
        if member.unschedulable is not None and now - member.changed_at > UNSCHEDULABLE_SECONDS:
            message = f"pod {member.name} no longer fits its node: {member.unschedulable}"
            return Failure("NodeTaken", message, now, node=member.pinned or "")
    return None


def _hung(gang: Gang, evidence: Evidence, now: float) -> Failure | None:
    """A container that cannot be made: its nodes are of use to somebody else meanwhile."""
    for member in gang.members:
        hang = evidence.hangs.get(member.uid)
        if hang is None or member.ready or member.running_since is not None:
            continue
        limit = _HANGS_FOR_SECONDS.get(hang.reason)
        if limit is not None and now - hang.since >= limit:
            remedy = _REMEDIES.get(hang.reason)
            message = f"pod {member.name} on node {member.node}: {hang.message}" + (f"; {remedy}" if remedy else "")
            # The kubelet goes back and forth between the failed pull and the wait for the next one.
            reason = "ImagePullBackOff" if hang.reason == "ErrImagePull" else hang.reason
            return Failure(reason, message, now, configuration=True, node=member.node or "")
    return None


def _silent(gang: Gang, evidence: Evidence, now: float) -> Failure | None:
    waiting = [m for m in gang.members if not m.ready]
    if not waiting:
        return None
    if evidence.was_ready(gang):
        return _stopped_answering(gang, waiting[0], evidence, now)
    return _not_ready_in_time(gang, waiting[0], evidence, now)


def _stopped_answering(gang: Gang, late: Member, evidence: Evidence, now: float) -> Failure | None:
    record = evidence.records.get(gang.replica)
    silence = evidence.silence.get(gang.name, 0.0)
    if record is None or record.attempt != gang.attempt or record.stage != GangState.UNREADY:
        return None  # first the status says so, then its time runs
    heard = evidence.heard.get(gang.name)
    if (
        heard is not None
        and heard.stage == "Draining"
        and now - record.since > evidence.drain_seconds + UNREADY_SECONDS
    ):
        message = f"pod {late.name} on node {late.node} drains though nobody deletes it, for {now - record.since:.0f} s"
        return Failure("StoppedServing", message, now, node=late.node or "")
    if min(silence, now - record.since) < UNREADY_SECONDS:
        return None
    message = (
        f"pod {late.name} on node {late.node} was ready and has not been for {now - record.since:.0f} s, "
        f"and the agent of node 0 has not answered for {silence:.0f} s"
    )
    return Failure("StoppedAnswering", message, now, node=late.node or "")


def _not_ready_in_time(gang: Gang, late: Member, evidence: Evidence, now: float) -> Failure | None:
    """The engine ends a start that stands still or takes too long; this is for one that cannot even do that."""
    started = max(m.scheduled_at or m.created_at for m in gang.members)
    limit = evidence.start_seconds + START_MARGIN_SECONDS
    where = f"pod {late.name} on node {late.node or late.pinned}"
    if now - started > limit:
        why = late.waiting or "its readiness probe never passed"
        of = f"spec.startup.seconds {evidence.start_seconds:.0f} + {START_MARGIN_SECONDS}"
        return Failure("NotReadyInTime", f"{where} was not ready within {limit:.0f} s ({of}): {why}", now)
    if any(m.running_since is None for m in gang.members):
        return None
    heard, silence = evidence.heard.get(gang.name), evidence.silence.get(gang.name, 0.0)
    still = silence if heard is None else now - heard.progress_at if heard.progress_at is not None else 0.0
    still = min(still, now - max(m.running_since or now for m in gang.members))
    if still <= evidence.stall_seconds + START_MARGIN_SECONDS:
        return None
    said = f"in stage {heard.stage}: {heard.message}" if heard is not None else "the agent of node 0 does not answer"
    of = f"spec.startup.stallSeconds {evidence.stall_seconds:.0f} + {START_MARGIN_SECONDS}"
    message = f"{where}: its start has stood still for {still:.0f} s ({of}), {said}"
    return Failure("StartStalled", message, now, node=late.node or "")
