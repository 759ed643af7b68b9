"""Outcomes as a table: what was kept, what it cost, how often it moved; several seeds with their spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from .outcome import Outcome

_NINETY_FIVE = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
"""Student's t of 95%, by the number of runs."""


@dataclass(frozen=True, slots=True)
class Row:
    """One run. `took`: seconds of this machine."""

    policy: str
    seed: int
    outcome: Outcome
    took: float


def table(rows: Sequence[Row], gpus: int, price: float | None = None) -> str:
    """Markdown. `gpus` of a replica; `price` of one for an hour."""
    policies = list(dict.fromkeys(row.policy for row in rows))
    best = {r.seed: r.outcome.replica_hours for r in rows if r.policy == "optimum"}
    cost = " | cost per 1M output tokens" if price is not None else ""
    lines = [
        f"| policy | in time | worst hour | GPU-hours | of the optimum's | steps up, down | TTFT p99{cost} |",
        "|---|---|---|---|---|---|" + "---|" * (2 if price is not None else 1),
    ]
    for policy in policies:
        mine = [r for r in rows if r.policy == policy]
        found = [r.outcome for r in mine]
        shares = [r.outcome.replica_hours / best[r.seed] for r in mine if r.seed in best]
        cells = [
            policy,
            _spread([100 * o.kept for o in found], "%", 2),
            f"{100 * min(o.worst_hour for o in found):.1f}%",
            _spread([gpus * o.replica_hours for o in found], "", 0),
            _spread(shares, "×", 2) if shares else "",
            f"{fmean(o.steps_up for o in found):.0f}, {fmean(o.steps_down for o in found):.0f}",
            _seconds(fmean(o.ttft_p99 for o in found)),
        ]
        if price is not None:
            spent = [gpus * o.replica_hours * price / max(1, o.output_tokens) * 1e6 for o in found]
            cells.append(_spread(spent, "", 2))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _seconds(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.1f} s"


def _spread(values: Sequence[float], unit: str, digits: int) -> str:
    """A mean, and with several runs its 95% interval."""
    text = f"{fmean(values):,.{digits}f}{unit}"
    if len(values) < 2:
        return text
    half = _NINETY_FIVE.get(len(values), 2.0) * stdev(values) / math.sqrt(len(values))
    return f"{text} ± {half:,.{digits}f}"
