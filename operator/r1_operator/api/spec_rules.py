"""Rules across fields of the resource and of `spec`, but for its pods."""

from __future__ import annotations

import re
from collections.abc import Callable

from .autoscaling import Autoscaling, ScalingSchedule
from .cron import is_cron, is_time_zone
from .fields import camel
from .hardware import FIGURES, HardwareProfile
from .names import MAX_NAME_LENGTH, NAME_PATTERN
from .rule import Rule, if_set
from .spec import (
    HostPathWeights,
    R1DeploymentSpec,
    Slo,
    Startup,
    Topology,
    Weights,
)
from .types import R1Deployment


def _multiple(value: int | None, divisor: int | None) -> bool:
    return value is None or divisor is None or value % divisor == 0


def _inside(path: str) -> bool:
    """Whether a relative path stays inside the folder it starts from."""
    return not path.startswith("/") and ".." not in path.split("/")


def _names_a_time(field: str, expression: Callable[[ScalingSchedule], str]) -> Rule:
    return Rule(
        scope=ScalingSchedule,
        field=field,
        holds=lambda schedule: is_cron(expression(schedule)),
        message=f"{field} names no time",
        remedy="give minute (0-59), hour (0-23), day (1-31), month (1-12) and weekday (0-7), e.g. '0 7 * * 1-5'",
    )


