"""From a JSON object to an R1Deployment, or to problems that say what, where and what to do."""

from __future__ import annotations

import pytest
from r1_operator.api.parse import parse, parse_hardware_profile
from r1_operator.api.rules import RULES
from r1_operator.api.types import Condition, HardwareProfile, R1Deployment, R1DeploymentStatus, to_wire

from tests.chart.cases import BROKEN_FIELDS, BROKEN_RULES, GOOD, PROFILE, UNSEEN_BY_THE_SERVER, Case, merged, spec
from tests.chart.pod_cases import BROKEN_POD_FIELDS, BROKEN_PODS, EVERYTHING


def parsed(obj: dict) -> R1Deployment:
    result = parse(obj)
    assert isinstance(result, R1Deployment), result
    return result


def test_a_model_and_hardware_are_enough() -> None:
    resource = parsed(GOOD)
    assert (resource.name, resource.spec.replicas, resource.spec.objective) == ("r1", 1, "Throughput")
    assert (resource.spec.drain.seconds, resource.spec.gateway.port) == (1200, 8000)
    assert (resource.spec.startup.seconds, resource.spec.startup.may_stand_still) == (14_400, 1800)
    assert resource.spec.topology.tensor_parallel is None
    assert resource.spec.autoscaling is None
    assert resource.spec.model.served_as == "deepseek-ai/DeepSeek-R1-0528"


@pytest.mark.parametrize(
    ("startup", "stall"),
    [
        ({"seconds": 600}, 600),
        ({"seconds": 3600}, 1800),
        ({"stallSeconds": 60}, 60),
        ({"stallSeconds": 14_400}, 14_400),
    ],
)
def test_a_start_may_never_stand_still_longer_than_it_may_take(startup: dict[str, int], stall: int) -> None:
    """A limit on the whole start that was right before there was one on standing still stays right."""
    assert parsed(merged(GOOD, spec(startup=startup))).spec.startup.may_stand_still == stall


@pytest.mark.parametrize(
    "case",
    BROKEN_RULES + BROKEN_PODS + BROKEN_FIELDS + BROKEN_POD_FIELDS + UNSEEN_BY_THE_SERVER,
    ids=lambda case: case.name,
)
def test_bad_input_names_field_reason_and_remedy(case: Case) -> None:
    problems = parse(case.resource)
    assert isinstance(problems, list), "accepted"
    (problem,) = problems
    assert problem.field == case.field
    assert case.text in problem.message
    assert problem.remedy


def test_every_rule_has_a_case_that_breaks_it() -> None:
    broken = {
        problem.message
        for case in (*BROKEN_RULES, *BROKEN_PODS, *UNSEEN_BY_THE_SERVER)
        for problem in parse(case.resource)
    }
    assert broken == {rule.message for rule in RULES}


def test_all_that_may_be_said_of_pods_is_taken() -> None:
    assert isinstance(parse(EVERYTHING), R1Deployment)


def test_all_problems_are_told_at_once() -> None:
    many = merged(GOOD, spec(topology={"tensorParallel": 3, "nodesPerReplica": 2, "expertParallel": 2}, replicas=0))
    assert {p.field for p in parse(many)} == {"spec.topology.tensorParallel", "spec.topology.expertParallel"}


def test_a_misspelt_field_is_recognised() -> None:
    (problem,) = parse(merged(GOOD, spec(autoscaling={"maxReplicas": 2, "minReplica": 1})))
    assert problem.remedy == "did you mean minReplicas?"


def test_null_is_absent_as_for_the_api_server() -> None:
    resource = merged(GOOD, {})
    resource["spec"] |= {"topology": None, "replicas": None, "autoscaling": {"maxReplicas": 2, "minReplicas": None}}
    assert parsed(resource) == parsed(merged(GOOD, spec(autoscaling={"maxReplicas": 2})))


def test_a_bare_number_is_a_quantity() -> None:
    resource = parsed(merged(GOOD, spec(engine={"resources": {"cpu": 8, "memory": "64Gi"}})))
    assert (resource.spec.engine.resources.cpu, resource.spec.engine.resources.memory) == ("8", "64Gi")


def test_metadata_of_a_real_object_is_no_obstacle() -> None:
    metadata = {"uid": "u", "generation": 3, "managedFields": [{"manager": "kubectl"}], "selfLink": "/x"}
    resource = parsed(merged(GOOD, {"metadata": metadata}))
    assert resource.metadata.generation == 3
    assert resource.owner_reference()["uid"] == "u"


def test_a_status_survives_the_round_trip() -> None:
    ready = Condition(
        type="Ready", status="True", reason="Ready", message="1 of 1", last_transition_time="2026-11-25T13:00:00Z"
    )
    status = R1DeploymentStatus(replicas=2, ready_replicas=1, desired_replicas=2, gpus=32, conditions=(ready,))
    wire = to_wire(status)
    assert wire["ready"] == "1/2"
    assert parsed(merged(GOOD, {"status": wire})).status == status


@pytest.mark.parametrize("status", [{"replicas": "two"}, {"conditions": [{"type": 1}]}])
def test_an_unreadable_status_does_not_stop_the_operator(status: dict) -> None:
    assert parsed(merged(GOOD, {"status": status})).status == R1DeploymentStatus()


def test_fields_of_a_newer_status_are_dropped() -> None:
    assert parsed(merged(GOOD, {"status": {"replicas": 2, "later": 1}})).status.replicas == 2


def test_a_hardware_profile_of_the_chart() -> None:
    profile = parse_hardware_profile(PROFILE)
    assert isinstance(profile, HardwareProfile)
    (problem,) = parse_hardware_profile(PROFILE | {"gpusPerNode": 0}, "hardwareProfiles[0]")
    assert problem.field == "hardwareProfiles[0].gpusPerNode"
    assert "r1d.spec.hardwareProfile.gpusPerNode`" in problem.remedy
