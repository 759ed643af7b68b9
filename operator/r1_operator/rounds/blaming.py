"""Which of this round's failures speak against a node, so that the next gang had better go elsewhere."""

from __future__ import annotations

from ..lifecycle.actions import Decision, ReplicaView
from ..lifecycle.observed import Wanted
from ..placement.blame import Blame
from .facts import Facts

_THE_MACHINES = frozenset(
    {
        *("NodeLost", "NodeTaken", "GpuUnhealthy", "GpuNotFree", "GpuFailed", "HardwareMismatch"),
        *("DriverTooOld", "DriverUnusable", "NoRdmaDevices", "NoRoceAddress", "PortsDown", "RateBelowProfile"),
        *("NotUniform", "MemlockTooLow", "GpuDirectMissing", "GpuInitiatedMissing", "NcclUsesSockets", "PortTaken"),
        *("FailedMount", "FailedAttachVolume", "CreateContainerError", "RunContainerError", "Evicted"),
        *("UnexpectedAdmissionError", "NodeAffinity", "NodeShutdown"),
    }
)
"""Reasons that are the machine's, whatever runs there."""
_NOT_A_MACHINES = (
    "Weights",
    "Tokenizer",
    "Model",
    "Checkpoint",
    "Image",
    "ErrImage",
    "InvalidImage",
    "EngineArgument",
    "Gang",
)
"""Beginnings of reasons that would be the same on any machine."""


def blames(facts: Facts, decision: Decision, wanted: Wanted) -> tuple[Blame, ...]:
    """Failures whose cause is known, and GPUs that NVML calls unhealthy although their gang serves."""
    found = [blame for view in decision.replicas if (blame := _of_failure(facts, view, wanted)) is not None]
    now_sick = [
        Blame(node, f"{gang}/{what}"[:120], "GpuUnhealthy", what, facts.at)
        for gang, gpus in sorted(facts.engines.sick.items())
        for node, _, what in (gpu.partition(": ") for gpu in gpus)
    ]
    return (*found, *now_sick)


def _of_failure(facts: Facts, view: ReplicaView, wanted: Wanted) -> Blame | None:
    if view.failure is None or view.gang is None or not view.failure.node:
        return None
    reason = view.failure.reason
    if reason not in _THE_MACHINES:
        # A revision that has never served breaks on any machine, and so does what is configured wrongly.
        served = view.revision == wanted.stable or (
            view.revision == wanted.revision and wanted.proven and wanted.stable
        )
        if view.failure.configuration or not served or reason.startswith(_NOT_A_MACHINES):
            return None
    key = f"{facts.subject.metadata.namespace}/{view.name}/{view.gang.members[0].uid}"
    return Blame(view.failure.node, key, reason, view.failure.message, view.failure.at)
