"""What must hold for any status: it fits, it is stable, and its texts are whole characters."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from r1_operator.api.types import R1DeploymentStatus, to_wire
from r1_operator.lifecycle.gangs import GangState
from r1_operator.status.derive import derive
from r1_operator.status.replicas import MESSAGE_BYTES
from r1_operator.status.transitions import events
from r1_operator.status.wording import same_words, shorten, wire_bytes

from tests.unit.status_rounds import NOW, WORST_WORDS, fleet

ETCD_BYTES = 1536 * 1024
ANY_TEXT = st.text(st.characters(), max_size=300)
"""Lone surrogates and control characters included: last words come from anywhere."""
STATES = tuple(state for state in GangState if state is not GangState.LEAVING)


def stored_bytes(status: R1DeploymentStatus) -> int:
    """As etcd keeps it: the status, and our part of managedFields."""
    wire = to_wire(status)
    lists = {"conditions": "type", "replicaStatuses": "name"}
    fields: dict[str, object] = {f"f:{key}": {} for key in wire}
    for key, by in lists.items():
        fields[f"f:{key}"] = {
            f"k:{json.dumps({by: item[by]})}": {".": {}, **{f"f:{name}": {} for name in item}} for item in wire[key]
        }
    text = json.dumps([wire, fields], ensure_ascii=False, separators=(",", ":"))
    return len(text.encode()) + 5 * sum(map(text.count, "<>&"))


def test_a_status_of_the_most_replicas_and_the_longest_words_fits() -> None:
    """S3: 400 replicas with 4 KiB of last words made 1.75 MiB, and no gang was ever restarted again."""
    for count, nodes, leaving in ((400, 2, 0), (999, 64, 0), (999, 64, 999)):
        one = fleet(count, nodes, (GangState.FAILED, GangState.STARTING, GangState.READY), WORST_WORDS, leaving)
        status = derive(R1DeploymentStatus(), one, NOW)
        assert stored_bytes(status) < ETCD_BYTES * 3 // 4
        # What the lifecycle remembers is all there.
        assert len(status.replica_statuses) == count + leaving
        assert {r.restarts for r in status.replica_statuses if r.stage == "Failed"} == {10**9}
        if count == 400:
            assert all(r.message for r in status.replica_statuses)
            assert all(len(r.nodes) == 2 for r in status.replica_statuses)
        assert derive(status, one, NOW + 1) is status
        assert all(len(event.message) for event in events(R1DeploymentStatus(), status, one))


@given(st.lists(st.tuples(st.sampled_from(STATES), ANY_TEXT), min_size=1, max_size=4), ANY_TEXT, st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_any_words_make_a_status_that_reads_back_the_same(
    states: list[tuple[GangState, str]], words: str, later: int
) -> None:
    one = fleet(len(states), 1, tuple(state for state, _ in states), words)
    status = derive(R1DeploymentStatus(), one, NOW)
    again = R1DeploymentStatus.model_validate_json(json.dumps(to_wire(status)), strict=True)
    assert again == status
    assert all(wire_bytes(replica.message) <= MESSAGE_BYTES for replica in status.replica_statuses)
    # Time alone changes a status only until what is broken has lasted.
    settled = derive(derive(status, one, NOW + 1000), one, NOW + 2000)
    assert derive(settled, one, NOW + 2000 + later) is settled
    assert events(settled, settled, one) == ()


@given(ANY_TEXT, st.integers(3, 400))
def test_a_text_is_cut_between_characters(text: str, limit: int) -> None:
    short = shorten(text, limit)
    assert wire_bytes(short) <= limit
    assert short == shorten(short, limit)
    if not short.endswith("…"):
        assert len(short) <= len(text)


@given(st.lists(st.integers(0, 10**9), min_size=3, max_size=3), st.lists(st.integers(0, 10**9), min_size=3, max_size=3))
def test_figures_are_no_words(one: list[int], other: list[int]) -> None:
    text = "{} of {:,} nodes are free, load {}%."
    assert same_words(text.format(*one), text.format(*other))
    name = "r1-{}-{} on n{}: 10.0.0.1"
    assert same_words(name.format(*one), name.format(*other)) == (one == other)
