"""The CRD on a real API server: it says what the types say, and refuses what Python refuses, in the same words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from r1_operator.api import crd
from r1_operator.api.parse import parse
from r1_operator.api.types import Condition, LoadStatus, R1Deployment, R1DeploymentStatus, to_wire
from r1_operator.lifecycle.gangs import GangState
from r1_operator.status.derive import derive

from tests.chart.cases import BROKEN_FIELDS, BROKEN_RULES, GOOD, Case, merged, spec
from tests.chart.conftest import Server
from tests.chart.pod_cases import BROKEN_POD_FIELDS, BROKEN_PODS
from tests.unit.status_rounds import NOW, WORST_WORDS, fleet

pytestmark = pytest.mark.cluster
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


def refusals(answer: dict[str, Any]) -> list[tuple[str, str]]:
    """(field, message) of each cause in a refusal."""
    assert answer["kind"] == "Status", f"accepted: {json.dumps(answer.get('spec'))}"
    return [(cause.get("field", ""), cause["message"]) for cause in answer["details"].get("causes", ())]


def test_the_charts_crd_is_up_to_date() -> None:
    assert crd.main(["--check"]) == 0


def test_an_outdated_crd_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outdated = tmp_path / "crd.yaml"
    outdated.write_text(crd.render().replace("maximum: 95", "maximum: 96"))
    assert crd.main(["--check", "--file", str(outdated)]) == 1
    assert "python -m r1_operator.api.crd" in capsys.readouterr().err


def test_the_schema_is_structural_and_whole(with_crd: Server) -> None:
    stored = json.loads(with_crd.kubectl("get", "crd", "r1deployments.r1operator.dev", "-o", "json"))
    conditions = {condition["type"]: condition["status"] for condition in stored["status"]["conditions"]}
    assert conditions.get("NonStructuralSchema", "False") == "False"
    schema = crd.custom_resource_definition()["spec"]["versions"][0]["schema"]
    assert stored["spec"]["versions"][0]["schema"] == schema


def test_every_field_is_explained(with_crd: Server) -> None:
    fields = dict(described(crd.custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"], ""))
    assert len(fields) > 100
    silent = [path for path, text in fields.items() if len(text) < 8]
    assert silent == [".metadata"]
    assert "Most prompt tokens" in with_crd.kubectl("explain", "r1d.spec.limits.chunkedPrefillSize")


def described(schema: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for name, prop in schema.get("properties", {}).items():
        yield f"{path}.{name}", prop.get("description", "")
        yield from described(prop, f"{path}.{name}")
        yield from described(prop.get("items", {}), f"{path}.{name}[]")


@pytest.mark.parametrize("case", BROKEN_RULES + BROKEN_PODS, ids=lambda case: case.name)
def test_rules_have_the_same_words_in_both_places(with_crd: Server, case: Case) -> None:
    (problem,) = parse(case.resource)
    causes = refusals(with_crd.dry_run(case.resource))
    # A rule about metadata cannot name its field to the API server, which also has a rule of its own about names.
    field = problem.field if not problem.field.startswith("metadata") else "<nil>"
    ours = [(where, text) for where, text in causes if where == field]
    assert len(ours) == 1, causes
    assert ours[0][1].endswith(f"{problem.message}; {problem.remedy}")


@pytest.mark.parametrize("case", BROKEN_FIELDS + BROKEN_POD_FIELDS, ids=lambda case: case.name)
def test_bad_fields_are_refused_in_both_places(with_crd: Server, case: Case) -> None:
    answer = with_crd.dry_run(case.resource)
    assert answer["kind"] == "Status", "accepted"
    if "unknown field" in case.text:
        assert f'unknown field "{case.field}"' in answer["message"]
    else:
        assert case.field in [field for field, _ in refusals(answer)]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_mean_the_same_in_both_places(with_crd: Server, path: Path) -> None:
    example = yaml.safe_load(path.read_text())
    here, there = parse(example), parse(with_crd.dry_run(example))
    assert isinstance(here, R1Deployment), here
    assert isinstance(there, R1Deployment), there
    # The API server filled in its defaults, Python its own.
    assert there.spec == here.spec


def test_null_and_absent_are_the_same(with_crd: Server) -> None:
    resource = merged(GOOD, spec(autoscaling={"maxReplicas": 2}))
    resource["spec"] |= {"topology": None, "replicas": None, "objective": None}
    resource["spec"]["autoscaling"]["minReplicas"] = None
    stored, here = parse(with_crd.dry_run(resource)), parse(resource)
    assert isinstance(stored, R1Deployment)
    assert isinstance(here, R1Deployment)
    assert stored.spec == here.spec


@pytest.fixture
def applied(with_crd: Server) -> Iterator[Server]:
    with_crd.kubectl("apply", "-f", "-", objects=[merged(GOOD, spec(replicas=2))])
    yield with_crd
    with_crd.kubectl("delete", "r1d", "r1", "--wait")


def test_the_table_shows_the_status(applied: Server) -> None:
    ready = Condition(type="Ready", status="False", reason="Starting", last_transition_time="2026-11-25T13:00:00Z")
    load = LoadStatus(
        tokens_per_second=4210, kv_usage_percent=37, running_requests=9, waiting_requests=0, at="2026-11-25T13:00:00Z"
    )
    status = R1DeploymentStatus(
        replicas=2, ready_replicas=1, desired_replicas=2, gpus=32, load=load, conditions=(ready,), selector="a=b"
    )
    patch = json.dumps({"status": to_wire(status)})
    applied.kubectl("patch", "r1d", "r1", "--subresource=status", "--type=merge", "-p", patch)
    header, row = applied.kubectl("get", "r1").splitlines()
    assert header.split() == ["NAME", "READY", "STATUS", "GPUS", "TOK/S", "KV%", "AGE"]
    assert row.split()[:6] == ["r1", "1/2", "Starting", "32", "4210", "37"]


def test_the_largest_status_fits_into_etcd(applied: Server) -> None:
    """Else no failed gang would be started again: a failure is acted upon once it stands in the status."""
    most = fleet(999, 64, (GangState.FAILED, GangState.STARTING), WORST_WORDS, leaving=999)
    status = to_wire(derive(R1DeploymentStatus(), most, NOW))
    wanted = {key: GOOD[key] for key in ("apiVersion", "kind", "metadata")} | {"status": status}
    applied.kubectl("apply", "--server-side", "--subresource=status", "-f", "-", objects=[wanted])
    assert len(json.loads(applied.kubectl("get", "r1d", "r1", "-o", "json"))["status"]["replicaStatuses"]) == 1998


def test_a_resource_that_nobody_has_looked_at_says_so(applied: Server) -> None:
    # kstatus takes a resource without any status for done.
    assert applied.kubectl("get", "r1d", "r1", "-o", "jsonpath={.status.observedGeneration}") == "-1"


def test_the_scale_subresource(applied: Server) -> None:
    generation = applied.kubectl("get", "r1d", "r1", "-o", "jsonpath={.metadata.generation}")
    status = json.dumps({"status": {"replicas": 2, "selector": "app.kubernetes.io/instance=r1"}})
    applied.kubectl("patch", "r1d", "r1", "--subresource=status", "--type=merge", "-p", status)
    assert applied.kubectl("get", "r1d", "r1", "-o", "jsonpath={.metadata.generation}") == generation
    applied.kubectl("scale", "r1d/r1", "--replicas=5")
    scale = json.loads(applied.kubectl("get", "r1d", "r1", "--subresource=scale", "-o", "json"))
    assert (scale["spec"]["replicas"], scale["status"]["replicas"]) == (5, 2)
    assert scale["status"]["selector"] == "app.kubernetes.io/instance=r1"
    assert applied.kubectl("get", "r1d", "r1", "-o", "jsonpath={.spec.replicas}") == "5"


def test_no_field_is_immutable(applied: Server) -> None:
    changed = merged(GOOD, spec(hardware="H200x8", model={"name": "other"}, topology={"nodesPerReplica": 4}))
    applied.kubectl("apply", "-f", "-", objects=[changed])
    assert applied.kubectl("get", "r1d", "r1", "-o", "jsonpath={.spec.hardware}") == "H200x8"
