"""Who may reach the pods of one R1Deployment: one NetworkPolicy for its engines, one for its gateway.

Ingress alone: where the weights, the DNS and the API server are is the cluster's to know. What a node says to its own
pods (the kubelet's probes) is always let through; a pod of the node's own network is under no NetworkPolicy at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..api import names
from .context import Context

Peer = Mapping[str, Any]
"""A NetworkPolicyPeer: namespaceSelector, podSelector, ipBlock."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Peers from outside the R1Deployment: the operator, and what scrapes metrics (nobody, where that is empty)."""

    operator: tuple[Peer, ...]
    metrics: tuple[Peer, ...] = ()


def network_policies(context: Context, reach: Reach) -> list[dict[str, Any]]:
    """NetworkPolicies NAME-engine and NAME-gateway."""
    engines = names.base_labels(context.name, names.COMPONENT_ENGINE)
    gateways = names.gateway_pod_labels(context.name, context.uid)
    http, agent = names.PORT_ENGINE_HTTP, names.PORT_ENGINE_AGENT
    to_engines = [
        _rule([_pods(engines)]),  # Ray, NCCL and gloo take whatever ports are free
        _rule([_pods(gateways)], http),
        _rule(reach.operator, agent, http),
        *([_rule(reach.metrics, http)] if reach.metrics else []),
    ]
    to_gateways = [
        _rule([], names.PORT_GATEWAY),  # users come from anywhere; the gateway asks them for a key
        _rule(reach.operator, names.PORT_GATEWAY_ADMIN),
        *([_rule(reach.metrics, names.PORT_GATEWAY_METRICS)] if reach.metrics else []),
    ]
    return [
        _policy(context, names.engine_service(context.name), names.COMPONENT_ENGINE, engines, to_engines),
        _policy(context, names.gateway_name(context.name), names.COMPONENT_GATEWAY, gateways, to_gateways),
    ]


def _policy(
    context: Context, name: str, component: str, labels: Mapping[str, str], rules: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": context.metadata(name, component),
        "spec": {"podSelector": {"matchLabels": dict(labels)}, "policyTypes": ["Ingress"], "ingress": rules},
    }


def _rule(peers: Sequence[Peer], *ports: int) -> dict[str, Any]:
    """No peers: from everywhere. No ports: all of them."""
    sources = {"from": [dict(peer) for peer in peers]} if peers else {}
    return sources | ({"ports": [{"protocol": "TCP", "port": port} for port in ports]} if ports else {})


def _pods(labels: Mapping[str, str]) -> Peer:
    """In the same namespace."""
    return {"podSelector": {"matchLabels": dict(labels)}}
