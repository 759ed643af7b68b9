#!/usr/bin/env bash
# Installs the Debian packages the project needs where we are root; elsewhere prints the one command to type.
# Then checks that this machine lets us make namespaces, which the local cluster lives in.
set -euo pipefail

missing=$(python3 - <<'PYTHON'
import importlib.util, os, shutil
from tests.cluster.preflight import missing_packages, with_system_path

path = with_system_path(os.environ)["PATH"]
missing = list(missing_packages(lambda program: shutil.which(program, path=path)))
# Debian's own Python makes no virtual environment before this package is in; uv, where it is there, needs none.
if shutil.which("uv") is None and importlib.util.find_spec("ensurepip") is None:
    missing.append("python3-venv")
print(*missing)
PYTHON
)
if [ -n "$missing" ]; then
    install="apt-get install --yes --no-install-recommends $missing"
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        echo "Missing Debian packages. Type this, then run the same command again:" >&2
        echo "    sudo sh -c 'apt-get update && $install'" >&2
        exit 1
    fi
    echo "==> Installing Debian packages: $missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086 # the words are arguments
    $install -qq >/dev/null
fi
python3 -m tests.cluster preflight >/dev/null
