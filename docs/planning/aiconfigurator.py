"""Asks AIConfigurator for the figures that `tables.py` compares our estimate with, and says where they differ.

    python -m venv ELSEWHERE && ELSEWHERE/bin/pip install aiconfigurator==0.12.0
    python docs/planning/aiconfigurator.py ELSEWHERE/bin/aiconfigurator

It needs an environment of its own: it pins packages that ours does not have. Prints one line a figure; exit code 1 if
one of them is not what `tables.py` records.
"""

from __future__ import annotations

import re
import subprocess
import sys

from tables import ESTIMATED, INPUT, OUTPUT, R1, Estimated

SYSTEMS = {"H100": "h100_sxm", "H200": "h200_sxm"}
TOLERANCE = 0.001  # of a figure: it prints three digits of a millisecond


def command(program: str, entry: Estimated) -> list[str]:
    """Its terms: tp is of one attention group, the batch is that of one group, and experts are cut or spread."""
    layout = entry.layout
    options = {
        "model-path": R1,
        "system": SYSTEMS[entry.hardware.split("x")[0]],
        "backend": "sglang",
        "perf-db-version": "0.5.14",
        "estimate-mode": "static_gen",
        "isl": INPUT,
        "osl": OUTPUT,
        "batch-size": entry.batch // layout.attention_dp,
        "tp-size": layout.attention_tp,
        "attention-dp-size": layout.attention_dp,
        "moe-tp-size": layout.expert_tp,
        "moe-ep-size": layout.expert_parallel,
        "nextn": 0,
    }
    return [program, "cli", "estimate", "--no-color", *(f"--{name}={value}" for name, value in options.items())]


def main() -> int:
    if len(sys.argv) != 2:
        print(f"usage: {sys.argv[0]} PATH_OF_AICONFIGURATOR", file=sys.stderr)
        return 2
    wrong = 0
    for entry in ESTIMATED:
        run = subprocess.run(command(sys.argv[1], entry), capture_output=True, text=True, check=False)
        found = re.search(r"TPOT:\s+([\d.]+) ms", run.stdout)
        if found is None:
            print(f"no figure for {entry}: {(run.stderr.strip() or run.stdout.strip())[-300:]}", file=sys.stderr)
            return 1
        same = abs(float(found[1]) / entry.milliseconds - 1) <= TOLERANCE
        wrong += not same
        verdict = "as recorded" if same else f"recorded is {entry.milliseconds}"
        print(f"{entry.nodes} × {entry.hardware} {entry.layout.describe()} {entry.batch}: {found[1]} ms, {verdict}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
