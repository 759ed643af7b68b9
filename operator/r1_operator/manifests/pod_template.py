"""What users say of pods, as core/v1 has it: the types of `api.pod_template` carry its names already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..api.hardware import NodeLabel
from ..api.pod_template import EnvVar, InitContainer, PodMetadata, PodSpec, SecurityContext
from ..api.types import to_wire
from .context import ImagePull


def pod_fields(template: PodSpec, pull: ImagePull) -> dict[str, Any]:
    """Fields of a PodSpec that are there only if somebody says so."""
    secrets = dict.fromkeys([*pull.secrets, *(secret.name for secret in template.image_pull_secrets)])
    fields = {
        "nodeSelector": dict(template.node_selector),
        "runtimeClassName": template.runtime_class_name,
        "priorityClassName": template.priority_class_name,
        "serviceAccountName": template.service_account_name,
        "imagePullSecrets": [{"name": name} for name in secrets],
    }
    return {key: value for key, value in fields.items() if value}


def tolerations(template: PodSpec) -> list[dict[str, Any]]:
    """Tolerations of a PodSpec beside the operator's own."""
    return [to_wire(toleration) for toleration in template.tolerations]


def metadata_fields(ours: Mapping[str, Any], template: PodMetadata) -> dict[str, Any]:
    """`metadata` with the labels and annotations of the template; ours win."""
    annotations = {**template.annotations, **(ours.get("annotations") or {})}
    labelled = {**ours, "labels": {**template.labels, **ours["labels"]}}
    return {**labelled, "annotations": annotations} if annotations else labelled


def image_fields(image: str, policy: str | None) -> dict[str, Any]:
    """A container's image and when it is pulled."""
    return {"image": image} | ({"imagePullPolicy": policy} if policy else {})


def variables(env: Iterable[EnvVar]) -> list[dict[str, Any]]:
    """`env` of a container."""
    return [
        {"name": variable.name, "valueFrom": to_wire(variable.value_from)}
        if variable.value_from is not None
        else {"name": variable.name, "value": variable.value}
        for variable in env
    ]


def rights(asked: SecurityContext, needed: Sequence[str] = ()) -> dict[str, Any]:
    """`securityContext` of a container: what is `needed` and what is asked for, and nothing else."""
    if asked.privileged:  # has all capabilities, and may not be told to drop its privileges
        return {"privileged": True}
    added = list(dict.fromkeys([*needed, *asked.capabilities.add]))
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]} | ({"add": added} if added else {})}


def init_containers(asked: Iterable[InitContainer], pull: ImagePull) -> dict[str, Any]:
    """`initContainers` of a pod; empty without any."""
    containers = [_init_container(container, pull) for container in asked]
    return {"initContainers": containers} if containers else {}


def _init_container(container: InitContainer, pull: ImagePull) -> dict[str, Any]:
    asked = {
        "command": list(container.command),
        "args": list(container.args),
        "env": variables(container.env),
        "restartPolicy": container.restart_policy,
        "resources": {field: amounts for field, amounts in to_wire(container.resources).items() if amounts},
        "volumeMounts": [to_wire(mount) for mount in container.volume_mounts],
    }
    return {
        "name": container.name,
        **image_fields(container.image, container.image_pull_policy or pull.policy),
        **{field: value for field, value in asked.items() if value},
        "securityContext": rights(container.security_context),
    }


def required_labels(labels: Iterable[NodeLabel]) -> dict[str, Any]:
    """`affinity` of a pod for nodes that carry each label with one of its values; empty without labels. When a gang is
    placed, its pins are added to this one term."""
    expressions = [{"key": label.key, "operator": "In", "values": list(label.values)} for label in labels]
    if not expressions:
        return {}
    term = {"matchExpressions": expressions}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    return {"affinity": {"nodeAffinity": required}}
