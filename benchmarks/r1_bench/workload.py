"""What to send and when. Pure: a seed gives the same requests at the same times.

Open loop (a rate or a trace): every request has an intended start that does not depend on how fast answers come.
Closed loop (a concurrency): a request starts when another ends.
"""

from __future__ import annotations

import ast
import csv
import json
import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

Arrivals = Literal["poisson", "constant"]

# Questions the project's tiny model can answer, and any other model too; used when no prompts are given.
QUESTIONS = (
    "Which is larger, 9.8 or 9.11?",
    "What is 17 + 25?",
    "How many times does the letter r occur in strawberry?",
    "What is the capital of France?",
    "A train travels 60 km in one hour. How far does it travel in 3 hours?",
)
PROSE = (
    "please tell me about the history of a river in winter and why people write long letters to their friends when "
    "trains are late because nobody knows how music machines work under green mountains with seven small houses"
)


class WorkloadError(ValueError):
    """A prompts file or trace that cannot be used; the message names the file, the reason and the remedy."""


@dataclass(frozen=True)
class Prompt:
    """One conversation to send; `max_tokens` None leaves the length to the model."""

    messages: tuple[tuple[str, str], ...]
    max_tokens: int | None = None


@dataclass(frozen=True)
class Planned:
    """A request of the run. `at`: intended start in seconds after the run's start, None in a closed loop."""

    index: int
    at: float | None
    prompt: Prompt


def arrival_times(rate: float, arrivals: Arrivals, seed: int) -> Iterator[float]:
    """Endless intended starts in seconds, `rate` per second on average; the first at once when constant."""
    rng = random.Random(seed)
    at = 0.0 if arrivals == "constant" else rng.expovariate(rate)
    while True:
        yield at
        at += 1 / rate if arrivals == "constant" else rng.expovariate(rate)


def user_prompt(text: str, max_tokens: int | None = None) -> Prompt:
    return Prompt((("user", text),), max_tokens)


def synthetic_text(words: int, rng: random.Random) -> str:
    """About `words` tokens of made-up prose: a word is a little more than a token for most tokenizers."""
    vocabulary = PROSE.split()
    return " ".join(rng.choice(vocabulary) for _ in range(max(1, words)))


def cycle_prompts(prompts: Sequence[Prompt], seed: int) -> Iterator[Prompt]:
    """All prompts in a shuffled order, again and again, each round in a new order."""
    rng = random.Random(seed)
    while True:
        yield from rng.sample(prompts, len(prompts))


def synthetic_prompts(input_tokens: int, output_tokens: int | None, seed: int) -> Iterator[Prompt]:
    """Endless distinct prompts of one length (distinct, so that no prefix cache helps beyond the template)."""
    rng = random.Random(seed)
    while True:
        yield user_prompt(synthetic_text(input_tokens, rng), output_tokens)


