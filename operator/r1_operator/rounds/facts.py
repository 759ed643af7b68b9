"""Everything one round is decided on. Frozen values; what is not known is None or missing, never zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..api.status import NEVER_OBSERVED
from ..autoscaling.history import Minute
from ..autoscaling.window import Sample
from ..lifecycle.gangs import Gang, Hang, Heard
from ..lifecycle.observed import Refusal
from ..manifests.template import Template
from ..placement.nodes import Amounts, Node
from ..placement.place import Request, Unplaceable
from ..status.observation import Change, FabricReport, Finding
from .reading import Settings, Subject

Child = tuple[str, str]
"""Kind and name of an object we make in the resource's namespace."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Nodes that hold engine pods of any R1Deployment, and those of them that are not Ready or have no Node object."""

    holding: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Gateways:
    """What the gateway pods said when they were last told of the replicas.

    `serving`: pods that serve users. `rotation`: URLs that every one of them sends requests to; None: not known.
    `in_flight`: requests by URL.
    """

    serving: int = 0
    rotation: frozenset[str] | None = None
    in_flight: Mapping[str, int] = field(default_factory=dict)
    asked: float | None = None
    """Seconds since somebody asked and found no replica, of those that may sleep; None: nobody has."""


@dataclass(frozen=True, slots=True)
class Served:
    """Requests that one gang has answered or failed since it started, by its own gate's count. `failed`: with a server
    error, or broken off by it. `first_byte_milliseconds`: mean over those answered; None: of none."""

    requests: int
    failed: int
    first_byte_milliseconds: float | None = None


@dataclass(frozen=True, slots=True)
class Engines:
    """What the engines say, by gang name. `silence`: seconds for which the agent has not answered; missing: not asked
    yet. `loads`: requests running or waiting; missing: unknown. `sick`: GPUs that NVML calls unhealthy. `fabrics`: what
    they say of the network between their nodes. `hangs`: what keeps a pod's containers from being made, by pod uid.
    `window`, `minutes`: the load of the last hour and of the last 31. `start_seconds`: what a start takes here.
    `last_start`: what the last one took, by stage."""

    heard: Mapping[str, Heard] = field(default_factory=dict)
    silence: Mapping[str, float] = field(default_factory=dict)
    loads: Mapping[str, int] = field(default_factory=dict)
    sick: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fabrics: Mapping[str, FabricReport] = field(default_factory=dict)
    hangs: Mapping[str, Hang] = field(default_factory=dict)
    window: tuple[Sample, ...] = ()
    minutes: tuple[Minute, ...] = ()
    start_seconds: float | None = None
    last_start: Mapping[str, float] = field(default_factory=dict)
    served: Mapping[str, Served] = field(default_factory=dict)
    answers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Of a canary: by gang and question, what is wrong with the answer; empty: nothing."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """Nodes with what is used on them, by name in order. `gone`: nodes without an object, as a live look confirmed.
    `held`: what each gang of ours holds on which node. `ahead`: gangs of others that wait for nodes and come before the
    first of ours, in their order."""

    all: tuple[Node, ...] = ()
    gone: frozenset[str] = frozenset()
    held: Mapping[str, Mapping[str, Amounts]] = field(default_factory=dict)
    ahead: tuple[Request, ...] = ()
    fleet: Fleet = Fleet()

    def by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.all}


@dataclass(frozen=True, slots=True)
class Facts:
    """One R1Deployment and what is around it.

    `gangs` are ours by owner; `strangers` are pods that carry our labels and belong to somebody else. `predecessors`:
    children of an earlier resource of this name. `live`: children under our names as the cache has them, `taken`:
    those that belong to somebody else. `changed`: what admission made of pods, by pod. `verdicts`: what the placement
    queue last said of a gang that waits. `watch_age`: seconds since the API server last spoke of the kind heard of
    least recently, by that kind.
    """

    subject: Subject
    settings: Settings
    gangs: tuple[Gang, ...] = ()
    strangers: tuple[str, ...] = ()
    predecessors: tuple[str, ...] = ()
    live: Mapping[Child, Mapping[str, Any]] = field(default_factory=dict)
    taken: Mapping[Child, str] = field(default_factory=dict)
    templates: Mapping[str, Template] = field(default_factory=dict)
    changed: Mapping[str, tuple[Change, ...]] = field(default_factory=dict)
    weights: Finding | None = None
    nodes: Nodes = Nodes()
    engines: Engines = Engines()
    gateways: Gateways = Gateways()
    verdicts: Mapping[str, Unplaceable] = field(default_factory=dict)
    refusal: Refusal | None = None
    watch_age: tuple[str, float] = ("", 0.0)
    relabel: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    """By pod: people's labels to set, or with None to take away."""
    at: float = 0.0
    """When they were put together, in unix seconds."""
    may_adopt: bool = False
    """No other R1Deployment is being changed, and it is this one's turn to take new defaults over."""
    epoch: int | None = None
    """Number of the lease's present term."""

    @property
    def name(self) -> str:
        return self.subject.metadata.name

    @property
    def remembers(self) -> bool:
        """Whether the status is what an operator wrote of these gangs: without it, what they were is unknown."""
        unread = self.subject.unread
        lost = any(each == "status" or each.startswith(_MEMORY) for each in unread)
        return not lost and (self.written or not self.gangs)

    @property
    def written(self) -> bool:
        """Whether any operator has written the status since it was made or lost."""
        return self.subject.status.observed_generation not in (None, NEVER_OBSERVED)


_MEMORY = ("status.replicaStatuses", "status.observedGeneration")
