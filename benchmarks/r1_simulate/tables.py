"""`python -m r1_simulate.tables SERVEGEN_FOLDER --runs FILE [--write]`: the tables of docs/autoscaling-tables.md.

Each run is a line of FILE, so that what was interrupted goes on, and a run more costs only itself. About four hours of
one core in all; `--only` takes a part.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from . import traces
from .cli import POLICIES, SHAPES, decided, fitted, shape
from .outcome import Outcome, Targets
from .report import Row, table
from .requests import Requests
from .traces import DAY_SECONDS
from .world import Believed, Question, planned

DOCUMENT = Path(__file__).parents[2] / "docs" / "autoscaling-tables.md"
GPUS = 16
"""Of a replica: two nodes of eight."""


@dataclass(frozen=True, slots=True)
class Case:
    """One table, or with `row` one row of the table of that `title`. `policies`: with how many seeds each."""

    title: str
    policies: dict[str, int]
    peak: int = 8
    days: int = 1
    start_seconds: float = 600.0
    shape: str = ""
    longer: float = 1.0
    truth: Believed = field(default_factory=Believed)
    row: str = ""


_MINE = {"operator": 3}
_WRONG = "When what is believed is wrong"
_SHAPED = "Loads of a shape"
CASES: tuple[Case, ...] = (
    Case("A peak of four replicas", dict.fromkeys(POLICIES, 3) | {"operator": 5}, 4),
    Case("A peak of four replicas", {"operator": 5}, 4, days=2, row="operator, on a second day like it"),
    Case("A peak of eight replicas", dict.fromkeys(POLICIES, 3) | {"operator": 5}),
    Case("A peak of eight replicas", {"operator": 5}, days=2, row="operator, on a second day like it"),
    Case("A peak of eight replicas, starts of 1,800 s", dict.fromkeys(POLICIES, 1) | _MINE, start_seconds=1800.0),
    Case(_WRONG, _MINE, row="as believed"),
    Case(_WRONG, _MINE, truth=Believed(speed=0.7), row="30% slower than planned"),
    Case(_WRONG, _MINE, truth=Believed(speed=1.3), row="30% faster than planned"),
    Case(_WRONG, _MINE, truth=Believed(start=2.0), row="starts take twice as long"),
    Case(_WRONG, _MINE, truth=Believed(lost=0.2), row="20% of scrapes lost"),
    Case(_WRONG, _MINE, truth=Believed(deaths=1.0), row="a replica dies an hour"),
    Case(_WRONG, _MINE, longer=4.0, row="prompts four times as long from noon on"),
    *(Case(_SHAPED, _MINE, 4, shape=name, row=f"{name}, 12 h") for name in sorted(set(SHAPES) - {"week"})),
    Case(_SHAPED, _MINE, 4, shape="week", row="week, 7 days"),
    Case("A peak of twenty replicas", dict.fromkeys(POLICIES, 1), 20),
)


@dataclass(frozen=True, slots=True)
class Run:
    """One of a case's runs."""

    case: Case
    policy: str
    seed: int

    @property
    def key(self) -> str:
        """By which its result is known."""
        case = self.case
        told = (self.policy, self.seed, case.peak, case.days, case.start_seconds, case.shape, case.longer)
        return "/".join(map(str, (*told, *asdict(case.truth).values())))


def runs(cases: Sequence[Case]) -> Iterator[Run]:
    """All runs of these cases."""
    for case in cases:
        for policy, seeds in case.policies.items():
            yield from (Run(case, policy, seed) for seed in range(1, seeds + 1))


def carry_out(folder: Path, run: Run) -> tuple[str, Outcome, float]:
    """One run: → its key, its outcome and the seconds it took here."""
    began, case, targets = time.monotonic(), run.case, Targets()
    empty = Question(Requests([], [], []), 0.0, targets)
    plan, speed = planned(empty)
    if case.shape:
        draw, until = shape(case.shape, speed, targets, case.peak, 12.0)
    else:
        clients, scale = _scaled(folder, case.peak)
        until = case.days * DAY_SECONDS

        def draw(seed: int) -> Requests:
            return traces.day(clients, scale, seed, case.days)

    question = replace(
        empty,
        requests=traces.longer(draw(run.seed), until - DAY_SECONDS / 2, case.longer),
        until=until,
        since=max(0.0, until - DAY_SECONDS) if not case.shape else 0.0,
        start_seconds=case.start_seconds,
        most=2 * case.peak,
        first=max(1, case.peak // 2),
        seed=run.seed,
        truth=case.truth,
    )
    return run.key, decided(run.policy, question, plan, speed).outcome, time.monotonic() - began


@lru_cache(maxsize=4)
def _scaled(folder: Path, peak: int) -> tuple[Sequence[traces.Client], float]:
    clients = traces.servegen(folder)
    speed = planned(Question(Requests([], [], []), 0.0))[1]
    return clients, fitted(lambda scale: traces.day(clients, scale, 0), speed, Targets(), peak)


def written(cases: Sequence[Case], known: dict[str, tuple[Outcome, float]]) -> str:
    """The document: each title once, with what is known of it."""
    lines = [_HEAD]
    for title in dict.fromkeys(case.title for case in cases):
        rows = [
            Row(run.case.row or run.policy, run.seed, *known[run.key])
            for run in runs([case for case in cases if case.title == title])
            if run.key in known
        ]
        if rows:
            lines += [f"## {title}", "", table(rows, GPUS), ""]
    return "\n".join(lines)


_HEAD = """# Autoscaling: the tables

Made by `python -m r1_simulate.tables FOLDER --runs FILE --write`, FOLDER being the recorded day of DeepSeek-R1 in
ServeGen's form; what stands behind them is told in [autoscaling.md](autoscaling.md). TTFT ≤ 10 s and TPOT ≤ 100 ms for
each request, replicas of 2×8 H100 as the planner lays them out, starts of 600 s ± 10%. Each seed draws the day anew;
with several the mean and its 95% interval stand here, and of the hours the worst of all. The operator begins knowing
nothing but its plan.
"""


def main() -> None:
    """Run what is missing, and print or write the document."""
    parser = argparse.ArgumentParser(prog="python -m r1_simulate.tables", description=__doc__)
    parser.add_argument("folder", type=Path, help="of ServeGen: chunk-N-trace.csv and chunk-N-dataset.json")
    parser.add_argument("--runs", type=Path, required=True, help="a line of JSON for each run; made if it is not there")
    parser.add_argument("--only", default="", help="cases whose title has this in it")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--write", action="store_true", help=f"write {DOCUMENT.name} in place of printing it")
    options = parser.parse_args()
    known = _read(options.runs)
    todo = {r.key: r for r in runs([c for c in CASES if options.only in c.title]) if r.key not in known}
    with ProcessPoolExecutor(options.processes) as pool:
        made: list[Callable[[], tuple[str, Outcome, float]]] = [
            pool.submit(carry_out, options.folder, run).result for run in todo.values()
        ]
        for result in made:
            key, found, took = result()
            print(
                f"{key}: {100 * found.kept:.2f}%, {GPUS * found.replica_hours:,.0f} GPU-hours, {took:.0f} s", flush=True
            )
            with options.runs.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "took": took, "outcome": asdict(found)}) + "\n")
            known[key] = (found, took)
    document = written(CASES, known)
    if options.write:
        DOCUMENT.write_text(document, encoding="utf-8")
    else:
        print(document)


def _read(file: Path) -> dict[str, tuple[Outcome, float]]:
    if not file.exists():
        return {}
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {line["key"]: (Outcome(**line["outcome"]), float(line["took"])) for line in lines}


if __name__ == "__main__":
    main()
