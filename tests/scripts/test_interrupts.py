"""``scripts/torture``: ``interrupts.py`` leaves nothing behind, and in ``waits.py`` nobody waits for long."""

import json
import subprocess
import sys

import interrupts
import pytest
import waits


def figures_of(script, tmp_path, *options):
    """What a script counts."""
    path = tmp_path / "figures.json"
    command = [sys.executable, "-W", "ignore", script.__file__, "--json", str(path), *options]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return json.loads(path.read_text())


@pytest.mark.slow
def test_interrupts_at_random_lines_and_moments_leave_nothing_behind(tmp_path):
    figures = figures_of(interrupts, tmp_path, "--quick")
    assert figures["interrupts"] == sum(figures["of"].values()) == 40
    assert set(figures["wrong"].values()) == {0}


@pytest.mark.slow
@pytest.mark.parametrize("during", waits.DURING)
def test_a_tag_does_not_wait_for_the_end_of_work_in_bulk(tmp_path, during):
    figures = figures_of(waits, tmp_path, "--quick", "--during", during)
    assert figures["tags"] > 1
    assert figures["longest_seconds"] < max(5.0, 10 * figures["alone_longest_seconds"])


def test_what_fails_for_another_reason_than_an_interrupt_is_told_apart():
    error = ValueError("of it")
    error.__cause__ = KeyboardInterrupt()
    assert KeyboardInterrupt in interrupts._chain(error)
    assert KeyboardInterrupt not in interrupts._chain(ValueError("by itself"))
