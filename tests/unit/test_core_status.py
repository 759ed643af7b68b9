"""The status: stable when nothing changed, told once as events, and honest about what is missing."""

from __future__ import annotations

from dataclasses import replace

from r1_operator.api.reasons import EventReason, Reason
from r1_operator.api.types import R1DeploymentSpec, R1DeploymentStatus
from r1_operator.autoscaling.window import ReplicaLoad, Sample
from r1_operator.lifecycle.actions import Decision, ReplicaView
from r1_operator.lifecycle.gangs import Failure, Gang, GangState, Member, Termination
from r1_operator.placement.place import Unplaceable
from r1_operator.status.derive import LOAD_PERIOD_SECONDS, derive
from r1_operator.status.observation import Finding, Observation, Reading
from r1_operator.status.transitions import events

NOW = 1_000_000.0
SPEC = R1DeploymentSpec.model_validate(
    {"model": {"name": "m", "weights": {"hostPath": {"path": "/w"}}}, "hardware": "CPUx1"}
)


def view(state: GangState, failure: Failure | None = None) -> ReplicaView:
    end = Termination((failure.configuration and 78) or 70, failure.reason, "", NOW) if failure else None
    member = Member("r1-0-0-0", "u", 0, state is GangState.GATED, None, "n1", "ip", "", False, 0, 0, termination=end)
    gang = Gang("r1-0-0", 0, 0, 1, "a", (member,))
    return ReplicaView(0, 0, "r1-0-0", gang, state, failure, 0, NOW + 60 if failure else None)


def observed(*views: ReplicaView, **fields: object) -> Observation:
    serving = frozenset(v.name for v in views if v.state is GangState.READY)
    base = Observation(
        generation=3,
        spec=SPEC,
        selector="a=b",
        desired=1,
        spec_valid=Finding("True", Reason.PLANNED, "planned"),
        weights=Finding("Unknown", Reason.WEIGHTS_UNCHECKED, "unchecked"),
        gateway=Finding("True", Reason.GATEWAY_READY, "ready"),
        decision=Decision((), views, (), serving, (), None),
        revision="a",
    )
    return replace(base, **fields)  # type: ignore[arg-type]


def condition(status: R1DeploymentStatus, kind: str) -> tuple[str, str]:
    found = status.condition(kind)
    assert found is not None
    assert found.observed_generation == 3
    return found.status, found.reason


def load(at: float, rate: float, missing: int = 0) -> Sample:
    return Sample(at, (ReplicaLoad(0.416, rate, 12, 0),), missing)


def test_the_same_round_again_changes_nothing() -> None:
    rounds = [
        observed(view(GangState.READY), load=load(NOW, 1234)),
        observed(view(GangState.FAILED, Failure("RankDied", "pod x: died", NOW))),
        observed(view(GangState.GATED), unplaceable=(Unplaceable("r1-0-0", "needs 1 node"),)),
    ]
    for one in rounds:
        status = derive(R1DeploymentStatus(), one, NOW)
        assert derive(status, one, NOW + 500) == status


def test_load_is_rounded_and_written_at_most_every_period() -> None:
    first = derive(R1DeploymentStatus(), observed(view(GangState.READY), load=load(NOW, 1234)), NOW)
    assert first.load is not None
    assert (first.load.tokens_per_second, first.load.kv_usage_percent) == (1200, 42)
    soon = NOW + LOAD_PERIOD_SECONDS - 1
    assert derive(first, observed(view(GangState.READY), load=load(soon, 9000)), soon) == first
    later = NOW + LOAD_PERIOD_SECONDS + 1
    second = derive(first, observed(view(GangState.READY), load=load(later, 9000)), later)
    assert second.load is not None
    assert second.load.tokens_per_second == 9000
    gone = derive(second, observed(view(GangState.STARTING)), later + LOAD_PERIOD_SECONDS)
    assert gone.load is None


