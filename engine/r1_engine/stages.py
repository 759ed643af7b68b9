"""The stages of a gang's life and how long each took."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any


class Stage(StrEnum):
    RAY = "Ray"
    WEIGHTS = "Weights"
    WARM_UP = "WarmUp"
    READY = "Ready"
    DRAINING = "Draining"
    FAILED = "Failed"


BEFORE_SERVING = (Stage.RAY, Stage.WEIGHTS, Stage.WARM_UP)
_ORDER = list(Stage)
_TIMED = {Stage.RAY: "ray", Stage.WEIGHTS: "weights", Stage.WARM_UP: "warmUp"}


@dataclass(frozen=True)
class Progress:
    """Where a gang or one node of it stands. `since` is in Unix seconds; `timings` in seconds per finished stage."""

    stage: Stage
    message: str
    since: float
    timings: dict[str, float] = field(default_factory=dict)

    def enter(self, stage: Stage, message: str, now: float) -> Progress:
        """The next stage. A stage never goes back; the same stage only takes the new message."""
        if order(stage) < order(self.stage):
            return self
        if stage is self.stage:
            return replace(self, message=message)
        timings = dict(self.timings)
        if name := _TIMED.get(self.stage):
            timings[name] = round(now - self.since, 3)
        return Progress(stage, message, now, timings)


def order(stage: Stage) -> int:
    """Stages by their place in a gang's life."""
    return _ORDER.index(stage)


@dataclass(frozen=True)
class Member:
    """What one node last said of itself."""

    index: int
    name: str
    stage: Stage
    message: str
    gpus: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"index": self.index, "name": self.name, "stage": str(self.stage), "message": self.message}
