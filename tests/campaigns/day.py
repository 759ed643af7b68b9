"""A day compressed to minutes on real engines, and the simulator's prediction of that very run:
`python -m tests.campaigns.day`.

One replica serves a light load, which climbs to more than one carries, stays, and goes. The engine is measured first:
the simulator runs on what comes of it (the speed of its steps by least squares, its memory, its start), under the same
mind, and gets the same requests at the same moments. Exit code 1 if a request failed.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, linear_regression
from typing import Any

from r1_simulate import traces
from r1_simulate.calibration import closed_loop
from r1_simulate.controllers import Operator
from r1_simulate.fleet import Fleet, Start
from r1_simulate.outcome import percentile
from r1_simulate.requests import Requests
from r1_simulate.speed import Speed

from tests.cluster import build, preflight
from tests.cluster.cluster import Cluster
from tests.cluster.config import ClusterConfig
from tests.e2e.load import load
from tests.e2e.main_path import START_SECONDS, answered
from tests.e2e.site import Site, deployed, install_operator, tiny_manifest

KV_TOKENS = 8192
LENGTHS = (60, 30)
"""Mean prompt and answer, in tokens: many short requests, for a minute of few is chance."""
TARGET_TOKENS = 60
"""Output tokens a second that a replica is to carry: far from what two cores can do that all of them share."""
LOW, HIGH = 0.3, 1.5
"""Of what one replica carries."""
QUIET, CLIMB, HOLD, AFTER = 180.0, 600.0, 120.0, 420.0
"""Seconds of the day's parts; the fall takes a quarter of the climb."""
AT_ONCE = (1, 2, 4, 6)
"""Requests in flight when the engine is measured: the first and the last for the fit, all for its error."""
PROBE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Course:
    """What became of the number of replicas. Seconds after the day's begin; None: never."""

    asked_up: float | None
    second_serves: float | None
    asked_down: float | None
    second_gone: float | None


@dataclass(frozen=True, slots=True)
class Felt:
    """What users felt: `failed` of `requests`, and seconds."""

    requests: int
    failed: int
    ttft_p50: float
    ttft_p99: float
    tpot_mean: float


def manifest() -> dict[str, Any]:
    """One node a replica, between one and two of them."""
    scaling = {
        "minReplicas": 1,
        "maxReplicas": 2,
        "targetTokensPerSecondPerReplica": TARGET_TOKENS,
        "scaleUpCooldownSeconds": 5,
        "scaleDownCooldownSeconds": 300,
        "startupSeconds": 30,
    }
    found = tiny_manifest("r1", autoscaling=scaling, topology={"nodesPerReplica": 1})
    found["spec"]["engine"]["args"] = ["--max-total-tokens", str(KV_TOKENS)]
    return found


def rate_of_the_day() -> tuple[Callable[[float], float], float]:
    """Requests a second at each moment, and the day's length."""
    top, fall, full = QUIET + CLIMB + HOLD, CLIMB / 4, TARGET_TOKENS / LENGTHS[1]

    def rate(at: float) -> float:
        if at < QUIET:
            return LOW * full
        if at < top:
            return full * (LOW + (HIGH - LOW) * min(1.0, (at - QUIET) / CLIMB))
        return full * (HIGH - (HIGH - LOW) * min(1.0, (at - top) / fall))

    return rate, top + fall + AFTER


def needed_at() -> float:
    """When the climb passes what one replica carries."""
    return QUIET + CLIMB * (1.0 - LOW) / (HIGH - LOW)


# --- the engine as it is ----------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Probe:
    """A closed loop of so many requests: what each felt, in seconds."""

    at_once: int
    ttft: float
    tpot: float


def probe(url: str, at_once: int) -> Probe:
    flags = ("--input-tokens", str(LENGTHS[0]), "--output-tokens", str(LENGTHS[1]), "--ignore-eos")
    with load(url, "--concurrency", str(at_once), "--duration", str(PROBE_SECONDS), *flags) as running:
        rows = [r for r in running.wait(300)["requests"] if r["failure"] is None]
    middle = rows[at_once:-at_once] or rows
    return Probe(at_once, fmean(_first(r) - r["sent"] for r in middle), fmean(map(_tpot, middle)))


