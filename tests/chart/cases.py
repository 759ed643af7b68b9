"""Bad resources, one for each rule and each kind of mistake, and where they must be refused.

The same inputs go through Python (tests/unit) and through a real API server (tests/chart).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

GOOD: dict[str, Any] = {
    "apiVersion": "r1operator.dev/v1alpha1",
    "kind": "R1Deployment",
    "metadata": {"name": "r1", "namespace": "default"},
    "spec": {
        "model": {"name": "deepseek-ai/DeepSeek-R1-0528", "weights": {"hostPath": {"path": "/data/r1"}}},
        "hardware": "H100x8",
    },
}

PROFILE: dict[str, Any] = {
    "name": "H100x8",
    "gpusPerNode": 8,
    "memoryMib": 81_559,
    "usableMemoryMib": 78_848,
    "bf16Tflops": 989,
    "memoryBandwidthGbytesPerSecond": 3_350,
}


@dataclass(frozen=True)
class Case:
    """`change`, a JSON merge patch of GOOD, gives what is refused at `field` with `text` in the message."""

    name: str
    change: dict[str, Any]
    field: str
    text: str

    @property
    def resource(self) -> dict[str, Any]:
        return merged(GOOD, self.change)


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """JSON merge patch (RFC 7386)."""
    result = copy.deepcopy(base)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = merged(result.get(key) or {}, value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def spec(**change: Any) -> dict[str, Any]:
    return {"spec": change}


def weights(**sources: Any) -> dict[str, Any]:
    return spec(model={"weights": {"hostPath": None, "persistentVolumeClaim": None} | sources})


OFFICE = {"name": "office", "start": "0 7 * * 1-5", "end": "0 19 * * 1-5", "minReplicas": 2}


def scheduled(**more: Any) -> dict[str, Any]:
    return spec(autoscaling={"maxReplicas": 2, "schedules": [OFFICE | more]})


BROKEN_RULES = (
    Case("name too long", {"metadata": {"name": "r" * 41}}, "metadata.name", "longer than 40 characters"),
    Case("name with a dot", {"metadata": {"name": "r1.prod"}}, "metadata.name", "not a DNS label"),
    Case("name with a leading digit", {"metadata": {"name": "1r"}}, "metadata.name", "not a DNS label"),
    Case("no weights", weights(), "spec.model.weights", "exactly one weights source"),
    Case(
        "two weights",
        weights(hostPath={"path": "/a"}, persistentVolumeClaim={"claimName": "a"}),
        "spec.model.weights",
        "exactly one weights source",
    ),
    Case(
        "path upwards",
        weights(persistentVolumeClaim={"claimName": "a"}, path="a/../../b"),
        "spec.model.weights.path",
        "leaves the volume",
    ),
    Case(
        "path absolute",
        weights(persistentVolumeClaim={"claimName": "a"}, path="/b"),
        "spec.model.weights.path",
        "leaves the volume",
    ),
    Case(
        "hostPath relative",
        weights(hostPath={"path": "data"}),
        "spec.model.weights.hostPath.path",
        "not an absolute path",
    ),
    Case(
        "other profile",
        spec(hardware="H200x8", hardwareProfile=PROFILE),
        "spec.hardwareProfile",
        "differs from hardware",
    ),
    Case("no promise", spec(objective="SLO"), "spec.slo", "belong together"),
    Case("a promise for nothing", spec(slo={"tpotMilliseconds": 50}), "spec.slo", "belong together"),
    Case("empty promise", spec(objective="SLO", slo={}), "spec.slo", "promises nothing"),
    Case(
        "promise without its objective",
        spec(slo={"tpotMilliseconds": 40}),
        "spec.slo",
        "belong together",
    ),
    Case("promise of nothing", spec(objective="SLO", slo={}), "spec.slo", "promises nothing"),
    Case(
        "usable memory over all",
        spec(hardwareProfile=PROFILE | {"usableMemoryMib": 90_000}),
        "spec.hardwareProfile.usableMemoryMib",
        "more than memoryMib",
    ),
    Case(
        "ranks over nodes",
        spec(topology={"tensorParallel": 8, "nodesPerReplica": 3}),
        "spec.topology.tensorParallel",
        "not a multiple of nodesPerReplica",
    ),
    Case(
        "attention groups",
        spec(topology={"tensorParallel": 16, "attentionDataParallel": 6}),
        "spec.topology.attentionDataParallel",
        "does not divide tensorParallel",
    ),
    Case(
        "experts",
        spec(topology={"tensorParallel": 16, "expertParallel": 32}),
        "spec.topology.expertParallel",
        "does not divide tensorParallel",
    ),
    Case(
        "DeepEP needs all",
        spec(topology={"tensorParallel": 16, "expertParallel": 8, "moeA2aBackend": "DeepEP"}),
        "spec.topology.moeA2aBackend",
        "equal to tensorParallel",
    ),
    Case(
        "min over max",
        spec(autoscaling={"minReplicas": 3, "maxReplicas": 2}),
        "spec.autoscaling.minReplicas",
        "more than maxReplicas",
    ),
    Case("more than the maximum", scheduled(minReplicas=3), "spec.autoscaling.schedules", "minReplicas of a schedule"),
    Case("more than its maximum", scheduled(maxReplicas=1), "spec.autoscaling.schedules", "minReplicas of a schedule"),
    Case(
        "two caches",
        spec(engine={"cache": {"hostPath": {"path": "/a"}, "persistentVolumeClaim": {"claimName": "a"}}}),
        "spec.engine.cache",
        "exactly one place",
    ),
    Case("no cache", spec(engine={"cache": {}}), "spec.engine.cache", "exactly one place"),
    Case(
        "standing still longer than it may take",
        spec(startup={"seconds": 600, "stallSeconds": 601}),
        "spec.startup.stallSeconds",
        "more than seconds",
    ),
    Case(
        "our argument",
        spec(engine={"args": ["--log-level", "debug", "--port=1"]}),
        "spec.engine.args[2]",
        "the operator sets this argument itself",
    ),
    Case(
        "planned argument", spec(engine={"args": ["--tp-size", "4"]}), "spec.engine.args[0]", "this argument is planned"
    ),
    Case(
        "our variable",
        spec(engine={"env": [{"name": "A"}, {"name": "POD_IP", "value": "1"}]}),
        "spec.engine.env[1].name",
        "the operator sets this variable itself",
    ),
    Case("cpu", spec(engine={"resources": {"cpu": -1}}), "spec.engine.resources.cpu", "not a quantity"),
    Case("memory", spec(engine={"resources": {"memory": "8 GB"}}), "spec.engine.resources.memory", "not a quantity"),
    Case(
        "shared memory",
        spec(engine={"resources": {"sharedMemory": "1e9"}}),
        "spec.engine.resources.sharedMemory",
        "not a quantity",
    ),
)

UNSEEN_BY_THE_SERVER = (
    Case("no such hour", scheduled(end="0 24 * * *"), "spec.autoscaling.schedules[0].end", "names no time"),
    Case("no such day", scheduled(start="0 0 31 2 *"), "spec.autoscaling.schedules[0].start", "names no time"),
    Case("no such zone", scheduled(timeZone="Berlin"), "spec.autoscaling.schedules[0].timeZone", "not known"),
)
"""The API server takes them; the resource's SpecValid names them."""

