"""What the operator writes: the pod of a gang, its revision, and whether anything has to be written at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from r1_operator.api.types import R1DeploymentSpec, R1DeploymentStatus
from r1_operator.lifecycle.records import records_of
from r1_operator.manifests.context import Context
from r1_operator.manifests.differs import differs
from r1_operator.manifests.engine_config import attention_ranks
from r1_operator.manifests.engine_pod import engine_pod
from r1_operator.manifests.template import (
    gang_config_map,
    gang_pod,
    loose_of,
    renewed_limits,
    shape_of,
    template_config_map,
    template_of,
    templates_of,
)
from r1_operator.placement.quantity import parse_quantity
from r1_operator.planning import built_in_profiles
from r1_operator.rounds.reading import Settings, read_subject
from r1_operator.rounds.weights import check_weights

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SETTINGS = Settings("engine:1", "gateway:1", built_in_profiles(), "fabric")


def context(example: str = "r1-16xh100.yaml", **spec: Any) -> Context:
    obj = yaml.safe_load((EXAMPLES / example).read_text())
    obj["metadata"] |= {"namespace": "ns", "uid": "u", "generation": 1}
    obj["spec"] |= spec
    subject = read_subject(obj, SETTINGS)
    assert subject.context is not None, subject.valid
    return subject.context


def test_a_pod_takes_its_whole_node_and_waits_behind_the_gate() -> None:
    pod = engine_pod(context(), 0, 3, 1, "abc")
    spec = pod["spec"]
    (container,) = spec["containers"]
    assert pod["metadata"]["name"] == spec["hostname"]
    assert pod["metadata"]["name"].endswith("-0-3-1")
    assert spec["schedulingGates"] == [{"name": "r1operator.dev/gang"}]
    assert spec["restartPolicy"] == "Never"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert pod["metadata"]["ownerReferences"][0]["controller"] is True
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]


def test_the_gang_is_told_where_its_head_is_and_how_long_it_may_drain() -> None:
    given = context(drain={"seconds": 77})
    written = gang_config_map(template_of(given), 1, 2)
    config = json.loads(written["data"]["engine.json"])
    assert attention_ranks(written) == config["attentionDataParallel"]
    assert attention_ranks(None) is None
    assert attention_ranks(written | {"data": {"engine.json": "{"}}) is None
    assert config["headAddress"] == f"{given.name}-1-2-0.{given.name}-engine.ns.svc"
    assert config["drainSeconds"] == 77
    assert config["nodes"] == 2
    assert engine_pod(given, 1, 2, 0, "")["spec"]["terminationGracePeriodSeconds"] > 77


def test_each_copy_of_a_small_model_is_a_rank_to_be_probed() -> None:
    """SGLang numbers whole copies (--dp-size) as it numbers attention groups: ready means a token from each."""
    small = {
        "name": "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        "weights": {"persistentVolumeClaim": {"claimName": "w"}},
    }
    given = context(model=small, hardware="H100x8", topology={}, limits={})
    config = json.loads(gang_config_map(template_of(given), 0, 0)["data"]["engine.json"])
    words = config["engineArgs"]
    assert words[words.index("--dp-size") + 1] == "8"
    assert config["attentionDataParallel"] == 8
    full = context()
    config = json.loads(gang_config_map(template_of(full), 0, 0)["data"]["engine.json"])
    assert config["attentionDataParallel"] == full.plan.attention_data_parallel > 1


def test_what_is_kept_of_a_revision_makes_the_very_pods_that_were_rendered() -> None:
    given = context(engine={"env": [{"name": "NCCL_DEBUG", "value": "INFO"}]})
    template = template_of(given)
    kept = templates_of([template_config_map(given, template), gang_config_map(template, 0, 0)])
    assert kept == {template.revision: template}
    for replica, attempt, node in ((0, 0, 0), (3, 7, 1)):
        rendered = engine_pod(given, replica, attempt, node, template.revision)
        assert gang_pod(kept[template.revision], replica, attempt, node) == rendered
    assert templates_of([{"metadata": {"labels": {"r1operator.dev/revision": "x"}}, "data": {"pod.json": "{"}}]) == {}


def test_only_what_pods_cannot_take_over_makes_another_revision() -> None:
    before = template_of(context()).revision
    assert template_of(context(replicas=5, gateway={"replicas": 3})).revision == before
    assert template_of(context(engine={"args": ["--log-requests"]})).revision != before
    annotated = {"podTemplate": {"metadata": {"annotations": {"k8s.v1.cni.cncf.io/networks": "roce"}}}}
    assert template_of(context(engine=annotated)).revision != before
    assert template_of(context(strategy={"restartedAt": "now"})).revision != before


def test_limits_of_time_and_peoples_labels_change_while_an_engine_runs() -> None:
    """L12: raising the start's limit ended a gang that was 50 minutes into loading."""
    before, wishes = context(), {"drain": {"seconds": 77}, "startup": {"seconds": 7200, "stallSeconds": 99}}
    after = context(**wishes, engine={"podTemplate": {"metadata": {"labels": {"team": "a"}}}})
    assert template_of(after).revision == template_of(before).revision
    template, loose = template_of(before), loose_of(after.spec)
    pod = gang_pod(template, 0, 0, 1, loose)
    assert pod["spec"]["terminationGracePeriodSeconds"] == 77 + 30
    assert pod["metadata"]["labels"]["team"] == "a"
    assert pod["metadata"]["labels"]["r1operator.dev/revision"] == template.revision
    running = gang_config_map(template, 0, 0, loose_of(before.spec))
    assert json.loads(running["data"]["limits.json"]) == {
        "startSeconds": 14400,
        "stallSeconds": 1800,
        "drainSeconds": 1200,
    }
    told = renewed_limits(running, loose)
    assert told is not None
    assert list(told["data"]) == ["limits.json"], "and nothing else of it is touched"
    assert json.loads(told["data"]["limits.json"]) == {"startSeconds": 7200, "stallSeconds": 99, "drainSeconds": 77}
    assert renewed_limits(told, loose) is None
    assert renewed_limits({**running, "immutable": True}, loose) is None, "of an older operator: it cannot be told"


