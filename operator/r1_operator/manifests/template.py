"""What the pods of one revision are made from, kept in the cluster, so that a gang can be made again as what it was.

The template is the pod of node 0 and the `engine.json` of replica 0, attempt 0, as they were rendered when the revision
came up. Only what says *which* replica, attempt and node it is, is put in when a gang is made.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..api import names
from ..api.pinning import required_values
from ..placement.nodes import pod_requests
from ..placement.place import DEFAULT_FABRIC_LABEL, Shape, Toleration
from .context import Context
from .engine_config import engine_config, products_of
from .engine_pod import engine_pod

_POD_KEY, _SIZE_KEY, _RESOURCE_KEY = "pod.json", "nodes", "resource"


@dataclass(frozen=True, slots=True)
class Template:
    """One revision: its hash, how many nodes a gang has, the resource whose nodes it takes whole, the pod of node 0 and
    its engine.json."""

    revision: str
    size: int
    resource: str
    pod: Mapping[str, Any]
    config: Mapping[str, Any]


def template_of(context: Context) -> Template:
    """The revision that the spec asks for now: the hash of all that a running gang cannot take over."""
    plan = context.plan
    pod, config = engine_pod(context, 0, 0, 0, ""), engine_config(context, 0, 0)
    said = context.spec.engine.pod_template.metadata  # a second network is asked for by an annotation
    metadata = {"labels": said.labels, "annotations": said.annotations}
    revision = names.content_hash({"pod": pod["spec"], "metadata": metadata, "config": config})
    pod["metadata"]["labels"][names.LABEL_REVISION] = revision
    return Template(revision, plan.nodes_per_replica, plan.resource_name, pod, config)


def shape_of(template: Template, fabric_label: str = DEFAULT_FABRIC_LABEL) -> Shape:
    """What a gang of this revision needs of its nodes, from the very pods that are created."""
    spec = template.pod["spec"]
    return Shape(
        size=template.size,
        resource=template.resource,
        requests=pod_requests(spec),
        node_labels=_node_labels(spec),
        tolerations=tuple(
            Toleration(t.get("key", ""), t.get("operator", "Equal"), t.get("value", ""), t.get("effect", ""))
            for t in spec["tolerations"]
        ),
        fabric_label=fabric_label,
        products=products_of(template.config),
    )


def _node_labels(spec: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Labels that a node must carry, and the values that will do, by the pod's selector and its required affinity."""
    found = {key: frozenset({value}) for key, value in (spec.get("nodeSelector") or {}).items()}
    for key, values in required_values(spec).items():
        found[key] = found.get(key, values) & values
    return found


def template_config_map(context: Context, template: Template) -> dict[str, Any]:
    """The immutable ConfigMap that keeps it. It carries no gang's label: no gang takes it along."""
    name = names.revision_config_map(context.name, template.revision)
    data = {
        _POD_KEY: json.dumps(template.pod, sort_keys=True),
        names.ENGINE_CONFIG_KEY: json.dumps(template.config, sort_keys=True),
        _SIZE_KEY: str(template.size),
        _RESOURCE_KEY: template.resource,
    }
    metadata = context.metadata(name, names.COMPONENT_ENGINE, {names.LABEL_REVISION: template.revision})
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "immutable": True, "data": data}


def templates_of(config_maps: Iterable[Mapping[str, Any]]) -> dict[str, Template]:
    """Templates kept in these ConfigMaps, by revision. One that cannot be read is as good as none."""
    found: dict[str, Template] = {}
    for config_map in config_maps:
        labels, data = config_map["metadata"].get("labels") or {}, config_map.get("data") or {}
        if names.LABEL_GANG in labels or names.LABEL_REVISION not in labels or _POD_KEY not in data:
            continue
        try:
            revision = labels[names.LABEL_REVISION]
            pod, config = json.loads(data[_POD_KEY]), json.loads(data[names.ENGINE_CONFIG_KEY])
            found[revision] = Template(revision, int(data[_SIZE_KEY]), data[_RESOURCE_KEY], pod, config)
        except (KeyError, ValueError):
            continue
    return found


def gang_config_map(template: Template, replica: int, attempt: int) -> dict[str, Any]:
    """ConfigMap with the `engine.json` of one gang."""
    metadata = copy.deepcopy(dict(template.pod["metadata"]))
    name, namespace = _deployment(template), metadata["namespace"]
    config = {
        **template.config,
        "replica": replica,
        "attempt": attempt,
        "headAddress": names.pod_host(name, namespace, replica, attempt, 0),
    }
    metadata["name"] = names.engine_config_map(name, replica, attempt)
    metadata["labels"] = names.base_labels(name, names.COMPONENT_ENGINE) | {
        names.LABEL_REPLICA: str(replica),
        names.LABEL_GANG: names.gang_name(name, replica, attempt),
    }
    text = json.dumps(config, indent=1)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "immutable": True,
        "data": {names.ENGINE_CONFIG_KEY: text},
    }


def gang_pod(template: Template, replica: int, attempt: int, node: int) -> dict[str, Any]:
    """Pod of node `node` of one gang, gated."""
    pod: dict[str, Any] = copy.deepcopy(dict(template.pod))
    name = _deployment(template)
    pod_name = names.pod_name(name, replica, attempt, node)
    labels = names.engine_pod_labels(name, replica, attempt, node, template.revision)
    pod["metadata"]["name"] = pod["spec"]["hostname"] = pod_name
    pod["metadata"]["labels"] |= labels | {names.LABEL_NODES: str(template.size)}
    for container in pod["spec"]["containers"]:
        for variable in container.get("env") or ():
            if variable["name"] == names.ENV_NODE_INDEX:
                variable["value"] = str(node)
    for volume in pod["spec"]["volumes"]:
        if volume["name"] == "config":
            volume["configMap"]["name"] = names.engine_config_map(name, replica, attempt)
    return pod


def _deployment(template: Template) -> str:
    return str(template.pod["metadata"]["labels"][names.LABEL_INSTANCE])
