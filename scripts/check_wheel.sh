#!/usr/bin/env bash
# Build the wheel, install it without extras into a fresh environment, and ask it for help and for one answer.
set -euo pipefail
cd "$(dirname "$0")/.."
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$work" .
"$work/venv/bin/python" - "$work"/*.whl <<'EOF'
import pathlib, sys, zipfile
inside = set(zipfile.ZipFile(sys.argv[1]).namelist())
folders = ("registry/web/templates", "registry/web/static", "registry/pictures/static")
wanted = [str(file) for folder in folders for file in pathlib.Path(folder).iterdir()]
missing = sorted(set(wanted) - inside)
sys.exit(f"the wheel lacks {missing}" if missing or not wanted else 0)
EOF
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt "$work"/*.whl
cd "$work"
export T2V_REGISTRY="$work/registry"
venv/bin/t2v --help >/dev/null
venv/bin/t2v init
venv/bin/t2v nearest mnist -k 3
echo "The wheel installs and answers."
