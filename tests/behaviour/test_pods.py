"""What a site and a user say of their pods, on real kubelets: taints, pools, RDMA devices, runtimes, registries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from tests.behaviour.operator_process import CHECKOUT
from tests.behaviour.world import EFA, NICS, RDMA, Deployment, Deployments, World, wait_for

Deploy = Deployments
ONE_NODE = {"nodesPerReplica": 1}
NODE = "n8"
TAINT = {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}
POOL = {"kubernetes.io/hostname": NODE}


@contextmanager
def tainted(world: World) -> Iterator[None]:
    """A node of another pool: what tolerates no taint but that of the GPUs does not come to it."""
    world.cluster.kubectl("taint", "node", NODE, "sku=gpu:NoSchedule")
    try:
        yield
    finally:
        world.cluster.kubectl("taint", "node", NODE, "sku-")


def said(**limits: str) -> dict[str, Any]:
    return {
        "resources": {"limits": {RDMA: "1", **limits}},
        "podTemplate": {
            "metadata": {"annotations": {"k8s.v1.cni.cncf.io/networks": "roce"}, "labels": {"team": "ml"}},
            "spec": {
                "nodeSelector": POOL,
                "tolerations": [TAINT],
                "runtimeClassName": "nvidia",
                "imagePullSecrets": [{"name": "registry"}],
                "volumes": [{"name": "tuning", "configMap": {"name": "tuning"}}],
            },
        },
        "volumeMounts": [{"name": "tuning", "mountPath": "/etc/tuning", "readOnly": True}],
    }


def prepare(r1: Deployment) -> None:
    """What the pods name: a registry's Secret, a ConfigMap, a RuntimeClass."""
    secret = {"auths": {"registry.example": {"auth": ""}}}
    r1.kubectl("create", "configmap", "tuning", "--from-literal=a=b")
    r1.kubectl(
        *("create", "secret", "generic", "registry", "--type=kubernetes.io/dockerconfigjson"),
        f"--from-literal=.dockerconfigjson={json.dumps(secret)}",
    )
    runtime = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}}
    r1.kubectl("apply", "-f", "-", stdin=json.dumps(runtime | {"handler": "nvidia"}))


def waits(r1: Deployment, what: str) -> None:
    """Its gang has no nodes, and the status says why."""
    told = lambda: r1.condition("Ready").get("message", "")  # noqa: E731
    wait_for(f"told of {what}", told, until=lambda message: what in message)


def test_pods_of_a_tainted_pool_with_rdma_serve_and_each_thing_that_is_missing_is_named(
    world: World, deploy: Deploy
) -> None:
    r1 = deploy.in_own_namespace()
    prepare(r1)
    with tainted(world):
        missing = said()
        missing["podTemplate"]["spec"]["tolerations"] = []
        r1.apply(engine=missing, topology=ONE_NODE)
        waits(r1, "taint sku")
        r1.apply(engine=said(**{RDMA: "2"}), topology=ONE_NODE)
        waits(r1, f"too little {RDMA}")
        r1.apply(engine=said(), topology=ONE_NODE)
        wait_for("it serves", lambda: list(r1.gangs().values()), until=["Ready"].__eq__)
        (pod,) = [pod for pod in r1.pods() if pod["status"]["phase"] == "Running"]
        assert pod["spec"]["nodeName"] == NODE
        assert pod["spec"]["runtimeClassName"] == "nvidia"
        assert pod["status"]["qosClass"] == "Burstable"
        assert pod["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"] == "roce"
        assert r1.kubectl("exec", pod["metadata"]["name"], "--", "cat", "/etc/tuning/a") == "b"
        r1.kubectl("delete", "r1d", "r1")


def test_a_mount_of_no_volume_and_a_gpu_of_ones_own_are_refused_by_field(deploy: Deploy) -> None:
    r1 = deploy(topology=ONE_NODE, engine={"volumeMounts": [{"name": "x", "mountPath": "/x"}]})
    told = r1.await_condition("SpecValid", "False", "PlanRefused")
    assert told["message"].startswith("spec.engine.volumeMounts[0].name: there is no volume 'x'; ")
    r1.apply(topology=ONE_NODE, engine={"resources": {"limits": {"nvidia.com/gpu": "4"}}})
    field = "spec.engine.resources.limits[nvidia.com/gpu]: "
    wait_for("told", lambda: r1.condition("SpecValid")["message"], until=lambda message: message.startswith(field))
    assert r1.pods() == []


IMAGE = "r1-standin:dev"
COPY = ["sh", "-c", "touch /to/libnccl-net.so"]
DAEMON = {"name": "daemon", "image": IMAGE, "command": ["sleep", "infinity"], "restartPolicy": "Always"}


def beside(plugin: list[str]) -> dict[str, Any]:
    """As a fabric's own documentation has it: a plugin is copied to the engine, a daemon runs beside it."""
    copy = {"name": "plugin", "image": IMAGE, "command": plugin, "volumeMounts": [{"name": "nccl", "mountPath": "/to"}]}
    volumes = [{"name": "nccl", "emptyDir": {}}]
    return {
        "podTemplate": {"spec": {"initContainers": [copy, DAEMON], "volumes": volumes}},
        "volumeMounts": [{"name": "nccl", "mountPath": "/nccl"}],
    }


