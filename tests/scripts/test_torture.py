"""``scripts/torture/torture.py`` kills processes, and finds all that they had acknowledged."""

import json
import subprocess
import sys

import pytest
import torture
import torture_workers
from templates import copied

FAULTS = ("lost", "doubled", "failed_opens", "failed_writes", "wrong_reads", "crashed_workers")


def run_script(tmp_path, *arguments):
    """Exit code, figures and what was printed as an error."""
    path = tmp_path / "figures.json"
    command = [sys.executable, torture.__file__, "--quick", "--json", str(path), *arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    return process.returncode, json.loads(path.read_text()), process.stderr


@pytest.mark.slow
def test_random_kills_lose_and_double_nothing(tmp_path):
    code, figures, errors = run_script(tmp_path)
    assert {name: figures[name] for name in FAULTS} == dict.fromkeys(FAULTS, 0), errors
    assert (code, figures["dirty_after_repair"]) == (0, 0)
    assert figures["kills"] >= 4
    assert figures["acknowledged_task"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("during", ["optimize", "index-save"])
def test_kills_inside_of_an_operation_leave_a_registry_that_opens(tmp_path, during):
    code, figures, errors = run_script(tmp_path, "--during", during)
    assert {name: figures[name] for name in FAULTS} == dict.fromkeys(FAULTS, 0), errors
    assert (code, figures["kills_inside"]) == (0, 3)


@pytest.mark.parametrize(
    ("acknowledged", "lost"),
    [
        (["task", "ghost", 1], 1),
        (["expert", "ghost"], 1),
        (["result", "ghost"], 1),
        (["removed", "base0"], 1),
        (["tag", "base0", "red"], 1),
        (["alias", "base0", 1], 1),
        (["task", "base0", 1], 0),
    ],
    ids=["task", "expert", "result", "removal", "tag", "alias", "nothing"],
)
def test_what_was_acknowledged_and_is_not_there_is_told(tmp_path, acknowledged, lost):
    copied("torture", lambda folder: folder.mkdir() or torture_workers.make_registry(folder), tmp_path)
    torture_workers.Journal(tmp_path / "journals" / "worker").add(*acknowledged)
    counts = torture.compare(tmp_path, torture_workers.Acknowledged(tmp_path))
    assert (counts["lost"], counts["doubled"], counts["failed_opens"]) == (lost, 0, 0)
