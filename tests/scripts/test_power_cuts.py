"""``scripts/torture/power_cuts.py`` cuts the power of a disk, and finds all that was acknowledged."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import power_cuts
import pytest
from logged_disk import ENTRY, FLUSH, MARK, WRITE, Log
from power_cut_writer import Operation, State

SECTOR = 512


@pytest.fixture
def log(tmp_path):
    """Two sectors of a and a flush; then one of b over the first, and two of c from the second on."""
    path, image = tmp_path / "log", tmp_path / "before"
    image.write_bytes(bytes(4 * SECTOR))
    events = [
        (WRITE, 0, b"a" * 2 * SECTOR),
        (FLUSH, 0, b""),
        (WRITE, 0, b"b" * SECTOR),
        (MARK, 0, b"end 1"),
        (WRITE, SECTOR, b"c" * 2 * SECTOR),
        (FLUSH, 0, b""),
    ]
    path.write_bytes(b"".join(ENTRY.pack(kind, at, len(what)) + what for kind, at, what in events))
    return lambda: Log(path, image)


def sectors(path):
    return path.read_bytes()[::SECTOR].replace(b"\0", b"-").decode()


def test_a_cut_has_what_was_flushed_and_a_part_of_the_rest(log, tmp_path):
    states = {1: set(), 5: set()}
    for seed in range(60):
        cut = log()
        for position in states:
            assert cut.cut(position, tmp_path / "cut", random.Random(seed)) == {1: 1, 5: 2}[position]
            states[position].add(sectors(tmp_path / "cut"))
        (tmp_path / "before").write_bytes(bytes(4 * SECTOR))  # which was brought forward
    assert states[1] == {"----", "a---", "-a--", "aa--"}
    assert states[5] == {one + rest for one in "ab" for rest in ("a--", "c--", "cc-", "ac-")}


def test_what_is_lost_doubled_or_strange_is_told():
    def state(**rows):
        return State({"tasks": Counter(rows)}, {"tasks": Counter(rows)})

    operation = Operation("add", state(old=1), state(old=1, new=1))
    kinds = lambda now: sorted({kind for kind, _ in power_cuts.differences(now, operation)})  # noqa: E731
    assert kinds(state(old=1)) == kinds(state(old=1, new=1)) == []
    assert kinds(state(new=1)) == ["lost"]
    assert kinds(state(old=2)) == kinds(state(old=1, new=2)) == ["doubled"]
    assert kinds(state(old=1, other=1)) == ["strange"]


@pytest.mark.slow
@pytest.mark.parametrize("file_system", ["ext4", "xfs"])
def test_no_acknowledged_write_is_lost_or_doubled_at_a_power_cut(file_system, tmp_path):
    if os.geteuid() or not Path("/dev/fuse").exists() or not shutil.which(f"mkfs.{file_system}"):
        pytest.skip(f"needs root, /dev/fuse and mkfs.{file_system}")
    figures = tmp_path / "figures.json"
    arguments = ["--file-system", file_system, "--cuts", "16", "--operations", "30", "--json", str(figures)]
    command = [sys.executable, power_cuts.__file__, *arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    counts = json.loads(figures.read_text())
    assert counts["cuts"] == 16
    assert counts["with writes not flushed"] > 0
