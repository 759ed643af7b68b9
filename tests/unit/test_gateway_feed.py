"""What the gateway's feeder decides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r1_gateway.feed import ASK_AGAIN_SECONDS, Entry, entries_of, kept_of, plan_actions, replicas_of
from r1_gateway.feeder import Feeder, Outdated
from r1_gateway.vouch import Vouching

OPEN = Vouching(None, None, None)  # type: ignore[arg-type]  # its engines ask for no key
URLS = [f"http://10.0.0.{index}:30000" for index in range(4)]
entries = st.builds(
    Entry,
    id=st.uuids().map(str),
    url=st.sampled_from(URLS),
    status=st.sampled_from(["ready", "not_ready", "failed", "draining"]),
    healthy=st.booleans(),
    load=st.integers(0, 9),
)
wanted_sets = st.frozensets(st.sampled_from(URLS))


def test_ranks_of_one_replica_are_one_replica() -> None:
    def worker(identity: str, **fields: object) -> dict[str, object]:
        return {"id": identity, "url": "http://a", "status": "ready", "is_healthy": True, "load": 2, **fields}

    ranks = [worker(str(i), url=f"http://a@{i}", dp_base_url="http://a") for i in range(2)]
    listed = entries_of({"workers": [*ranks, worker("2", url="http://b", is_healthy=False)]})
    replicas = {each.url: (each.state, each.in_flight) for each in replicas_of(frozenset({"http://c"}), listed)}
    assert replicas == {"http://a": ("Routing", 4), "http://b": ("Unhealthy", 2), "http://c": ("Registering", 0)}
    assert plan_actions(frozenset({"http://b"}), listed, {}, 0.0).remove == ("0", "1"), "both ranks leave"


@given(wanted_sets, st.lists(entries, max_size=8))
def test_actions_lead_to_what_is_wanted(wanted: frozenset[str], listed: list[Entry]) -> None:
    actions = plan_actions(wanted, listed, {}, 0.0)
    removed = set(actions.remove)
    staying = {entry.url for entry in listed if entry.id not in removed and not entry.leaving}
    leaving = {entry.url for entry in listed if entry.leaving}
    assert staying <= wanted
    assert staying | set(actions.add) | leaving >= wanted
    assert all(entry.id not in removed for entry in listed if entry.url in wanted)
    assert not set(actions.add) & {entry.url for entry in listed}


@given(wanted_sets, st.lists(entries, max_size=8))
def test_a_replica_counts_as_gone_only_when_no_rank_takes_requests(wanted: frozenset[str], listed: list[Entry]) -> None:
    states = {replica.url: replica.state for replica in replicas_of(wanted, listed)}
    for entry in listed:
        if entry.healthy and not entry.leaving:
            assert states[entry.url] == "Routing"
    assert set(states) == wanted | {entry.url for entry in listed}


def test_a_registration_under_way_is_not_asked_for_again_at_once() -> None:
    wanted, asked = frozenset({URLS[0]}), {URLS[0]: 100.0}
    assert plan_actions(wanted, (), asked, 100.0 + ASK_AGAIN_SECONDS - 0.1).add == ()
    assert plan_actions(wanted, (), asked, 100.0 + ASK_AGAIN_SECONDS).add == (URLS[0],)


@given(wanted_sets, st.lists(entries, max_size=8))
def test_a_rotation_that_serves_is_emptied_by_an_empty_list_alone(wanted: frozenset[str], listed: list[Entry]) -> None:
    kept = kept_of(wanted, listed)
    before = {each.url for each in replicas_of(wanted, listed) if each.state == "Routing"}
    removed = set(plan_actions(wanted | kept, listed, {}, 0.0).remove)
    after = {
        each.url for each in replicas_of(wanted, [e for e in listed if e.id not in removed]) if each.state == "Routing"
    }
    if wanted and before:
        assert after, "something serves on"
    if before & wanted or not wanted:
        assert after == before & wanted, "nothing is kept for longer than needed"


class DeafRouter:
    """Lists one replica and says yes to everything without doing it."""

    async def workers(self) -> tuple[Entry, ...]:
        return (Entry("1", URLS[0], "ready", True, 0), Entry("2", "http://placeholder", "failed", False, 0))

    async def add(self, url: str) -> None: ...

    async def remove(self, worker_id: str) -> None: ...


async def test_a_replica_that_does_not_leave_is_told_to_whoever_would_drain_it() -> None:
    feeder = Feeder(DeafRouter(), "http://placeholder", OPEN)  # type: ignore[arg-type]
    await feeder.feed(frozenset({URLS[0]}))
    assert feeder.ready()
    await feeder.feed(frozenset())
    assert [(each.url, each.state) for each in feeder.replicas()] == [(URLS[0], "Routing")]


async def test_an_operator_that_leads_no_more_is_refused() -> None:
    feeder = Feeder(DeafRouter(), "http://placeholder", OPEN, epoch=3)  # type: ignore[arg-type]
    for epoch in (3, 5, None, 5):
        await feeder.feed(frozenset({URLS[0]}), epoch)
    with pytest.raises(Outdated) as refused:
        await feeder.feed(frozenset(), 4)
    assert refused.value.seen == 5
    assert [each.url for each in feeder.replicas()] == [URLS[0]]
