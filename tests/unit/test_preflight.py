"""`r1 preflight` on clusters that lack one thing each: it is found with its remedy, and mended it is found no more."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from r1_operator.api.crd import custom_resource_definition
from r1_operator.cli.preflight_command import told
from r1_operator.planning import built_in_profiles
from r1_operator.preflight.checks import checks
from r1_operator.preflight.looked import Checked, Looked
from r1_operator.rounds.reading import Settings, read_subject

NS = "serving"
Json = dict[str, Any]


def resource(**spec: Any) -> Json:
    kind = {"apiVersion": "r1operator.dev/v1alpha1", "kind": "R1Deployment"}
    model = {"name": "deepseek-ai/DeepSeek-R1-0528", "weights": {"persistentVolumeClaim": {"claimName": "weights"}}}
    limits = {"resources": {"limits": {"rdma/ib": "1"}}}
    whole = {"model": model, "hardware": "H100x8", "engine": limits} | spec
    return {**kind, "metadata": {"name": "r1", "uid": "u", "namespace": NS}, "spec": whole}


def node(name: str) -> Json:
    labels = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/cuda.runtime-version.major": "13"}
    allocatable = {"nvidia.com/gpu": "8", "rdma/ib": "100", "cpu": "180", "memory": "1900Gi", "pods": "110"}
    status = {"allocatable": allocatable, "conditions": [{"type": "Ready", "status": "True"}]}
    return {"metadata": {"name": name, "labels": labels}, "spec": {"taints": []}, "status": status}


def sound(obj: Json) -> Looked:
    """A cluster that lacks nothing."""
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    claim = {"spec": {"accessModes": ["ReadOnlyMany"]}, "status": {"phase": "Bound"}}
    return Looked(
        subject=read_subject(obj, Settings("e", "g", built_in_profiles(), "")),
        namespace={"metadata": {"name": NS}},
        crd=custom_resource_definition(),
        operators=({"metadata": {"namespace": "r1-system", "name": "r1-0"}, "status": ready},),
        nodes=tuple(node(f"n{i}") for i in range(4)),
        claims={"weights": claim},
    )


def looked(**spec: Any) -> Looked:
    return sound(resource(**spec))


def with_nodes(change: Callable[[Json], None]) -> Callable[[Looked], Looked]:
    def broken(found: Looked) -> Looked:
        nodes = copy.deepcopy(found.nodes)
        for each in nodes:
            change(dict(each))
        return replace(found, nodes=nodes)

    return broken


def label(key: str, value: str | None) -> Callable[[Json], None]:
    def change(each: Json) -> None:
        each["metadata"]["labels"].pop(key, None)
        if value is not None:
            each["metadata"]["labels"][key] = value

    return change


def allocatable(key: str, value: str | None) -> Callable[[Json], None]:
    def change(each: Json) -> None:
        each["status"]["allocatable"].pop(key, None)
        if value is not None:
            each["status"]["allocatable"][key] = value

    return change


def taint(each: Json) -> None:
    each["spec"]["taints"].append({"key": "sku", "value": "gpu", "effect": "NoSchedule"})


def cordon(each: Json) -> None:
    each["spec"]["unschedulable"] = True


def silence(each: Json) -> None:
    each["status"]["conditions"] = [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]


def old_crd(found: Looked) -> Looked:
    crd = copy.deepcopy(custom_resource_definition())
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    del spec["properties"]["autoscaling"]["properties"]["schedules"]
    return replace(found, crd=crd)


def somebody(found: Looked) -> Looked:
    """Another team's pods hold three of four nodes."""
    containers = [{"resources": {"requests": {"nvidia.com/gpu": "1"}}}]
    pods = tuple(
        {"metadata": {"namespace": "ml", "name": f"job-{i}"}, "spec": {"nodeName": f"n{i}", "containers": containers}}
        for i in range(3)
    )
    return replace(found, pods=pods)


def quota(found: Looked) -> Looked:
    status = {"hard": {"requests.nvidia.com/gpu": "16"}, "used": {"requests.nvidia.com/gpu": "8"}}
    return replace(found, quotas=({"metadata": {"name": "team"}, "status": status},))


@dataclass(frozen=True)
class Broken:
    name: str
    how: Callable[[Looked], Looked]
    what: str
    level: str
    found: str
    remedy: str


