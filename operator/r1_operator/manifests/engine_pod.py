"""One pod of a gang."""

from __future__ import annotations

from typing import Any

from ..api import names
from ..api.types import to_wire
from .context import Context
from .pod_template import (
    image_fields,
    init_containers,
    metadata_fields,
    pod_fields,
    required_labels,
    rights,
    tolerations,
    variables,
)

GRACE_MARGIN_SECONDS = 30
"""Beyond drain.seconds, for the engine to end Ray and its children before the kubelet kills what is left."""

# Requests of a pod that says none, a GPU: a pod without any is the first to be evicted and to be killed for memory.
# Small enough for any node of these GPUs; whoever knows the node says more.
_CPU_PER_GPU, _GIB_PER_GPU = 1, 8
_TRYING_OUT = {"cpu": "100m", "memory": "256Mi"}  # device Cpu: whatever machine there is


def engine_pod(context: Context, replica: int, attempt: int, node: int, revision: str) -> dict[str, Any]:
    """Pod of node `node`, gated: it is not scheduled before its whole gang has nodes."""
    plan, spec = context.plan, context.spec
    template = spec.engine.pod_template
    pod_labels = names.engine_pod_labels(context.name, replica, attempt, node, revision)
    labels = pod_labels | {names.LABEL_NODES: str(plan.nodes_per_replica)}
    name = names.pod_name(context.name, replica, attempt, node)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata_fields(context.metadata(name, names.COMPONENT_ENGINE, labels), template.metadata),
        "spec": {
            **pod_fields(template.spec, context.images),
            **required_labels(context.node_labels),
            **_network(context),
            "hostname": name,
            "subdomain": names.engine_service(context.name),
            # A member that ends takes its gang along; only the operator starts it again, as a whole.
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": spec.drain.seconds + GRACE_MARGIN_SECONDS,
            "schedulingGates": [{"name": names.SCHEDULING_GATE}],
            "tolerations": [
                # GPU nodes usually carry a taint named after their resource.
                {"key": plan.resource_name, "operator": "Exists", "effect": "NoSchedule"},
                # Whether a replica on a silent node is lost is for the operator to judge, who asks the engine itself:
                # after 300 s of silence Kubernetes would evict a fleet that serves.
                *(
                    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute"}
                    for key in ("not-ready", "unreachable")
                ),
                *tolerations(template.spec),
            ],
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            **init_containers(template.spec.init_containers, context.images),
            "containers": [_container(context, node)],
            "volumes": _volumes(context, replica, attempt),
        },
    }


def _container(context: Context, node: int) -> dict[str, Any]:
    return {
        "name": names.CONTAINER_ENGINE,
        **image_fields(context.engine_image, context.spec.engine.image_pull_policy or context.images.policy),
        "command": ["python", "-m", "r1_engine"],
        "env": _env(context, node),
        "ports": [
            {"name": "http", "containerPort": names.PORT_ENGINE_HTTP},
            {"name": "agent", "containerPort": names.PORT_ENGINE_AGENT},
        ],
        "resources": _resources(context),
        # One probe that a busy node answers late must not empty the rotation; what really ends is seen sooner: the
        # operator reads the agent's stage itself, and a pod that dies is an event.
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": names.PORT_ENGINE_AGENT},
            "periodSeconds": 2,
            "timeoutSeconds": 3,
            "failureThreshold": 3,
        },
        # The agent itself; the ranks behind it are watched by the agent, in seconds and with better reasons.
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": names.PORT_ENGINE_AGENT},
            "initialDelaySeconds": 60,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "terminationMessagePath": names.PATH_TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": _security(context),
        "volumeMounts": _mounts(context),
    }


def _env(context: Context, node: int) -> list[dict[str, Any]]:
    def field(name: str, path: str) -> dict[str, Any]:
        return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}

    return [
        field(names.ENV_POD_NAME, "metadata.name"),
        field(names.ENV_POD_NAMESPACE, "metadata.namespace"),
        field(names.ENV_POD_IP, "status.podIP"),
        field(names.ENV_NODE_NAME, "spec.nodeName"),
        {"name": names.ENV_NODE_INDEX, "value": str(node)},
        *variables(context.spec.engine.env),
    ]


