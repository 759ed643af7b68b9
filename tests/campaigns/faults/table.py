"""The campaign's table in Markdown, and its place in docs/faults.md. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from tests.campaigns.faults.measure import Outcome, count

BEGIN, END = "<!-- made by `make faults`: begin -->", "<!-- made by `make faults`: end -->"
HEAD = (
    "fault",
    "healthy replica remains",
    "answered",
    "lost",
    "cut",
    "out of rotation after s",
    "back in rotation after s",
    "all as before after s",
)


def row(outcome: Outcome) -> tuple[str, ...]:
    settled = "**never**" if outcome.settled is None else f"{outcome.settled:.0f}"
    lost, cut = str(len(outcome.lost)), str(len(outcome.cut))
    promised = outcome.is_as_promised
    return (
        f"{outcome.group}: {outcome.name}{' ¹' * outcome.refuses}",
        "yes" if outcome.remains else "no",
        f"{outcome.tally.new + outcome.tally.kept:,}",
        lost if promised else f"**{lost}**",
        cut if promised else f"**{cut}**",
        _seconds(outcome.rotation.left),
        _seconds(outcome.rotation.back),
        settled,
    )


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def table(outcomes: Sequence[Outcome], heading: str) -> str:
    """`heading`: a line before it: date and machine."""
    sums = count(outcomes)
    lines = [
        heading,
        "",
        f"{sums['kinds']} kinds of fault, {sums['answered']:,} requests answered. Where a healthy replica remained: "
        f"{sums['lost']} lost, {sums['cut']} cut midway with what was giving them, {sums['refused']} refused by a "
        "gateway that had just died (¹). "
        f"Not as promised: {sums['broken promises']}.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|" + "---|" * len(HEAD),
        *("| " + " | ".join(row(outcome)) + " |" for outcome in outcomes),
    ]
    told = [f"- {o.group}: {o.name}: {o.told}" for o in outcomes if o.told]
    return "\n".join([*lines, *(["", *told] if told else [])])


def put(document: str, text: str) -> str:
    """The document with this table in the place of the one before. Raises ValueError where it has no such place."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document lacks the lines {BEGIN!r} and {END!r}, between which the table goes")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"
