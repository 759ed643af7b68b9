"""`status` of an R1Deployment: what the operator saw and decided. No phase; conditions say the state."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, StringConstraints, computed_field

from .fields import ReadModel
from .names import MAX_NODES_PER_REPLICA, MAX_REPLICAS

_Status = Literal["True", "False", "Unknown"]
_Stage = Literal["Gated", "Pending", "Ray", "Weights", "WarmUp", "Ready", "Unready", "Draining", "Failed", "Unknown"]


def _known(words: Any) -> BeforeValidator:
    """A word of another version of the operator reads as Unknown: one such word must not cost the whole status."""
    return BeforeValidator(lambda word: "Unknown" if isinstance(word, str) and word not in get_args(words) else word)


ConditionStatus = Annotated[_Status, _known(_Status)]
Stage = Annotated[_Stage, _known(_Stage)]
"""What one replica is doing. Gated: waits for nodes. Pending: its pods do not run yet. Unready: it was Ready and
is not at the moment. Unknown: read from a status of another version, never found by this one. The rest is the
engine's."""

NEVER_OBSERVED = -1
"""`observedGeneration` of a resource that has no status yet; the CRD's default."""
STAGES: tuple[str, ...] = get_args(_Stage)

Timestamp = Annotated[str, StringConstraints(max_length=40), Field(json_schema_extra={"format": "date-time"})]
"""RFC 3339 in UTC with whole seconds: `2026-11-25T13:40:44Z`."""
CamelWord = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Z][A-Za-z0-9]*$")]
# Wide bounds throughout: a status that the API server refuses would leave the user without any.
Message = Annotated[str, StringConstraints(max_length=32_768)]
Name = Annotated[str, StringConstraints(max_length=253)]
Revision = Annotated[str, StringConstraints(max_length=63)]


class Condition(ReadModel):
    """A metav1.Condition."""

    type: CamelWord = Field(description="What the condition is about.")
    status: ConditionStatus = Field(description="True, False, or Unknown.")
    reason: CamelWord = Field(description="Why, in one word for programs.")
    message: Message = Field(default="", description="Why, for people: what, where, and the remedy.")
    last_transition_time: Timestamp = Field(description="When status last changed.")
    observed_generation: int | None = Field(default=None, ge=0, description="metadata.generation it speaks of.")


class PlanStatus(ReadModel):
    """The layout of one replica that the planner chose, and why."""

    nodes_per_replica: int = Field(ge=1, description="Nodes of one replica.")
    gpus_per_replica: int = Field(ge=1, description="GPUs of one replica.")
    tensor_parallel: int = Field(ge=1, description="Ranks of one replica.")
    attention_data_parallel: int = Field(ge=1, description="Data-parallel attention groups.")
    expert_parallel: int = Field(ge=1, description="Ranks over which the experts are spread.")
    kv_tokens_per_replica: int = Field(ge=0, description="Tokens that the KV cache of one replica holds.")
    engine_args: tuple[Annotated[str, StringConstraints(max_length=4096)], ...] = Field(
        default=(), max_length=1024, description="Arguments that SGLang is started with."
    )
    reasons: tuple[Message, ...] = Field(default=(), max_length=256, description="Why each choice was made.")


class LoadStatus(ReadModel):
    """Load over all ready replicas; rounded, and written at most every 30 s."""

    tokens_per_second: int = Field(ge=0, description="Output tokens per second.")
    kv_usage_percent: int = Field(ge=0, le=100, description="KV cache in use, mean over the replicas, in percent.")
    running_requests: int = Field(ge=0, description="Requests that are being answered.")
    waiting_requests: int = Field(ge=0, description="Requests that wait in the engines.")
    at: Timestamp = Field(description="When it was measured.")


class AutoscalingOutlook(ReadModel):
    """What the autoscaler decides on. Replicas in percent: 470 are 4.7 of them. Written with the decision's words."""

    needed_percent: int = Field(ge=0, description="Replicas that are needed by the signal that asks for most.")
    ahead_seconds: int = Field(ge=0, description="How far the forecast looks ahead: one start.")
    expected_percent: int = Field(ge=0, description="Replicas that the load is forecast to fill then.")
    bound_percent: int = Field(ge=0, description="Replicas that it is to stay below, by the forecast's past errors.")
    way: CamelWord = Field(description="How it is forecast: Level, Trend or DayBefore.")
    error_percent: int | None = Field(
        default=None, ge=0, description="How far such forecasts were off as a rule; absent: not tried often enough."
    )
    running_requests_per_replica: int = Field(ge=0, description="Requests that a replica is seen to run at once.")
    limit: Message = Field(default="", description="What limits them.")


class AutoscalingHistory(ReadModel):
    """What the autoscaler knows again after a restart of the operator. Written every ten minutes."""

    until: Timestamp = Field(description="End of the last ten minutes that are counted.")
    needed_percents: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(),
        max_length=144,
        description="Replicas needed in each ten minutes, oldest first; 470: 4.7 of them.",
    )
    alone_millitokens: int | None = Field(
        default=None, ge=0, description="Tokens that a lone request gets in 1000 s; absent: not seen yet."
    )
    request_millitokens: int = Field(
        default=0, ge=0, description="Of these, what each request a second of a replica takes."
    )
    token_microtokens: int = Field(
        default=0, ge=0, description="And each output token a second of a replica, in thousandths."
    )
    revision: Revision = Field(default="", description="Revision of which the speed was seen.")


