"""Statuses → our Prometheus metrics."""

from __future__ import annotations

from collections import Counter

from ..api.status import STAGES
from ..api.types import R1DeploymentStatus, ReplicaStatus
from ..status.observation import Observation
from ..status.replicas import UNDECIDED
from ..telemetry.metrics import Figures, Metrics
from .queue import Key


def publish(metrics: Metrics, key: Key, status: R1DeploymentStatus, observed: Observation) -> None:
    """The figures of the moment. A load that is not complete is left out: a sum of a part would lie."""
    load, scaling = observed.load, observed.scaling
    coming = scaling.forecast if scaling is not None else None
    known = load if load is not None and load.complete else None
    metrics.set_figures(
        key,
        Figures(
            replicas=status.replicas,
            ready_replicas=status.ready_replicas,
            desired_replicas=status.desired_replicas,
            updated_replicas=status.updated_replicas,
            gangs=dict.fromkeys(STAGES, 0) | Counter(replica.stage for replica in status.replica_statuses),
            conditions={c.type: c.status == "True" for c in status.conditions if c.status != "Unknown"},
            tokens_per_second=known.tokens_per_second if known else None,
            kv_usage=known.kv_replicas / len(known.replicas) if known else None,
            running_requests=known.running if known else None,
            waiting_requests=known.waiting if known else None,
            needed_replicas=scaling.need if scaling is not None else None,
            forecast_replicas=coming.mean if coming is not None else None,
            forecast_bound=coming.upper if coming is not None else None,
            forecast_error=coming.error if coming is not None else None,
            last_start=observed.last_start,
        ),
    )


def count(metrics: Metrics, key: Key, before: R1DeploymentStatus, after: R1DeploymentStatus) -> None:
    """What happened between two statuses that were written: scaling decisions and restarts."""
    if before.autoscaling and after.autoscaling and after.autoscaling.mode == "Automatic":
        step = after.autoscaling.desired_replicas - before.autoscaling.desired_replicas
        if step:
            metrics.count_decision(key, "up" if step > 0 else "down", after.autoscaling.reason)
    known = {replica.name: replica for replica in before.replica_statuses}
    for replica in after.replica_statuses:
        old = known.get(replica.name)
        if replica.stage != "Failed" or replica.message == UNDECIDED:
            continue
        if old is None or old.stage != "Failed" or old.message == UNDECIDED:
            metrics.count_restart(key, _reason(replica))


def _reason(replica: ReplicaStatus) -> str:
    word, _, _ = replica.message.partition(":")
    return word if word.isalnum() else "Unknown"
