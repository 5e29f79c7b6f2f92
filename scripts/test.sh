#!/usr/bin/env bash
# Run the default test suite in the project's own environment: everything but tests marked slow, gpu, network,
# docs or browser. In two processes, each of which takes one file after the other, as what the tests of a file share
# is made once; arguments go to pytest: bash scripts/test.sh -n 0 -m slow
# One thread each for sums: with two, the processes' threads wait for each other and take twice the time.
# With --browser as the first argument, run those marked browser instead, after installing what they need:
# playwright, Chromium where apt-get may, and axe-core as scripts/axe/package-lock.json pins it.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
unset PYTHONDONTWRITEBYTECODE # the many processes that tests start need not compile the package each

if [ "${1:-}" = --browser ]; then
    shift
    . scripts/venv.sh dev,browser
    if ! command -v chromium chromium-browser google-chrome >/dev/null && [ -z "${T2V_CHROMIUM:-}" ]; then
        if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
            echo "Chromium is missing: install it, or name one in T2V_CHROMIUM" >&2
            exit 1
        fi
        echo "Installing Chromium ..."
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
    fi
    if ! cmp -s scripts/axe/package-lock.json .venv/axe/installed; then
        echo "Installing axe-core into .venv/axe ..."
        mkdir -p .venv/axe
        cp scripts/axe/package.json scripts/axe/package-lock.json .venv/axe/
        npm ci --prefix .venv/axe --ignore-scripts --no-audit --no-fund --silent
        cp scripts/axe/package-lock.json .venv/axe/installed
    fi
    echo "Running the browser tests ..."
    exec .venv/bin/python -m pytest -m browser tests/web/test_browser_*.py "$@"
fi

. scripts/venv.sh dev
if [ $# = 0 ] && [ -z "${TMPDIR:-}" ] && [ -w /dev/shm ] && [ "$(df --output=avail /dev/shm | tail -n 1)" -gt 8000000 ]; then
    # Files of the default tests lie in memory: on a disk they wait, and take a third more time in the system.
    TMPDIR=$(mktemp -d -p /dev/shm t2v-tests-XXXXXX)
    export TMPDIR
    trap 'rm -rf "$TMPDIR"' EXIT
fi
echo "Running the tests ..."
.venv/bin/python -m pytest -n 2 --dist loadfile "$@"
