"""The condition `PodsAsAsked`: what admission made of the engine pods."""

from __future__ import annotations

from collections.abc import Mapping

from ..api.reasons import Reason
from .observation import Change, Finding, Observation

_MOST = 5
"""Changes of one pod that are told; what a webhook does to one it does to all."""


def pods_as_asked(observed: Observation) -> Finding | None:
    """None where nothing was changed, or nothing is known."""
    if not observed.changed:
        return None
    return Finding("False", Reason.CHANGED_IN_ADMISSION, _told(observed.changed))


def harm(observed: Observation) -> str | None:
    """The changes that slow, cut or stop engines, in words; None without any."""
    harmful = {pod: tuple(c for c in changes if c.harms) for pod, changes in observed.changed.items()}
    harmful = {pod: changes for pod, changes in harmful.items() if changes}
    return _told(harmful) if harmful else None


def _told(changed: Mapping[str, tuple[Change, ...]]) -> str:
    """Of the pod with the worst changes; the first by name where several are alike."""
    pod, changes = min(changed.items(), key=lambda item: (not item[1][0].harms, item[0]))
    more = f" (and {len(changes) - _MOST} more changes)" if len(changes) > _MOST else ""
    others = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
    return f"{pod}{others} was changed in admission: {'. '.join(str(c) for c in changes[:_MOST])}{more}"
