"""``scripts/torture/torture_many.py`` kills what adding many tasks needs, and finds nothing lost or doubled."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
FAULTS = ("lost", "doubled", "wrong_reports", "problems", "left_running")


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["worker", "driver", "ray-worker", "ray-node", "s3-server"])
def test_kills_lose_and_double_nothing(tmp_path, scenario):
    if scenario.startswith("ray"):
        pytest.importorskip("ray")
    path = tmp_path / "figures.json"
    command = [
        sys.executable,
        str(SCRIPTS / "torture" / "torture_many.py"),
        "--only",
        scenario,
        "--tasks",
        "40",
    ]
    done = subprocess.run([*command, "--json", str(path)], capture_output=True, text=True, check=False)
    found = json.loads(path.read_text())[scenario]
    assert {name: found[name] for name in FAULTS} == dict.fromkeys(FAULTS, 0), done.stderr
    assert done.returncode == 0
    assert found["asked"] == found["done_after"] == 40
    assert 0 < found["at_kill"] <= found["done_before"]
    survives = scenario in {"worker", "ray-worker", "ray-node"}
    assert (found["done_before"] == 40) == survives


@pytest.mark.slow
def test_engines_are_compared_in_a_quick_run(tmp_path):
    path = tmp_path / "figures.json"
    command = [sys.executable, str(SCRIPTS / "bench" / "bench_many.py"), "--quick", "--json", str(path)]
    subprocess.run(command, capture_output=True, text=True, check=True)
    figures = json.loads(path.read_text())
    assert figures["engines"]["processes"]["same_bytes"] == figures["engines"]["processes"]["tasks"] == 24
    assert figures["many"]["open and ask"]["ratio"] > 0
