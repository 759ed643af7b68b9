"""Bad pod templates and profiles, one for each rule; used as `cases.BROKEN_RULES` are."""

from __future__ import annotations

from typing import Any

from tests.chart.cases import GOOD, PROFILE, Case, spec

ENGINE = "spec.engine"


def engine(**fields: Any) -> dict[str, Any]:
    return spec(engine=fields)


def pod(**fields: Any) -> dict[str, Any]:
    return engine(podTemplate={"spec": fields})


def metadata(**fields: Any) -> dict[str, Any]:
    return engine(podTemplate={"metadata": fields})


def volume(**source: Any) -> dict[str, Any]:
    return pod(volumes=[{"name": "cache", **source}])


def mount(path: str, **fields: Any) -> dict[str, Any]:
    return engine(volumeMounts=[{"name": "cache", "mountPath": path, **fields}])


def beside(**fields: Any) -> dict[str, Any]:
    """`engine` with a container of the user's own."""
    return {"podTemplate": {"spec": {"initContainers": [{"name": "daemon", "image": "d:1", **fields}]}}}


MOUNT = f"{ENGINE}.volumeMounts[0]"
POD = f"{ENGINE}.podTemplate.spec"
INIT = f"{POD}.initContainers[0]"
METADATA = f"{ENGINE}.podTemplate.metadata"

BROKEN_PODS = (
    Case(
        "two values",
        engine(env=[{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}]),
        f"{ENGINE}.env[0].valueFrom",
        "exclude each other",
    ),
    Case("no value", engine(env=[{"name": "A", "valueFrom": {}}]), f"{ENGINE}.env[0].valueFrom", "exactly one source"),
    Case("every taint", pod(tolerations=[{"effect": "NoSchedule"}]), f"{POD}.tolerations[0].operator", "without a key"),
    Case(
        "a value of all",
        pod(tolerations=[{"key": "sku", "operator": "Exists", "value": "gpu"}]),
        f"{POD}.tolerations[0].value",
        "compares no value",
    ),
    Case(
        "seconds of nothing",
        pod(tolerations=[{"key": "sku", "effect": "NoSchedule", "tolerationSeconds": 5}]),
        f"{POD}.tolerations[0].tolerationSeconds",
        "NoExecute only",
    ),
    Case("a volume of nothing", volume(), f"{POD}.volumes[0]", "exactly one source"),
    Case("our volume", pod(volumes=[{"name": "models", "emptyDir": {}}]), f"{POD}.volumes[0].name", "of this name"),
    Case("a folder of anywhere", volume(hostPath={"path": "a"}), f"{POD}.volumes[0].hostPath.path", "not an absolute"),
    Case(
        "as much as it likes",
        volume(emptyDir={"sizeLimit": "much"}),
        f"{POD}.volumes[0].emptyDir.sizeLimit",
        "not a quantity",
    ),
    Case("a mount of anywhere", mount("cache"), f"{MOUNT}.mountPath", "plain absolute path"),
    Case("over the weights", mount("/models/cache"), f"{MOUNT}.mountPath", "something of its own"),
    Case("over the memory", mount("/dev/shm"), f"{MOUNT}.mountPath", "something of its own"),
    Case("out of the volume", mount("/cache", subPath="../x"), f"{MOUNT}.subPath", "leaves the volume"),
    Case(
        "a capability's other name",
        engine(securityContext={"capabilities": {"add": ["CAP_SYS_NICE"]}}),
        f"{ENGINE}.securityContext.capabilities.add[0]",
        "as Kubernetes spells it",
    ),
    Case("the engine's name", spec(engine=beside(name="engine")), f"{INIT}.name", "has this name"),
    *(
        Case(
            f"no amount of a container's {field}",
            spec(engine=beside(resources={field: {"cpu": "much"}})),
            f"{INIT}.resources.{field}",
            "not a quantity",
        )
        for field in ("requests", "limits")
    ),
    Case("a label like none", metadata(labels={"a b": "c"}), f"{METADATA}.labels", "Kubernetes takes"),
    Case("our label", metadata(labels={"r1operator.dev/gang": "r1-0-0"}), f"{METADATA}.labels", "operator's own"),
    Case("an annotation like none", metadata(annotations={"-": "c"}), f"{METADATA}.annotations", "Kubernetes takes"),
    Case(
        "our annotation",
        metadata(annotations={"r1operator.dev/content-hash": "0"}),
        f"{METADATA}.annotations",
        "operator's own",
    ),
    Case("cpu as a limit", engine(resources={"limits": {"cpu": 8}}), f"{ENGINE}.resources.limits", "extended"),
    Case("half a NIC", engine(resources={"limits": {"rdma/ib": "500m"}}), f"{ENGINE}.resources.limits", "an amount"),
    Case(
        "a request of a limit",
        engine(resources={"cpu": 8, "requests": {"cpu": 4}}),
        f"{ENGINE}.resources.requests",
        "says again",
    ),
    Case(
        "a GPU as a request",
        engine(resources={"requests": {"nvidia.com/gpu": 4}}),
        f"{ENGINE}.resources.requests",
        "takes cpu, memory",
    ),
    Case(
        "no amount of a request",
        engine(resources={"requests": {"cpu": "much"}}),
        f"{ENGINE}.resources.requests",
        "not a quantity",
    ),
    *(
        case
        for field in ("requests", "limits")
        for case in (
            Case(
                f"a GPU for the gateway's {field}",
                spec(gateway={"resources": {field: {"nvidia.com/gpu": 1}}}),
                f"spec.gateway.resources.{field}",
                "takes cpu, memory",
            ),
            Case(
                f"no amount of the gateway's {field}",
                spec(gateway={"resources": {field: {"cpu": "much"}}}),
                f"spec.gateway.resources.{field}",
                "not a quantity",
            ),
        )
    ),
    Case(
        "a profile without figures",
        spec(hardwareProfile={"name": "H100x8", "gpusPerNode": 8}),
        "spec.hardwareProfile",
        "say what a node is",
    ),
)