def test_conditions_say_what_holds_a_resource_up() -> None:
    def ready(one: Observation) -> tuple[str, str]:
        return condition(derive(R1DeploymentStatus(), one, NOW), "Ready")

    no_claim = Finding("False", Reason.CLAIM_NOT_FOUND, "spec.model.weights…")
    refused = Finding("False", Reason.PLAN_REFUSED, "spec.hardware: …")
    lost = Failure("RankDied", "…", NOW)
    assert ready(observed(view(GangState.READY))) == ("True", "Ready")
    assert ready(observed(view(GangState.STARTING))) == ("False", "Starting")
    assert ready(observed(view(GangState.FAILED, lost))) == ("False", "StartFailed")
    assert ready(observed(view(GangState.READY), desired=2)) == ("False", "Scaling")
    assert ready(observed(view(GangState.READY), revision="b")) == ("True", "Updating")
    assert ready(observed(desired=0)) == ("False", "ScaledToZero")
    assert ready(observed(weights=no_claim)) == ("False", "ClaimNotFound")
    assert ready(observed(view(GangState.READY), spec_valid=refused)) == ("False", "PlanRefused")
    deaf = Finding("False", Reason.GATEWAY_SYNC_FAILED, "no answer")
    assert ready(observed(view(GangState.READY), gateway=deaf)) == ("False", "GatewaySyncFailed")


def test_an_engine_that_finds_no_tokenizer_makes_the_weights_unready() -> None:
    failure = Failure("TokenizerNotFound", "pod r1-0-0-0: no tokenizer.json; copy it", NOW, configuration=True)
    status = derive(R1DeploymentStatus(), observed(view(GangState.FAILED, failure)), NOW)
    assert condition(status, "WeightsReady") == ("False", "WeightsInvalid")


def test_stages_come_from_the_agent_while_a_gang_starts() -> None:
    readings = {"r1-0-0": Reading("Weights", "42 of 163 shards")}
    status = derive(R1DeploymentStatus(), observed(view(GangState.STARTING), readings=readings), NOW)
    assert (status.replica_statuses[0].stage, status.replica_statuses[0].message) == ("Weights", "42 of 163 shards")


def test_each_event_is_told_once() -> None:
    steps = [
        observed(view(GangState.GATED), unplaceable=(Unplaceable("r1-0-0", "needs 1 node"),)),
        observed(view(GangState.GATED), unplaceable=(Unplaceable("r1-0-0", "needs 1 node"),)),
        observed(view(GangState.STARTING)),
        observed(view(GangState.READY)),
        observed(view(GangState.READY)),
        observed(view(GangState.FAILED)),
        observed(view(GangState.FAILED, Failure("PeerDied", "…", NOW))),
        observed(view(GangState.FAILED, Failure("RankDied", "the cause, seen a moment later", NOW))),
    ]
    status, told = R1DeploymentStatus(), []
    for step in steps:
        before, status = status, derive(status, step, NOW)
        told.append([event.reason for event in events(before, status)])
    assert told == [
        [EventReason.GANG_UNPLACEABLE, EventReason.GANG_CREATED],
        [],
        [EventReason.GANG_PLACED],
        [EventReason.REPLICA_READY],
        [],
        [],  # not before it is known why
        [EventReason.GANG_FAILED],
        [EventReason.GANG_FAILED],
    ]


def test_an_unhealthy_gpu_is_told_once_beside_a_ready_replica() -> None:
    sick = {"r1-0-0": ("n2: GPU 3: GPU is lost",)}
    healthy = derive(R1DeploymentStatus(), observed(view(GangState.READY)), NOW)
    ill = derive(healthy, observed(view(GangState.READY), sick_gpus=sick), NOW)
    assert ill.replica_statuses[0].message.endswith("n2: GPU 3: GPU is lost")
    assert condition(ill, "Ready") == ("True", "Ready")
    assert [event.reason for event in events(healthy, ill)] == [EventReason.GPU_UNHEALTHY]
    assert derive(ill, observed(view(GangState.READY), sick_gpus=sick), NOW + 60) == ill


def test_a_replica_that_the_gateway_does_not_reach_yet_is_not_ready() -> None:
    one = observed(view(GangState.READY), routed=0)
    assert condition(derive(R1DeploymentStatus(), one, NOW), "Ready") == ("False", Reason.NOT_ROUTED)
    for routed in (1, None):
        reached = observed(view(GangState.READY), routed=routed)
        assert condition(derive(R1DeploymentStatus(), reached, NOW), "Ready") == ("True", Reason.READY)
    # A replica more than is wanted, during a roll, may take its time.
    surplus = observed(view(GangState.READY), view(GangState.READY), routed=1)
    assert condition(derive(R1DeploymentStatus(), surplus, NOW), "Ready")[0] == "True"
