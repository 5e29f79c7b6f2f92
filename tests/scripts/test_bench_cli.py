"""The benchmark of the command line prints a line for each command and each peer."""

import json
import subprocess
import sys

import bench_cli
import pytest


@pytest.mark.slow
def test_every_command_has_a_time(tmp_path):
    command = [sys.executable, bench_cli.__file__, "--repeats", "1", "--json", str(tmp_path / "figures.json")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    times = json.loads((tmp_path / "figures.json").read_text())["milliseconds"]
    assert {f"t2v {words}" for words in bench_cli.WORDS} | set(bench_cli.PEERS) <= times.keys()
    assert all(line in printed and min(each) > 0 for line, each in times.items())
