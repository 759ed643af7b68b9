"""`status.replicaStatuses`: what each gang does. The lifecycle reads its memory back from here (records.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from ..api.timestamps import rfc3339, unix_time
from ..api.types import ReplicaStatus, Stage
from ..lifecycle.actions import ReplicaView
from ..lifecycle.gangs import Gang, GangState
from ..lifecycle.records import NEXT_ATTEMPT
from .faults import unready_words, waiting_of
from .observation import Observation
from .wording import shorten, wire_bytes

UNDECIDED = "a pod has ended; waiting for what the others say"
"""Message of a failed gang whose cause is not known yet. A few seconds at most."""
SICK_GPUS = "serves, but NVML calls these unhealthy: "
"""Beginning of the message of a ready replica that a GPU may soon take down. Nothing is done about it by itself."""

MESSAGE_BYTES = 256
"""Of one replica: where to look. The whole story is in the event and in the pod."""
BUDGET_BYTES = 896 * 1024
"""All entries with what managedFields adds to each. etcd takes 1.5 MiB for the whole object, and a status that cannot
be written would keep every failed gang from being started again (records.py): so the entries of the most replicas that
the API allows fit in here, and half as much again is left to the spec and the rest of the status."""
_ENTRY_BYTES = 320
"""Keys, stage, times and restarts of an entry, and its keys in managedFields."""

_STARTING_STAGES = frozenset({"Ray", "Weights", "WarmUp"})


def replica_statuses(
    previous: Mapping[str, ReplicaStatus], observed: Observation, now: float
) -> tuple[ReplicaStatus, ...]:
    """One entry a gang: the replicas in order, then those on their way out. `previous` by name."""
    decision = observed.decision
    if decision is None:
        return tuple(previous.values())
    waiting = {u.gang: u.message for u in observed.unplaceable}
    entries: dict[str, ReplicaStatus] = {}
    for view in decision.replicas:
        stage, message = _stage(view, observed, waiting, previous)
        entries[view.name] = _entry(previous, view.name, stage, message, view.gang, view.restarts, now)
    for gang in decision.leaving:
        restarts = previous[gang.name].restarts if gang.name in previous else 0
        if gang.name not in entries:
            message = "leaves; running requests may finish"
            entries[gang.name] = _entry(previous, gang.name, "Draining", message, gang, restarts, now)
    return _within_budget(tuple(entries.values()))


def _stage(
    view: ReplicaView, observed: Observation, waiting: Mapping[str, str], known: Mapping[str, ReplicaStatus]
) -> tuple[Stage, str]:
    if view.undecided:
        return "Failed", UNDECIDED
    if view.state is GangState.FAILED:
        if view.failure is None:  # its pods are gone: what was found when they were there still holds
            return "Failed", known[view.name].message if view.name in known else "waits for its next attempt"
        again = f"{NEXT_ATTEMPT}{rfc3339(view.retry_at)}" if view.retry_at is not None else ""
        why = shorten(f"{view.failure.reason}: {view.failure.message}", MESSAGE_BYTES - len(again))
        return "Failed", why + again
    if view.state is GangState.GATED:
        return "Gated", waiting.get(view.name, "waits for its nodes")
    if view.state is GangState.READY:
        sick = observed.sick_gpus.get(view.name)
        return "Ready", SICK_GPUS + "; ".join(sick) if sick else ""
    if view.state is GangState.UNREADY:
        return "Unready", unready_words(view, observed)
    reading = observed.readings.get(view.name)
    if reading is not None and reading.stage in _STARTING_STAGES:
        return cast(Stage, reading.stage), reading.message
    if reading is not None and reading.stage == "Ready":
        return "WarmUp", "ready by its own account; waiting for the kubelet's probe on every node"
    members = view.gang.members if view.gang else ()
    stuck = next((m for m in members if m.waiting), None)
    return (
        "Pending",
        f"pod {stuck.name}: {': '.join(waiting_of(stuck))}" if stuck else "its containers are being started",
    )


def _entry(
    previous: Mapping[str, ReplicaStatus],
    name: str,
    stage: Stage,
    message: str,
    gang: Gang | None,
    restarts: int,
    now: float,
) -> ReplicaStatus:
    before = previous.get(name)
    same = before is not None and before.stage == stage
    if same and before is not None and stage == "Failed":
        restarts = before.restarts
    return ReplicaStatus(
        name=name,
        stage=stage,
        message=shorten(message, MESSAGE_BYTES),
        nodes=nodes_of(gang) if gang else before.nodes if before else (),
        restarts=restarts,
        since=before.since if same and before is not None and _past(before.since, now) else rfc3339(now),
        revision=gang.revision if gang else before.revision if before else "",
    )


def _past(moment: str, now: float) -> bool:
    """Not what a leader with another clock has dated into the future: no time would ever run from there."""
    return (unix_time(moment) or 0.0) <= now + _CLOCK_SECONDS


_CLOCK_SECONDS = 2.0
"""Two hosts that keep time may differ by so much."""


def nodes_of(gang: Gang) -> tuple[str, ...]:
    """The nodes that a gang has been given, by node index."""
    return tuple(n for n in (m.node or m.pinned for m in gang.members) if n)


def _within_budget(entries: tuple[ReplicaStatus, ...]) -> tuple[ReplicaStatus, ...]:
    """What the lifecycle remembers stays. Of the rest all give the same, so that no entry depends on its turn."""
    for nodes, message in ((None, MESSAGE_BYTES), (1, MESSAGE_BYTES), (1, MESSAGE_BYTES // 4), (0, 0)):
        if sum(map(_size, entries)) <= BUDGET_BYTES:
            break
        entries = tuple(
            r.model_copy(update={"nodes": r.nodes[:nodes], "message": shorten(r.message, message) if message else ""})
            for r in entries
        )
    return entries


def _size(entry: ReplicaStatus) -> int:
    """Upper bound of its bytes in the stored object."""
    nodes = sum(len(node) + 3 for node in entry.nodes)
    return _ENTRY_BYTES + 2 * len(entry.name) + wire_bytes(entry.message) + nodes + len(entry.revision)