BROKEN_FIELDS = (
    Case("no model", spec(model=None), "spec.model", "missing"),
    Case("no claim name", weights(persistentVolumeClaim={}), "spec.model.weights.persistentVolumeClaim.claimName", ""),
    Case("unknown field", spec(replica=2), "spec.replica", "unknown field"),
    Case(
        "unknown field deep down", spec(topology={"tensorParalel": 2}), "spec.topology.tensorParalel", "unknown field"
    ),
    Case("text for a number", spec(replicas="2"), "spec.replicas", "integer"),
    Case("truth for a number", spec(replicas=True), "spec.replicas", "integer"),
    Case("half a node", spec(topology={"nodesPerReplica": 1.5}), "spec.topology.nodesPerReplica", "integer"),
    Case("negative replicas", spec(replicas=-1), "spec.replicas", "greater than or equal to 0"),
    Case("below zero", spec(autoscaling={"minReplicas": -1, "maxReplicas": 1}), "spec.autoscaling.minReplicas", ""),
    Case("no cron", scheduled(start="at seven"), "spec.autoscaling.schedules[0].start", ""),
    Case(
        "one schedule twice",
        spec(autoscaling={"maxReplicas": 2, "schedules": [OFFICE, OFFICE]}),
        "spec.autoscaling.schedules[1]",
        "uplicate value",
    ),
    Case("all memory", spec(limits={"memoryFractionPercent": 96}), "spec.limits.memoryFractionPercent", "95"),
    Case("other objective", spec(objective="throughput"), "spec.objective", "Throughput"),
    Case("other back end", spec(topology={"moeA2aBackend": "Mooncake"}), "spec.topology.moeA2aBackend", "DeepEP"),
    Case("bad variable", spec(engine={"env": [{"name": "A-B"}]}), "spec.engine.env[0].name", "match"),
    Case("twice", spec(engine={"env": [{"name": "A"}, {"name": "A"}]}), "spec.engine.env[1]", "uplicate value"),
    Case("text for a list", spec(engine={"args": "--x"}), "spec.engine.args", ""),
    Case("list for an object", spec(drain=[1]), "spec.drain", ""),
)
