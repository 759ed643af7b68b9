"""Every Prometheus metric of the operator, by name, and how it is fed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

RECONCILE_SECONDS = "r1_operator_reconcile_seconds"
API_REQUESTS = "r1_operator_api_requests"
API_REQUEST_SECONDS = "r1_operator_api_request_seconds"
API_WRITES = "r1_operator_api_writes"
LEADER = "r1_operator_leader"
SCRAPE_FAILURES = "r1_operator_scrape_failures"
SCALING_DECISIONS = "r1_operator_scaling_decisions"
GANG_RESTARTS = "r1_operator_gang_restarts"
DESIRED_REPLICAS = "r1_deployment_desired_replicas"
READY_REPLICAS = "r1_deployment_ready_replicas"
UPDATED_REPLICAS = "r1_deployment_updated_replicas"
REPLICAS = "r1_deployment_replicas"
GANGS = "r1_deployment_gangs"
CONDITION = "r1_deployment_condition"
TOKENS_PER_SECOND = "r1_deployment_tokens_per_second"
KV_USAGE = "r1_deployment_kv_usage_ratio"
RUNNING_REQUESTS = "r1_deployment_running_requests"
WAITING_REQUESTS = "r1_deployment_waiting_requests"
NEEDED_REPLICAS = "r1_deployment_needed_replicas"
FORECAST_REPLICAS = "r1_deployment_forecast_replicas"
FORECAST_BOUND = "r1_deployment_forecast_bound_replicas"
FORECAST_ERROR = "r1_deployment_forecast_error_ratio"
START_SECONDS = "r1_deployment_last_start_seconds"

_WHOSE = ("namespace", "name")
_WRITES = frozenset({"create", "apply", "patch", "update", "delete"})
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Kind(Protocol):
    """What a metric needs of a Kubernetes resource."""

    @property
    def plural(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Figures:
    """One R1Deployment. None: not known at the moment, and then the series goes away instead of lying."""

    replicas: int
    ready_replicas: int
    desired_replicas: int
    updated_replicas: int = 0
    gangs: Mapping[str, int] = field(default_factory=dict)
    """By stage; every stage that a series may have."""
    conditions: Mapping[str, bool] = field(default_factory=dict)
    """By type; without those that are Unknown."""
    tokens_per_second: float | None = None
    kv_usage: float | None = None
    running_requests: int | None = None
    waiting_requests: int | None = None
    needed_replicas: float | None = None
    forecast_replicas: float | None = None
    forecast_bound: float | None = None
    forecast_error: float | None = None
    last_start: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage."""


