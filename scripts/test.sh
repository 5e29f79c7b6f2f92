#!/usr/bin/env bash
# Run the default test suite in the project's own environment: everything but tests marked slow, gpu or network.
# In two processes, a file of tests at a time; arguments go to pytest: bash scripts/test.sh -n 0 -m slow
# One thread each for sums: with two, the processes' threads wait for each other and take twice the time.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/venv.sh dev
echo "Running the tests ..."
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
exec .venv/bin/python -m pytest -n 2 --dist loadfile "$@"
