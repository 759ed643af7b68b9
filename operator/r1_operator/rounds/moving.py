"""Which gangs are to leave their nodes because somebody is about to take these: maintenance, or an autoscaler."""

from __future__ import annotations

from collections.abc import Mapping

from ..placement.nodes import Node
from .facts import Facts

LEAVING_TAINTS: Mapping[str, str] = {
    "ToBeDeletedByClusterAutoscaler": "the cluster autoscaler is about to remove it",
    "karpenter.sh/disrupted": "Karpenter is about to remove it",
    "karpenter.sh/disruption": "Karpenter is about to remove it",
    "node.cloudprovider.kubernetes.io/shutdown": "its cloud is shutting it down",
    "node.gke.io/impending-node-termination": "its cloud is about to take it back",
    "aws-node-termination-handler/spot-itn": "its cloud is about to take it back",
    "aws-node-termination-handler/scheduled-maintenance": "its cloud is about to maintain it",
}
"""Key of the taint → what it says of the node."""


def moving(facts: Facts) -> dict[str, str]:
    """By gang: which of its nodes it is to leave, and why."""
    leaving = {node.name: why for node in facts.nodes.all if (why := leaves(node)) is not None}
    found: dict[str, str] = {}
    for gang in facts.gangs:
        for member in gang.members:
            if member.node in leaving and not member.over:
                found.setdefault(gang.name, f"node {member.node}: {leaving[member.node]}")
    return found


def leaves(node: Node) -> str | None:
    """Why whatever runs on a node should go elsewhere; None: it may stay."""
    taint = next((LEAVING_TAINTS[t.key] for t in node.taints if t.key in LEAVING_TAINTS), None)
    return taint or ("it is cordoned" if node.unschedulable else None)
