# Sourced by the other scripts, from the repository's root: makes .venv with the standard library's venv and
# installs this package into it, in the versions of constraints.txt; `dev` adds the developers' tools.
# Does nothing where nothing has changed since the last time.

extras="${1:-}"
python="${PYTHON:-python3}"
wanted="$(cat pyproject.toml constraints.txt | sha256sum | cut -d' ' -f1)"
stamp=".venv/installed${extras:+-$extras}"

if [ ! -x .venv/bin/python ]; then
    "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || {
        echo "Python 3.11 to 3.13 is needed, '$python' is $("$python" --version); set PYTHON to another" >&2
        exit 1
    }
    echo "Making .venv with $("$python" --version) ..."
    "$python" -m venv .venv
fi
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "Installing task2vec-registry${extras:+[$extras]} into .venv (a minute or two) ..."
    # torch first: with it in place, torchvision brings no other build of torch.
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".${extras:+[$extras]}"
    echo "$wanted" >"$stamp"
fi
