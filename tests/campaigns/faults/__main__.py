"""`python -m tests.campaigns.faults`: every kind of fault, one after the other, under users who never pause.

A fault is over when everything is as before it: replicas, pods, gateways, status; only then comes the next one. Exit
code 1 if a promise was broken: a request lost while a healthy replica remained, an answer cut by a fault that destroys
nothing, or a fleet that did not come back. docs/faults.md says what the columns mean.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.behaviour.operator_process import CHECKOUT, Operator
from tests.behaviour.world import World, wait_for
from tests.campaigns.clients import ANSWER_SECONDS, Tally
from tests.campaigns.faults import on_control, on_nodes, on_parts, on_pods, preload
from tests.campaigns.faults.fleet import NOBODY, NODES, REPLICAS, Fleet, Watch, cluster_and_operators, fleet
from tests.campaigns.faults.kinds import ALL, Kind
from tests.campaigns.faults.measure import Outcome, Rotation, rotation
from tests.campaigns.faults.table import put, row, table, title
from tests.campaigns.rotation import Crowd, crowd

DOCUMENT = CHECKOUT / "docs" / "faults.md"
MODULES = (on_pods, on_nodes, on_control, on_parts)
"""Whose import adds the kinds, in the order in which they are played."""
MOST_RESTARTS = {"standin": 0, "real": 1}
"""In a row, before a fault: what is measured is not the back-off after the faults before it."""


def play(kind: Kind, it: Fleet, users: Crowd, watch: Watch) -> Outcome:
    """One fault, from a fleet that is as it should be to one that is so again."""
    it.rest(MOST_RESTARTS[kind.engine])
    watch.of(it.gateways())
    users.tally()  # what came before is not the fault's
    it.at, settled, told, hit = time.time(), None, "", NOBODY
    act = kind.act(it)
    try:
        hit = next(act)
        it.settle(hit)
        settled = time.time() - it.at
        watch.of(it.gateways())
    except Exception as error:  # whatever it was, it belongs into the table, and the next fault is played
        told = f"{type(error).__name__}: {error}".splitlines()[0][:300]
    tally = _all_of(users, time.time())
    try:
        next(act, None)
    except Exception as error:
        told, settled = f"afterwards: {type(error).__name__}: {error}".splitlines()[0][:300], None
    seen = rotation(watch.seen(), it.at, hit.url, REPLICAS)
    return Outcome(kind.group, kind.name, kind.remains, kind.cuts, tally, seen, settled, told, kind.refuses)


def _all_of(users: Crowd, until: float) -> Tally:
    """What came of every request that was sent before `until`: a connection to a machine that is off hangs for long."""
    tally = users.tally()

    def oldest() -> float:
        nonlocal tally
        tally = tally.plus(users.tally())
        return tally.oldest

    wait_for("who waits is answered", oldest, until=lambda sent: sent >= until, seconds=2 * ANSWER_SECONDS)
    return tally


def campaign(kinds: Sequence[Kind], world: World, operators: Sequence[Operator]) -> Iterator[Outcome]:
    """Their outcomes, as they come. A fleet that does not come back is replaced by a new one."""
    left = list(kinds)
    while left:
        engine = left[0].engine
        with fleet(world, operators, engine) as it:
            it.settle()
            watch = Watch(world.cluster)
            try:
                with crowd(it.r1, None) as users:
                    while left and left[0].engine == engine:
                        _say(f"         {left[0].group}: {left[0].name} …")
                        outcome = play(left.pop(0), it, users, watch)
                        yield outcome
                        if outcome.settled is None:
                            break
            finally:
                watch.end()


def run(kinds: Sequence[Kind], folder: Path) -> list[Outcome]:
    preload.build()
    outcomes: list[Outcome] = []
    with cluster_and_operators(folder) as (world, operators):
        for outcome in campaign(kinds, world, operators):
            outcomes.append(outcome)
            _say(f"{len(outcomes):>3}/{len(kinds)}  {_line(outcome)}")
            for loss in (outcome.lost if outcome.is_as_promised else outcome.tally.lost)[:5]:
                _say(f"         {loss.at}  {loss.fault}  {loss.kind} connection, {loss.told}")
    return outcomes


def _place(kind: Kind) -> int:
    return next(i for i, module in enumerate(MODULES) if kind.act.__module__ == module.__name__)


def _line(outcome: Outcome) -> str:
    tally: Tally = outcome.tally
    seen: Rotation = outcome.rotation
    parts = [
        "as promised" if outcome.is_as_promised else "NOT AS PROMISED",
        f"{tally.new + tally.kept} answered, {len(outcome.lost)} lost, {len(outcome.cut)} cut",
        f"slowest {tally.slowest:.1f} s",
        f"out {seen.left:.1f} s" if seen.left is not None else "",
        f"back {seen.back:.1f} s" if seen.back is not None else "",
        f"settled {outcome.settled:.0f} s" if outcome.settled is not None else f"never settled: {outcome.told}",
    ]
    return f"{outcome.group}: {outcome.name}: " + ", ".join(part for part in parts if part)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.faults", description=__doc__)
    parser.add_argument("--list", action="store_true", help="print the kinds of fault and end")
    parser.add_argument("--only", metavar="PATTERN", default="", help="those whose name (as in --list) matches")
    parser.add_argument("--engine", choices=("standin", "real"), help="those of one kind of engine")
    parser.add_argument("--write", action="store_true", help=f"put the rows into {DOCUMENT.relative_to(CHECKOUT)}")
    options = parser.parse_args()
    kinds = [
        each
        for each in sorted(ALL, key=_place)
        if re.search(options.only, f"{each.group}: {each.name}", re.IGNORECASE)
        and options.engine in (None, each.engine)
    ]
    if options.list:
        print("\n".join(f"{each.group}: {each.name}" for each in kinds))
        return 0
    if not kinds:
        parser.error(f"no kind of fault matches {options.only!r}; --list tells them")
    folder = Path(tempfile.mkdtemp(prefix="r1-faults-"))
    _say(f"{len(kinds)} kinds of fault on {NODES} nodes; the operators' logs: {folder}")
    began = time.monotonic()
    outcomes = run(kinds, folder)
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    rows = [row(outcome, date) for outcome in outcomes]
    print(table(rows))
    _say(f"{(time.monotonic() - began) / 60:.0f} min on {os.cpu_count()} cores")
    if options.write:
        titles = [title(each.group, each.name, each.refuses) for each in sorted(ALL, key=_place)]
        DOCUMENT.write_text(put(DOCUMENT.read_text(), rows, titles))
    return 0 if all(outcome.is_as_promised for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
