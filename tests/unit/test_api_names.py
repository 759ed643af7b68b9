"""Names derived from a resource's name fit Kubernetes whatever the numbers are."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r1_operator.api import names

RESOURCES = st.from_regex(names.NAME_PATTERN, fullmatch=True).filter(lambda name: len(name) <= names.MAX_NAME_LENGTH)
REPLICAS = st.integers(0, names.MAX_REPLICAS)
ATTEMPTS = st.integers(0, names.MAX_ATTEMPT)
NODES = st.integers(0, names.MAX_NODES_PER_REPLICA - 1)
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


@given(RESOURCES, REPLICAS, ATTEMPTS, NODES)
def test_names_are_dns_labels(name: str, replica: int, attempt: int, node: int) -> None:
    made = (
        names.pod_name(name, replica, attempt, node),
        names.gang_name(name, replica, attempt),
        names.engine_service(name),
        names.gateway_name(name),
        names.engine_secret(name, "0" * 36),
    )
    for text in made:
        assert DNS_LABEL.fullmatch(text), text
    labels = names.engine_pod_labels(name, replica, attempt, node, names.content_hash({}))
    assert all(len(value) <= names.MAX_LABEL_LENGTH for value in labels.values())


@given(RESOURCES, REPLICAS, ATTEMPTS)
def test_a_gang_name_tells_its_numbers(name: str, replica: int, attempt: int) -> None:
    gang = names.gang_name(name, replica, attempt)
    assert (names.replica_of(gang), names.attempt_of(gang)) == (replica, attempt)


def test_a_longest_name_uses_the_room_there_is() -> None:
    longest = names.pod_name(
        "r" * names.MAX_NAME_LENGTH, names.MAX_REPLICAS, names.MAX_ATTEMPT, names.MAX_NODES_PER_REPLICA - 1
    )
    assert 55 <= len(longest) <= 63


@pytest.mark.parametrize("text", ["r1", "r1-0", "r1-0-x", "-0-1"])
def test_what_is_no_gang_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a gang name"):
        names.attempt_of(text)


def test_the_address_in_the_contract() -> None:
    assert names.pod_host("r1", "ns", 0, 3, 0) == "r1-0-3-0.r1-engine.ns.svc"


def test_a_hash_sees_content_and_not_order() -> None:
    assert names.content_hash({"a": 1, "b": [2]}) == names.content_hash({"b": [2], "a": 1})
    assert names.content_hash({"a": 1}) != names.content_hash({"a": 2})
