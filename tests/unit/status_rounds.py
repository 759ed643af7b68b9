"""Rounds as values, for the tests of the status: gangs in a state, and what else was observed."""

from __future__ import annotations

from dataclasses import replace

from r1_operator.api.reasons import Reason
from r1_operator.api.types import R1DeploymentSpec, R1DeploymentStatus
from r1_operator.lifecycle.actions import Decision, ReplicaView
from r1_operator.lifecycle.gangs import Failure, Gang, GangState, Member, Termination
from r1_operator.status.observation import Finding, Observation

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
    return ReplicaView(pods.replica, pods.attempt, name, pods, state, failure, restarts, retry)


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
