#!/usr/bin/env bash
# All tests, in two lanes at once: real Ray and SGLang in one, which compute; everything else in the other, which mostly
# waits for a control plane. `scripts/test.sh unit` (integration, cluster, behaviour, engine, e2e, simulate) runs one part.
set -uo pipefail
cd "$(dirname "$0")/.."

operator_tests=(.venv/bin/pytest -q)
engine_tests=(.venv-engine/bin/pytest -q -p no:warnings)
declare -A part=(
    [unit]="tests/unit tests/property tests/gpu"
    [integration]="tests/integration"
    [cluster]="tests/cluster tests/chart"
    [behaviour]="tests/behaviour"
    [engine]="tests/engine"
    [e2e]="tests/e2e"
    [simulate]="tests/simulate"
)
# No part may hang CI. SIGINT lets pytest end what its fixtures started; a minute later nothing is asked any more.
# The lanes ignore both signals, to wait for that end; what they start must not.
limit=(timeout --signal=INT --kill-after=60 1500 env --default-signal=INT,TERM)

command_of() { # command_of PART → the words of its command in the array `command`
    local runner=("${operator_tests[@]}")
    [ "$1" = engine ] && runner=("${engine_tests[@]}")
    # shellcheck disable=SC2206 # the folders are words
    command=("${limit[@]}" "${runner[@]}" ${part[$1]})
}

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }

if [ $# -gt 0 ]; then
    [ -n "${part[$1]:-}" ] || { echo "There is no part '$1'; there are: ${!part[*]}" >&2; exit 2; }
    command_of "$1"
    exec "${command[@]}" "${@:2}"
fi

.venv/bin/python -m tests.cluster build || exit 1
started=$SECONDS
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

interrupted() { # Ctrl-C, or SIGTERM: the parts that run end as pytest ends them, no other one starts
    trap '' INT TERM
    say "Interrupted: the tests end what they have started"
    touch "$logs/stop"
    local file
    for file in "$logs"/*.pid; do
        kill -INT "$(cat "$file")" 2>/dev/null
    done
    wait
    exit 130
}
trap interrupted INT TERM

lane() { # lane PART… : one after the other; each part's whole output is printed when it has ended
    local name began
    trap '' INT TERM
    for name in "$@"; do
        [ -e "$logs/stop" ] && return
        began=$SECONDS
        say "$name: started"
        command_of "$name"
        "${command[@]}" >"$logs/$name.log" 2>&1 &
        echo $! >"$logs/$name.pid"
        wait $!
        echo $? >"$logs/$name.exit"
        rm "$logs/$name.pid"
        {
            flock 9
            say "$name: ${command[*]:${#limit[@]}}"
            cat "$logs/$name.log"
            say "$name: ended after $((SECONDS - began)) s"
        } 9>"$logs/print.lock"
    done
}

say "All tests; a part's output comes when it has ended"
lane unit integration cluster behaviour &
others=$!
lane engine e2e simulate &
engines=$!
wait "$others" "$engines"

failed=()
for name in unit integration cluster behaviour engine e2e simulate; do
    [ "$(cat "$logs/$name.exit" 2>/dev/null)" = 0 ] || failed+=("$name")
done
if [ ${#failed[@]} -gt 0 ]; then
    say "FAILED: ${failed[*]} (after $((SECONDS - started)) s)"
    exit 1
fi
say "All tests passed in $((SECONDS - started)) s"