class Metrics:
    """The metrics of one operator process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._reconciles = Histogram(
            RECONCILE_SECONDS, "Time of one reconcile.", ("outcome",), buckets=_SECONDS, registry=self.registry
        )
        self._requests = Counter(
            API_REQUESTS, "Calls to the Kubernetes API.", ("verb", "resource", "code"), registry=self.registry
        )
        self._request_seconds = Histogram(
            API_REQUEST_SECONDS,
            "Time of a call to the Kubernetes API, watches aside.",
            ("verb",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._writes = Counter(
            API_WRITES, "Writes to the Kubernetes API.", ("verb", "resource"), registry=self.registry
        )
        self._leader = Gauge(LEADER, "1 while this process holds the lease.", registry=self.registry)
        self._scrape_failures = Counter(
            SCRAPE_FAILURES, "Engines and gateways that did not answer.", ("target",), registry=self.registry
        )
        self._decisions = Counter(
            SCALING_DECISIONS,
            "Decisions of the autoscaler that changed the number of replicas.",
            (*_WHOSE, "direction", "reason"),
            registry=self.registry,
        )
        self._restarts = Counter(GANG_RESTARTS, "Gangs started anew.", (*_WHOSE, "reason"), registry=self.registry)
        self._figures = {
            "replicas": self._gauge(REPLICAS, "Replicas that exist, ready or not."),
            "ready_replicas": self._gauge(READY_REPLICAS, "Replicas that serve."),
            "desired_replicas": self._gauge(DESIRED_REPLICAS, "Replicas wanted by the spec or the autoscaler."),
            "updated_replicas": self._gauge(UPDATED_REPLICAS, "Ready replicas of the wanted revision."),
            "tokens_per_second": self._gauge(TOKENS_PER_SECOND, "Output tokens per second of all replicas."),
            "kv_usage": self._gauge(KV_USAGE, "KV cache in use, mean over the replicas, 0 to 1."),
            "running_requests": self._gauge(RUNNING_REQUESTS, "Requests being answered."),
            "waiting_requests": self._gauge(WAITING_REQUESTS, "Requests waiting for room in an engine."),
            "needed_replicas": self._gauge(NEEDED_REPLICAS, "Replicas that the load needs, as a real number."),
            "forecast_replicas": self._gauge(FORECAST_REPLICAS, "Replicas that the load is forecast to need."),
            "forecast_bound": self._gauge(FORECAST_BOUND, "Replicas that the load is to stay below then."),
            "forecast_error": self._gauge(FORECAST_ERROR, "How far such forecasts were off as a rule, 0.1 is 10%."),
        }

        self._start = Gauge(
            START_SECONDS,
            "What the last start cost, by stage: Placement, Containers, then the engine's own.",
            (*_WHOSE, "stage"),
            registry=self.registry,
        )
        self._gangs = Gauge(GANGS, "Gangs by stage.", (*_WHOSE, "stage"), registry=self.registry)
        self._conditions = Gauge(
            CONDITION,
            "1 while the condition is True, 0 while it is False.",
            (*_WHOSE, "condition"),
            registry=self.registry,
        )

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, _WHOSE, registry=self.registry)

    def observe_reconcile(self, key: tuple[str, str], outcome: str, seconds: float) -> None:
        """One reconcile of `key` ended with `outcome`, "ok" or "error"."""
        self._reconciles.labels(outcome).observe(seconds)

    def observe_api_call(self, verb: str, resource: Kind, status: int, seconds: float) -> None:
        """For `cluster.Client(observe=…)`. Status 0: no answer. A write that was refused counts as well."""
        self._requests.labels(verb, resource.plural, str(status) if status else "none").inc()
        if verb in _WRITES:
            self._writes.labels(verb, resource.plural).inc()
        if verb != "watch":
            self._request_seconds.labels(verb).observe(seconds)

    def set_leader(self, leads: bool) -> None:
        """Whether this process holds the lease."""
        self._leader.set(leads)

    def count_scrape_failures(self, target: str, count: int) -> None:
        """`target`: "loads", "agent" or "gateway"."""
        self._scrape_failures.labels(target).inc(count)

    def count_decision(self, key: tuple[str, str], direction: str, reason: str) -> None:
        """The autoscaler changed the number of replicas: "up" or "down", with its CamelCase reason."""
        self._decisions.labels(*key, direction, reason).inc()

    def count_restart(self, key: tuple[str, str], reason: str) -> None:
        """A gang is started anew, for the CamelCase reason its predecessor ended with."""
        self._restarts.labels(*key, reason).inc()

    def set_figures(self, key: tuple[str, str], figures: Figures) -> None:
        """What one R1Deployment looks like now."""
        for name, gauge in self._figures.items():
            value = getattr(figures, name)
            if value is None:
                _remove(gauge, key)
            else:
                gauge.labels(*key).set(value)
        for stage, count in figures.gangs.items():
            self._gangs.labels(*key, stage).set(count)
        for stage, seconds in figures.last_start.items():
            self._start.labels(*key, stage).set(seconds)
        _remove(self._conditions, key)  # one that has become Unknown, or has gone, says nothing
        for condition, holds in figures.conditions.items():
            self._conditions.labels(*key, condition).set(holds)

    def forget(self, key: tuple[str, str]) -> None:
        """The R1Deployment is gone, and its series go too."""
        for gauge in (*self._figures.values(), self._gangs, self._conditions, self._start):
            _remove(gauge, key)
        for counter in (self._decisions, self._restarts):
            counter.remove_by_labels(dict(zip(_WHOSE, key, strict=True)))


def _remove(gauge: Gauge, key: tuple[str, str]) -> None:
    labels: Mapping[str, str] = dict(zip(_WHOSE, key, strict=True))
    gauge.remove_by_labels(dict(labels))
