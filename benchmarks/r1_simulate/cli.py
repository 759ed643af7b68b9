"""`r1 simulate`: a day of requests against a simulated fleet, under the operator's own mind and under others."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from r1_bench.workload import WorkloadError
from r1_operator.planning.plan import Plan

from . import calibration, page, profile, traces
from .fleet import Start
from .optimum import optimum
from .outcome import Targets
from .report import Row, table
from .requests import Requests
from .speed import Speed
from .traces import DAY_SECONDS
from .world import BASELINES, Answer, Believed, Question, ask, baseline, operator_of, planned

BAD_INPUT = 2
POLICIES = ("operator", *BASELINES, "static-peak", "static-mean", "optimum")
_LENGTHS = (1267, 1528)
"""Mean prompt and answer of the recorded day of DeepSeek-R1, for synthetic shapes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate and print. Exit code 2: bad input."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except (WorkloadError, ValueError, OSError) as error:
        print(f"r1 simulate: {error}", file=sys.stderr)
        return BAD_INPUT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="r1 simulate", description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--trace", type=Path, help="a ServeGen folder, Azure's or a like CSV, or Mooncake's JSON lines")
    source.add_argument("--calibrate", action="store_true", help="the simulated engine beside published measurements")
    source.add_argument("--shape", choices=sorted(SHAPES), help="a synthetic load; its highest fills --peak-replicas")
    parser.add_argument(
        "--peak-replicas",
        type=_positive,
        help="scale the load to need so many at its peak (8), but for a recorded file; at most twice as many are",
    )
    parser.add_argument("--days", type=_positive, default=1, help="of a ServeGen folder; the last one is measured")
    parser.add_argument("--hours", type=float, default=12.0, help="of a shape")
    parser.add_argument("--policy", action="append", choices=POLICIES, help="again for several; default: operator")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=_positive, default=1, help="so many runs, from --seed on")
    parser.add_argument("--start-seconds", type=float, default=600.0, help="a replica's start, as believed")
    parser.add_argument("--ttft-ms", type=_positive, default=10_000)
    parser.add_argument("--tpot-ms", type=_positive, default=100)
    parser.add_argument("--model", default="deepseek-ai/DeepSeek-R1-0528")
    parser.add_argument("--hardware", default="H100x8")
    parser.add_argument("--speed", type=float, default=1.0, help="a replica's true speed over the planned")
    parser.add_argument("--start-factor", type=float, default=1.0, help="a start's true time over the believed")
    parser.add_argument("--lost-scrapes", type=float, default=0.0, help="share of the replicas' loads not read")
    parser.add_argument("--deaths-per-hour", type=float, default=0.0, help="replicas that die on their own")
    parser.add_argument("--longer-prompts", type=float, default=1.0, help="so many times as long from half of it on")
    parser.add_argument("--gpu-hour-price", type=float, help="money per GPU and hour, for the cost of a million tokens")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--html", type=Path, help="a page with demand, forecast, replicas and misses over the day")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def _run(options: argparse.Namespace) -> int:
    if options.calibrate:
        print(calibration.errors())
        return 0
    policies, recorded = options.policy or ["operator"], options.trace is not None and not options.trace.is_dir()
    if options.html is not None and "operator" not in policies:
        raise ValueError("--html: the page shows the operator's day; add --policy operator, or leave --html out")
    if recorded and options.days > 1:
        raise ValueError(f"--days: {options.trace} is played once, as it was recorded; leave --days out")
    options.peak_replicas = options.peak_replicas or 8
    targets = Targets(options.ttft_ms / 1000, options.tpot_ms / 1000)
    probe = Question(Requests([], [], []), 0.0, targets, options.model, options.hardware)
    plan, speed = planned(probe)
    draw, until, since = _source(options, speed, targets)
    rows: list[Row] = []
    last: Answer | None = None
    for seed in range(options.seed, options.seed + options.seeds):
        requests = traces.longer(draw(seed), since + (until - since) / 2, options.longer_prompts)
        question = replace(
            probe,
            requests=requests,
            until=until,
            since=since,
            start_seconds=options.start_seconds,
            most=2 * options.peak_replicas,
            first=max(1, options.peak_replicas // 2),
            seed=seed,
            truth=Believed(options.speed, options.start_factor, options.lost_scrapes, options.deaths_per_hour),
        )
        for policy in policies:
            began = time.monotonic()
            answer = decided(policy, question, plan, speed)
            rows.append(Row(policy, seed, answer.outcome, time.monotonic() - began))
            last = answer if answer.trail else last
            print(f"{policy}, seed {seed}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    gpus = plan.nodes_per_replica * plan.gpus_per_node
    if options.output == "json":
        print(json.dumps([{"policy": r.policy, "seed": r.seed, **asdict(r.outcome)} for r in rows], indent=1))
    else:
        print(table(rows, gpus, options.gpu_hour_price))
    if options.html is not None and last is not None:
        options.html.write_text(page.of(last, targets, until), encoding="utf-8")
    return 0


def decided(policy: str, question: Question, plan: Plan, speed: Speed) -> Answer:
    """One policy's answer to a question."""
    if policy == "operator":
        return ask(question, policy, operator_of(question, plan), speed)
    targets = question.targets
    if policy in BASELINES:
        carried = profile.carried(speed, profile.mean_lengths(question.requests), targets)
        return ask(question, policy, baseline(policy, question, carried), speed)
    # What knows everything needs no days before the one that is measured.
    requests, until = question.requests.since(question.since), question.until - question.since
    true = speed.scaled(question.truth.speed)
    if policy == "optimum":
        start = Start(question.start_seconds * question.truth.start, 0.0)
        found = optimum(requests, true, start, targets, question.most * 3 // 4, until)
        return Answer(policy, found.found, requests)
    if policy == "static-peak":
        count = profile.peak(requests, true, targets, until)
    else:
        carried = profile.carried(true, profile.mean_lengths(requests), targets)
        count = max(1, round(sum(requests.outputs) / until / carried))
    return Answer(policy, profile.static(requests, true, count, targets, until), requests)


# --- what is asked ---------------------------------------------------------------------------------------------------
_Rate = Callable[[float], float]
SHAPES: dict[str, Callable[[float, float], _Rate]] = {
    # of the rate that fills all replicas, and of the seconds in all
    "constant": lambda top, _: traces.constant(0.7 * top),
    "step": lambda top, end: traces.step(0.3 * top, 0.9 * top, end / 2),
    "ramp": lambda top, end: traces.ramp(0.1 * top, 0.9 * top, 0.2 * end, 0.8 * end),
    "flash-crowd-5": lambda top, end: traces.flash_crowd(0.9 * top / 5, 5, 0.4 * end, 0.6 * end),
    "flash-crowd-10": lambda top, end: traces.flash_crowd(0.9 * top / 10, 10, 0.4 * end, 0.6 * end),
    "square-wave": lambda top, _: traces.square_wave(0.2 * top, 0.9 * top, 900, 600),
    "week": lambda top, _: traces.week(0.15 * top, 0.9 * top),
}
Draw = Callable[[int], Requests]


def _source(options: argparse.Namespace, speed: Speed, targets: Targets) -> tuple[Draw, float, float]:
    """How requests are drawn by seed, until when they come, and from when on they count."""
    if options.shape:
        return *shape(options.shape, speed, targets, options.peak_replicas, options.hours), 0.0
    if options.trace.is_dir():
        clients = traces.servegen(options.trace)
        scale = fitted(lambda s: traces.day(clients, s, 0), speed, targets, options.peak_replicas)
        until = options.days * DAY_SECONDS
        return lambda seed: traces.day(clients, scale, seed, options.days), until, until - DAY_SECONDS
    recorded = traces.recorded(options.trace)
    return lambda _: recorded, recorded.at[-1], 0.0


def shape(name: str, speed: Speed, targets: Targets, peak: int, hours: float) -> tuple[Draw, float]:
    """A synthetic load whose highest fills `peak` replicas, and its seconds; a week is one, however many `hours`."""
    top = profile.carried(speed, _LENGTHS, targets) / _LENGTHS[1] * peak
    end = 7 * DAY_SECONDS if name == "week" else hours * 3600
    rate = SHAPES[name](top, end)
    return lambda seed: traces.shaped(rate, end, _LENGTHS, seed), end


def fitted(draw: Callable[[float], Requests], speed: Speed, targets: Targets, peak: int) -> float:
    """How many times as often a day's requests must come for `peak` replicas to be just enough at its highest."""
    low, high = 0.0, 0.2 * peak
    for _ in range(6):
        scale = (low + high) / 2
        kept = profile.static(draw(scale), speed, peak, targets, DAY_SECONDS).kept
        low, high = (scale, high) if kept >= 0.995 else (low, scale)
    return low
