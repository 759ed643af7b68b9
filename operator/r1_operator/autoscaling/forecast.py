"""What the load will be when a replica that is begun now serves: three simple ways, and how well each has done. Pure.

Each way is tried on the past, as far as it goes back: made from what was known then, held against what came. The one
whose upper bound would have cost least is taken, and its own errors say how far above it the bound lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

DAY: Final = 24 * 60
LOOK_BACK: Final = 6 * 60
"""Minutes over which the ways are compared."""
LEVEL: Final = 5
"""Minutes whose mean is the load of a moment; of short starts half a start."""
TREND: Final = 4
"""Of these are what a trend is seen in."""
DAMPING: Final = 0.6
"""Share of a trend that goes on: a load's slope seldom lasts."""
FEW: Final = 12
"""Fewer trials than this say nothing; until then UNTRIED is the margin."""
UNTRIED: Final = 0.2
MOST: Final = 3.0
"""No bound lies further above its forecast: one jump in six hours is no rule."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """`upper`: the load stays below it with the share asked for. `error`: median distance of what came, as a share of
    the forecast; None: not tried yet. `ahead`: minutes."""

    mean: float
    upper: float
    way: str
    error: float | None = None
    ahead: int = 0


class _Series:
    """Minutes of load with their sums, so that a mean or a slope costs no loop. `level`: minutes of a moment."""

    def __init__(self, values: Sequence[float], level: int) -> None:
        self.values, self.level = values, level
        self._sums = list(accumulate(values, initial=0.0))
        self._moments = list(accumulate((i * v for i, v in enumerate(values)), initial=0.0))

    def mean(self, start: int, end: int) -> float:
        start, end = max(0, start), min(len(self.values), end)
        return (self._sums[end] - self._sums[start]) / (end - start) if end > start else 0.0

    def most(self, at: int) -> float:
        """The highest load about a minute: a start may take a little less, and the next step comes a little later."""
        return max(self.mean(at + shift, at + shift + self.level) for shift in (-self.level, 0, self.level))

    def slope(self, start: int, end: int) -> float:
        """Per minute, by least squares."""
        start = max(0, start)
        n = end - start
        if n < 2:
            return 0.0
        total = self._sums[end] - self._sums[start]
        moment = self._moments[end] - self._moments[start] - start * total
        return (moment - total * (n - 1) / 2) * 12 / (n * (n * n - 1))


def _level(series: _Series, end: int, ahead: int) -> float:
    return series.mean(end - series.level, end)


def _trend(series: _Series, end: int, ahead: int) -> float:
    level = series.mean(end - series.level, end)
    slope = series.slope(end - TREND * series.level, end)
    return max(0.0, level + DAMPING * slope * (ahead + series.level / 2))


def _daily(series: _Series, end: int, ahead: int) -> float | None:
    """The most that there was a day ago, about then, times how much more there is now than there was."""
    then = end - DAY
    if then < 3 * series.level:
        return None
    before = series.mean(then - 3 * series.level, then)
    if before <= 0:
        return None
    now = series.mean(end - 3 * series.level, end)
    return series.most(then + ahead) * min(MOST, max(1 / MOST, now / before))


def _then(series: _Series, at: int) -> float:
    return series.mean(at - series.level, at)


WAYS: Final = {"day before": (_daily, _Series.most), "level": (_level, _then), "trend": (_trend, _then)}
"""How each predicts, and what it is held against. Of equally good ones the first: it knows most."""


def forecast(values: Sequence[float], ahead: int, share: float) -> Forecast:
    """`values`: load of each minute, oldest first, not empty. `ahead`: minutes from now on. `share`: of the bound."""
    level = max(1, min(LEVEL, ahead // 2))
    series, end = _Series(values, level), len(values)
    seen = max(series.mean(at - level, at) for at in range(end, max(0, end - LOOK_BACK), -level))
    best: tuple[float, Forecast] | None = None
    for way, (predict, came) in WAYS.items():
        mean = predict(series, end, ahead)
        if mean is None:
            continue
        ratios = []
        for at in range(end - ahead - 2 * level, max(3 * level, end - LOOK_BACK), -level):
            made = predict(series, at, ahead)
            if made:
                ratios.append(came(series, at + ahead) / made)
        if len(ratios) < FEW:
            bound, loss, error = 1 + UNTRIED, float("inf"), None
        else:
            ratios.sort()
            bound = min(MOST, max(1.0, ratios[min(len(ratios) - 1, int(share * len(ratios)))]))
            loss = sum(_loss(r, bound, share) for r in ratios) / len(ratios)
            error = sorted(abs(r - 1) for r in ratios)[len(ratios) // 2]
        if best is None or loss < best[0]:
            # Jumps from a low load say nothing of what comes on top of a high one.
            most = max(seen, _level(series, end, ahead) * (1 + UNTRIED), mean if predict is _daily else 0.0)
            upper = min(mean * bound, most)
            best = (loss, Forecast(mean, upper, way, error, ahead))
    assert best is not None
    return best[1]


def _loss(ratio: float, bound: float, share: float) -> float:
    """Of the bound: what is above costs its share, what is below the rest."""
    return share * (ratio - bound) if ratio > bound else (1 - share) * (bound - ratio)
