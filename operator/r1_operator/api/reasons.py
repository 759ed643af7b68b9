"""Condition types, condition reasons and event reasons: every CamelCase word that programs may rely on."""

from __future__ import annotations

from enum import StrEnum


class ConditionType(StrEnum):
    """Conditions of an R1Deployment."""

    READY = "Ready"
    """Every wanted replica answers requests through the gateway. Its reason is the STATUS column."""
    AVAILABLE = "Available"
    """At least one replica answers requests through the gateway."""
    PROGRESSING = "Progressing"
    """What runs is what is wanted, or on its way there. False: it is not, and nothing that the operator does helps."""
    DEGRADED = "Degraded"
    """Something is broken that needs somebody, whether or not replicas serve."""
    SPEC_VALID = "SpecValid"
    """The planner accepts the spec."""
    WEIGHTS_READY = "WeightsReady"
    """The weights' volume exists and no engine complained about its content."""
    GANGS_PLACED = "GangsPlaced"
    """Every wanted replica has its nodes."""
    GATEWAY_READY = "GatewayReady"
    """The gateway answers and knows the ready replicas."""
    AUTOSCALING = "Autoscaling"
    """The autoscaler has the data it needs; only with spec.autoscaling."""


class Reason(StrEnum):
    """Reasons of conditions."""

    # Ready
    READY = "Ready"
    STARTING = "Starting"
    SCALING = "Scaling"
    UPDATING = "Updating"
    DEGRADED = "Degraded"
    START_FAILED = "StartFailed"
    SCALED_TO_ZERO = "ScaledToZero"
    NOT_ROUTED = "NotRouted"
    RECONCILE_FAILED = "ReconcileFailed"
    # What keeps a wish from coming true (Progressing), or is broken beside replicas that serve (Degraded)
    QUOTA_EXCEEDED = "QuotaExceeded"
    CREATE_REFUSED = "CreateRefused"
    NAME_TAKEN = "NameTaken"
    NO_NODE_FOR_NEW_REVISION = "NoNodeForNewRevision"
    NODE_LOSS_SUSPENDED = "NodeLossSuspended"
    REPLICAS_UNREADY = "ReplicasUnready"
    STALE_WATCH = "StaleWatch"
    STATUS_NOT_READ = "StatusNotRead"
    UNKNOWN_FIELDS = "UnknownFields"
    FOREIGN_PODS = "ForeignPods"
    # SpecValid
    PLANNED = "Planned"
    INVALID_SPEC = "InvalidSpec"
    PLAN_REFUSED = "PlanRefused"
    # WeightsReady
    WEIGHTS_FOUND = "WeightsFound"
    WEIGHTS_UNCHECKED = "WeightsUnchecked"
    CLAIM_NOT_FOUND = "ClaimNotFound"
    CLAIM_NOT_BOUND = "ClaimNotBound"
    CLAIM_ACCESS_MODE = "ClaimAccessMode"
    WEIGHTS_INVALID = "WeightsInvalid"
    # GangsPlaced
    PLACED = "Placed"
    INSUFFICIENT_NODES = "InsufficientNodes"
    NO_REPLICAS = "NoReplicas"
    # GatewayReady
    GATEWAY_READY = "GatewayReady"
    GATEWAY_STARTING = "GatewayStarting"
    GATEWAY_BLOCKED = "GatewayBlocked"
    GATEWAY_SYNC_FAILED = "GatewaySyncFailed"
    SECRET_NOT_FOUND = "SecretNotFound"
    # Autoscaling, and status.autoscaling.reason
    AUTOSCALING_ACTIVE = "AutoscalingActive"
    WITHIN_TARGETS = "WithinTargets"
    KV_USAGE_HIGH = "KvUsageHigh"
    THROUGHPUT_HIGH = "ThroughputHigh"
    QUEUE_LONG = "QueueLong"
    LOAD_LOW = "LoadLow"
    AT_MAXIMUM = "AtMaximum"
    AT_MINIMUM = "AtMinimum"
    COOLDOWN = "Cooldown"
    REPLICA_STARTING = "ReplicaStarting"
    MISSING_METRICS = "MissingMetrics"


class EventReason(StrEnum):
    """Reasons of events."""

    PLANNED = "Planned"
    PLAN_REFUSED = "PlanRefused"
    INVALID_SPEC = "InvalidSpec"
    GANG_CREATED = "GangCreated"
    GANG_PLACED = "GangPlaced"
    GANG_UNPLACEABLE = "GangUnplaceable"
    REPLICA_READY = "ReplicaReady"
    GANG_FAILED = "GangFailed"
    GPU_UNHEALTHY = "GpuUnhealthy"
    GANG_RESTARTING = "GangRestarting"
    REPLICA_DRAINING = "ReplicaDraining"
    REPLICA_REMOVED = "ReplicaRemoved"
    SCALED_UP = "ScaledUp"
    SCALED_DOWN = "ScaledDown"
    WEIGHTS_UNAVAILABLE = "WeightsUnavailable"
    GATEWAY_SYNC_FAILED = "GatewaySyncFailed"
    RECONCILE_FAILED = "ReconcileFailed"
