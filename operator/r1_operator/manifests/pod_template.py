"""What users say of pods, as core/v1 has it: the types of `api.pod_template` carry its names already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..api.hardware import NodeLabel
from ..api.pod_template import EnvVar, PodMetadata, PodSpec
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


def required_labels(labels: Iterable[NodeLabel]) -> dict[str, Any]:
    """`affinity` of a pod for nodes that carry each label with one of its values; empty without labels. When a gang is
    placed, its pins are added to this one term."""
    expressions = [{"key": label.key, "operator": "In", "values": list(label.values)} for label in labels]
    if not expressions:
        return {}
    term = {"matchExpressions": expressions}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    return {"affinity": {"nodeAffinity": required}}
