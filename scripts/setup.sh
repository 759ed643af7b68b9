#!/usr/bin/env bash
# Makes the two environments of the project from its one lock: .venv (operator, gateway, load test, tests) and
# .venv-engine (Ray and SGLang without the CUDA kernels). Safe to run again; needs nothing but Python 3.11 or newer.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/r1-operator
uv_version=0.13.9

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }

# Debian packages first: nothing else starts when one is missing and cannot be installed.
bash scripts/debian-packages.sh

find_uv() {
    if command -v uv >/dev/null 2>&1 && uv --version >/dev/null 2>&1; then
        uv=$(command -v uv)
    else
        uv=$cache/uv-$uv_version/bin/uv
        if ! [ -x "$uv" ]; then
            say "Installing uv $uv_version from PyPI into the cache"
            python3 -m venv --clear "$cache/uv-$uv_version"
            "$cache/uv-$uv_version/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$uv_version"
        fi
    fi
}

# uv trusts certificates of its own; where a company's proxy signs the downloads, its certificate is in Debian's store.
[ -s /etc/ssl/certs/ca-certificates.crt ] && export UV_SYSTEM_CERTS=true

sync() { # sync ENVIRONMENT ARGUMENTS…: does nothing, fast, when the environment matches the lock already
    local environment=$1
    shift
    UV_PROJECT_ENVIRONMENT=$environment UV_PYTHON_DOWNLOADS=never VIRTUAL_ENV='' \
        "$uv" sync --frozen --quiet "$@"
}

# Containers of the local cluster see environment and checkout read-only: what Python compiles must lie there before, or
# each of a gang's many processes compiles SGLang anew. Importing once compiles just what is imported.
warm() { # warm ENVIRONMENT MODULE…
    local environment=$1 stamp=$1/.compiled
    shift
    [ "$stamp" -nt uv.lock ] && return
    say "Compiling what $environment imports (once)"
    env -u PYTHONDONTWRITEBYTECODE R1_CPU_MODE=1 SGLANG_USE_CPU_ENGINE=1 "$environment/bin/python" -c '
import importlib, sys
for module in sys.argv[1:]:
    importlib.import_module(module)' "$@" >/dev/null 2>"$stamp.log" || { cat "$stamp.log" >&2; exit 1; }
    rm -f "$stamp.log"
    touch "$stamp"
}

find_uv
started=$SECONDS
say "Environment .venv (operator, gateway, load test, tests)"
sync .venv --extra operator --extra gateway --extra bench --group dev
say "Environment .venv-engine (SGLang and Ray; the first time 1 to 3 min and 7 GB)"
sync .venv-engine --extra engine --group engine-dev
warm .venv r1_operator.controller.process r1_operator.cli.main r1_operator.api.types r1_operator.planning r1_gateway.feeder \
    r1_bench.cli tests.cluster.cluster tests.standin.gang openai pytest
warm .venv-engine r1_engine.serve ray ray.scripts.scripts sglang.launch_server sglang.srt.managers.scheduler \
    sglang.srt.models.deepseek_v2 r1_engine.agent r1_engine.serve_app pytest
say "Both environments are ready ($((SECONDS - started)) s)"