def test_what_runs_before_and_beside_the_engine_runs_and_its_failure_is_named(deploy: Deploy) -> None:
    r1 = deploy(topology=ONE_NODE, engine=beside(["sh", "-c", "echo no such file > /dev/termination-log; exit 78"]))
    told = wait_for("told", lambda: r1.condition("Ready").get("message", ""), until=lambda m: "InitContainer" in m)
    assert "init container plugin ended with exit code 78" in told
    assert "no such file" in told
    r1.apply(topology=ONE_NODE, engine=beside(COPY))
    wait_for("it serves", lambda: list(r1.gangs().values()), until=["Ready"].__eq__)
    (pod,) = [pod for pod in r1.pods() if pod["status"]["phase"] == "Running"]
    inside = r1.kubectl("exec", pod["metadata"]["name"], "-c", "engine", "--", "ls", "/nccl")
    assert inside.split() == ["libnccl-net.so"]
    daemon = pod["status"]["initContainerStatuses"][1]
    assert daemon["name"] == "daemon"
    assert "running" in daemon["state"]
    r1.kubectl("delete", "r1d", "r1")
    wait_for("all of it is gone, the daemon with its engine", r1.left, until=[].__eq__)


def of_example(name: str) -> tuple[dict[str, str], dict[str, Any]]:
    """The variables and the rest of spec.engine of an example, but for what stand-ins do not have: image and fabric."""
    engine: dict[str, Any] = yaml.safe_load((CHECKOUT / "examples" / f"{name}.yaml").read_text())["spec"]["engine"]
    env = {variable["name"]: variable["value"] for variable in engine.pop("env", ())}
    return env, {field: value for field, value in engine.items() if field not in ("image", "fabric")}


def test_the_examples_of_the_fabrics_serve_where_the_devices_are(deploy: Deploy) -> None:
    for name, resource, asked in (
        ("r1-infiniband", RDMA, "1"),
        ("r1-roce", NICS, "8"),
        ("r1-host-network", None, None),
        ("r1-efa", EFA, "32"),
    ):
        (env, engine), r1 = of_example(name), deploy.in_own_namespace()
        if "hugepages-2Mi" in engine.get("resources", {}).get("limits", {}):
            r1.apply(env, engine)
            waits(r1, "too little hugepages-2Mi")  # no node of this cluster has set any aside
            del engine["resources"]["limits"]["hugepages-2Mi"]
        r1.apply(env, engine)
        wait_for(f"{name} serves", lambda r1=r1: list(r1.gangs().values()), until=["Ready"].__eq__)
        pods = [pod for pod in r1.pods() if pod["status"]["phase"] == "Running"]
        assert len({pod["spec"]["nodeName"] for pod in pods}) == 2, name
        for pod in pods:
            (container,) = pod["spec"]["containers"]
            assert container["resources"]["limits"].get(resource) == asked
            assert (pod["status"]["podIP"] == pod["status"]["hostIP"]) is (name == "r1-host-network")
        r1.kubectl("delete", "r1d", "r1")
        wait_for(f"{name} is gone", r1.left, until=[].__eq__)


def test_a_second_start_finds_what_the_first_one_compiled(world: World, deploy: Deploy) -> None:
    """On two attempts and on two revisions of one image; that SGLang's kernels are found is a GPU's to prove."""
    cache = world.operator.folder / "kernels"
    cache.mkdir()
    cache.chmod(0o777)  # root's, if the kubelet made it; the engines here have another uid
    kept = {"cache": {"hostPath": {"path": str(cache)}}}
    r1 = deploy(topology=ONE_NODE, engine=kept)
    r1.await_ready("r1-0-0")
    r1.fault("r1-0-0-0", "exit70")
    r1.await_ready("r1-0-1")
    r1.apply(topology=ONE_NODE, engine=kept | {"args": ["--log-level", "info"]})
    old = r1.status()["currentRevision"]
    wait_for("another revision serves", r1.status, until=lambda status: status["currentRevision"] != old)
    (told,) = cache.glob("CPUx1/*/told")
    lines = told.read_text().splitlines()
    assert lines[0] == "0-0-0 made"
    assert lines[1] == "0-1-0 found"
    assert len(lines) >= 3
    assert all(line.endswith(" found") for line in lines[2:])


def test_weights_in_hugging_faces_cache_serve_as_they_lie_there(world: World, deploy: Deploy) -> None:
    """Its snapshots are links into a folder beside them, which is mounted with them."""
    hub = world.operator.folder / "hub" / "models--r1-operator--tiny-r1"
    snapshot = hub / "snapshots" / "0123"
    (hub / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json"):
        (hub / "blobs" / name).write_text("{}")
        (snapshot / name).symlink_to(f"../../blobs/{name}")

    def model(path: str, mounted: str) -> dict[str, Any]:
        return {"name": "r1-operator/tiny-r1", "weights": {"hostPath": {"path": mounted}, "path": path}}

    env = {"R1_STANDIN_CHECK_WEIGHTS": "1"}
    r1 = deploy(env=env, topology=ONE_NODE, model=model("", str(snapshot)))
    told = r1.await_condition("WeightsReady", "False")["message"]
    assert "config.json is missing" in told
    r1.apply(env=env, topology=ONE_NODE, model=model("snapshots/0123", str(hub)))
    wait_for("it serves", r1.gangs, until=lambda gangs: "Ready" in gangs.values())
