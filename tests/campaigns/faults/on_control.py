"""Faults of the control plane, of the operator, of what stands between it and its pods, and bad changes."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

from tests.behaviour.world import wait_for
from tests.campaigns.faults.fleet import NOBODY, NODES_PER_REPLICA, REPLICAS, Fleet, Hit
from tests.campaigns.faults.kinds import kind
from tests.cluster.admission import limit

STILL_SECONDS = 30
SHORT_SECONDS = 10
"""Of what every kubelet talks to. This cluster calls nodes lost after 16 s without a word, others after 50 s; then
Kubernetes itself takes all pods out of their Services, the gateways' among them."""


@kind("control plane", "API server killed")
def apiserver_killed(fleet: Fleet) -> Iterator[Hit]:
    fleet.signal_component("kube-apiserver", signal.SIGKILL)
    yield NOBODY


@kind("control plane", "API server stands still for 10 s")
def apiserver_frozen(fleet: Fleet) -> Iterator[Hit]:
    _stand_still(fleet, "kube-apiserver", SHORT_SECONDS)
    yield NOBODY


@kind("control plane", "etcd killed")
def etcd_killed(fleet: Fleet) -> Iterator[Hit]:
    fleet.signal_component("etcd", signal.SIGKILL)
    yield NOBODY


@kind("control plane", "etcd stands still for 10 s")
def etcd_frozen(fleet: Fleet) -> Iterator[Hit]:
    _stand_still(fleet, "etcd", SHORT_SECONDS)
    yield NOBODY


@kind("control plane", "scheduler stands still while a replica dies", cuts=True)
def scheduler_frozen(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    fleet.r1.fault(victim.pods[0], "exit70")
    _stand_still(fleet, "kube-scheduler")
    yield victim.replaced


@kind("control plane", "controller manager stands still while a replica dies", cuts=True)
def controllers_frozen(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    fleet.r1.fault(victim.pods[0], "exit70")
    _stand_still(fleet, "kube-controller-manager")
    yield victim.replaced


@kind("control plane", "CoreDNS killed")
def dns_killed(fleet: Fleet) -> Iterator[Hit]:
    fleet.signal_component("coredns", signal.SIGKILL)
    yield NOBODY


@kind("control plane", "CoreDNS stands still for 30 s while a replica dies", cuts=True)
def dns_frozen(fleet: Fleet) -> Iterator[Hit]:
    """A gang that starts finds its head by name: until DNS is back it waits, and what serves needs none."""
    victim = fleet.victim()
    fleet.r1.fault(victim.pods[0], "exit70")
    _stand_still(fleet, "coredns")
    yield victim.replaced


@kind("control plane", "kube-proxy killed")
def proxy_killed(fleet: Fleet) -> Iterator[Hit]:
    fleet.signal_component("kube-proxy", signal.SIGKILL)
    yield NOBODY


@kind("operator", "killed")
def operator_killed(fleet: Fleet) -> Iterator[Hit]:
    fleet.operators[0].restart(signal.SIGKILL)
    yield NOBODY


@kind("operator", "killed while a replica dies", cuts=True)
def operator_killed_too(fleet: Fleet) -> Iterator[Hit]:
    victim = fleet.victim()
    fleet.r1.fault(victim.pods[1], "exit70")
    fleet.operators[0].restart(signal.SIGKILL)
    yield victim.replaced


@kind("operator", "stands still for a minute")
def operator_frozen(fleet: Fleet) -> Iterator[Hit]:
    fleet.operators[0].signal(signal.SIGSTOP)
    fleet.stays(60)
    fleet.operators[0].signal(signal.SIGCONT)
    yield NOBODY


@kind("operator", "two of them; the one that leads stands still while a replica dies", cuts=True)
def two_operators(fleet: Fleet) -> Iterator[Hit]:
    first, second = fleet.operators
    second.start()
    try:
        victim = fleet.victim()
        first.signal(signal.SIGSTOP)
        fleet.r1.fault(victim.pods[0], "exit70")
        yield victim.replaced
        first.signal(signal.SIGCONT)
        fleet.settle()
    finally:
        second.end()


@kind("operator", "its clock jumps two hours ahead, and back")
def clock_of_the_operator(fleet: Fleet) -> Iterator[Hit]:
    fleet.operators[0].set_clock(7200)
    fleet.stays(20)
    fleet.operators[0].set_clock(0)
    yield NOBODY


@kind("admission", "quota with no room for the replica that dies", cuts=True)
def quota(fleet: Fleet) -> Iterator[Hit]:
    # What runs is counted: not a GPU is left for another pod, and only half of what dies may come back.
    room = (REPLICAS * NODES_PER_REPLICA) - 1
    limit(fleet.cluster, fleet.r1.namespace, {"requests.nvidia.com/gpu": str(room)})
    try:
        victim = fleet.victim()
        fleet.r1.fault(victim.pods[0], "exit70")
        fleet.r1.await_condition("Progressing", "False", "QuotaExceeded")
    finally:
        fleet.r1.kubectl("delete", "resourcequota", "quota")
    yield victim.replaced


@kind("admission", "a webhook for pods that nobody answers, while a replica dies", cuts=True)
def webhook(fleet: Fleet) -> Iterator[Hit]:
    fleet.cluster.apply(_webhook(fleet.r1.namespace))
    try:
        wait_for("pods are refused", lambda: not fleet.may_make_pods())
        victim = fleet.victim()
        fleet.r1.fault(victim.pods[0], "exit70")
        fleet.r1.await_condition("Progressing", "False", "CreateRefused")
    finally:
        fleet.cluster.kubectl("delete", "validatingwebhookconfiguration", "nobody-answers")
    yield victim.replaced


@kind("change", "to an image that does not exist, and back")
def bad_image(fleet: Fleet) -> Iterator[Hit]:
    before = fleet.r1.resource()["spec"]["engine"].get("image")
    fleet.patch({"engine": {"image": "r1-standin:gone"}})
    fleet.r1.await_condition("Progressing", "False", "NewRevisionFailed")
    fleet.patch({"engine": {"image": before}})
    yield NOBODY


@kind("change", "to a revision that crashes, and back by `r1 rollout undo`")
def crashing(fleet: Fleet) -> Iterator[Hit]:
    fleet.patch_env(R1_STANDIN_FAULT='{"kind": "exit70", "at": "Ray"}')
    fleet.r1.await_condition("Progressing", "False", "NewRevisionFailed")
    fleet.r1.r1("rollout", "undo", "r1")
    yield NOBODY


@kind("change", "another revision, under way when the operator is killed")
def roll(fleet: Fleet) -> Iterator[Hit]:
    fleet.patch_env(ROLL=str(time.time()))
    wait_for("it is under way", lambda: fleet.r1.status().get("updatedReplicas", 0), until=lambda count: count >= 1)
    fleet.operators[0].restart(signal.SIGKILL)
    yield NOBODY


def _stand_still(fleet: Fleet, component: str, seconds: float = STILL_SECONDS) -> None:
    fleet.signal_component(component, signal.SIGSTOP)
    try:
        fleet.stays(seconds)
    finally:
        fleet.signal_component(component, signal.SIGCONT)


def _webhook(namespace: str) -> dict[str, object]:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    hook = {
        "name": "nobody.answers.example.com",
        "rules": [rule],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "clientConfig": {"url": "https://127.0.0.1:9/"},
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "timeoutSeconds": 2,
        "admissionReviewVersions": ["v1"],
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "nobody-answers"},
        "webhooks": [hook],
    }