def _first(row: dict[str, Any]) -> float:
    return float(min(t for t in (row["first_thought"], row["first_answer"]) if t is not None))


def _tpot(row: dict[str, Any]) -> float:
    return float((row["ended"] - _first(row)) / max(1, row["output_tokens"] - 1))


def speed_from(probes: Sequence[Probe], most: int = 64) -> Speed:
    """The simulated engine whose closed loops are as fast as the first and the last probe: what each felt has the
    pauses for others' prompts in it, which the simulator adds by itself."""
    ends = (probes[0], probes[-1])
    tpot = {p.at_once: p.tpot for p in ends}
    for _ in range(_FITS):
        slope, base = linear_regression(list(tpot), list(tpot.values()))
        speed = _linear(base, slope, probes[0].ttft, most)
        tpot = {p.at_once: tpot[p.at_once] * p.tpot / closed_loop(speed, p.at_once, LENGTHS).tpot_seconds for p in ends}
    return speed


_FITS = 8


def _linear(base: float, slope: float, prefill: float, most: int) -> Speed:
    return Speed(
        step_seconds=tuple(max(1e-4, base + slope * n) for n in range(most + 1)),
        step_seconds_per_token=0.0,
        tokens_per_step=1.0,
        prefill_seconds=prefill,
        prefill_seconds_per_token=0.0,
        chunk_tokens=8192,
        kv_tokens=KV_TOKENS,
    )


def calibration(probes: Sequence[Probe], speed: Speed) -> str:
    """A table: measured, simulated, and how far off."""
    lines = ["| at once | TPOT measured | simulated | error | TTFT measured | simulated |", "|---|---|---|---|---|---|"]
    for each in probes:
        found = closed_loop(speed, each.at_once, LENGTHS)
        off = f"{100 * (found.tpot_seconds / each.tpot - 1):+.0f}%"
        tpot = f"{1000 * each.tpot:.1f} ms | {1000 * found.tpot_seconds:.1f} ms | {off}"
        lines.append(f"| {each.at_once} | {tpot} | {1000 * each.ttft:.0f} ms | {1000 * found.ttft_seconds:.0f} ms |")
    return "\n".join(lines)


# --- the day, in fact and in the simulator ----------------------------------------------------------------------------
def drawn(seed: int) -> tuple[Requests, float]:
    """The day's requests; lengths within what the tiny model holds."""
    rate, seconds = rate_of_the_day()
    found = traces.shaped(rate, seconds, LENGTHS, seed)
    inputs = [min(max(n, 16), 2 * LENGTHS[0]) for n in found.inputs]
    return Requests(found.at, inputs, [min(max(n, 16), 2 * LENGTHS[1]) for n in found.outputs]), seconds


class Watch:
    """Looks at the resource all the time: when it asked for how many, and how many served."""

    def __init__(self, site: Site) -> None:
        self._site, self._over = site, threading.Event()
        self.seen: list[tuple[float, int, int, int]] = []
        """Time, replicas wanted, ready, and there."""
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(2.0):
            with suppress(Exception):
                status = self._site.status()
                there = [r for r in status.get("replicaStatuses", ()) if r["stage"] != "Failed"]
                self.seen.append((time.time(), status["desiredReplicas"], status["readyReplicas"], len(there)))

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def course(self, begin: float) -> Course:
        return course([(at - begin, *rest) for at, *rest in self.seen])  # type: ignore[misc]


def course(seen: Sequence[tuple[float, int, int, int]]) -> Course:
    """Of looks at a number that went from one to two and back."""
    up = next((at for at, wanted, _, _ in seen if wanted > 1), None)
    serves = next((at for at, _, ready, _ in seen if ready > 1), None)
    down = next((at for at, wanted, _, _ in seen if up is not None and at > up and wanted == 1), None)
    gone = next((at for at, _, _, there in seen if down is not None and at > down and there == 1), None)
    return Course(up, serves, down, gone)