def read_prompts(file: Path) -> tuple[Prompt, ...]:
    """Prompts of a text file (one a line), of JSON lines, or of a JSON list.

    A JSON entry is a string or an object with `question`, `prompt` or `messages`, and optionally `max_tokens`.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WorkloadError(f"--prompts {file}: {error}") from error
    try:
        if file.suffix == ".json":
            entries = json.loads(text)
            if not isinstance(entries, list):
                raise WorkloadError(f"--prompts {file}: must hold a list, one entry for each prompt")
        elif file.suffix == ".jsonl":
            entries = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            entries = [line for line in text.splitlines() if line.strip()]
        prompts = tuple(_prompt(entry) for entry in entries)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise WorkloadError(
            f"--prompts {file}: {error}; an entry is a string or an object with question, prompt or messages"
        ) from error
    if not prompts:
        raise WorkloadError(f"--prompts {file}: holds no prompt")
    return prompts


def _prompt(entry: Any) -> Prompt:
    if isinstance(entry, str):
        return user_prompt(entry)
    limit = entry.get("max_tokens") if isinstance(entry, dict) else None
    for name in ("question", "prompt"):
        if name in entry:
            return user_prompt(str(entry[name]), limit)
    return Prompt(tuple((str(turn["role"]), str(turn["content"])) for turn in entry["messages"]), limit)


def plan_open(times: Iterator[float], prompts: Iterator[Prompt]) -> Iterator[Planned]:
    for index, (at, prompt) in enumerate(zip(times, prompts, strict=False)):
        yield Planned(index, at, prompt)


def plan_closed(prompts: Iterator[Prompt]) -> Iterator[Planned]:
    for index, prompt in enumerate(prompts):
        yield Planned(index, None, prompt)


def read_trace(path: Path, start: float, scale: float, seed: int) -> Iterator[Planned]:
    """Requests of a recorded trace: a CSV file to replay, or a folder of ServeGen clients to draw from.

    `start` skips the first seconds; `scale` multiplies the rate. Prompts are made up with the trace's lengths.
    """
    if path.is_dir():
        return _servegen(path, read_servegen(path), start, scale, seed)
    return _replay(read_replay(path), start, scale, seed)


def read_replay(file: Path) -> list[tuple[float, int, int]]:
    """Time in seconds, prompt and output tokens of each row of a CSV with the columns TIMESTAMP, ContextTokens,
    GeneratedTokens (the Azure LLM inference traces)."""
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = [
                (_instant(row["TIMESTAMP"]), int(row["ContextTokens"]), int(row["GeneratedTokens"]))
                for row in csv.DictReader(stream)
            ]
    except (OSError, KeyError, ValueError, UnicodeDecodeError) as error:
        raise WorkloadError(
            f"--trace {file}: {type(error).__name__} {error}; "
            "the columns TIMESTAMP, ContextTokens and GeneratedTokens are needed"
        ) from error
    if not rows:
        raise WorkloadError(f"--trace {file}: holds no request")
    return rows


def _replay(rows: list[tuple[float, int, int]], start: float, scale: float, seed: int) -> Iterator[Planned]:
    rng = random.Random(seed)
    origin = rows[0][0] + start
    kept = [row for row in rows if row[0] >= origin]
    for index, (at, context, generated) in enumerate(kept):
        yield Planned(index, (at - origin) / scale, user_prompt(synthetic_text(context, rng), generated))


def _instant(text: str) -> float:
    """Seconds of a time stamp; the traces write seven digits of a second, Python reads six."""
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text[:26]).timestamp()


@dataclass(frozen=True)
class ServeGenClient:
    """One client of a ServeGen trace: its rate in each window, and its token lengths in each period of the day."""

    windows: tuple[tuple[float, float], ...]  # start in seconds, requests per second; ascending
    lengths: tuple[Lengths, ...]

    def rate(self, at: float) -> float:
        position = bisect_right(self.windows, (at, float("inf")))
        return self.windows[position - 1][1] if position else 0.0

    def draw(self, at: float, rng: random.Random) -> tuple[int, int]:
        """Input and output tokens of a request at a time of the day."""
        _, inputs, shares, outputs, output_shares = max(
            (period for period in self.lengths if period[0] <= at), default=self.lengths[0]
        )
        return rng.choices(inputs, shares)[0], rng.choices(outputs, output_shares)[0]


def read_servegen(folder: Path) -> tuple[ServeGenClient, ...]:
    """All clients of a folder of chunk-N-trace.csv and chunk-N-dataset.json (ServeGen, arXiv 2505.09999)."""

    def client(rows: Rows, lengths: tuple[Lengths, ...]) -> ServeGenClient:
        return ServeGenClient(tuple((float(row[0]), float(row[1])) for row in rows), lengths)

    return read_chunks(folder, client)


Rows = list[list[str]]
"""Of a chunk-N-trace.csv: begin of the window, rate, coefficient of variation, law of arrivals and its parameters."""
Lengths = tuple[float, tuple[int, ...], tuple[float, ...], tuple[int, ...], tuple[float, ...]]
"""From a time of the day on: input lengths with their shares, output lengths with theirs."""
Client = TypeVar("Client")


def read_chunks(folder: Path, make: Callable[[Rows, tuple[Lengths, ...]], Client]) -> tuple[Client, ...]:
    """What `make` makes of each client's files. Raises WorkloadError that names the file."""
    clients = []
    for trace in sorted(folder.glob("chunk-*-trace.csv")):
        dataset = trace.with_name(trace.name.replace("-trace.csv", "-dataset.json"))
        try:
            rows = [line.split(",") for line in trace.read_text().splitlines() if line]
            periods = json.loads(dataset.read_text())
            lengths = tuple(
                (float(start), *_table(period["input_tokens"]), *_table(period["output_tokens"]))
                for start, period in sorted(periods.items(), key=lambda item: float(item[0]))
            )
            clients.append(make(rows, lengths))
        except (OSError, ValueError, KeyError, IndexError, SyntaxError) as error:
            raise WorkloadError(f"--trace {trace}: {type(error).__name__} {error}") from error
    if not clients:
        raise WorkloadError(f"--trace {folder}: holds no chunk-N-trace.csv; name a ServeGen data folder or a CSV file")
    return tuple(clients)


def _table(text: str) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Values and shares of a distribution, which ServeGen stores as the text of a Python dictionary."""
    table = ast.literal_eval(text)
    return tuple(int(value) for value in table), tuple(table.values())


def _servegen(
    folder: Path, clients: Sequence[ServeGenClient], start: float, scale: float, seed: int
) -> Iterator[Planned]:
    """Poisson arrivals with the clients' summed rate, drawn by thinning; burstiness within a client is left out."""
    rng = random.Random(seed)
    length = 1.0 + max(window[0] for client in clients for window in client.windows)
    peak = max(sum(client.rate(at) for client in clients) for at in {w[0] for c in clients for w in c.windows})
    if peak <= 0:
        raise WorkloadError(f"--trace {folder}: no client sends anything")
    at, index = 0.0, 0
    while True:
        at += rng.expovariate(peak * scale)
        clock = (start + at) % length
        rates = [client.rate(clock) for client in clients]
        total = sum(rates)
        if rng.random() * peak >= total:
            continue
        inputs, outputs = rng.choices(clients, rates)[0].draw(clock, rng)
        yield Planned(index, at, user_prompt(synthetic_text(inputs, rng), outputs))
        index += 1
