"""What the pods of one revision are made from, kept in the cluster, so that a gang can be made again as what it was.

The template is the pod of node 0 and the `engine.json` of replica 0, attempt 0, as they were rendered when the revision
came up. Only what says *which* replica, attempt and node it is, is put in when a gang is made, and what no running
engine has to be ended for: limits of time, and people's labels (`Loose`).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..api import names
from ..api.pinning import required_values
from ..api.types import R1DeploymentSpec
from ..placement.nodes import pod_requests
from ..placement.place import DEFAULT_FABRIC_LABEL, Shape, Toleration
from .context import Context
from .engine_config import engine_config, products_of
from .engine_pod import GRACE_MARGIN_SECONDS, engine_pod

_POD_KEY, _SIZE_KEY, _RESOURCE_KEY = "pod.json", "nodes", "resource"
ASKED_KEY, _PLAN_KEY = "asked.json", "plan.json"


@dataclass(frozen=True, slots=True)
class Template:
    """One revision: its hash, how many nodes a gang has, the resource whose nodes it takes whole, the pod of node 0 and
    its engine.json.

    `asked`: what of the spec it was made of, as the API server held it, and `asked_hash` as the operator of that time
    understood it. `plan`: what the status tells of its layout. `made_at`: when it was first kept (RFC 3339).
    """

    revision: str
    size: int
    resource: str
    pod: Mapping[str, Any]
    config: Mapping[str, Any]
    asked: Mapping[str, Any] = field(default_factory=dict)
    asked_hash: str = ""
    plan: Mapping[str, Any] = field(default_factory=dict)
    made_at: str = ""

    @property
    def image(self) -> str:
        """The engine's."""
        return str(self.pod["spec"]["containers"][0]["image"])

    @property
    def served(self) -> str:
        """What answers go by: the model's name for clients, and where its weights come from."""
        spec = self.pod["spec"]
        volume: Mapping[str, Any] = next((v for v in spec["volumes"] if v["name"] == "models"), {})
        mounts = [m for m in spec["containers"][0].get("volumeMounts") or () if m["name"] == "models"]
        model = ((self.config.get("expected") or {}).get("model") or {}).get("name")
        where = [self.config["modelPath"]] if self.config["modelPath"] != names.PATH_MODELS else []
        return names.content_hash([volume, mounts, model, self.config["servedName"], *where])


@dataclass(frozen=True, slots=True)
class Loose:
    """What may change while a gang runs. Seconds; `labels`: people's own, for its pods."""

    start_seconds: int
    stall_seconds: int
    drain_seconds: int
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def limits(self) -> dict[str, int]:
        """As the engine reads them, from engine.json at first and from limits.json as long as it runs."""
        return {
            "startSeconds": self.start_seconds,
            "stallSeconds": self.stall_seconds,
            "drainSeconds": self.drain_seconds,
        }

    @property
    def grace_seconds(self) -> int:
        """How long a pod that drains may take to go."""
        return self.drain_seconds + GRACE_MARGIN_SECONDS


def loose_of(spec: R1DeploymentSpec) -> Loose:
    """What the spec says of it now."""
    labels = spec.engine.pod_template.metadata.labels
    return Loose(spec.startup.seconds, spec.startup.may_stand_still, spec.drain.seconds, labels)


_LIMITS = ("startSeconds", "stallSeconds", "drainSeconds")
_NOT_THE_ENGINES = ("terminationGracePeriodSeconds", "imagePullSecrets")
"""Of a pod's spec: what says when it ends, and who may fetch its image."""


def template_of(context: Context) -> Template:
    """The revision that the spec asks for now: the hash of all that a running gang cannot take over."""
    plan = context.plan
    pod, config = engine_pod(context, 0, 0, 0, ""), engine_config(context, 0, 0)
    revision = names.content_hash(
        {
            "pod": {key: value for key, value in pod["spec"].items() if key not in _NOT_THE_ENGINES},
            "annotations": context.spec.engine.pod_template.metadata.annotations,  # they ask for a second network
            "config": {key: value for key, value in config.items() if key not in _LIMITS},
            "restartedAt": context.spec.strategy.restarted_at,
        }
    )
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
        ASKED_KEY: json.dumps(template.asked, sort_keys=True),
        _PLAN_KEY: json.dumps(template.plan, sort_keys=True),
    }
    labels = {names.LABEL_REVISION: template.revision, names.LABEL_ASKED: template.asked_hash}
    metadata = context.metadata(name, names.COMPONENT_ENGINE, labels)
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
            # What an older operator did not keep is unknown, and equals nothing.
            asked, plan = (json.loads(data.get(key) or "{}") for key in (ASKED_KEY, _PLAN_KEY))
            made_at, asked_hash = (
                str(config_map["metadata"].get("creationTimestamp") or ""),
                labels.get(names.LABEL_ASKED, ""),
            )
            size, resource = int(data[_SIZE_KEY]), data[_RESOURCE_KEY]
            found[revision] = Template(revision, size, resource, pod, config, asked, asked_hash, plan, made_at)
        except (KeyError, ValueError):
            continue
    return found


def gang_config_map(template: Template, replica: int, attempt: int, loose: Loose | None = None) -> dict[str, Any]:
    """ConfigMap with the `engine.json` of one gang, and the limits that may change while it runs."""
    metadata = copy.deepcopy(dict(template.pod["metadata"]))
    name, namespace = _deployment(template), metadata["namespace"]
    config = {
        **template.config,
        "replica": replica,
        "attempt": attempt,
        "headAddress": names.pod_host(name, namespace, replica, attempt, 0),
        **(loose.limits if loose is not None else {}),
    }
    metadata.pop("annotations", None)
    metadata["name"] = names.engine_config_map(name, replica, attempt)
    metadata["labels"] = names.base_labels(name, names.COMPONENT_ENGINE) | {
        names.LABEL_REPLICA: str(replica),
        names.LABEL_GANG: names.gang_name(name, replica, attempt),
    }
    limits = {key: config[key] for key in _LIMITS if key in config}
    data = {names.ENGINE_CONFIG_KEY: json.dumps(config, indent=1), names.LIMITS_KEY: json.dumps(limits)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def renewed_limits(config_map: Mapping[str, Any], loose: Loose) -> dict[str, Any] | None:
    """The part of a gang's ConfigMap to apply so that its engine hears of other limits; None: it has them, or is of an
    operator whose engines could not be told."""
    text = json.dumps(loose.limits)
    if config_map.get("immutable") or (config_map.get("data") or {}).get(names.LIMITS_KEY) == text:
        return None
    metadata = {key: config_map["metadata"][key] for key in ("name", "namespace")}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {names.LIMITS_KEY: text}}


def gang_pod(template: Template, replica: int, attempt: int, node: int, loose: Loose | None = None) -> dict[str, Any]:
    """Pod of node `node` of one gang, gated."""
    pod: dict[str, Any] = copy.deepcopy(dict(template.pod))
    name = _deployment(template)
    pod_name = names.pod_name(name, replica, attempt, node)
    labels = names.engine_pod_labels(name, replica, attempt, node, template.revision)
    pod["metadata"]["name"] = pod["spec"]["hostname"] = pod_name
    if loose is not None:
        pod["spec"]["terminationGracePeriodSeconds"] = loose.grace_seconds
        pod["metadata"]["labels"] = dict(loose.labels)
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