def play(site: Site, url: str, requests: Requests) -> tuple[Felt, Course]:
    """Send them, and watch."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "day.csv"
        with file.open("w", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(("TIMESTAMP", "ContextTokens", "GeneratedTokens"))
            rows.writerows(zip(requests.at, requests.inputs, requests.outputs, strict=True))
        watch, begin = Watch(site), time.time()
        with load(url, "--trace", str(file), "--requests", str(len(requests)), "--ignore-eos") as running:
            report = running.wait(requests.at[-1] + 600)
        site_gone = time.time()
        while watch.course(begin).second_gone is None and time.time() - site_gone < 300:
            time.sleep(1)
        watch.stop()
    good = [r for r in report["requests"] if r["failure"] is None]
    first = [_first(r) - r["intended"] for r in good]
    failed = len(report["requests"]) - len(good)
    felt = Felt(len(requests), failed, percentile(first, 0.5), percentile(first, 0.99), fmean(map(_tpot, good)))
    return felt, watch.course(begin)


def predict(requests: Requests, speed: Speed, start_seconds: float, until: float) -> tuple[Felt, Course]:
    """The same in the simulator."""
    mind = Operator(manifest()["spec"], 4, every_seconds=2.0, round_seconds=5.0)
    fleet = Fleet(speed, requests, mind, Start(start_seconds, 0.0), tick_seconds=2.0)
    fleet.play(until + 300)
    said = [(at, wanted, serving, held) for at, serving, held, _, _, wanted in mind.trail]
    first = [requests.first[i] - requests.at[i] for i in range(len(requests))]
    tpot = [(requests.last[i] - requests.first[i]) / max(1, n - 1) for i, n in enumerate(requests.outputs)]
    failed = sum(at < 0 for at in requests.last)
    return Felt(len(requests), failed, percentile(first, 0.5), percentile(first, 0.99), fmean(tpot)), course(said)


def table(real: tuple[Felt, Course], simulated: tuple[Felt, Course], start_seconds: float) -> str:
    """Both beside each other."""
    rows = [
        ("one replica is not enough from", *[_moment(needed_at())] * 2),
        ("a second one is asked for at", _moment(real[1].asked_up), _moment(simulated[1].asked_up)),
        ("it serves at", _moment(real[1].second_serves), _moment(simulated[1].second_serves)),
        ("one is taken away at", _moment(real[1].asked_down), _moment(simulated[1].asked_down)),
        ("it has drained and left at", _moment(real[1].second_gone), _moment(simulated[1].second_gone)),
        ("a start", f"{start_seconds:.0f} s", f"{start_seconds:.0f} s (given)"),
        ("requests, failed", *(f"{felt.requests}, {felt.failed}" for felt, _ in (real, simulated))),
        ("TTFT p50, p99", *(f"{f.ttft_p50:.2f} s, {f.ttft_p99:.2f} s" for f, _ in (real, simulated))),
        ("TPOT mean", *(f"{1000 * felt.tpot_mean:.1f} ms" for felt, _ in (real, simulated))),
    ]
    return "\n".join(["| | measured | simulated |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)])


def _moment(at: float | None) -> str:
    return "never" if at is None else f"{at:.0f} s"


def main() -> int:
    preflight.check(install=True)
    build.ensure_binaries()
    config = ClusterConfig(name=f"day-{os.getpid()}", nodes=2, gpus_per_node=1)
    with Cluster.start(config, report=print) as cluster:
        install_operator(cluster)
        began = time.time()
        with deployed(cluster, "day", manifest()) as site:
            site.wait_ready(1, START_SECONDS, print)
            start_seconds = time.time() - began
            url = site.gateway()
            answered(url, 200)
            requests, until = drawn(seed=1)
            print(f"{len(requests)} requests; a start took {start_seconds:.0f} s", flush=True)
            real = play(site, url, requests)
            explained = [e["message"] for e in site.events() if e["reason"] in ("ScaledUp", "ScaledDown")]
            # Measured afterwards: the load of it would be part of what the day's forecast remembers.
            advice = {"spec": {"autoscaling": {"mode": "Recommend"}}}
            site.kubectl("patch", "r1d", "r1", "--type=merge", "--patch", json.dumps(advice))
            probes = [probe(url, n) for n in AT_ONCE]
        print(*explained, sep="\n")
    speed = speed_from(probes)
    print(calibration(probes, speed))
    simulated = predict(requests, speed, start_seconds, until)
    print(table(real, simulated, start_seconds))
    return 1 if real[0].failed else 0


if __name__ == "__main__":
    sys.exit(main())
