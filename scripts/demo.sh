#!/usr/bin/env bash
# From nothing to an answer: make the environment, install, and run the main job on real data that ships
# with the package. Arguments go to `t2v demo`.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/venv.sh zoo
echo "Running t2v demo ..."
exec .venv/bin/t2v demo "$@"
