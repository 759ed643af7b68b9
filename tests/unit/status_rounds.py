"""Rounds as values, for the tests of the status: gangs in a state, and what else was observed."""

from __future__ import annotations

from dataclasses import replace

from r1_operator.api import names
from r1_operator.api.reasons import Reason
from r1_operator.api.types import R1DeploymentSpec, R1DeploymentStatus
from r1_operator.lifecycle.actions import Decision, ReplicaView
from r1_operator.lifecycle.gangs import Failure, Gang, GangState, Member, Termination
from r1_operator.placement.place import Unplaceable
from r1_operator.planning import built_in_profiles, make_plan
from r1_operator.planning.plan import Plan
from r1_operator.status.observation import FabricReport, Finding, Observation, Reading

NOW = 1_000_000.0
SPEC = R1DeploymentSpec.model_validate(
    {"model": {"name": "m", "weights": {"hostPath": {"path": "/w"}}}, "hardware": "CPUx1"}
)


def gang(name: str = "r1-0-0", revision: str = "a", **member: object) -> Gang:
    """One pod on node n1 unless `member` says otherwise."""
    replica, attempt = map(int, name.split("-")[1:])
    pod = Member(f"{name}-0", "u", 0, False, None, "n1", "ip", "", False, NOW, NOW)
    return Gang(name, replica, attempt, 1, revision, (replace(pod, **member),))  # type: ignore[arg-type]


def view(
    state: GangState,
    failure: Failure | None = None,
    name: str = "r1-0-0",
    revision: str = "a",
    restarts: int = 0,
    **member: object,
) -> ReplicaView:
    end = Termination((failure.configuration and 78) or 70, failure.reason, "", NOW) if failure else None
    facts = {"gated": state is GangState.GATED, "ready": state is GangState.READY, "termination": end} | member
    pods = gang(name, revision, **facts)
    retry = NOW + 60 if failure else None
    return ReplicaView(pods.replica, pods.attempt, name, pods, state, failure, restarts, retry, pods.revision)


def observed(*views: ReplicaView, leaving: tuple[Gang, ...] = (), **fields: object) -> Observation:
    serving = frozenset(v.name for v in views if v.state is GangState.READY)
    base = Observation(
        generation=3,
        spec=SPEC,
        selector="a=b",
        desired=1,
        spec_valid=Finding("True", Reason.PLANNED, "planned"),
        weights=Finding("Unknown", Reason.WEIGHTS_UNCHECKED, "unchecked"),
        gateway=Finding("True", Reason.GATEWAY_READY, "ready"),
        decision=Decision((), views, leaving, serving, (), None),
        revision="a",
    )
    return replace(base, **fields)  # type: ignore[arg-type]


def condition(status: R1DeploymentStatus, kind: str) -> tuple[str, str]:
    found = status.condition(kind)
    assert found is not None
    assert found.observed_generation == 3
    return found.status, found.reason


def message(status: R1DeploymentStatus, kind: str) -> str:
    found = status.condition(kind)
    assert found is not None
    return found.message


# --- as much as there can be ------------------------------------------------------------------------------------------
WORST_WORDS = '<"\\\n\x1b€>' * 1000
"""Every kind of character that takes more room in JSON than it seems to."""


def _pods(index: int, attempt: int, nodes: int, state: GangState) -> Gang:
    name = names.gang_name("r" * names.MAX_NAME_LENGTH, index, attempt)
    ready = state is GangState.READY
    members = tuple(
        Member(f"{name}-{i}", "u", i, False, None, f"gpu-{i:04}.eu-central-1.compute.internal", "ip", "", ready, 0, 0)
        for i in range(nodes)
    )
    return Gang(name, index, attempt, nodes, "abcdef0123", members)


def fleet(count: int, nodes: int, states: tuple[GangState, ...], words: str, leaving: int = 0) -> Observation:
    """`count` replicas, and all texts of a round at their worst."""
    views: list[ReplicaView] = []
    attempt = names.MAX_ATTEMPT if count > 500 else 0
    for index in range(count):
        state = states[index % len(states)]
        pods = _pods(index, attempt, nodes, state)
        failure = Failure("RankDied", words, NOW) if state is GangState.FAILED else None
        views.append(
            ReplicaView(index, attempt, pods.name, pods, state, failure, 10**9, NOW if failure else None, pods.revision)
        )
    finding = Finding("False", Reason.QUOTA_EXCEEDED, words)
    return Observation(
        generation=1,
        spec=SPEC,
        selector=names.engine_selector("r" * names.MAX_NAME_LENGTH),
        desired=count,
        spec_valid=replace(finding, status="True"),
        weights=finding,
        gateway=finding,
        plan=replace(_plan(), engine_args=(words,) * 1000),
        decision=Decision(
            (),
            tuple(views),
            tuple(_pods(index + count, attempt, nodes, GangState.LEAVING) for index in range(leaving)),
            frozenset(),
            (),
            None,
        ),
        revision="abcdef0123",
        unplaceable=tuple(Unplaceable(v.name, words) for v in views),
        readings={v.name: Reading("Weights", words) for v in views},
        sick_gpus={v.name: (words,) for v in views},
        fabrics={v.name: FabricReport(False, words, words) for v in views},
        errors=(words,) * 100,
        troubles=(finding,) * 100,
    )


def _plan() -> Plan:
    tiny = SPEC.model_copy(update={"model": SPEC.model.model_copy(update={"name": "r1-operator/tiny-r1"})})
    made = make_plan(tiny, built_in_profiles())
    assert isinstance(made, Plan), made
    return made
