#!/usr/bin/env bash
# Formatting, lint and types. With --fix, repair what can be repaired first.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/venv.sh dev
if [ "${1:-}" = "--fix" ]; then
    .venv/bin/ruff check --fix --quiet . || true
    .venv/bin/ruff format --quiet .
fi
echo "Checking format, lint and types ..."
.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/mypy
