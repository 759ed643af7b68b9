"""Who may reach what, judged on the rendered NetworkPolicies as a network would (the local cluster enforces none)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from r1_operator.api import names
from r1_operator.manifests.network_policy import Reach, network_policies
from r1_operator.rounds.decide import decide
from r1_simulate.cluster import SimulatedCluster, spec_of

from tests.unit.test_gateway_manifests import context

OPERATOR = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "system"}},
    "podSelector": {"matchLabels": {"app": "operator"}},
}
PROMETHEUS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
REACH = Reach((OPERATOR,), (PROMETHEUS,))


@dataclass(frozen=True)
class Pod:
    namespace: str
    labels: Mapping[str, str]


ENGINE = Pod("n", names.engine_pod_labels("r1", 0, 3, 0, "rev"))
MEMBER = Pod("n", names.engine_pod_labels("r1", 0, 3, 1, "rev"))
GATEWAY = Pod("n", names.gateway_pod_labels("r1", "u"))
OTHERS_ENGINE = Pod("n", names.engine_pod_labels("r2", 0, 0, 0, "rev"))
OTHERS_GATEWAY = Pod("n", names.gateway_pod_labels("r2", "v"))
ELSEWHERE = Pod("other", names.engine_pod_labels("r1", 0, 3, 1, "rev"))
THE_OPERATOR = Pod("system", {"app": "operator"})
IMPOSTOR = Pod("n", {"app": "operator"})
SCRAPER = Pod("monitoring", {})
USER = Pod("users", {"app": "chat"})
HTTP, AGENT, RAY, NCCL = names.PORT_ENGINE_HTTP, names.PORT_ENGINE_AGENT, names.PORT_RAY, 41234
USERS, ADMIN, METRICS = names.PORT_GATEWAY, names.PORT_GATEWAY_ADMIN, names.PORT_GATEWAY_METRICS
ALL = {HTTP, AGENT, RAY, NCCL, USERS, ADMIN, METRICS}


def fits(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """A label selector of matchLabels; an empty one fits all."""
    return selector is not None and (selector.get("matchLabels") or {}).items() <= labels.items()


def comes_from(peer: Mapping[str, Any], source: Pod, own: str) -> bool:
    if "namespaceSelector" in peer:
        here = fits(peer["namespaceSelector"], {"kubernetes.io/metadata.name": source.namespace})
    else:
        here = source.namespace == own
    return here and ("podSelector" not in peer or fits(peer["podSelector"], source.labels))


def may_reach(policies: list[dict[str, Any]], source: Pod, target: Pod, port: int) -> bool:
    """By the rules of networking.k8s.io/v1: a pod that no policy selects is open; policies add up."""
    own = [p for p in policies if fits(p["spec"]["podSelector"], target.labels)]
    rules = [rule for policy in own for rule in policy["spec"]["ingress"]]
    return not own or any(
        ("ports" not in rule or any(p["port"] == port and p["protocol"] == "TCP" for p in rule["ports"]))
        and ("from" not in rule or any(comes_from(peer, source, target.namespace) for peer in rule["from"]))
        for rule in rules
    )


@pytest.mark.parametrize(
    ("source", "target", "ports"),
    [
        (ENGINE, MEMBER, ALL),
        (MEMBER, ENGINE, ALL),
        (GATEWAY, ENGINE, {HTTP}),
        (THE_OPERATOR, ENGINE, {HTTP, AGENT}),
        (THE_OPERATOR, MEMBER, {HTTP, AGENT}),
        (SCRAPER, ENGINE, {HTTP}),
        (USER, ENGINE, set()),
        (IMPOSTOR, ENGINE, set()),
        (OTHERS_ENGINE, ENGINE, set()),
        (OTHERS_GATEWAY, ENGINE, set()),
        (ELSEWHERE, ENGINE, set()),
        (USER, GATEWAY, {USERS}),
        (ENGINE, GATEWAY, {USERS}),
        (THE_OPERATOR, GATEWAY, {USERS, ADMIN}),
        (SCRAPER, GATEWAY, {USERS, METRICS}),
    ],
)
def test_who_may_reach_what(source: Pod, target: Pod, ports: set[int]) -> None:
    policies = network_policies(context(), REACH)
    assert {port for port in ALL if may_reach(policies, source, target, port)} == ports


def test_without_a_scraper_nobody_reads_metrics() -> None:
    policies = network_policies(context(), Reach((OPERATOR,)))
    assert not may_reach(policies, SCRAPER, ENGINE, HTTP)
    assert not may_reach(policies, SCRAPER, GATEWAY, METRICS)
    assert all(rule.get("from") != [] for p in policies for rule in p["spec"]["ingress"]), "an empty list is everybody"


def test_they_are_made_with_the_first_children_owned_and_deleted_where_they_are_turned_off() -> None:
    cluster = SimulatedCluster(spec_of(nodes=1, replicas=1))
    facts = cluster.facts()
    on = replace(facts, settings=replace(facts.settings, reach=REACH))
    made = [o for o in decide(on, cluster.now).children.create if o["kind"] == "NetworkPolicy"]
    assert [o["metadata"]["name"] for o in made] == ["r1-engine", "r1-gateway"]
    assert all(o["metadata"]["ownerReferences"][0]["uid"] == facts.subject.metadata.uid for o in made)
    live = {("NetworkPolicy", o["metadata"]["name"]): o for o in made}
    live[("NetworkPolicy", "theirs")] = {"kind": "NetworkPolicy", "metadata": {"name": "theirs", "labels": {}}}
    assert not decide(replace(on, live=live), cluster.now).children.remove
    off = decide(replace(facts, live=live), cluster.now).children
    assert list(off.remove) == made
    theirs = {**made[0], "metadata": {**made[0]["metadata"], "ownerReferences": []}}
    taken = decide(replace(on, live={("NetworkPolicy", "r1-engine"): theirs}), cluster.now)
    assert "NetworkPolicy r1-engine exists and belongs to nobody we know" in taken.troubles[0].message