def test_the_shape_is_that_of_the_pod() -> None:
    shape = shape_of(template_of(context(engine={"resources": {"cpu": "32", "memory": "1Ti"}})))
    assert (shape.size, shape.resource) == (2, "nvidia.com/gpu")
    assert shape.requests == {"nvidia.com/gpu": 8, "cpu": 32, "memory": 2**40}


def test_nothing_is_written_over_defaults_but_over_every_change() -> None:
    wanted = {"spec": {"ports": [{"port": 80}], "selector": {"a": "1"}, "env": []}, "data": {"k": "v"}}
    live = {
        "spec": {"ports": [{"port": 80, "protocol": "TCP"}], "selector": {"a": "1"}, "clusterIP": "10.0.0.1"},
        "data": {"k": "v"},
        "status": {},
    }
    assert not differs(wanted, live)
    assert differs(wanted, None)
    assert differs(wanted, {**live, "data": {"k": "v", "left over": "x"}})
    assert differs(wanted, {**live, "spec": {**live["spec"], "ports": [{"port": 80}, {"port": 81}]}})  # type: ignore[dict-item]
    assert differs({"spec": {"replicas": 2}}, {"spec": {"replicas": 1}})


@pytest.mark.parametrize(
    ("claim", "nodes", "expected"),
    [
        (None, 2, ("False", "ClaimNotFound")),
        ({"spec": {"accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Bound"}}, 2, ("False", "ClaimAccessMode")),
        (
            {"spec": {"accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Bound"}},
            1,
            ("Unknown", "ClaimOneNode"),
        ),
        ({"spec": {"accessModes": ["ReadOnlyMany"]}, "status": {"phase": "Lost"}}, 2, ("False", "ClaimNotBound")),
        ({"spec": {"accessModes": ["ReadOnlyMany"]}, "status": {"phase": "Pending"}}, 2, ("Unknown", "ClaimNotBound")),
    ],
)
def test_a_claim_is_judged_before_pods_exist(
    claim: dict[str, Any] | None, nodes: int, expected: tuple[str, str]
) -> None:
    weights = R1DeploymentSpec.model_validate(
        {"model": {"name": "m", "weights": {"persistentVolumeClaim": {"claimName": "w"}}}, "hardware": "H100x8"}
    ).model.weights
    finding = check_weights(weights, claim, "ns", nodes)
    assert (finding.status, finding.reason) == expected
    assert "'w'" in finding.message