CLUSTERS = (
    Broken(
        "no operator", lambda f: replace(f, crd=None), "operator", "FAIL", "not known to this cluster", "helm install"
    ),
    Broken(
        "operator down",
        lambda f: replace(f, operators=({"metadata": {"namespace": "r1-system"}},)),
        "operator",
        "FAIL",
        "none of 1 pods is ready",
        "kubectl -n r1-system describe pods",
    ),
    Broken("old CRD", old_crd, "operator", "warn", "lacks spec.autoscaling.schedules", "kubectl apply --server-side"),
    Broken(
        "no device plugin",
        with_nodes(allocatable("nvidia.com/gpu", None)),
        "nodes",
        "FAIL",
        "none of 4 nodes offers nvidia.com/gpu",
        "device plugin",
    ),
    Broken(
        "other boards",
        with_nodes(label("nvidia.com/gpu.product", "NVIDIA-A100-SXM4-80GB")),
        "boards",
        "FAIL",
        "4 × NVIDIA-A100-SXM4-80GB",
        "spec.hardware",
    ),
    Broken(
        "time slices",
        with_nodes(label("nvidia.com/gpu.product", "NVIDIA-H100-80GB-HBM3-SHARED")),
        "boards",
        "FAIL",
        "handed out in parts",
        "time slicing off",
    ),
    Broken(
        "no discovery",
        with_nodes(label("nvidia.com/gpu.product", None)),
        "boards",
        "warn",
        "n0, n1, n2 and 1 more",
        "GPU feature discovery",
    ),
    Broken("dead GPUs", with_nodes(allocatable("nvidia.com/gpu", "7")), "GPUs", "warn", "n0 offers 7", "nvidia-smi"),
    Broken("tainted", with_nodes(taint), "taints", "warn", "sku=gpu:NoSchedule on n0", "podTemplate.spec.tolerations"),
    Broken("cordoned", with_nodes(cordon), "nodes", "warn", "cordoned: n0", "kubectl uncordon n0"),
    Broken(
        "silent", with_nodes(silence), "nodes", "warn", "not Ready: n0 (NodeStatusUnknown)", "kubectl describe node"
    ),
    Broken(
        "old drivers",
        with_nodes(label("nvidia.com/cuda.runtime-version.major", "11")),
        "drivers",
        "FAIL",
        "n0 (CUDA 11)",
        "CUDA 12 or later",
    ),
    Broken("held by others", somebody, "room", "FAIL", "ml/job-0 on n0", "free what"),
    Broken("small quota", quota, "quota", "FAIL", "8 of 16 are in use", "ResourceQuota team"),
    Broken(
        "no namespace",
        lambda f: replace(f, namespace=None),
        "namespace",
        "FAIL",
        f"no namespace {NS}",
        f"kubectl create namespace {NS}",
    ),
    Broken(
        "no claim", lambda f: replace(f, claims={}), "weights", "FAIL", "no PersistentVolumeClaim 'weights'", "says"
    ),
    Broken(
        "no Secret",
        lambda f: replace(f, secrets={"registry": False}),
        "secrets",
        "FAIL",
        "no Secret registry",
        "create",
    ),
    Broken(
        "refused pods",
        lambda f: replace(f, rehearsal='violates PodSecurity "baseline:latest"'),
        "admission",
        "FAIL",
        "would be refused",
        "enforce=privileged",
    ),
)


def bad(found: Looked) -> list[Checked]:
    return [each for each in checks(found) if each.level != "ok"]


@pytest.mark.parametrize("cluster", CLUSTERS, ids=lambda cluster: cluster.name)
def test_what_is_missing_is_named_with_its_remedy(cluster: Broken) -> None:
    whole = looked()
    assert bad(whole) == []
    found = [each for each in bad(cluster.how(whole)) if each.what == cluster.what]
    assert len(found) == 1, bad(cluster.how(whole))
    assert found[0].level == cluster.level
    assert cluster.found in found[0].found
    assert cluster.remedy in found[0].remedy


def test_a_gang_without_room_is_a_failure_whatever_keeps_it_out() -> None:
    """Warnings alone would let somebody apply what waits for ever."""
    for change in (taint, cordon, silence, allocatable("nvidia.com/gpu", "7")):
        rooms = [each for each in bad(with_nodes(change)(looked())) if each.what == "room"]
        assert [each.level for each in rooms] == ["FAIL"]
        assert "needs 2 whole free nodes with 8 nvidia.com/gpu each" in rooms[0].found


def test_the_network_between_the_nodes_is_asked_for_or_tcp_is_told_beforehand() -> None:
    offered = [each for each in bad(looked(engine={})) if each.what == "fabric"]
    assert [each.level for each in offered] == ["warn"]
    assert "the nodes offer rdma/ib, and the pods ask for none of it" in offered[0].found
    assert 'spec.engine.resources.limits to {"rdma/ib": "1"}' in offered[0].remedy
    (none,) = [e for e in bad(with_nodes(allocatable("rdma/ib", None))(looked(engine={}))) if e.what == "fabric"]
    assert "offer no RDMA device" in none.found
    assert bad(looked(engine={"fabric": {"transport": "Tcp"}})) == []


def test_a_spec_that_cannot_work_is_told_before_anything_of_the_cluster() -> None:
    found = bad(looked(topology={"nodesPerReplica": 1}))
    assert [each.what for each in found] == ["plan"]
    assert "89.42 GiB per GPU, more than the 77.00 GiB usable" in found[0].found


def test_it_reads_as_a_list_with_remedies_and_a_sum() -> None:
    lines = told(checks(quota(looked()))).splitlines()
    assert lines[0].startswith("ok    operator")
    (at,) = [i for i, line in enumerate(lines) if line.startswith("FAIL  quota")]
    assert lines[at + 1].strip().startswith("→ raise it in ResourceQuota team")
    assert lines[-1] == "1 to mend before R1 can serve, 0 to look at"
    assert told(checks(looked())).endswith("\nnothing to mend")
