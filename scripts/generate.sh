#!/usr/bin/env bash
# Writes every generated file anew. `make check` fails when one of them is out of date.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/python -m r1_operator.api.crd
.venv/bin/python docs/planning/tables.py
.venv/bin/python -m docs.fidelity.tables
