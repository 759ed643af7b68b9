"""The gateway of one R1Deployment: Deployment, Service, ConfigMap, budget. Its pods run `r1_gateway`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ..api import names
from .context import Context
from .pod_template import image_fields, metadata_fields, pod_fields, tolerations

LINGER_SECONDS = 5
"""How long a terminating gateway still takes connections: kube-proxy on every node has to hear of it first."""

_END_MARGIN_SECONDS = 20
"""Beyond linger and drain, for the processes to end before the kubelet kills what is left."""

# 120 MB idle; the router's prefix tree grows with traffic to at most 64 M characters for each model.
_REQUESTS, _LIMITS = {"cpu": "100m", "memory": "256Mi"}, {"memory": "2Gi"}

_USER = 65532
"""Any number but 0; `nonroot` in distroless images."""


def gateway_objects(
    context: Context, workers: frozenset[str] = frozenset(), epoch: int | None = None, served: str | None = None
) -> list[dict[str, Any]]:
    """ConfigMap, Service, Deployment and, for several pods, a PodDisruptionBudget, in the order of need.

    `served`: the model's name for clients, which is the old one's until a change of it is through. `workers`: URLs of
    the replicas of the moment, `epoch`: of the operator's lease. A gateway pod that starts while the operator is away
    serves with them and refuses an older operator; running pods are told by `telemetry.gateway`. They are no part of
    the pod template: no change restarts a pod.
    """
    name = context.spec.model.served_as if served is None else served
    objects = [_config_map(context, name, workers, epoch), _service(context), _deployment(context, name)]
    return [*objects, _disruption_budget(context)] if context.spec.gateway.replicas > 1 else objects


def _settings(context: Context, served: str) -> dict[str, Any]:
    """`gateway.json` but for the workers; see r1_gateway.settings."""
    return {
        "servedName": served,
        # Not the token, which can route users' requests anywhere: what stands here can be read by all in the namespace.
        "adminTokenSha256": hashlib.sha256(context.keys.gateway(context.uid).encode()).hexdigest(),
        "port": names.PORT_GATEWAY,
        "adminPort": names.PORT_GATEWAY_ADMIN,
        "metricsPort": names.PORT_GATEWAY_METRICS,
        "drainSeconds": context.spec.drain.seconds,
        "lingerSeconds": LINGER_SECONDS,
    }


def _config_map(context: Context, served: str, workers: frozenset[str], epoch: int | None) -> dict[str, Any]:
    moment = {"workers": sorted(workers), **({} if epoch is None else {"epoch": epoch})}
    content = json.dumps({**_settings(context, served), **moment}, indent=2, sort_keys=True)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": context.metadata(names.gateway_name(context.name), names.COMPONENT_GATEWAY),
        "data": {names.GATEWAY_CONFIG_KEY: content},
    }


def _service(context: Context) -> dict[str, Any]:
    """Users' port alone: the admin and metrics ports are reached by pod address."""
    port = {"name": "http", "port": context.spec.gateway.port, "targetPort": names.PORT_GATEWAY, "appProtocol": "http"}
    spec = {
        "type": context.spec.gateway.service.type,
        # Users of both families are let in where the cluster has both; elsewhere it means nothing.
        "ipFamilyPolicy": "PreferDualStack",
        "selector": _pod_labels(context),
        "ports": [port],
    }
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(context, context.spec.gateway.service.annotations, spec),
        "spec": spec,
    }


def _metadata(context: Context, annotations: Mapping[str, str], spec: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of an object that users may add to. Its hash tells what was there and no longer is, so that it goes."""
    metadata = context.metadata(names.gateway_name(context.name), names.COMPONENT_GATEWAY)
    ours = {names.ANNOTATION_CONTENT_HASH: names.content_hash({"annotations": dict(annotations), "spec": spec})}
    return {**metadata, "annotations": {**annotations, **ours}}


def _pod_labels(context: Context) -> dict[str, str]:
    return names.gateway_pod_labels(context.name, str(context.owner["uid"]))


def _disruption_budget(context: Context) -> dict[str, Any]:
    """One pod at a time for drains of nodes. Not for a single pod: nothing but that pod's own end would be put off."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": context.metadata(names.gateway_name(context.name), names.COMPONENT_GATEWAY),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": _pod_labels(context)},
        },
    }