class AutoscalingStatus(ReadModel):
    """The autoscaler's last decision."""

    mode: CamelWord = Field(default="Automatic", description="Whether it decides, or Recommend.")
    desired_replicas: int = Field(ge=0, le=MAX_REPLICAS, description="Replicas it wants.")
    reason: CamelWord = Field(description="Why, in one word for programs.")
    message: Message = Field(default="", description="Why, with the numbers.")
    at: Timestamp = Field(description="When it was decided.")
    last_scale_up: Timestamp | None = Field(default=None, description="When it last added a replica.")
    last_scale_down: Timestamp | None = Field(default=None, description="When it last took one away.")
    outlook: AutoscalingOutlook | None = Field(default=None, description="Load, forecast and capacity in numbers.")
    history: AutoscalingHistory | None = Field(default=None, description="What outlasts a restart of the operator.")


class ReplicaStatus(ReadModel):
    """One replica's current gang."""

    name: Name = Field(description="Name of the gang: resource, replica and attempt.")
    stage: Stage = Field(description="What it is doing.")
    message: Message = Field(default="", description="More about the stage.")
    nodes: tuple[Name, ...] = Field(
        default=(), max_length=MAX_NODES_PER_REPLICA, description="Kubernetes nodes it runs on, by node index."
    )
    restarts: int = Field(default=0, ge=0, description="How often this replica had to be started again.")
    since: Timestamp = Field(description="When it entered the stage.")
    revision: Revision = Field(default="", description="Revision of the spec that it runs.")


_Trial = Literal["None", "Running", "Passed", "Aborted", "Unknown"]


class RolloutStatus(ReadModel):
    """The last change of revision."""

    revision: Revision = Field(description="Revision that it leads to.")
    progressed_at: Timestamp = Field(description="When it began, or a replica of it last became ready.")
    canary: Annotated[_Trial, _known(_Trial)] = Field(
        default="None", description="How the first replica's trial stands; Aborted: what served before is kept."
    )
    message: Message = Field(default="", description="Why, for people.")


class R1DeploymentStatus(ReadModel):
    """What the operator saw and decided."""

    observed_generation: int | None = Field(
        default=None,
        ge=NEVER_OBSERVED,
        description="metadata.generation that this status speaks of; -1: none, the operator has not seen it yet.",
    )
    replicas: int = Field(default=0, ge=0, description="Replicas that exist, in any stage.")
    ready_replicas: int = Field(default=0, ge=0, description="Replicas that answer requests.")
    desired_replicas: int = Field(default=0, ge=0, description="Replicas wanted: spec.replicas or the autoscaler's.")
    spare_replicas: int = Field(
        default=0, ge=0, description="Hot spares wanted beside desiredReplicas: spec.spareReplicas, none at 0."
    )
    updated_replicas: int = Field(default=0, ge=0, description="Ready replicas of the wanted revision.")
    unavailable_replicas: int = Field(default=0, ge=0, description="Replicas wanted that are not ready.")
    current_revision: Revision = Field(
        default="", description="Revision that serves: the old one of a roll until its last replica is gone."
    )
    update_revision: Revision = Field(default="", description="Revision wanted.")
    rollout: RolloutStatus | None = Field(default=None, description="How the change to updateRevision stands.")
    attempt_floor: int = Field(
        default=0, ge=0, description="First attempt of a replica that comes anew: no gang's name is used twice."
    )
    gpus: int = Field(default=0, ge=0, description="GPUs that the existing replicas hold.")
    selector: Annotated[str, StringConstraints(max_length=512)] = Field(
        default="", description="Label selector of one pod a replica, node 0's, for the scale subresource."
    )
    last_update_time: Timestamp | None = Field(default=None, description="When this status was last written.")
    plan: PlanStatus | None = Field(default=None, description="The layout of one replica.")
    load: LoadStatus | None = Field(default=None, description="Load over all ready replicas.")
    autoscaling: AutoscalingStatus | None = Field(default=None, description="The autoscaler's last decision.")
    replica_statuses: tuple[ReplicaStatus, ...] = Field(
        default=(),
        max_length=MAX_REPLICAS * 2,
        description="Each replica's gang.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=32,
        description="Ready and its parts.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )

    @computed_field(  # type: ignore[prop-decorator]
        description="Ready of wanted replicas, as kubectl get prints it.",
        json_schema_extra={"maxLength": 32},
    )
    @property
    def ready(self) -> str:
        """`1/2`, spares included. Derived, so that it never disagrees with the numbers."""
        return f"{self.ready_replicas}/{self.desired_replicas + self.spare_replicas}"

    def condition(self, type_: str) -> Condition | None:
        """The condition of that type, if it is there."""
        return next((condition for condition in self.conditions if condition.type == type_), None)
