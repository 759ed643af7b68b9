#!/usr/bin/env bash
# Starts a local cluster in the background and says how to serve the tiny model on it. Arguments go to `tests.cluster up`.
set -euo pipefail
cd "$(dirname "$0")/.."

.venv/bin/python -m tests.cluster up --nodes 4 --gpus-per-node 1 "$@"
cat <<'HELP'

Serve the tiny model on it, in that shell and this folder:

  helm install r1 charts/r1-operator --namespace r1-system --create-namespace --wait \
    --set images.tag=dev --set "hostPaths.allowedPrefixes={$PWD}"
  sed "s#/opt/r1#$PWD#" examples/tiny.yaml | kubectl apply -f -
  kubectl get r1d tiny -w                            # Ready after about half a minute
  kubectl port-forward service/tiny-gateway 8000 &
  .venv/bin/r1 bench --url http://127.0.0.1:8000 --concurrency 4 --requests 12
HELP
