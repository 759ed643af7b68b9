"""`python -m benchmarks.measure`: bring up a local cluster with the operator and one deployment, measure, print."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.behaviour.world import Reader
from tests.cluster.cluster import Cluster
from tests.cluster.config import ClusterConfig
from tests.e2e.site import CHECKOUT, deployed, install_operator, tiny_manifest

from .dead_rank import measure_dead_rank
from .idle import measure_idle
from .report import table
from .start import measure_start

_STAND_IN = {
    "image": "r1-standin:dev",
    "env": [
        {"name": "PYTHONPATH", "value": "/opt/r1/tests/standin/image:/opt/r1"},
        {"name": "R1_STANDIN_CHECK_WEIGHTS", "value": "0"},
    ],
}


def measure(stand_in: bool) -> Iterator[dict[str, Any]]:
    """Figures so far, after each part, on a cluster of its own that is gone in the end."""
    manifest = tiny_manifest("r1", **({"engine": _STAND_IN} if stand_in else {}))
    rank = None if stand_in else "sglang::scheduler"
    figures: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, load average {os.getloadavg()[1]:.1f} at the start",
        "engine": "stand-in" if stand_in else "SGLang on processor cores, 2 nodes, TP 2, attention DP 2, EP 2",
    }
    with Cluster.start(ClusterConfig(name=f"measure-{os.getpid()}", nodes=2, gpus_per_node=1), report=_say) as cluster:
        _say("installing the operator")
        install_operator(cluster)
        with deployed(cluster, "measure", manifest) as site:
            _say("apply → first token")
            figures["start"] = dataclasses.asdict(measure_start(site, Reader(cluster), manifest))
            yield figures
            _say("an operator with nothing to do")
            figures["idle"] = dataclasses.asdict(measure_idle(cluster))
            yield figures
            _say("kill -9 of a rank")
            dead = measure_dead_rank(site, manifest["spec"]["model"]["servedName"], rank, _say)
            figures["deadRank"] = dataclasses.asdict(dead)
            yield figures
            site.kubectl("delete", "r1d", "r1", "--timeout=240s")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.measure", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--stand-in", action="store_true", help="the tests' stand-in in place of Ray and SGLang")
    options = parser.parse_args()
    os.chdir(CHECKOUT)
    for figures in measure(options.stand_in):
        _say(table(figures))
        if options.json is not None:
            options.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
