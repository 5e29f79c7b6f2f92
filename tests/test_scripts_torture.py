"""``scripts/torture.py`` kills processes, and finds all that they had acknowledged."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "torture.py"
FAULTS = ("lost", "doubled", "failed_opens", "failed_writes", "wrong_reads", "crashed_workers")


def torture(tmp_path, *arguments):
    """Exit code, figures and what was printed as an error."""
    path = tmp_path / "figures.json"
    command = [sys.executable, str(SCRIPT), "--quick", "--json", str(path), *arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    return process.returncode, json.loads(path.read_text()), process.stderr


def test_random_kills_lose_and_double_nothing(tmp_path):
    code, figures, errors = torture(tmp_path)
    assert {name: figures[name] for name in FAULTS} == dict.fromkeys(FAULTS, 0), errors
    assert (code, figures["dirty_after_repair"]) == (0, 0)
    assert figures["kills"] >= 4
    assert figures["acknowledged_task"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("during", ["optimize", "index-save"])
def test_kills_inside_of_an_operation_leave_a_registry_that_opens(tmp_path, during):
    code, figures, errors = torture(tmp_path, "--during", during)
    assert {name: figures[name] for name in FAULTS} == dict.fromkeys(FAULTS, 0), errors
    assert (code, figures["kills_inside"]) == (0, 3)