SPEC_RULES: tuple[Rule, ...] = (
    Rule(
        scope=R1Deployment,
        field="metadata.name",
        cel=f"size(self.metadata.name) <= {MAX_NAME_LENGTH}",
        holds=lambda r: len(r.metadata.name) <= MAX_NAME_LENGTH,
        message=f"metadata.name is longer than {MAX_NAME_LENGTH} characters",
        remedy="choose a shorter one: names of pods and Services are made from it and Kubernetes allows them 63",
    ),
    Rule(
        scope=R1Deployment,
        field="metadata.name",
        cel=f"self.metadata.name.matches('{NAME_PATTERN}')",
        holds=lambda r: re.fullmatch(NAME_PATTERN, r.metadata.name) is not None,
        message="metadata.name is not a DNS label",
        remedy="use a to z, 0 to 9 and '-', beginning with a letter: it becomes part of host names",
    ),
    Rule(
        scope=Weights,
        cel="has(self.persistentVolumeClaim) != has(self.hostPath)",
        holds=lambda w: (w.persistent_volume_claim is None) != (w.host_path is None),
        message="exactly one weights source is needed",
        remedy="set either persistentVolumeClaim or hostPath",
    ),
    Rule(
        scope=Weights,
        field="path",
        cel=if_set("path", then="(!self.path.startsWith('/') && !('..' in self.path.split('/')))"),
        holds=lambda w: _inside(w.path),
        message="path leaves the volume",
        remedy="give a path relative to the volume's root or to hostPath.path, without '..'",
    ),
    Rule(
        scope=HostPathWeights,
        field="path",
        cel="self.path.startsWith('/') && !('..' in self.path.split('/'))",
        holds=lambda w: w.path.startswith("/") and ".." not in w.path.split("/"),
        message="path is not an absolute path",
        remedy="begin it with '/' and leave out '..'",
    ),
    Rule(
        scope=R1DeploymentSpec,
        field="hardwareProfile",
        cel=if_set("hardwareProfile", then="self.hardwareProfile.name == self.hardware"),
        holds=lambda s: s.hardware_profile is None or s.hardware_profile.name == s.hardware,
        message="hardwareProfile.name differs from hardware",
        remedy="give both the same name, or leave hardwareProfile out to use a profile known by name",
    ),
    Rule(
        scope=R1DeploymentSpec,
        field="slo",
        cel="(has(self.objective) && self.objective == 'SLO') == has(self.slo)",
        holds=lambda s: (s.objective == "SLO") == (s.slo is not None),
        message="slo and objective SLO belong together",
        remedy="set objective to SLO and slo to the promised latencies, or neither",
    ),
    Rule(
        scope=Slo,
        cel="has(self.ttftMilliseconds) || has(self.tpotMilliseconds)",
        holds=lambda s: s.ttft_milliseconds is not None or s.tpot_milliseconds is not None,
        message="slo promises nothing",
        remedy="set ttftMilliseconds, tpotMilliseconds or both",
    ),
    Rule(
        scope=HardwareProfile,
        cel=f"has(self.extends) || ({' && '.join(f'has(self.{camel(figure)})' for figure in FIGURES)})",
        holds=lambda p: p.extends is not None or all(getattr(p, figure) is not None for figure in FIGURES),
        message="a profile that extends none has to say what a node is",
        remedy=f"add {', '.join(map(camel, FIGURES))}, or set extends to a profile that has them, e.g. H100x8",
    ),
    Rule(
        scope=HardwareProfile,
        field="usableMemoryMib",
        cel=if_set("usableMemoryMib", "memoryMib", then="self.usableMemoryMib <= self.memoryMib"),
        holds=lambda p: None in (p.usable_memory_mib, p.memory_mib) or p.usable_memory_mib <= p.memory_mib,
        message="usableMemoryMib is more than memoryMib",
        remedy="give the memory that is free before weights are loaded, which is 2 to 6 GiB less than memoryMib",
    ),
    Rule(
        scope=Topology,
        field="tensorParallel",
        cel=if_set("tensorParallel", "nodesPerReplica", then="self.tensorParallel % self.nodesPerReplica == 0"),
        holds=lambda t: _multiple(t.tensor_parallel, t.nodes_per_replica),
        message="tensorParallel is not a multiple of nodesPerReplica",
        remedy="every node of a replica runs the same number of ranks; change one, or leave one to the planner",
    ),
    Rule(
        scope=Topology,
        field="attentionDataParallel",
        cel=if_set(
            "tensorParallel", "attentionDataParallel", then="self.tensorParallel % self.attentionDataParallel == 0"
        ),
        holds=lambda t: _multiple(t.tensor_parallel, t.attention_data_parallel),
        message="attentionDataParallel does not divide tensorParallel",
        remedy="change one, or leave one to the planner",
    ),
    Rule(
        scope=Topology,
        field="expertParallel",
        cel=if_set("tensorParallel", "expertParallel", then="self.tensorParallel % self.expertParallel == 0"),
        holds=lambda t: _multiple(t.tensor_parallel, t.expert_parallel),
        message="expertParallel does not divide tensorParallel",
        remedy="change one, or leave one to the planner",
    ),
    Rule(
        scope=Topology,
        field="moeA2aBackend",
        cel=if_set(
            "moeA2aBackend",
            "tensorParallel",
            "expertParallel",
            then="self.moeA2aBackend != 'DeepEP' || self.expertParallel == self.tensorParallel",
        ),
        holds=lambda t: (
            t.moe_a2a_backend != "DeepEP"
            or t.tensor_parallel is None
            or t.expert_parallel is None
            or t.expert_parallel == t.tensor_parallel
        ),
        message="DeepEP needs expertParallel equal to tensorParallel",
        remedy="make them equal, leave expertParallel to the planner, or set moeA2aBackend to None",
    ),
    Rule(
        scope=Autoscaling,
        field="minReplicas",
        cel=if_set("minReplicas", then="self.minReplicas <= self.maxReplicas"),
        holds=lambda a: a.min_replicas <= a.max_replicas,
        message="minReplicas is more than maxReplicas",
        remedy="lower minReplicas or raise maxReplicas",
    ),
    Rule(
        scope=Autoscaling,
        field="schedules",
        cel=if_set(
            "schedules",
            then="self.schedules.all(s, s.minReplicas <= (has(s.maxReplicas) ? s.maxReplicas : self.maxReplicas))",
        ),
        holds=lambda a: all(s.min_replicas <= (s.max_replicas or a.max_replicas) for s in a.schedules),
        message="minReplicas of a schedule is more than its maxReplicas, or than that of autoscaling if it has none",
        remedy="lower that minReplicas, or set maxReplicas of the schedule",
    ),
    _names_a_time("start", lambda s: s.start),
    _names_a_time("end", lambda s: s.end),
    Rule(
        scope=ScalingSchedule,
        field="timeZone",
        holds=lambda s: is_time_zone(s.time_zone),
        message="timeZone is not known",
        remedy="use a name of the IANA database, e.g. Europe/Berlin, America/New_York or Etc/UTC",
    ),
    Rule(
        scope=Startup,
        field="stallSeconds",
        cel=if_set("stallSeconds", "seconds", then="self.stallSeconds <= self.seconds"),
        holds=lambda s: s.stall_seconds is None or s.stall_seconds <= s.seconds,
        message="stallSeconds is more than seconds",
        remedy="raise seconds, which limits the whole start, or lower stallSeconds",
    ),
)
