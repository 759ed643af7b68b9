"""The simulated cluster: facts from its objects, rounds decided by the operator's own function, carried out on it."""

from __future__ import annotations

import copy
import functools
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from r1_operator.api import names
from r1_operator.api.reasons import Reason
from r1_operator.api.types import R1DeploymentStatus
from r1_operator.autoscaling.history import Minute
from r1_operator.autoscaling.window import Sample
from r1_operator.lifecycle.actions import CreateGang, EndPods, Why
from r1_operator.lifecycle.gangs import Gang, Hang, Heard
from r1_operator.lifecycle.observed import Refusal
from r1_operator.lifecycle.pods import gangs_of, owned_by, waiting_reason
from r1_operator.manifests.template import Template, gang_pod, template_of
from r1_operator.placement.blame import Held, held_against, levels
from r1_operator.placement.nodes import Node, holder_of, nodes_of, pod_requests
from r1_operator.placement.place import Placement, Request, Unplaceable, place
from r1_operator.planning import built_in_profiles
from r1_operator.rounds.decide import Round, decide
from r1_operator.rounds.facts import Engines, Facts, Fleet, Gateways, Nodes, Served
from r1_operator.rounds.reading import Settings, Subject, read_subject
from r1_operator.status.derive import derive
from r1_operator.status.observation import Finding, Observation

from r1_simulate.machines import Machines, node

SETTINGS = Settings("engine:1", "gateway:1", built_in_profiles(), "r1operator.dev/fabric")
ROUTER_SECONDS = 1.0
"""A router holds a replica that is new to it healthy only after its first look at it."""


def spec_of(*, nodes: int = 1, replicas: int = 1, memory: str = "1Gi", env: str = "a", **more: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "model": {"name": "r1-operator/tiny-r1", "weights": {"hostPath": {"path": "/models"}}},
        "hardware": "CPUx1",
        "topology": {"nodesPerReplica": nodes},
        "drain": {"seconds": 30},
        "strategy": {"minReadySeconds": 0},
        "replicas": replicas,
        "engine": {"env": [{"name": "REVISION", "value": env}], "resources": {"memory": memory}},
    }
    return spec | more


@functools.lru_cache(maxsize=256)
def _read(spec: str, image: str) -> Subject:
    return _subject(spec, replace(SETTINGS, engine_image=image))


def _subject(spec: str, settings: Settings = SETTINGS) -> Subject:
    metadata = {"name": "r1", "namespace": "ns", "uid": "uid-r1", "generation": 1}
    kind = {"apiVersion": names.API_VERSION, "kind": names.KIND}
    return read_subject({**kind, "metadata": metadata, "spec": json.loads(spec)}, settings)


