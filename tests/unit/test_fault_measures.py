"""What the campaign of faults makes of what it has seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.campaigns.clients import Loss, Tally
from tests.campaigns.faults.measure import Outcome, Rotation, Seen, rotation
from tests.campaigns.faults.table import BEGIN, END, HEAD, put, row, table

A, B, C = "http://a", "http://b", "http://c"


def said(*told: tuple[float, str, tuple[str, ...] | None]) -> list[Seen]:
    return [Seen(at, gateway, None if urls is None else frozenset(urls)) for at, gateway, urls in told]


def test_a_replica_is_out_when_no_gateway_sends_there_and_back_when_every_one_has_two() -> None:
    seen = said(
        (1, "g1", (A, B)),
        (1, "g2", (A, B)),
        (10.5, "g1", (B,)),
        (11.0, "g2", (B,)),
        (20.0, "g2", (B, C)),
        (21.0, "g1", (B, C)),
    )
    assert rotation(seen, 10.0, A, 2) == Rotation(1.0, 11.0)


def test_without_a_victim_nothing_leaves_and_a_gateway_that_is_gone_is_asked_for_nothing() -> None:
    seen = said((1, "g1", (A, B)), (1, "g2", (A, B)), (11, "g1", None), (12, "g3", ()), (13, "g3", (A, B)))
    assert rotation(seen, 10.0, "", 2) == Rotation(None, 3.0)
    assert rotation(seen[:3], 10.0, "", 2) == Rotation(None, None)


def test_what_never_comes_back_is_not_called_back() -> None:
    seen = said((1, "g1", (A, B)), (11, "g1", (B,)), (12, "g1", (B, C)), (13, "g1", (B,)))
    assert rotation(seen, 10.0, A, 2) == Rotation(1.0, None)


def outcome(*lost: Loss, remains: bool = True, cuts: bool = False, refuses: bool = False) -> Outcome:
    return Outcome(
        "pod", "deleted", remains, cuts, Tally(new=5, lost=list(lost)), Rotation(0.5, 9.0), 12.0, "", refuses
    )


CUT = Loss("new", "broken", "reset", "12:00", begun=True)
BROKEN = Loss("new", "broken", "reset", "12:00")
TURNED_AWAY = Loss("kept", "turned away", "503", "12:00")


@pytest.mark.parametrize(
    ("made", "promised"),
    [
        (outcome(), True),
        (outcome(CUT), False),
        (outcome(CUT, cuts=True), True),
        (outcome(CUT, BROKEN, cuts=True), False),
        (outcome(TURNED_AWAY, cuts=True), False),
        (outcome(TURNED_AWAY, remains=False), True),
        (outcome(BROKEN, refuses=True), True),
        (outcome(TURNED_AWAY, refuses=True), False),
    ],
)
def test_a_promise_is_kept_or_not(made: Outcome, promised: bool) -> None:
    assert made.is_as_promised is promised
    assert ("**" in "".join(row(made, "today"))) is not promised


def test_a_run_of_some_kinds_leaves_the_rows_of_the_others() -> None:
    empty = f"above\n{BEGIN}\n{END}\nbelow\n"
    first = row(outcome(CUT, cuts=True), "yesterday")
    other = row(replace(outcome(BROKEN, refuses=True), name="killed"), "today")
    titles = [other[0], first[0]]
    once = put(empty, [first], titles)
    both = put(once, [other], titles)
    assert both.index("| pod: killed ¹ |") < both.index("| pod: deleted |")
    assert "yesterday |" in both
    assert "2 kinds of fault, 10 requests answered. Where a healthy replica remained: 0 lost, 1 cut" in both
    assert "1 refused by a gateway" in both
    assert "Not as promised (bold): 0." in both
    assert put(both, [], titles) == both
    assert "yesterday" not in put(both, [], titles[:1]), "there is no such kind any more"
    with pytest.raises(ValueError, match="lacks the lines"):
        put("above\nbelow\n", [first], titles)
    assert len(table([first]).splitlines()[-1].split(" | ")) == len(HEAD)
