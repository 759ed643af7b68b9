"""Faults of engine pods and of gateway pods."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from tests.behaviour.world import wait_for
from tests.campaigns.faults.fleet import NOBODY, Fleet, Hit
from tests.campaigns.faults.kinds import kind
from tests.cluster.cluster import ClusterError

ENGINE, GATEWAY, ROUTER = r"^python -m r1_engine", r"^python -m r1_gateway", r"^smg::router"


@kind("engine", "first process of node 0 killed", cuts=True)
def head_killed(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    fleet.on_node(victim.nodes[0], ENGINE, signal.SIGKILL)
    yield victim.replaced


@kind("engine", "first process of node 1 killed", cuts=True)
def member_killed(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    fleet.on_node(victim.nodes[1], ENGINE, signal.SIGKILL)
    yield victim.replaced


@kind("engine", "first process of node 0 stands still", cuts=True)
def head_frozen(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    fleet.on_node(victim.nodes[0], ENGINE, signal.SIGSTOP)
    yield victim.replaced


@kind("engine", "first process of node 1 stands still", cuts=True)
def member_frozen(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    fleet.on_node(victim.nodes[1], ENGINE, signal.SIGSTOP)
    yield victim.replaced


@kind("engine", "fails the kubelet's probe for 20 s while it serves")
def unready(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    fleet.r1.fault(victim.pods[0], "unready")
    fleet.stays(20)
    fleet.r1.fault(victim.pods[0], "clear")
    yield victim.kept


@kind("engine", "tells no load figures")
def silent(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    fleet.r1.fault(victim.pods[0], "silent")
    fleet.stays(20)
    fleet.r1.fault(victim.pods[0], "clear")
    yield NOBODY


@kind("engine", "both replicas die at once", remains=False, cuts=True)
def all_die(fleet: Fleet) -> Iterator[Hit]:
    first, second = fleet.victim(), fleet.victim()
    for victim in (first, second):
        fleet.on_node(victim.nodes[0], ENGINE, signal.SIGKILL)
    yield Hit(first.url, (first.gang, second.gang))


@kind("pod", "deleted")
def deleted(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    fleet.r1.kubectl("delete", "pod", victim.pods[1], "--wait=false")
    yield victim.replaced


@kind("pod", "deleted with --grace-period=0 --force", cuts=True)
def deleted_by_force(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    fleet.r1.kubectl("delete", "pod", victim.pods[0], "--grace-period=0", "--force", "--wait=false")
    yield victim.replaced


@kind("pod", "evicted through the API: refused, for its node is not being left")
def evicted(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    path = f"/api/v1/namespaces/{fleet.r1.namespace}/pods/{victim.pods[1]}/eviction"
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": victim.pods[1], "namespace": fleet.r1.namespace},
    }
    with pytest.raises(ClusterError, match="disruption budget"):
        fleet.r1.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))
    yield victim.kept


@kind("pod", "ConfigMap, Secrets and budget of all deleted")
def objects_deleted(fleet: Fleet) -> Iterator[Hit]:
    fleet.r1.kubectl("delete", "configmap,secret,pdb", "-l", "app.kubernetes.io/managed-by=r1-operator")
    wait_for("they are made again", lambda: fleet.r1.kubectl("get", "pdb", "-o", "name"))
    yield NOBODY


@kind("gateway", "pod deleted")
def gateway_deleted(fleet: Fleet) -> Iterator[Hit]:
    name = sorted(fleet.r1.serving_gateways())[0]
    fleet.r1.kubectl("delete", "pod", name, "--wait=false")
    yield NOBODY


@kind("gateway", "its process killed", cuts=True, refuses=True)
def gateway_killed(fleet: Fleet) -> Iterator[Hit]:
    yield from _end_of_a_gateway(fleet, GATEWAY)


@kind("gateway", "its router killed", cuts=True, refuses=True)
def router_killed(fleet: Fleet) -> Iterator[Hit]:
    yield from _end_of_a_gateway(fleet, ROUTER)


@kind("gateway", "its router stands still for 5 s")
def router_frozen(fleet: Fleet) -> Iterator[Hit]:
    node = fleet.gateway_node()
    fleet.on_node(node, ROUTER, signal.SIGSTOP)
    fleet.stays(5)
    fleet.on_node(node, ROUTER, signal.SIGCONT)
    yield NOBODY


@kind("gateway", "both deleted at once", remains=False, cuts=True)
def gateways_deleted(fleet: Fleet) -> Iterator[Hit]:
    fleet.r1.kubectl("delete", "pod", *fleet.r1.serving_gateways(), "--grace-period=0", "--force", "--wait=false")
    yield NOBODY


def _end_of_a_gateway(fleet: Fleet, pattern: str) -> Iterator[Hit]:
    before = fleet.gateway_lives()
    fleet.on_node(fleet.gateway_node(), pattern, signal.SIGKILL)
    wait_for("the kubelet has started it again", fleet.gateway_lives, until=lambda now: now != before)
    yield NOBODY
