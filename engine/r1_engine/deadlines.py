"""The limits of time of the moment: the operator may change them while the engine runs.

They stand in `limits.json` beside engine.json, which the kubelet brings up to date within about a minute. Where it is
missing or cannot be read (an older operator, a write half-way), what engine.json said at the start holds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from r1_engine.config import Settings

LONGEST_SECONDS = 86_400.0
"""The longest that the API lets any of them be."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds: a start in all, a start without progress, a drain."""

    start: float
    stall: float
    drain: float


def deadlines(settings: Settings) -> Deadlines:
    """As they are now. Never raises."""
    config = settings.config
    said = _read(settings)
    start = _seconds(said.get("startSeconds"), config.start_seconds, least=1)
    stall = _seconds(said.get("stallSeconds"), config.may_stand_still, least=1)
    return Deadlines(start, min(start, stall), _seconds(said.get("drainSeconds"), config.drain_seconds, least=0))


def _read(settings: Settings) -> dict[str, object]:
    if settings.limits_file is None:
        return {}
    try:
        said = json.loads(settings.limits_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _seconds(said: object, otherwise: float, *, least: float) -> float:
    if isinstance(said, bool) or not isinstance(said, int | float) or not least <= said <= LONGEST_SECONDS:
        return otherwise
    return float(said)