def _deployment(context: Context, served: str) -> dict[str, Any]:
    labels = _pod_labels(context)
    # A pod reads its settings once, so other settings mean other pods.
    annotations = {names.ANNOTATION_CONTENT_HASH: names.content_hash(_settings(context, served))}
    ours = {"labels": labels, "annotations": annotations}
    spec = {
        "replicas": context.spec.gateway.replicas,
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": labels},
        # A new pod is ready only when it routes to the replicas, and only then does an old one go.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": {
            "metadata": metadata_fields(ours, context.spec.gateway.pod_template.metadata),
            "spec": _pod_spec(context, labels),
        },
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": _metadata(context, {}, spec), "spec": spec}


def _pod_spec(context: Context, labels: dict[str, str]) -> dict[str, Any]:
    key = {"key": names.ENGINE_KEY_KEY, "path": names.ENGINE_KEY_FILE}
    secret = names.engine_secret(context.name, context.uid)
    name = names.gateway_name(context.name)
    template = context.spec.gateway.pod_template.spec
    return {
        **pod_fields(template, context.images),
        # The process itself drains on SIGTERM (unready, linger, finish the streams), so there is no preStop hook.
        "terminationGracePeriodSeconds": LINGER_SECONDS + context.spec.drain.seconds + _END_MARGIN_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        # Kubernetes' own default leaves a pod of a lost node in place for 300 s, and users without a gateway.
        "tolerations": [
            {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 10}
            for key in ("not-ready", "unreachable")
        ]
        + tolerations(template),
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": names.LABEL_HOSTNAME,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": labels},
            }
        ],
        "containers": [_container(context)],
        "volumes": [
            {"name": "config", "configMap": {"name": name}},
            {"name": "keys", "secret": {"secretName": secret, "items": [key]}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }


def _container(context: Context) -> dict[str, Any]:
    return {
        "name": names.CONTAINER_GATEWAY,
        **image_fields(context.gateway_image, context.spec.gateway.image_pull_policy or context.images.policy),
        "command": ["python", "-m", "r1_gateway"],
        "env": _env(context),
        "ports": [
            {"name": "http", "containerPort": names.PORT_GATEWAY},
            {"name": "admin", "containerPort": names.PORT_GATEWAY_ADMIN},
            {"name": "metrics", "containerPort": names.PORT_GATEWAY_METRICS},
        ],
        "resources": _resources(context),
        "readinessProbe": _probe("/ready", period=1, failures=2),
        "livenessProbe": _probe("/healthz", period=10, failures=3),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "config", "mountPath": names.PATH_GATEWAY_CONFIG_DIR, "readOnly": True},
            {"name": "keys", "mountPath": names.PATH_GATEWAY_KEY_DIR, "readOnly": True},
            {"name": "tmp", "mountPath": names.PATH_TMP},
        ],
    }


def _resources(context: Context) -> dict[str, Any]:
    """What is said of an amount stands alone: a default beside it could contradict it."""
    asked = context.spec.gateway.resources
    said = {*asked.requests, *asked.limits}
    ours, most = ({k: v for k, v in amounts.items() if k not in said} for amounts in (_REQUESTS, _LIMITS))
    return {"requests": {**ours, **asked.requests}, "limits": {**most, **asked.limits}}


def _env(context: Context) -> list[dict[str, Any]]:
    key = context.spec.gateway.api_key_secret
    if key is None:
        return []
    source = {"secretKeyRef": {"name": key.name, "key": key.key}}
    return [{"name": names.ENV_GATEWAY_API_KEY, "valueFrom": source}]


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": names.PORT_GATEWAY_ADMIN},
        "periodSeconds": period,
        "timeoutSeconds": 3,
        "failureThreshold": failures,
    }
