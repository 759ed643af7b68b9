"""`status.replicaStatuses`: what each gang does. The lifecycle reads its memory back from here (records.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from ..api.timestamps import rfc3339
from ..api.types import ReplicaStatus, Stage
from ..lifecycle.actions import ReplicaView
from ..lifecycle.gangs import Gang, GangState
from .observation import Observation

UNDECIDED = "a pod has ended; waiting for what the others say"
"""Message of a failed gang whose cause is not known yet. A few seconds at most."""

SICK_GPUS = "serves, but NVML calls these unhealthy: "
"""Beginning of the message of a ready replica that a GPU may soon take down. Nothing is done about it by itself."""

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
    return tuple(entries.values())


def _stage(
    view: ReplicaView, observed: Observation, waiting: Mapping[str, str], known: Mapping[str, ReplicaStatus]
) -> tuple[Stage, str]:
    if view.undecided:
        return "Failed", UNDECIDED
    if view.state is GangState.FAILED:
        if view.failure is None:  # its pods are gone: what was found when they were there still holds
            return "Failed", known[view.name].message if view.name in known else "waits for its next attempt"
        again = f"; next attempt at {rfc3339(view.retry_at)}" if view.retry_at is not None else ""
        return "Failed", f"{view.failure.reason}: {view.failure.message}{again}"
    if view.state is GangState.GATED:
        return "Gated", waiting.get(view.name, "waits for its nodes")
    if view.state is GangState.READY:
        sick = observed.sick_gpus.get(view.name)
        return "Ready", SICK_GPUS + "; ".join(sick) if sick else ""
    reading = observed.readings.get(view.name)
    if reading is not None and reading.stage in _STARTING_STAGES:
        return cast(Stage, reading.stage), reading.message
    if reading is not None and reading.stage == "Ready":
        return "WarmUp", "ready by its own account; waiting for the kubelet's probe on every node"
    members = view.gang.members if view.gang else ()
    stuck = next((m for m in members if m.waiting), None)
    return "Pending", f"pod {stuck.name}: {stuck.waiting}" if stuck else "its containers are being started"


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
    nodes = tuple(m.node or m.pinned or "" for m in gang.members) if gang else before.nodes if before else ()
    return ReplicaStatus(
        name=name,
        stage=stage,
        message=message[:4096],
        nodes=tuple(n for n in nodes if n),
        restarts=restarts,
        since=before.since if same and before is not None else rfc3339(now),
    )
