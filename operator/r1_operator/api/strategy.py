"""`spec.strategy`: how a change of revision reaches the replicas, and how one of them tries it first."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from .fields import ApiModel, LongText
from .names import MAX_REPLICAS


class CanaryQuestion(ApiModel):
    """One question to the canary, and what its answer must hold."""

    ask: LongText = Field(description="What the model is asked, as one user message, with temperature 0.")
    expect: Annotated[str, StringConstraints(min_length=1, max_length=253)] = Field(
        description="Must occur in the answer (the chain of thought not counted), whatever its case."
    )
    max_tokens: int = Field(
        default=2048, ge=1, le=65_536, description="Longest chain of thought plus answer, in tokens."
    )


class Canary(ApiModel):
    """One replica of a new revision takes its share of the requests before the others follow. Where it fails, the
    operator goes back to what served before, by itself, until the spec changes again."""

    seconds: int = Field(
        default=600, ge=0, le=86_400, description="How long it must have served before the others follow, in seconds."
    )
    max_error_percent: int = Field(
        default=5,
        ge=0,
        le=100,
        description="Most of its requests that may end with a server error, in percent; counted from 3 such errors on.",
    )
    max_first_token_milliseconds: int | None = Field(
        default=None,
        ge=1,
        le=600_000,
        description="Mean time to the first byte of its answers, in milliseconds. Absent = latency does not abort.",
    )
    questions: tuple[CanaryQuestion, ...] = Field(
        default=(), max_length=32, description="Asked once it is ready; each wrong answer aborts the rollout."
    )


class Strategy(ApiModel):
    """How replicas of another revision take the place of those that serve. One gang tries a new revision first; until
    it has served for long enough, whatever fails comes back as what it was."""

    max_surge: int = Field(
        default=1,
        ge=1,
        le=MAX_REPLICAS,
        description="Gangs beyond spec.replicas during a change. They wait gated: without nodes they cost nothing.",
    )
    max_unavailable: int | None = Field(
        default=None,
        ge=0,
        le=MAX_REPLICAS,
        description="Replicas that may go before others have taken their place, where no nodes are free. Absent = 1, "
        "but 0 for a single replica without a spare: 1 says that a change may take the only one away while its "
        "successor starts.",
    )
    min_ready_seconds: int = Field(
        default=30,
        ge=0,
        le=86_400,
        description="How long the first replica of a new revision must have been ready before others follow.",
    )
    progress_deadline_seconds: int | None = Field(
        default=None,
        ge=10,
        le=604_800,
        description="A change of which no replica becomes ready for so long is told as ProgressDeadlineExceeded, in "
        "seconds. Absent = spec.startup.seconds and 10 minutes.",
    )
    canary: Canary | None = Field(
        default=None, description="Judge the first replica of a new revision, and go back by itself where it fails."
    )
    restarted_at: Annotated[str, StringConstraints(max_length=64)] | None = Field(
        default=None,
        description="Any other text starts every replica anew, by the rules of a change, with the operator's present "
        "defaults; `r1 rollout restart` writes the time.",
    )

    def may_be_missing(self, replicas: int, spares: int = 0) -> int:
        """How many of so many replicas and their spares may be taken away before others have taken their place."""
        if self.max_unavailable is not None:
            return self.max_unavailable
        return max(spares, 1 if replicas > 1 else 0)

    @property
    def trial_seconds(self) -> int:
        """How long the first replica of a new revision is on trial."""
        return max(self.min_ready_seconds, self.canary.seconds if self.canary is not None else 0)