@dataclass
class SimulatedCluster:
    """`small` and `big` nodes of one device each; a gang takes `nodesPerReplica` of them.

    `quota`: how many pods the namespace may have. `mute_all`: the operator reaches no agent and no gateway.
    `stale`: for how long its watches have been silent. `skew`: how far its clock is off.
    """

    spec: dict[str, Any]
    small: int = 4
    big: int = 0
    now: float = 1_000_000.0
    quota: int | None = None
    mute_all: bool = False
    stale: float = 0.0
    skew: float = 0.0
    hold: bool = False
    status: R1DeploymentStatus = field(default_factory=R1DeploymentStatus)
    templates: dict[str, Template] = field(default_factory=dict)
    refusal: Refusal | None = None
    verdicts: dict[str, Unplaceable] = field(default_factory=dict)
    held: dict[str, Held] = field(default_factory=dict)
    served: dict[str, Served] = field(default_factory=dict)
    answers: dict[str, dict[str, str]] = field(default_factory=dict)
    settings: Settings = SETTINGS
    may_adopt: bool = False
    told: dict[str, float] = field(default_factory=dict)
    heard_at: dict[str, float] = field(default_factory=dict)
    hangs: dict[str, Hang] = field(default_factory=dict)
    loads: Mapping[str, int] | None = None
    """Requests of each gang; None: the higher a replica's number, the less it has to do."""
    window: tuple[Sample, ...] = ()
    minutes: tuple[Minute, ...] = ()
    start_seconds: float | None = None
    forgotten_loads: bool = False
    created: Counter[str] = field(default_factory=Counter)
    ran: set[str] = field(default_factory=set)
    """Gangs that have had nodes, as far as the status could know."""
    round: Round | None = None
    asked: float | None = None
    """Seconds since somebody asked the gateways in vain, of replicas that may sleep."""

    def __post_init__(self) -> None:
        plan = _read(json.dumps(self.spec), "engine:1").plan
        assert plan is not None, "the spec can be planned"
        self.resource, self.devices = plan.resource_name, plan.gpus_per_node
        self.machines = Machines(self.resource)
        for i in range(self.small):
            self.add_node(f"s{i}", "64Gi")
        for i in range(self.big):
            self.add_node(f"b{i}", "256Gi")

    def add_node(self, name: str, memory: str = "64Gi") -> None:
        self.machines.nodes[name] = node(name, memory, self.resource, self.devices)

    # --- observe -----------------------------------------------------------------------------------------------------
    def subject(self) -> Subject:
        found = replace(_read(json.dumps(self.spec), self.settings.engine_image), status=self.status)
        if self.hold:
            invalid = Finding("False", Reason.INVALID_SPEC, "broken")
            found = replace(found, spec=None, plan=None, context=None, valid=invalid)
        return found

    def gangs(self) -> tuple[Gang, ...]:
        return gangs_of(p for p in self.machines.pods.values() if owned_by(p, "uid-r1"))

    def nodes(self) -> tuple[Node, ...]:
        """With what is held against them."""
        found, avoid = nodes_of(self.machines.nodes.values(), self.machines.pods.values()), levels(self.held, self.now)
        return tuple(replace(node, avoid=avoid.get(node.name, 0)) for node in found)

    def _gateway_config(self) -> dict[str, Any]:
        metadata = {"name": "r1-gateway", "ownerReferences": [{"controller": True, "uid": "uid-r1"}]}
        return {"metadata": metadata, "data": {"gateway.json": json.dumps({"workers": sorted(self.told)})}}

    def rotation(self) -> frozenset[str]:
        """Replicas that the gateways send requests to."""
        urls = {self.url(g): g for g in self.machines.gangs()}
        return frozenset(
            url
            for url, since in self.told.items()
            if url in urls and self.now - since >= ROUTER_SECONDS and self._answers(urls[url])
        )

    def _answers(self, gang: str) -> bool:
        """Also while it drains: what it has it finishes, and what comes it takes."""
        head = self.machines.pods.get(f"{gang}-0")
        return (
            head is not None
            and head["status"]["phase"] == "Running"
            and all(p["spec"].get("nodeName") not in self.machines.off for p in self.machines.of(gang))
        )

    @staticmethod
    def url(gang: str) -> str:
        return names.engine_url(f"ip-{gang}-0")

    def facts(self) -> Facts:
        machines, gangs = self.machines, self.gangs()
        heard: dict[str, Heard] = {}
        silence: dict[str, float] = {}
        for gang in gangs:
            if gang.head is None or gang.head.phase != "Running":
                continue
            reachable = not self.mute_all and gang.name not in machines.mute
            if reachable and (gang.name in machines.starting or machines.serves(gang.name)):
                self.heard_at[gang.name] = self.now
                starts = gang.name in machines.starting
                heard[gang.name] = Heard("Weights", "", self.now) if starts else Heard("Ready", "")
            silence[gang.name] = self.now - self.heard_at.setdefault(gang.name, self.now)
        held: dict[str, dict[str, Any]] = {}
        for pod in machines.pods.values():
            if (where := holder_of(pod)) is not None:
                held.setdefault(pod["metadata"]["labels"][names.LABEL_GANG], {})[where] = pod_requests(pod["spec"])
        nodes = self.nodes()
        holding = frozenset(machines.holders())
        ready = {n.name for n in nodes if n.ready}
        return Facts(
            subject=self.subject(),
            settings=self.settings,
            gangs=gangs,
            templates=dict(self.templates),
            nodes=Nodes(nodes, holding - set(machines.nodes), held, (), Fleet(holding, holding - ready)),
            engines=Engines(
                heard,
                silence,
                self._loads(gangs),
                hangs=self._hangs(),
                window=self.window,
                minutes=self.minutes,
                start_seconds=self.start_seconds,
                served=self.served,
                answers=self.answers,
            ),
            live={("ConfigMap", "r1-gateway"): self._gateway_config()},
            may_adopt=self.may_adopt,
            at=self.now,
            gateways=Gateways(0 if self.mute_all else 1, None if self.mute_all else self.rotation(), asked=self.asked),
            verdicts=dict(self.verdicts),
            refusal=self.refusal,
            watch_age=("pods", self.stale),
        )

    def _hangs(self) -> Mapping[str, Hang]:
        for pod in self.machines.pods.values():
            if waiting := waiting_reason(pod["status"]):
                self.hangs.setdefault(pod["metadata"]["uid"], Hang(waiting[0], ": ".join(waiting), self.now))
        return self.hangs

    def _loads(self, gangs: tuple[Gang, ...]) -> Mapping[str, int]:
        if self.forgotten_loads:
            return {}
        return self.loads if self.loads is not None else {g.name: 100 - g.replica for g in gangs}

    # --- one round ------------------------------------------------------------------------------------------------
    def reconcile(self, *, crash_after: int | None = None) -> Round:
        """Decide and carry out. With `crash_after` the operator dies after so many writes: no status, no placement."""
        round_ = self.round = decide(self.facts(), self.now + self.skew)
        self.templates |= {} if self.hold else dict(round_.templates)
        self._feed(round_)
        for blame in round_.blames:
            self.held[blame.node] = held_against(self.held.get(blame.node), blame, self.now)
        for writes, action in enumerate(round_.decision.actions):
            if crash_after is not None and writes >= crash_after:
                return round_
            if isinstance(action, EndPods):
                self._end(action)
            elif not self._create(action, round_):
                break
        if crash_after is None:
            self._place(round_)
            self._record(round_)
        return round_

    def _feed(self, round_: Round) -> None:
        if not self.mute_all:
            self.told = {url: self.told.get(url, self.now) for url in round_.workers}

    def _end(self, action: EndPods) -> None:
        if action.drains and self.mute_all:
            return  # the gateways could not be told
        for pod in action.pods:
            if pod.name in self.machines.pods and self.machines.pods[pod.name]["metadata"]["uid"] == pod.uid:
                self.machines.delete(pod.name, action.grace_seconds, self.now)

    def _create(self, action: CreateGang, round_: Round) -> bool:
        template, before = round_.templates[action.revision], self.machines.gangs()
        made: list[str] = []
        for index in action.members:
            pod = gang_pod(template, action.replica, action.attempt, index)
            if self.quota is not None and len(self.machines.pods) >= self.quota:
                for name in made:
                    self.machines.delete(name, 0, self.now)
                overdrawn = len(self.machines.pods) > self.quota
                self.refusal = Refusal("exceeded quota: pods", self.now + 5, quota=True, overdrawn=overdrawn)
                return False
            self.machines.create(pod, self.now)
            made.append(pod["metadata"]["name"])
        self.refusal = None
        gang = names.gang_name("r1", action.replica, action.attempt)
        assert gang not in self.ran or gang in before, f"{gang}: no gang's name is used twice"
        self.created[gang] += 1
        return True

    def _place(self, round_: Round) -> None:
        requests = [
            Request(w.gang.name, w.shape, {m.index: m.pinned for m in w.gang.members if m.pinned})
            for w in round_.waiting
            if w.gang.name in self.machines.gangs()
        ]
        results = place(requests, self.nodes())
        self.verdicts = {}
        for result in results:
            if isinstance(result, Placement):
                for index, where in enumerate(result.nodes):
                    self.machines.bind(f"{result.gang}-{index}", where, self.now)
                    self.ran.add(result.gang)
            else:
                self.verdicts[result.gang] = result

    def _record(self, round_: Round) -> None:
        unknown = Finding("Unknown", Reason.STARTING, "")
        observation = Observation(
            1,
            self.subject().spec,
            "",
            round_.scaling.in_force,
            unknown,
            unknown,
            unknown,
            decision=round_.decision,
            troubles=round_.troubles,
            trial=round_.trial,
            revision=round_.revision,
            scaling=round_.scaling.decision,
            last_scale_up=round_.scaling.last_up,
            last_scale_down=round_.scaling.last_down,
            spares=round_.scaling.spares,
        )
        self.status = derive(self.status, observation, self.now + self.skew)

    # --- time and truth -------------------------------------------------------------------------------------------
    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.machines.advance(self.now)

    def settle(self, rounds: int = 60, seconds: float = 5.0) -> None:
        for _ in range(rounds):
            self.reconcile()
            self.advance(seconds)

    def serving(self) -> list[str]:
        """Gangs that answer users, in truth."""
        return [g for g in self.machines.gangs() if self.machines.serves(g)]

    def change(self, **values: Any) -> None:
        """Another spec."""
        before = copy.deepcopy(self.spec)
        engine = before["engine"]
        if "env" in values:
            engine["env"] = [{"name": "REVISION", "value": values.pop("env")}]
        if "memory" in values:
            engine["resources"] = {"memory": values.pop("memory")}
        self.spec = {**before, **values}

    def rolled(self) -> list[str]:
        """Gangs that the last round drained for another revision, or because their nodes are to be left."""
        assert self.round is not None
        ends = [a for a in self.round.decision.actions if isinstance(a, EndPods)]
        return [a.gang for a in ends if a.why in {Why.UPDATE, Why.MOVE}]

    def revision(self) -> str:
        """The one that the spec asks for now."""
        return template_of(_read(json.dumps(self.spec), self.settings.engine_image).context).revision  # type: ignore[arg-type]


def serving_cluster(replicas: int = 1, nodes: int = 2, small: int = 4, **fields: Any) -> SimulatedCluster:
    """Everything that is wanted serves."""
    cluster = SimulatedCluster(spec_of(nodes=nodes, replicas=replicas), small, **fields)
    cluster.settle(8, 3.0)
    assert len(cluster.serving()) == replicas
    return cluster


def ends(round_: Round) -> set[str]:
    """Gangs of which the round ends pods."""
    return {a.gang for a in round_.decision.actions if isinstance(a, EndPods)}


def reasons(round_: Round) -> set[Reason]:
    """What it is troubled by."""
    return {trouble.reason for trouble in round_.troubles}