BROKEN_POD_FIELDS = (
    Case("a volume twice", pod(volumes=[{"name": "c", "emptyDir": {}}] * 2), f"{POD}.volumes[1]", "uplicate value"),
    Case(
        "a mount twice",
        engine(volumeMounts=[{"name": "c", "mountPath": "/c"}] * 2),
        f"{ENGINE}.volumeMounts[1]",
        "uplicate value",
    ),
    Case("a probe", spec(engine=beside(startupProbe={})), f"{INIT}.startupProbe", "unknown field"),
    Case("affinity", pod(affinity={}), f"{POD}.affinity", "unknown field"),
    Case("a label's value", metadata(labels={"a": "b c"}), f"{METADATA}.labels.a", "match"),
    Case(
        "a label of nodes without values",
        spec(hardwareProfile=PROFILE | {"nodeLabels": [{"key": "a", "values": []}]}),
        "spec.hardwareProfile.nodeLabels[0].values",
        "1 item",
    ),
)

EVERYTHING: dict[str, Any] = GOOD | {
    "spec": GOOD["spec"]
    | {
        "hardwareProfile": {"name": "H100x8", "extends": "H100x8", "resources": {"limits": {"rdma/ib": 1}}},
        "engine": {
            "imagePullPolicy": "Always",
            "env": [
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}},
                {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
                {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
            ],
            "resources": {
                "requests": {"cpu": 32, "memory": "512Gi"},
                "limits": {"rdma/ib": "8", "hugepages-2Mi": "5120Mi", "ephemeral-storage": "800Gi"},
            },
            "volumeMounts": [{"name": "cache", "mountPath": "/root/.cache", "subPath": "r1", "readOnly": True}],
            "securityContext": {"privileged": True, "capabilities": {"add": ["SYS_NICE"]}},
            "podTemplate": {
                "metadata": {
                    "labels": {"kueue.x-k8s.io/queue-name": "r1", "team": ""},
                    "annotations": {"k8s.v1.cni.cncf.io/networks": "roce-0, roce-1"},
                },
                "spec": {
                    "nodeSelector": {"pool": "h100"},
                    "tolerations": [
                        {"key": "sku", "value": "gpu", "effect": "NoSchedule"},
                        {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60},
                    ],
                    "runtimeClassName": "nvidia",
                    "priorityClassName": "serving",
                    "serviceAccountName": "r1",
                    "imagePullSecrets": [{"name": "registry"}],
                    "hostNetwork": True,
                    "initContainers": [
                        {"name": "plugin", "image": "nccl-plugin:1", "command": ["cp", "-r", "/plugin", "/to"]},
                        {
                            "name": "daemon",
                            "image": "tcpxo:1",
                            "imagePullPolicy": "Never",
                            "args": ["--all"],
                            "env": [{"name": "D", "value": "1"}],
                            "restartPolicy": "Always",
                            "resources": {"requests": {"cpu": "1"}, "limits": {"example.com/x": "1"}},
                            "volumeMounts": [{"name": "cache", "mountPath": "/host/sys", "readOnly": True}],
                            "securityContext": {"privileged": True},
                        },
                    ],
                    "volumes": [
                        {"name": "cache", "hostPath": {"path": "/var/cache/r1", "type": "DirectoryOrCreate"}},
                        {"name": "claim", "persistentVolumeClaim": {"claimName": "tuning", "readOnly": True}},
                        {"name": "map", "configMap": {"name": "deepep", "optional": True}},
                        {"name": "secret", "secret": {"secretName": "ca"}},
                        {"name": "pages", "emptyDir": {"medium": "HugePages", "sizeLimit": "1Gi"}},
                    ],
                },
            },
        },
        "gateway": {
            "imagePullPolicy": "Never",
            "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "8Gi"}},
            "service": {"type": "LoadBalancer", "annotations": {"a.example.com/internal": "true"}},
            "podTemplate": {
                "metadata": {"labels": {"team": "ml"}, "annotations": {"sidecar.istio.io/inject": "false"}},
                "spec": {"tolerations": [{"key": "edge", "operator": "Exists"}], "nodeSelector": {"pool": "cpu"}},
            },
        },
    }
}
"""A resource that says all that may be said of its pods."""
