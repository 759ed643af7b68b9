"""One pod of a gang."""

from __future__ import annotations

from typing import Any

from ..api import names
from .context import Context

GRACE_MARGIN_SECONDS = 30
"""Beyond drain.seconds, for the engine to end Ray and its children before the kubelet kills what is left."""


def engine_pod(context: Context, replica: int, attempt: int, node: int, revision: str) -> dict[str, Any]:
    """Pod of node `node`, gated: it is not scheduled before its whole gang has nodes."""
    plan, spec = context.plan, context.spec
    pod_labels = names.engine_pod_labels(context.name, replica, attempt, node, revision)
    labels = pod_labels | {names.LABEL_NODES: str(plan.nodes_per_replica)}
    name = names.pod_name(context.name, replica, attempt, node)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": context.metadata(name, names.COMPONENT_ENGINE, labels),
        "spec": {
            "hostname": name,
            "subdomain": names.engine_service(context.name),
            # A member that ends takes its gang along; only the operator starts it again, as a whole.
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": spec.drain.seconds + GRACE_MARGIN_SECONDS,
            "schedulingGates": [{"name": names.SCHEDULING_GATE}],
            "nodeSelector": dict(context.node_selector),
            "tolerations": [
                # GPU nodes usually carry a taint named after their resource.
                {"key": plan.resource_name, "operator": "Exists", "effect": "NoSchedule"},
                # Whether a replica on a silent node is lost is for the operator to judge, who asks the engine itself:
                # after 300 s of silence Kubernetes would evict a fleet that serves.
                *(
                    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute"}
                    for key in ("not-ready", "unreachable")
                ),
            ],
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [_container(context, node)],
            "volumes": _volumes(context, replica, attempt),
        },
    }


def _container(context: Context, node: int) -> dict[str, Any]:
    return {
        "name": names.CONTAINER_ENGINE,
        "image": context.engine_image,
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
        *({"name": variable.name, "value": variable.value} for variable in context.spec.engine.env),
    ]


def _resources(context: Context) -> dict[str, Any]:
    wanted = context.spec.engine.resources
    amounts = {context.plan.resource_name: str(context.plan.gpus_per_node)}
    amounts |= {key: text for key, text in (("cpu", wanted.cpu), ("memory", wanted.memory)) if text is not None}
    return {"requests": amounts, "limits": amounts}


def _security(context: Context) -> dict[str, Any]:
    capabilities: dict[str, Any] = {"drop": ["ALL"]}
    if context.plan.device == "cuda" and context.plan.nodes_per_replica > 1:
        capabilities["add"] = ["IPC_LOCK"]  # RDMA pins its buffers
    return {"allowPrivilegeEscalation": False, "capabilities": capabilities}


def _mounts(context: Context) -> list[dict[str, Any]]:
    models: dict[str, Any] = {"name": "models", "mountPath": names.PATH_MODELS, "readOnly": True}
    claim = context.spec.model.weights.persistent_volume_claim
    if claim is not None and claim.sub_path:
        models["subPath"] = claim.sub_path
    return [
        models,
        {"name": "config", "mountPath": names.PATH_ENGINE_CONFIG_DIR, "readOnly": True},
        {"name": "keys", "mountPath": names.PATH_RAY_TOKEN_DIR, "readOnly": True},
        {"name": "shm", "mountPath": names.PATH_SHARED_MEMORY},
        {"name": "tmp", "mountPath": names.PATH_TMP},
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
    ]


def _weights(context: Context) -> dict[str, Any]:
    weights = context.spec.model.weights
    if weights.persistent_volume_claim is not None:
        claim = weights.persistent_volume_claim.claim_name
        return {"persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
    assert weights.host_path is not None  # the schema: exactly one source
    # No type: a missing folder then ends in the engine's own words, not in a mount that the kubelet retries silently.
    return {"hostPath": {"path": weights.host_path.path}}