def test_a_volume_for_one_node_is_refused_to_two_replicas() -> None:
    """S4: the second one would hang in Multi-Attach."""
    weights = R1DeploymentSpec.model_validate(
        {"model": {"name": "m", "weights": {"persistentVolumeClaim": {"claimName": "w"}}}, "hardware": "H200x8"}
    ).model.weights
    claim = {"spec": {"accessModes": ["ReadWriteOncePod"]}, "status": {"phase": "Bound"}}
    finding = check_weights(weights, claim, "ns", nodes=1, replicas=2)
    assert (finding.status, finding.reason) == ("False", "ClaimAccessMode")
    assert "2 replicas need 2 nodes" in finding.message


def test_a_field_of_another_version_is_left_out_and_told() -> None:
    """L10: the API server took it, so it belongs to another CRD; what runs is cared for all the same."""
    obj = yaml.safe_load((EXAMPLES / "r1-16xh100.yaml").read_text())
    obj["metadata"] |= {"namespace": "ns", "uid": "u", "generation": 1}
    obj["spec"]["rollout"] = {"maxSurge": 1}
    subject = read_subject(obj, SETTINGS)
    assert subject.context is not None
    assert subject.unknown == ("spec.rollout",)
    obj["spec"]["hardware"] = 8
    broken = read_subject(obj, SETTINGS)
    assert broken.context is None
    assert "spec.hardware" in broken.valid.message


def test_a_status_of_another_version_is_read_as_far_as_it_goes() -> None:
    """L11: one unknown word made 20 replicas 1. What is unknown counts as ready once, which is what does least harm."""
    obj = yaml.safe_load((EXAMPLES / "r1-16xh100.yaml").read_text())
    obj["metadata"] |= {"namespace": "ns", "uid": "u", "generation": 1}
    since = "2026-11-25T00:00:00Z"
    obj["status"] = {
        "observedGeneration": 1,
        "desiredReplicas": 20,
        "autoscaling": {"desiredReplicas": 20, "reason": "WithinTargets", "at": since},
        "replicaStatuses": [
            {"name": "r1-0-0", "stage": "Preflight", "since": since},
            {"name": "r1-1-0", "stage": "Ready", "since": since},
        ],
        "load": {"joules": 1},
    }
    subject = read_subject(obj, SETTINGS)
    assert subject.status.autoscaling is not None
    assert subject.status.autoscaling.desired_replicas == 20
    assert all(record.was_ready for record in records_of(subject.status.replica_statuses, 0.0).values())
    assert subject.unread == ("status.load",)
    assert read_subject({**obj, "status": "?"}, SETTINGS).status == R1DeploymentStatus()


@pytest.mark.parametrize(
    ("text", "value"),
    [("8", 8), ("500m", 0.5), ("64Gi", 64 * 2**30), ("1e3", 1000), ("1.5k", 1500), ("2E", 2 * 10**18)],
)
def test_quantities(text: str, value: float) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "8GB", "Gi", "1 2"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no Kubernetes quantity"):
        parse_quantity(text)
