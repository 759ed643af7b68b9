"""What the server's output tells of a start: how far it is, and whether it goes forward at all. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

_SHARDS = re.compile(r"shards:\s+\d+% Completed \| (\d+)/(\d+)")
_GRAPHS = re.compile(r"Capture .+ begin\.")
# tqdm: "DeepGEMM warmup:  12%|█▏  | 2000/16384 [00:10<01:12, 199.5it/s]"; its clock alone is no progress.
_BAR = re.compile(r"\d+%\|[^|]*\|\s*([\d.]+\w?/[\d.]+\w?)")
_NUMBERS = re.compile(r"\d+")
# Kinds of lines, each of which counts once. A server at its start prints some hundred; more are no sign of anything.
_MOST_KINDS = 2000
_KIND_LENGTH = 160
# The operator writes its status at every change of the message; shards on a fast disk come three a second.
_SHARDS_EVERY_SECONDS = 15.0
# Before that a rate is guessed from too few shards.
_RATE_AFTER_SECONDS = 30.0


@dataclass(frozen=True)
class Shards:
    """How many shards have been read. `first` of them when the first was told of, at `began`."""

    began: float
    first: int
    done: int
    total: int
    told: float = float("-inf")
    """When people were last told."""

    def words(self, now: float) -> str:
        """How many, how fast, how long still; all of it rounded."""
        text = f"Loading weights: {self.done} of {self.total} shards"
        minutes = (now - self.began) / 60
        if now - self.began < _RATE_AFTER_SECONDS or self.done <= self.first or self.done >= self.total:
            return f"{text}."
        rate = (self.done - self.first) / minutes
        left = max(1, round((self.total - self.done) / rate))
        return f"{text}, {rate:.1f} a minute, about {left} min left."


@dataclass(frozen=True)
class Heard:
    """What one line told. `detail`: words for the stage, if any; `moved`: it proves that the start goes on."""

    detail: str | None
    moved: bool


@dataclass(frozen=True)
class Output:
    """All that has been heard so far. Times in seconds of one monotonic clock."""

    kinds: frozenset[str] = frozenset()
    bar: str = ""
    shards: Shards | None = None

    def heard(self, line: str, now: float) -> tuple[Output, Heard]:
        """Takes a line, or a progress bar that has no end of line yet.

        A line proves progress when it is the first of its kind (numbers apart), when a count of shards or a bar in it
        has changed. What is said again and again, such as a retry, proves nothing.
        """
        if match := _SHARDS.search(line):
            return self._counted(int(match[1]), int(match[2]), now)
        if match := _BAR.search(line):
            return replace(self, bar=match[1]), Heard(None, match[1] != self.bar)
        kind = _NUMBERS.sub("", line).strip()[:_KIND_LENGTH]
        new = bool(kind) and kind not in self.kinds and len(self.kinds) < _MOST_KINDS
        return (replace(self, kinds=self.kinds | {kind}) if new else self), Heard(_detail(line), new)

    def _counted(self, done: int, total: int, now: float) -> tuple[Output, Heard]:
        before = self.shards
        if before is None or done < before.done or total != before.total:  # the first model, or the next one (MTP)
            before, moved = Shards(now, done, done, total), True
        else:
            moved = done > before.done
        shards = replace(before, done=done)
        if now - shards.told < _SHARDS_EVERY_SECONDS and done < total:
            return replace(self, shards=shards), Heard(None, moved)
        return replace(self, shards=replace(shards, told=now)), Heard(shards.words(now), moved)


def _detail(line: str) -> str | None:
    if "Load weight begin" in line:
        return "Loading weights."
    if "Load weight end" in line:
        return "Weights loaded; the KV cache and graphs follow."
    if "DeepGEMM JIT" in line:
        return "Compiling DeepGEMM kernels: 10 to 20 minutes where none are cached."
    if _GRAPHS.search(line):
        return "Capturing CUDA graphs."
    return None
