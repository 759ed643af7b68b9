"""What a site and a user say of the pods: in the pods, in what placement asks of nodes, in the revision, or refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r1_operator.api.engine import Engine
from r1_operator.api.overlay import overlay
from r1_operator.api.parse import parse, parse_hardware_profile
from r1_operator.api.pinning import pinned_affinity, pinned_node, required_values
from r1_operator.api.types import HardwareProfile
from r1_operator.manifests.context import Context, ImagePull
from r1_operator.manifests.differs import differs
from r1_operator.manifests.gateway import gateway_objects
from r1_operator.manifests.template import gang_pod, shape_of, template_of
from r1_operator.planning import Refusal, built_in_profiles
from r1_operator.planning.profiles import resolve, resolve_all
from r1_operator.rounds.reading import Settings, Subject, read_subject

from tests.chart.cases import GOOD, merged, spec
from tests.chart.pod_cases import EVERYTHING, beside

SITE = {
    "name": "H100x8",
    "extends": "H100x8",
    "nodeLabels": [{"key": "pool", "values": ["a", "b"]}],
    "env": [{"name": "NCCL_IB_HCA", "value": "mlx5"}, {"name": "SITE", "value": "1"}],
    "resources": {"cpu": 90, "limits": {"rdma/ib": 1}},
    "podTemplate": {
        "metadata": {"annotations": {"k8s.v1.cni.cncf.io/networks": "roce"}},
        "spec": {
            "tolerations": [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}],
            "runtimeClassName": "nvidia",
            "volumes": [{"name": "cache", "hostPath": {"path": "/anywhere/the/site/likes"}}],
        },
    },
    "volumeMounts": [{"name": "cache", "mountPath": "/root/.cache"}],
    "securityContext": {"capabilities": {"add": ["SYS_NICE"]}},
}


def profile(**fields: Any) -> HardwareProfile:
    read = parse_hardware_profile(SITE | fields)
    assert isinstance(read, HardwareProfile), read
    return read


def settings(*profiles: HardwareProfile, pull: ImagePull | None = None) -> Settings:
    known = built_in_profiles()
    site = resolve_all([("[0]", one) for one in profiles], known)
    assert not isinstance(site, Refusal), site
    return Settings(
        "engine:1", "gateway:1", {**known, **site}, "fabric", host_path_prefixes=("/data",), images=pull or ImagePull()
    )


def read(change: dict[str, Any], site: Settings | None = None) -> Subject:
    obj = merged(GOOD, change)
    obj["metadata"] = {**obj["metadata"], "uid": "u", "generation": 1}
    return read_subject(obj, site or settings(profile()))


def context(site: Settings | None = None, **change: Any) -> Context:
    subject = read(spec(**change), site)
    assert subject.context is not None, subject.valid
    return subject.context


def pod_of(given: Context) -> dict[str, Any]:
    return gang_pod(template_of(given), 0, 0, 0)


def test_what_the_site_says_once_is_in_every_pod_of_such_nodes() -> None:
    pod = pod_of(context())
    container, said = pod["spec"]["containers"][0], pod["spec"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "8", "rdma/ib": "1", "cpu": "90"}
    assert container["resources"]["requests"] == {"nvidia.com/gpu": "8", "rdma/ib": "1", "cpu": "90", "memory": "64Gi"}
    assert pod["metadata"]["annotations"] == {"k8s.v1.cni.cncf.io/networks": "roce"}
    assert said["runtimeClassName"] == "nvidia"
    assert {"key": "sku", "value": "gpu", "effect": "NoSchedule"} in said["tolerations"]
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in said["tolerations"]
    assert {"name": "cache", "mountPath": "/root/.cache"} in container["volumeMounts"]
    assert container["securityContext"]["capabilities"]["add"] == ["IPC_LOCK", "SYS_NICE"]
    assert {"name": "NCCL_IB_HCA", "value": "mlx5"} in container["env"]
    assert "hostNetwork" not in said


def test_the_user_has_the_last_word_over_the_site_field_by_field() -> None:
    engine = {
        "env": [{"name": "NCCL_IB_HCA", "value": "mlx5_0"}],
        "resources": {"memory": "1Ti", "limits": {"rdma/ib": 8, "hugepages-2Mi": "1Gi"}},
        "podTemplate": {"spec": {"runtimeClassName": "other", "hostNetwork": True, "nodeSelector": {"rack": "7"}}},
        "securityContext": {"privileged": True},
    }
    pod = pod_of(context(engine=engine))
    container = pod["spec"]["containers"][0]
    env = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert (env["NCCL_IB_HCA"], env["SITE"]) == ("mlx5_0", "1")
    limits = {"nvidia.com/gpu": "8", "rdma/ib": "8", "hugepages-2Mi": "1Gi", "cpu": "90", "memory": "1Ti"}
    assert container["resources"] == {"requests": limits, "limits": limits}
    assert container["securityContext"] == {"privileged": True}
    assert (pod["spec"]["runtimeClassName"], pod["spec"]["dnsPolicy"]) == ("other", "ClusterFirstWithHostNet")
    assert pod["spec"]["nodeSelector"] == {"rack": "7"}


def test_placement_asks_what_the_pod_asks() -> None:
    shape = shape_of(
        template_of(context(engine={"podTemplate": {"spec": {"nodeSelector": {"pool": "b", "rack": "7"}}}}))
    )
    assert shape.node_labels == {"pool": {"b"}, "rack": {"7"}}
    assert shape.requests["rdma/ib"] == 1
    assert any(toleration.key == "sku" and toleration.value == "gpu" for toleration in shape.tolerations)


def test_a_pin_narrows_what_was_asked_of_the_node() -> None:
    asked = pod_of(context())["spec"]
    pinned = {**asked, "affinity": pinned_affinity("n1", asked["affinity"])}
    assert pinned_node(pinned) == "n1"
    assert required_values(pinned) == required_values(asked) == {"pool": frozenset({"a", "b"})}
    # While a pod is gated its terms may only gain requirements (KEP-3838): as many as before, each with what it had.
    terms, before = (
        spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        for spec in (pinned, asked)
    )
    assert [term["matchExpressions"] for term in terms] == [term["matchExpressions"] for term in before]


def test_all_that_may_be_said_reaches_the_pods_and_ours_stays_ours() -> None:
    obj = EVERYTHING | {"metadata": {**EVERYTHING["metadata"], "uid": "u", "generation": 1}}
    site = replace(settings(pull=ImagePull("IfNotPresent", ("site",))), host_path_prefixes=("/",))
    given = read_subject(obj, site).context
    assert given is not None
    pod = pod_of(given)
    engine = EVERYTHING["spec"]["engine"]
    assert pod["spec"]["volumes"][-5:] == engine["podTemplate"]["spec"]["volumes"]
    assert pod["spec"]["containers"][0]["volumeMounts"][-1] == engine["volumeMounts"][0]
    assert pod["spec"]["containers"][0]["env"][-3:] == engine["env"]
    assert pod["spec"]["containers"][0]["imagePullPolicy"] == "Always"
    assert pod["spec"]["imagePullSecrets"] == [{"name": "site"}, {"name": "registry"}]
    assert pod["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "r1"
    assert pod["metadata"]["labels"]["app.kubernetes.io/instance"] == "r1"
    plugin, daemon = pod["spec"]["initContainers"]
    assert daemon == engine["podTemplate"]["spec"]["initContainers"][1]
    nothing_more = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    own = engine["podTemplate"]["spec"]["initContainers"][0]
    assert plugin == own | {"imagePullPolicy": "IfNotPresent", "securityContext": nothing_more}
    amounts = pod["spec"]["containers"][0]["resources"]
    limited = {"nvidia.com/gpu": "8", "rdma/ib": "8", "hugepages-2Mi": "5120Mi", "ephemeral-storage": "800Gi"}
    assert amounts == {"requests": {"cpu": "32", "memory": "512Gi"} | limited, "limits": limited}
    for field in ("priorityClassName", "serviceAccountName", "runtimeClassName"):
        assert pod["spec"][field] == engine["podTemplate"]["spec"][field]
    service, deployment = gateway_objects(given)[1:3]
    assert (service["spec"]["type"], service["metadata"]["annotations"]["a.example.com/internal"]) == (
        "LoadBalancer",
        "true",
    )
    template = deployment["spec"]["template"]
    assert template["metadata"]["labels"]["team"] == "ml"
    assert template["metadata"]["labels"]["app.kubernetes.io/component"] == "gateway"
    assert template["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"
    assert template["spec"]["nodeSelector"] == {"pool": "cpu"}
    assert template["spec"]["imagePullSecrets"] == [{"name": "site"}]
    assert template["spec"]["containers"][0]["imagePullPolicy"] == "Never"
    assert template["spec"]["containers"][0]["resources"] == {"requests": {"cpu": "500m"}, "limits": {"memory": "8Gi"}}


def test_what_a_user_takes_back_is_taken_back() -> None:
    """Server-side apply removes it, but only if somebody notices that there is something to apply."""
    said = {"podTemplate": {"spec": {"nodeSelector": {"a": "b"}}}, "service": {"annotations": {"a": "b"}}}
    before, after = gateway_objects(context(gateway=said)), gateway_objects(context())
    for old, new in zip(before[1:3], after[1:3], strict=True):
        assert differs(new, old)
        assert not differs(new, new)


def test_a_second_network_is_another_revision_and_the_default_requests_are_small() -> None:
    plain, none = context(), settings()
    other = {"podTemplate": {"metadata": {"annotations": {"k8s.v1.cni.cncf.io/networks": "other"}}}}
    assert template_of(context(engine=other)).revision != template_of(plain).revision
    tiny = context(none, model={"name": "r1-operator/tiny-r1"}, hardware="CPUx1")
    asked = pod_of(tiny)["spec"]["containers"][0]["resources"]
    assert asked["requests"] == {"cpu": "100m", "memory": "256Mi"} | asked["limits"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (spec(engine={"resources": {"limits": {"nvidia.com/gpu": 4}}}), "spec.engine.resources.limits[nvidia.com/gpu]"),
        (spec(engine={"volumeMounts": [{"name": "x", "mountPath": "/x"}]}), "spec.engine.volumeMounts[0].name"),
        (
            spec(engine=beside(resources={"limits": {"nvidia.com/gpu": 1}})),
            "spec.engine.podTemplate.spec.initContainers[0].resources",
        ),
        (
            spec(engine=beside(volumeMounts=[{"name": "x", "mountPath": "/x"}])),
            "spec.engine.podTemplate.spec.initContainers[0].volumeMounts[0].name",
        ),
        (
            spec(engine={"podTemplate": {"spec": {"volumes": [{"name": "x", "hostPath": {"path": "/etc"}}]}}}),
            "spec.engine.podTemplate.spec.volumes[0].hostPath.path",
        ),
        (spec(hardwareProfile={"name": "H100x8", "extends": "H100"}), "spec.hardwareProfile.extends"),
        (
            spec(hardwareProfile={"name": "H100x8", "extends": "H100x8", "usableMemoryMib": 90_000}),
            "spec.hardwareProfile.usableMemoryMib",
        ),
    ],
)
def test_what_no_schema_can_see_is_refused_with_field_and_remedy(change: dict[str, Any], told: str) -> None:
    subject = read(change)
    assert subject.plan is None
    assert subject.valid.message.startswith(f"{told}: ")
    assert "; " in subject.valid.message


def test_what_a_site_mounts_is_its_own_word_and_a_users_profile_is_not() -> None:
    assert read({}).context is not None
    own = {**SITE, "extends": "H100x8"}
    assert (
        "spec.hardwareProfile.podTemplate.spec.volumes[0]" in read(spec(hardwareProfile=own), settings()).valid.message
    )


def test_a_profile_that_extends_is_that_node_with_what_it_says_itself() -> None:
    base = built_in_profiles()["H100x8"]
    slow = resolve(profile(networkGbitsPerSecond=400), built_in_profiles(), "")
    assert not isinstance(slow, Refusal)
    assert (slow.gpus_per_node, slow.products, slow.network_gbits_per_second) == (8, base.products, 400)
    chain = resolve_all([("", profile(name="a")), ("", profile(name="b", extends="a", env=[]))], built_in_profiles())
    assert not isinstance(chain, Refusal)
    assert chain["b"].given is not None
    assert {variable.name for variable in chain["b"].given.env} == {"NCCL_IB_HCA", "SITE"}


NAMES = st.sampled_from("abcd")
ENV = st.lists(
    st.builds(lambda name, value: {"name": name, "value": value}, NAMES, NAMES), unique_by=lambda e: e["name"]
)
ENGINES = st.builds(
    lambda env, labels, tolerations, cpu, limits: Engine.model_validate(
        {
            "env": env,
            "resources": {"limits": limits} | ({"cpu": cpu} if cpu else {}),
            "podTemplate": {
                "metadata": {"labels": labels},
                "spec": {"tolerations": [{"key": key, "operator": "Exists"} for key in tolerations]},
            },
        }
    ),
    ENV,
    st.dictionaries(NAMES, NAMES),
    st.lists(NAMES, unique=True),
    st.sampled_from([None, "1", "2"]),
    st.dictionaries(st.sampled_from(["rdma/a", "rdma/b"]), st.sampled_from(["1", "2"])),
)


@given(ENGINES, ENGINES)
def test_laid_over_one_another_nothing_is_lost_and_the_upper_one_holds(below: Engine, above: Engine) -> None:
    laid = overlay(below, above)
    assert overlay(below, laid) == laid, "twice is as once"
    assert overlay(Engine(), above) == above
    assert overlay(below, Engine()) == below
    said = {variable.name: variable.value for variable in above.env}
    assert {v.name: v.value for v in laid.env} == {v.name: v.value for v in below.env} | said
    assert laid.resources.limits == {**below.resources.limits, **above.resources.limits}
    assert laid.resources.cpu == (above.resources.cpu or below.resources.cpu)
    both = {*below.pod_template.spec.tolerations, *above.pod_template.spec.tolerations}
    assert set(laid.pod_template.spec.tolerations) == both


def test_a_field_that_is_not_on_the_list_is_refused_by_name() -> None:
    (problem,) = parse(merged(GOOD, spec(engine={"podTemplate": {"spec": {"hostIPC": True}}})))  # type: ignore[misc]
    assert problem.field == "spec.engine.podTemplate.spec.hostIPC"
    assert problem.remedy