def _network(context: Context) -> dict[str, Any]:
    """The node's network if that is asked for; names of the cluster are resolved as in any other pod."""
    if not context.spec.engine.pod_template.spec.host_network:
        return {}
    return {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}


def _resources(context: Context) -> dict[str, Any]:
    wanted, plan = context.spec.engine.resources, context.plan
    limits = {plan.resource_name: str(plan.gpus_per_node), **wanted.limits}
    limits |= {key: text for key, text in (("cpu", wanted.cpu), ("memory", wanted.memory)) if text is not None}
    gpus = plan.gpus_per_node
    least = {"cpu": str(_CPU_PER_GPU * gpus), "memory": f"{_GIB_PER_GPU * gpus}Gi"}
    least = least if plan.device == "cuda" else _TRYING_OUT
    return {"requests": least | wanted.requests | limits, "limits": limits}


def _security(context: Context) -> dict[str, Any]:
    plan = context.plan
    # RDMA pins its buffers: between nodes, and DeepEP's inside one.
    pins = plan.device == "cuda" and (plan.nodes_per_replica > 1 or plan.uses_deepep)
    return rights(context.spec.engine.security_context, ["IPC_LOCK"] if pins else [])


def _mounts(context: Context) -> list[dict[str, Any]]:
    return [
        {"name": "models", "mountPath": names.PATH_MODELS, "readOnly": True},
        {"name": "config", "mountPath": names.PATH_ENGINE_CONFIG_DIR, "readOnly": True},
        {"name": "keys", "mountPath": names.PATH_RAY_TOKEN_DIR, "readOnly": True},
        {"name": "shm", "mountPath": names.PATH_SHARED_MEMORY},
        {"name": "tmp", "mountPath": names.PATH_TMP},
        *([{"name": "kernels", "mountPath": names.PATH_KERNELS}] if context.spec.engine.cache is not None else []),
        *(to_wire(mount) for mount in context.spec.engine.volume_mounts),
    ]


def _volumes(context: Context, replica: int, attempt: int) -> list[dict[str, Any]]:
    shared = context.spec.engine.resources.shared_memory
    memory = {"medium": "Memory"} | ({"sizeLimit": shared} if shared is not None else {})
    keys = [
        {"key": names.RAY_TOKEN_KEY, "path": names.RAY_TOKEN_FILE},
        {"key": names.ENGINE_KEY_KEY, "path": names.ENGINE_KEY_FILE},
    ]
    secret = names.engine_secret(context.name, context.uid)
    return [
        {"name": "models", **_weights(context)},
        {"name": "config", "configMap": {"name": names.engine_config_map(context.name, replica, attempt)}},
        {"name": "keys", "secret": {"secretName": secret, "items": keys}},
        {"name": "shm", "emptyDir": memory},
        {"name": "tmp", "emptyDir": {}},
        *_kernels(context),
        *(to_wire(volume) for volume in context.spec.engine.pod_template.spec.volumes),
    ]


def _kernels(context: Context) -> list[dict[str, Any]]:
    cache = context.spec.engine.cache
    if cache is None:
        return []
    if cache.host_path is not None:
        return [{"name": "kernels", "hostPath": {"path": cache.host_path.path, "type": "DirectoryOrCreate"}}]
    assert cache.persistent_volume_claim is not None  # the schema: exactly one place
    return [{"name": "kernels", "persistentVolumeClaim": {"claimName": cache.persistent_volume_claim.claim_name}}]


def _weights(context: Context) -> dict[str, Any]:
    weights = context.spec.model.weights
    if weights.persistent_volume_claim is not None:
        claim = weights.persistent_volume_claim.claim_name
        return {"persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
    assert weights.host_path is not None  # the schema: exactly one source
    # No type: a missing folder then ends in the engine's own words, not in a mount that the kubelet retries silently.
    return {"hostPath": {"path": weights.host_path.path}}
