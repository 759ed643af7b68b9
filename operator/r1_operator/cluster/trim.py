"""What the cache keeps of an object. Pure.

A pod of somebody else counts only for the room it takes on its node, and a node's list of images is most of its
bytes: without trimming, the cache of a large cluster would not fit the operator's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from r1_operator.api import names

Trim = Callable[[dict[str, Any]], dict[str, Any]]

_METADATA = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "labels",
    "ownerReferences",
    "creationTimestamp",
    "deletionTimestamp",
)
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def trim_bookkeeping(obj: dict[str, Any]) -> dict[str, Any]:
    """Everything but managedFields and kubectl's copy of the manifest."""
    metadata = {field: value for field, value in obj["metadata"].items() if field != "managedFields"}
    annotations = metadata.get("annotations")
    if annotations and _LAST_APPLIED in annotations:
        metadata["annotations"] = {field: value for field, value in annotations.items() if field != _LAST_APPLIED}
    return {**obj, "metadata": metadata}


def trim_pod(obj: dict[str, Any]) -> dict[str, Any]:
    """Our pods whole; of others' name, labels, owners, node, resource requests and phase.

    Owners: a pod that merely carries a label of ours is told from one that is ours by its owner alone.
    """
    if (obj["metadata"].get("labels") or {}).get(names.LABEL_MANAGED_BY) == names.MANAGED_BY:
        return trim_bookkeeping(obj)
    spec = obj.get("spec") or {}
    kept = {field: spec[field] for field in ("nodeName", "overhead", "resources", "priority") if field in spec}
    for field in ("containers", "initContainers"):
        if field in spec:
            kept[field] = [_only(container, ("name", "resources", "restartPolicy")) for container in spec[field]]
    return {
        **_only(obj, ("apiVersion", "kind")),
        "metadata": _metadata(obj),
        "spec": kept,
        "status": _only(obj.get("status") or {}, ("phase",)),
    }


def trim_node(obj: dict[str, Any]) -> dict[str, Any]:
    """Labels, taints, capacity, addresses, and conditions without their heartbeat times, which change all the time."""
    status = _only(obj.get("status") or {}, ("capacity", "allocatable", "addresses", "nodeInfo"))
    conditions = (obj.get("status") or {}).get("conditions") or []
    status["conditions"] = [
        {field: value for field, value in condition.items() if field != "lastHeartbeatTime"} for condition in conditions
    ]
    return {
        **_only(obj, ("apiVersion", "kind")),
        "metadata": _metadata(obj),
        "spec": _only(obj.get("spec") or {}, ("taints", "unschedulable", "providerID")),
        "status": status,
    }


def _metadata(obj: Mapping[str, Any]) -> dict[str, Any]:
    return _only(obj["metadata"], _METADATA)


def _only(mapping: Mapping[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    return {field: mapping[field] for field in fields if field in mapping}
