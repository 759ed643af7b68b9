"""The campaign's table in Markdown, and its place in docs/faults.md. Each row is of the last run that played it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tests.campaigns.faults.measure import Outcome

Row = tuple[str, ...]

BEGIN, END = "<!-- made by `make faults`: begin -->", "<!-- made by `make faults`: end -->"
HEAD: Row = (
    "fault",
    "healthy replica remains",
    "answered",
    "lost",
    "cut",
    "out of rotation after s",
    "back in rotation after s",
    "all as before after s",
    "played",
)
_REMAINS, _ANSWERED, _LOST, _CUT = range(1, 5)
_REFUSES, _BROKEN = " ¹", "**"


def title(group: str, name: str, refuses: bool) -> str:
    return f"{group}: {name}{_REFUSES * refuses}"


def row(outcome: Outcome, date: str) -> Row:
    """Bold: not as promised."""
    settled = f"never: {outcome.told}".replace("|", "/") if outcome.settled is None else f"{outcome.settled:.0f}"
    mark = "" if outcome.is_as_promised else _BROKEN
    return (
        title(outcome.group, outcome.name, outcome.refuses),
        "yes" if outcome.remains else "no",
        f"{outcome.tally.new + outcome.tally.kept:,}",
        f"{mark}{len(outcome.lost)}{mark}",
        f"{mark}{len(outcome.cut)}{mark}",
        _seconds(outcome.rotation.left),
        _seconds(outcome.rotation.back),
        f"{mark}{settled}{mark}",
        date,
    )


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def table(rows: Sequence[Row]) -> str:
    """With their sums before it."""
    remains = [each for each in rows if each[_REMAINS] == "yes"]
    whole = [each for each in remains if not each[0].endswith(_REFUSES)]
    refused = [each for each in remains if each[0].endswith(_REFUSES)]
    return "\n".join(
        [
            f"{len(rows)} kinds of fault, {_sum(rows, _ANSWERED):,} requests answered. "
            f"Where a healthy replica remained: {_sum(whole, _LOST)} lost, "
            f"{_sum(remains, _CUT)} cut midway with what was giving them, "
            f"{_sum(refused, _LOST)} refused by a gateway that had just died (¹). "
            f"Not as promised (bold): {sum(_BROKEN in ''.join(each) for each in rows)}.",
            "",
            _line(HEAD),
            "|" + "---|" * len(HEAD),
            *map(_line, rows),
        ]
    )


def _line(cells: Row) -> str:
    return "| " + " | ".join(cells) + " |"


def _sum(rows: Iterable[Row], column: int) -> int:
    return sum(int(re.sub(r"[*,]", "", each[column])) for each in rows)


def put(document: str, rows: Sequence[Row], titles: Sequence[str]) -> str:
    """The document with these rows in its table, in the order of `titles`; rows of other kinds stay as they were, those
    of kinds that there are no more go. Raises ValueError where it has no place for a table."""
    before, begin, rest = document.partition(BEGIN)
    old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document lacks the lines {BEGIN!r} and {END!r}, between which the table goes")
    known = {each[0]: each for each in _rows_of(old)} | {each[0]: each for each in rows}
    text = table([known[each] for each in titles if each in known])
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def _rows_of(text: str) -> list[Row]:
    cells = [tuple(line.strip("| ").split(" | ")) for line in text.splitlines() if line.startswith("| ")]
    return [each for each in cells if len(each) == len(HEAD) and each != HEAD]
