#!/usr/bin/env bash
# Run the default test suite in the project's own environment: everything but tests marked slow, gpu or network.
# Arguments go to pytest: bash scripts/test.sh -m slow
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/venv.sh dev
echo "Running the tests ..."
exec .venv/bin/python -m pytest "$@"
