#!/usr/bin/env bash
# All tests, the cheap ones first: decisions, then behaviour on a real control plane, then real Ray and SGLang.
# `scripts/test.sh unit` (or behaviour, engine, e2e) runs one part.
set -uo pipefail
cd "$(dirname "$0")/.."
part=${1:-all}
started=$SECONDS
failed=()

run() { # run NAME COMMAND…
    local name=$1 began=$SECONDS
    shift
    [ "$part" = all ] || [ "$part" = "$name" ] || return 0
    printf '\n\033[1m==>\033[0m %s\n' "$name: $*"
    if "$@"; then
        printf '\033[1m==>\033[0m %s passed in %d s\n' "$name" $((SECONDS - began))
    else
        printf '\033[1m==>\033[0m %s FAILED after %d s\n' "$name" $((SECONDS - began))
        failed+=("$name")
    fi
}

if [ "$part" != unit ] && [ "$part" != engine ]; then
    .venv/bin/python -m tests.cluster build || exit 1
fi
run unit        .venv/bin/pytest -q tests/unit tests/property
run integration .venv/bin/pytest -q tests/integration tests/bench
run cluster     .venv/bin/pytest -q tests/cluster tests/chart
run behaviour   .venv/bin/pytest -q tests/behaviour
run engine      .venv-engine/bin/pytest -q tests/engine
run e2e         .venv/bin/pytest -q tests/e2e

echo
if [ ${#failed[@]} -gt 0 ]; then
    echo "FAILED: ${failed[*]} (after $((SECONDS - started)) s)"
    exit 1
fi
echo "All tests passed in $((SECONDS - started)) s"
