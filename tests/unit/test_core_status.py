"""The status: stable when nothing changed, told once as events, and honest about what is missing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from r1_operator.api import names
from r1_operator.api.reasons import Reason
from r1_operator.api.types import R1DeploymentStatus
from r1_operator.autoscaling.decide import Decision as ScalingDecision
from r1_operator.autoscaling.forecast import Forecast
from r1_operator.autoscaling.window import ReplicaLoad, Sample
from r1_operator.controller.figures import publish
from r1_operator.lifecycle.gangs import Failure, GangState
from r1_operator.placement.place import Unplaceable
from r1_operator.status.derive import FIGURES_SECONDS, LOAD_PERIOD_SECONDS, derive
from r1_operator.status.faults import ERROR_SECONDS, ROUTE_SECONDS, WAITING_SECONDS
from r1_operator.status.observation import Finding, Observation, Reading, Trial
from r1_operator.status.transitions import events
from r1_operator.telemetry.metrics import Metrics

from tests.unit.status_rounds import NOW, condition, message, observed, view

EMPTY = R1DeploymentStatus()
QUOTA = Finding("True", Reason.QUOTA_EXCEEDED, "pods r1-2-0-0: exceeded quota: gpus; raise it or lower spec.replicas")


def load(at: float, rate: float, missing: int = 0) -> Sample:
    return Sample(at, (ReplicaLoad(0.416, rate, 12, 0),), missing)


def test_the_same_round_again_changes_nothing() -> None:
    rounds = [
        observed(view(GangState.READY), load=load(NOW, 1234)),
        observed(view(GangState.FAILED, Failure("RankDied", "pod x: died", NOW))),
        observed(view(GangState.GATED), unplaceable=(Unplaceable("r1-0-0", "needs 1 node"),)),
    ]
    for one in rounds:
        status = derive(derive(EMPTY, one, NOW), one, NOW + 100)  # `Stalled` takes its time
        assert derive(status, one, NOW + 500) is status


def test_load_is_rounded_and_written_at_most_every_period() -> None:
    first = derive(EMPTY, observed(view(GangState.READY), load=load(NOW, 1234)), NOW)
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
        return condition(derive(EMPTY, one, NOW), "Ready")

    no_claim = Finding("False", Reason.CLAIM_NOT_FOUND, "spec.model.weights…")
    refused = Finding("False", Reason.PLAN_REFUSED, "spec.hardware: …")
    lost = Failure("RankDied", "…", NOW)
    assert ready(observed(view(GangState.READY))) == ("True", "Ready")
    assert ready(observed(view(GangState.STARTING))) == ("False", "Starting")
    assert ready(observed(view(GangState.FAILED, lost))) == ("False", "StartFailed")
    assert ready(observed(view(GangState.READY), desired=2)) == ("False", "Scaling")
    assert ready(observed(view(GangState.READY), revision="b")) == ("True", "Updating")
    assert ready(observed(desired=0)) == ("True", "ScaledToZero")
    assert ready(observed(weights=no_claim)) == ("False", "ClaimNotFound")
    assert ready(observed(view(GangState.READY), spec_valid=refused)) == ("False", "PlanRefused")
    deaf = Finding("False", Reason.GATEWAY_SYNC_FAILED, "no answer")
    assert ready(observed(view(GangState.READY), gateway=deaf)) == ("False", "GatewaySyncFailed")


def test_an_engine_that_finds_no_tokenizer_makes_the_weights_unready() -> None:
    failure = Failure("TokenizerNotFound", "pod r1-0-0-0: no tokenizer.json; copy it", NOW, configuration=True)
    status = derive(EMPTY, observed(view(GangState.FAILED, failure)), NOW)
    assert condition(status, "WeightsReady") == ("False", "WeightsInvalid")


def test_gpus_that_were_not_planned_for_are_told_by_that_name_and_not_blamed_on_the_weights() -> None:
    words = "pod r1-0-0-0 on node n1: node 0 (n1): GPUs: profile H100x8 is planned, and this node has 8 × NVIDIA-A100"
    for reason in ("HardwareMismatch", "GpuNotFree", "GpuUnhealthy", "DriverTooOld", "DriverUnusable"):
        failure = Failure(reason, words, NOW, configuration=True)
        status = derive(EMPTY, observed(view(GangState.FAILED, failure)), NOW)
        for told in ("Ready", "Progressing"):
            assert condition(status, told) == ("False", reason)
        assert condition(status, "Degraded") == ("True", reason)
        assert condition(status, "WeightsReady")[0] == "Unknown"
        assert words in next(c.message for c in status.conditions if c.type == "Degraded")


def test_another_model_than_the_planned_one_is_told_where_weights_are() -> None:
    failure = Failure("ModelMismatch", "pod r1-0-0-0: config.json: is not …", NOW, configuration=True)
    status = derive(EMPTY, observed(view(GangState.FAILED, failure)), NOW)
    assert condition(status, "WeightsReady") == ("False", "ModelMismatch")
    assert condition(status, "Degraded") == ("True", "ModelMismatch")


def test_stages_come_from_the_agent_while_a_gang_starts() -> None:
    readings = {"r1-0-0": Reading("Weights", "42 of 163 shards")}
    status = derive(EMPTY, observed(view(GangState.STARTING), readings=readings), NOW)
    assert (status.replica_statuses[0].stage, status.replica_statuses[0].message) == ("Weights", "42 of 163 shards")


def test_an_unhealthy_gpu_is_told_once_beside_a_ready_replica() -> None:
    sick = {"r1-0-0": ("n2: GPU 3: GPU is lost",)}
    healthy = derive(EMPTY, observed(view(GangState.READY)), NOW)
    ill = derive(healthy, observed(view(GangState.READY), sick_gpus=sick), NOW)
    assert ill.replica_statuses[0].message.endswith("n2: GPU 3: GPU is lost")
    assert condition(ill, "Ready") == ("True", "Ready")
    assert [event.reason for event in events(healthy, ill)] == ["GpuUnhealthy"]
    assert derive(ill, observed(view(GangState.READY), sick_gpus=sick), NOW + 60) == ill


def test_a_replica_that_the_gateway_does_not_reach_yet_is_not_ready() -> None:
    one = observed(view(GangState.READY), routed=0)
    assert condition(derive(EMPTY, one, NOW), "Ready") == ("False", Reason.NOT_ROUTED)
    for routed in (1, None):
        reached = observed(view(GangState.READY), routed=routed)
        assert condition(derive(EMPTY, reached, NOW), "Ready") == ("True", Reason.READY)
    # A replica more than is wanted, during a roll, may take its time.
    surplus = observed(view(GangState.READY), view(GangState.READY), routed=1)
    assert condition(derive(EMPTY, surplus, NOW), "Ready")[0] == "True"


# --- what is broken is told, whoever serves ---------------------------------------------------------------------------
def test_errors_and_troubles_are_told_while_replicas_serve() -> None:
    """S1: a roll that quota refuses said `Ready` and "being replaced one by one", for ever."""
    old = [view(GangState.READY, name=name, revision="old") for name in ("r1-0-0", "r1-1-0")]
    stuck = derive(EMPTY, observed(*old, desired=2, troubles=(QUOTA,)), NOW)
    assert condition(stuck, "Ready") == ("True", "Degraded")
    assert condition(stuck, "Available") == ("True", "ReplicasServe")
    assert condition(stuck, "Progressing") == ("False", "QuotaExceeded")
    assert condition(stuck, "Degraded") == ("True", "QuotaExceeded")
    for kind in ("Ready", "Progressing", "Degraded"):
        assert QUOTA.message in message(stuck, kind)
    assert [event.reason for event in events(EMPTY, stuck)].count("QuotaExceeded") == 1

    failing = observed(*old, desired=2, errors=("create: Forbidden (403): denied by policy",))
    status = derive(EMPTY, failing, NOW)
    assert condition(status, "Degraded") == ("True", "ReconcileFailed")
    assert condition(status, "Progressing") == ("True", "Updating")
    assert "denied by policy" in message(status, "Ready")
    # An error that stays is not on its way.
    assert condition(derive(status, failing, NOW + ERROR_SECONDS), "Progressing") == ("False", "ReconcileFailed")


def test_a_notable_trouble_hides_nothing_worse_and_stops_nothing() -> None:
    foreign = Finding("True", Reason.FOREIGN_PODS, "pod x carries our labels; remove them")
    alone = derive(EMPTY, observed(view(GangState.READY), troubles=(foreign,)), NOW)
    assert condition(alone, "Ready") == ("True", "Ready")
    assert condition(alone, "Degraded") == ("True", "ForeignPods")
    assert condition(alone, "Progressing") == ("True", "NewReplicasAvailable")
    both = derive(EMPTY, observed(view(GangState.GATED), troubles=(foreign, QUOTA)), NOW)
    assert condition(both, "Degraded") == ("True", "QuotaExceeded")
    assert "ForeignPods: pod x" in message(both, "Degraded")


DIED = Failure("RankDied", "x", NOW)
REFUSED = Failure("ArgumentRefused", "x", NOW, configuration=True)
SHORT = (Unplaceable("r1-0-0", "needs 1 node"),)
NO_PLAN = Finding("False", Reason.PLAN_REFUSED, "spec.hardware: …")
DEAF = Finding("False", Reason.GATEWAY_SYNC_FAILED, "no answer")


@pytest.mark.parametrize(
    ("one", "available", "progressing", "degraded"),
    [
        (observed(view(GangState.READY)), "True ReplicasServe", "True NewReplicasAvailable", "False AsExpected"),
        (observed(view(GangState.STARTING)), "False NoReplicaServes", "True Starting", "False AsExpected"),
        (observed(view(GangState.READY), desired=2), "True ReplicasServe", "True Scaling", "False AsExpected"),
        (observed(view(GangState.READY), revision="b"), "True ReplicasServe", "True Updating", "False AsExpected"),
        (observed(desired=0), "True ScaledToZero", "True ScaledToZero", "False AsExpected"),
        (observed(view(GangState.READY), routed=0), "False NotRouted", "True NotRouted", "False AsExpected"),
        # The kubelet's probe fails, and the gateway reaches it all the same.
        (observed(view(GangState.UNREADY), routed=1), "True ReplicasServe", "True ReplicasUnready", "True"),
        (observed(view(GangState.FAILED, DIED)), "False NoReplicaServes", "True Restarting", "True StartFailed"),
        (observed(view(GangState.FAILED, DIED, restarts=3)), "False NoReplicaServes", "False StartFailed", "True"),
        (observed(view(GangState.FAILED, REFUSED)), "False NoReplicaServes", "False StartFailed", "True StartFailed"),
        (
            observed(view(GangState.GATED), unplaceable=SHORT),
            "False NoReplicaServes",
            "False InsufficientNodes",
            "True",
        ),
        (observed(view(GangState.READY), spec_valid=NO_PLAN), "True ReplicasServe", "False PlanRefused", "True"),
        (observed(view(GangState.READY), gateway=DEAF), "Unknown GatewaySyncFailed", "True GatewaySyncFailed", "True"),
        (observed(decision=None, errors=("x",)), "Unknown ReconcileFailed", "False ReconcileFailed", "True"),
    ],
)
def test_available_progressing_and_degraded(one: Observation, available: str, progressing: str, degraded: str) -> None:
    status = derive(EMPTY, one, NOW)
    told = [" ".join(condition(status, kind)) for kind in ("Available", "Progressing", "Degraded")]
    assert told[:2] == [available, progressing]
    assert told[2].startswith(degraded)


def test_a_gateway_that_does_not_answer_us_may_well_serve() -> None:
    serving = derive(EMPTY, observed(view(GangState.READY), routed=1), NOW)
    deaf = observed(view(GangState.READY), gateway=DEAF)
    assert condition(derive(serving, deaf, NOW), "Available") == ("True", "ReplicasServe")


def test_an_image_that_cannot_be_pulled_is_named_within_minutes() -> None:
    """L16: 65 minutes of "0 of 1 replicas are ready"."""
    pull = "ErrImagePull: no such image"
    wait = 'ImagePullBackOff: Back-off pulling image "x": ErrImagePull: no such image'
    first = derive(EMPTY, observed(view(GangState.STARTING, waiting=pull)), NOW + WAITING_SECONDS)
    assert condition(first, "Progressing") == ("True", "Starting")
    stuck = derive(first, observed(view(GangState.STARTING, waiting=wait)), NOW + WAITING_SECONDS + 1)
    assert condition(stuck, "Progressing") == ("False", "ImagePullBackOff")
    assert condition(stuck, "Ready") == ("False", "ImagePullBackOff")
    assert "no such image; see that spec.engine.image exists" in message(stuck, "Degraded")
    # From pull to pull the kubelet's words go back and forth; ours do not.
    assert derive(stuck, observed(view(GangState.STARTING, waiting=pull)), NOW + WAITING_SECONDS + 9) is stuck


def test_a_replica_that_was_ready_says_since_when_and_what_its_agent_says() -> None:
    out = view(GangState.UNREADY)
    silent = derive(EMPTY, observed(out), NOW)
    assert silent.replica_statuses[0].message == "since 1970-01-12T13:46:40Z on n1; its agent does not answer"
    readings = {"r1-0-0": Reading("Ready", "")}
    speaks = derive(silent, observed(out, readings=readings), NOW)
    assert speaks.replica_statuses[0].message.endswith("its agent says Ready")
    assert condition(speaks, "Ready") == ("False", "ReplicasUnready")


def test_a_ready_replica_that_is_never_routed_to_is_broken() -> None:
    one = observed(view(GangState.READY), routed=0)
    status = derive(derive(EMPTY, one, NOW), one, NOW + ROUTE_SECONDS + 1)
    assert condition(status, "Degraded") == ("True", "NotRouted")
    assert condition(status, "Progressing") == ("False", "NotRouted")


# --- counts and revisions ---------------------------------------------------------------------------------------------
def test_a_roll_counts_as_people_expect_of_a_deployment() -> None:
    def counts(status: R1DeploymentStatus) -> tuple[object, ...]:
        numbers = (status.replicas, status.ready_replicas, status.updated_replicas, status.unavailable_replicas)
        return (*numbers, status.current_revision, status.update_revision)

    old = [view(GangState.READY, name=name) for name in ("r1-0-0", "r1-1-0")]
    new = [view(GangState.READY, name=name, revision="b") for name in ("r1-2-0", "r1-0-1")]
    status = derive(EMPTY, observed(*old, desired=2), NOW)
    assert counts(status) == (2, 2, 2, 0, "a", "a")
    status = derive(status, observed(*old, replace(new[0], state=GangState.STARTING), desired=2, revision="b"), NOW)
    assert counts(status) == (3, 2, 0, 0, "a", "b")
    status = derive(status, observed(old[0], *new, desired=2, revision="b"), NOW)
    assert counts(status) == (3, 3, 2, 0, "a", "b")
    status = derive(status, observed(decision=None, revision=None, desired=2), NOW)
    assert counts(status) == (3, 3, 2, 0, "a", "b")  # unknown is not zero
    status = derive(status, observed(*new, desired=2, revision="b"), NOW)
    assert counts(status) == (2, 2, 2, 0, "b", "b")
    status = derive(status, observed(replace(new[0], state=GangState.UNREADY), desired=2, revision="b"), NOW)
    assert counts(status) == (1, 0, 0, 2, "b", "b")


def test_the_scale_subresource_finds_one_pod_a_replica() -> None:
    """N-01: an HPA multiplies by the pods that the selector finds, and by nothing else."""
    pods = [names.engine_pod_labels("r1", replica, 0, node, "a") for replica in range(3) for node in range(2)]
    wanted = dict(term.split("=") for term in names.engine_selector("r1").split(","))
    assert len([pod for pod in pods if wanted.items() <= pod.items()]) == 3


# --- writes -----------------------------------------------------------------------------------------------------------
def test_a_pod_of_somebody_else_costs_no_write_and_no_event() -> None:
    """S5: 30 rounds in which another node was taken were 30 writes and 30 events."""
    status, writes, told = EMPTY, 0, []
    for second in range(30):
        short = Unplaceable("r1-0-0", f"needs 2 nodes; of 1,000 nodes {900 + second} are in use, 2.{second} free")
        before, status = status, derive(status, observed(view(GangState.GATED), unplaceable=(short,)), NOW + second)
        writes += status is not before
        told += [event.reason for event in events(before, status)]
    assert (writes, told) == (1, ["GangUnplaceable", "GangCreated"])
    late = derive(status, observed(view(GangState.GATED), unplaceable=(short,)), NOW + FIGURES_SECONDS)
    assert "929 are in use" in message(late, "GangsPlaced")
    assert "GangUnplaceable" not in [event.reason for event in events(status, late)]


def test_the_autoscalers_figures_are_written_every_five_minutes() -> None:
    def at(second: float, desired: int, reason: Reason, kv: int) -> Observation:
        scaling = ScalingDecision(desired, reason, f"KV cache {kv}% used in 1 replica (target 70%)")
        return observed(view(GangState.READY), scaling=scaling, load=load(NOW + second, 100))

    status = derive(EMPTY, at(0, 1, Reason.WITHIN_TARGETS, 10), NOW)
    for second in range(5, 300, 5):
        assert derive(status, at(second, 1, Reason.WITHIN_TARGETS, 10 + second % 50), NOW + second) is status
    up = derive(status, at(120, 2, Reason.KV_USAGE_HIGH, 90), NOW + 120)
    assert up.autoscaling is not None
    assert (up.autoscaling.desired_replicas, up.autoscaling.reason) == (2, "KvUsageHigh")
    assert derive(status, at(301, 1, Reason.WITHIN_TARGETS, 20), NOW + 301) is not status


def test_progress_of_a_start_is_written_every_half_minute() -> None:
    def at(shards: int) -> Observation:
        return observed(view(GangState.STARTING), readings={"r1-0-0": Reading("Weights", f"{shards} of 163 shards")})

    status = derive(EMPTY, at(1), NOW)
    assert derive(status, at(40), NOW + 29) is status
    assert derive(status, at(40), NOW + 30).replica_statuses[0].message == "40 of 163 shards"
    # A clock that was an hour ahead when the status was written stops nothing.
    assert derive(status, at(40), NOW - 3600).replica_statuses[0].message == "40 of 163 shards"


def test_a_stage_of_another_version_reads_as_unknown() -> None:
    """L11: one unknown word made 20 replicas 1."""
    entry = {"name": "r1-0-0", "stage": "Preflight", "since": "2026-11-25T13:00:00Z"}
    ready = {"type": "Ready", "status": "Perhaps", "reason": "R", "lastTransitionTime": "2026-11-25T13:00:00Z"}
    raw = json.dumps({"desiredReplicas": 20, "replicaStatuses": [entry], "conditions": [ready], "later": {"a": 1}})
    status = R1DeploymentStatus.model_validate_json(raw, strict=True)
    assert (status.desired_replicas, status.replica_statuses[0].stage) == (20, "Unknown")
    assert status.conditions[0].status == "Unknown"


def test_the_figures_tell_what_the_status_tells() -> None:
    metrics, key, labels = Metrics(), ("ns", "r1"), {"namespace": "ns", "name": "r1"}

    def figure(name: str, **more: str) -> float | None:
        return metrics.registry.get_sample_value(f"r1_deployment_{name}", labels | more)

    coming = Forecast(2.0, 2.5, "trend", 0.1, 10)
    scaling = ScalingDecision(2, Reason.WITHIN_TARGETS, "", need=1.5, forecast=coming, capacity=None)
    ready = observed(view(GangState.READY), scaling=scaling)
    publish(metrics, key, derive(EMPTY, ready, NOW), ready)
    assert (figure("needed_replicas"), figure("forecast_replicas")) == (1.5, 2.0)
    assert (figure("forecast_bound_replicas"), figure("forecast_error_ratio")) == (2.5, 0.1)
    assert (figure("gangs", stage="Ready"), figure("gangs", stage="Failed")) == (1, 0)
    assert (figure("condition", condition="Ready"), figure("condition", condition="Degraded")) == (1, 0)
    assert figure("updated_replicas") == 1
    assert figure("condition", condition="WeightsReady") == 1
    starting = observed(view(GangState.STARTING))
    publish(metrics, key, derive(EMPTY, starting, NOW), starting)
    assert (figure("gangs", stage="Ready"), figure("condition", condition="Ready")) == (0, 0)
    assert figure("condition", condition="WeightsReady") is None  # Unknown is not False
    metrics.forget(key)
    assert (figure("gangs", stage="Ready"), figure("condition", condition="Ready")) == (None, None)


def test_an_aborted_trial_is_told_as_long_as_the_spec_asks_for_it() -> None:
    """It was told only until the canary had gone; from then on "1 of 1 replicas run revision …" hid it."""
    serves = view(GangState.READY)
    trouble = Finding("False", Reason.CANARY_ABORTED, "the trial of revision b failed: 3 of 3 requests")
    trial = Trial("b", "Aborted", "3 of 3 requests")
    status = derive(R1DeploymentStatus(), observed(serves, trial=trial, troubles=(trouble,)), NOW)
    assert condition(status, "Progressing") == ("False", "CanaryAborted")
    assert condition(status, "Ready")[0] == "True"
    later = derive(status, observed(serves, trial=trial, troubles=(trouble,)), NOW + 300)
    assert condition(later, "Progressing") == ("False", "CanaryAborted")
    assert condition(later, "Stalled") == ("True", "CanaryAborted")
