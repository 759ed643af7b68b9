"""The requests of a run and what came of them, as columns: one row a request, in the order of arrival."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field


def _empty() -> array[float]:
    return array("d")


@dataclass(slots=True)
class Requests:
    """`at`: arrivals in seconds since the run's start, ascending. `inputs`, `outputs`: tokens, thought included.
    `first`, `last`: when the first and the last token came; -1 while, or if, none did. `refused`: by number."""

    at: Sequence[float]
    inputs: Sequence[int]
    outputs: Sequence[int]
    first: array[float] = field(default_factory=_empty)
    last: array[float] = field(default_factory=_empty)

    def __post_init__(self) -> None:
        self.first = array("d", [-1.0]) * len(self.at)
        self.last = array("d", [-1.0]) * len(self.at)

    def __len__(self) -> int:
        return len(self.at)

    def since(self, start: float) -> Requests:
        """Those from a time on, which is then their 0."""
        first = bisect_left(self.at, start)
        return Requests([at - start for at in self.at[first:]], self.inputs[first:], self.outputs[first:])

    def again(self) -> Requests:
        """The same requests, to be asked anew."""
        return Requests(self.at, self.inputs, self.outputs)

    def kept(self, number: int, ttft_seconds: float, tpot_seconds: float) -> bool:
        """Whether a request was answered whole and within both targets."""
        first, last = self.first[number], self.last[number]
        if first < 0 or last < 0 or first - self.at[number] > ttft_seconds:
            return False
        return last - first <= tpot_seconds * max(1, self.outputs[number] - 1)
