#!/usr/bin/env bash
# Everything that must hold before a commit. Each line prints its name; the first failure ends it.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin

step() {
    local name=$1 started=$SECONDS output
    shift
    if output=$("$@" 2>&1); then
        printf '  ok    %-18s %3d s\n' "$name" $((SECONDS - started))
    else
        printf '  FAIL  %-18s %s\n%s\n' "$name" "$*" "$output" >&2
        return 1
    fi
}

echo "==> make check"
step format        $bin/ruff format --check .
step lint          $bin/ruff check .
step types         $bin/mypy
step imports       $bin/lint-imports
step file-sizes    $bin/python scripts/sizes.py
step shell         bash -c 'for file in scripts/*.sh .ci/run; do bash -n "$file"; done'
step crd           $bin/python -m r1_operator.api.crd --check
step doc-tables    $bin/python docs/planning/tables.py --check
step fidelity      $bin/python -m docs.fidelity.tables --check
step chart         $bin/python -m tests.chart.lint
