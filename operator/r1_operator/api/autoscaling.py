"""`spec.autoscaling`: within which limits, by which targets and at which hours replicas follow the load."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from .fields import ApiModel
from .names import MAX_REPLICAS

CRON_PATTERN = r"^{item}(,{item})*( {item}(,{item})*){{4}}$".format(
    item=r"(\*|([0-9]{1,2}|[A-Za-z]{3})(-([0-9]{1,2}|[A-Za-z]{3}))?)(/[0-9]{1,2})?"
)
Cron = Annotated[str, StringConstraints(min_length=9, max_length=100, pattern=CRON_PATTERN)]
"""Minute, hour, day of the month, month, day of the week, as for a CronJob. Whether there is such a time is a rule."""


class ScalingSchedule(ApiModel):
    """Other limits from each start to the end that follows it. What starts by then is begun one start earlier."""

    name: str = Field(
        min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", description="How messages call it."
    )
    start: Cron = Field(description="When it comes into force, as a cron expression: '0 7 * * 1-5'.")
    end: Cron = Field(description="When it ends, as a cron expression: '0 19 * * 1-5'.")
    time_zone: str = Field(
        default="Etc/UTC",
        min_length=1,
        max_length=64,
        description="Time zone of both, as the IANA database calls it: Europe/Berlin.",
    )
    min_replicas: int = Field(ge=0, le=MAX_REPLICAS, description="Never fewer replicas than this meanwhile.")
    max_replicas: int | None = Field(
        default=None,
        ge=1,
        le=MAX_REPLICAS,
        description="Never more replicas than this meanwhile. Absent = as outside of it.",
    )


class Autoscaling(ApiModel):
    """Replicas follow the load. The result is status.desiredReplicas; spec.replicas is only where it starts."""

    mode: Literal["Automatic", "Recommend"] = Field(
        default="Automatic",
        description="Automatic: status.desiredReplicas is what there is to be, whatever kubectl scale says. Recommend:"
        " spec.replicas is, and status.autoscaling says what the autoscaler would do. For an HPA or KEDA on the scale"
        " subresource leave spec.autoscaling out.",
    )
    min_replicas: int = Field(
        default=1,
        ge=0,
        le=MAX_REPLICAS,
        description="Never fewer replicas than this. 0 = none while nobody asks; the next request wakes the first.",
    )
    max_replicas: int = Field(ge=1, le=MAX_REPLICAS, description="Never more replicas than this.")
    target_kv_usage_percent: int = Field(
        default=90,
        ge=1,
        le=100,
        description="KV cache in use at which a replica counts as full, in percent.",
    )
    target_tokens_per_second_per_replica: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000,
        description="Output tokens per second that one replica should carry. Absent = throughput does not scale.",
    )
    max_waiting_requests_per_replica: int = Field(
        default=8, ge=0, le=100_000, description="Queued requests per replica above which a replica is added."
    )
    scale_up_cooldown_seconds: int = Field(
        default=60, ge=0, le=86_400, description="Shortest time between two steps up, in seconds."
    )
    scale_down_cooldown_seconds: int = Field(
        default=300, ge=0, le=86_400, description="How long the load must have been low before a step down, in seconds."
    )
    startup_seconds: int = Field(
        default=600,
        ge=1,
        le=86_400,
        description="First guess of how long a replica takes to start, in seconds; measured starts replace it.",
    )
    idle_seconds: int = Field(
        default=1800,
        ge=10,
        le=86_400,
        description="Where minReplicas is 0: for how long nobody has asked when the last replica leaves, in seconds.",
    )
    schedules: tuple[ScalingSchedule, ...] = Field(
        default=(),
        max_length=16,
        description="Other limits at certain hours. Of several in force the greatest limits count.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
