#!/usr/bin/env bash
# Run the default test suite in the project's own environment: everything but tests marked slow, gpu or network.
# In two processes, a file of tests at a time; arguments go to pytest: bash scripts/test.sh -n 0 -m slow
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/venv.sh dev
echo "Running the tests ..."
exec .venv/bin/python -m pytest -n 2 --dist loadfile "$@"
