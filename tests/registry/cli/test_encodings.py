"""Output in any encoding of the terminal: what it lacks is spelled out, and nothing ends with a traceback."""

import os
import subprocess
import sys

import pytest

PRINT = """
from registry.faces import terminal
from registry.cli.main import main
import click

@main.command()
def say():
    terminal.say("caf\\u00e9 \\u65e5\\u672c")
    terminal.table(("task", ">score"), [("\\u65e5\\u672c", 1)])
    terminal.message("\\u65e5\\u672c")
    click.echo("\\u65e5\\u672c")

main(["say"])
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_encoding_shows_every_text(encoding):
    done = subprocess.run(
        [sys.executable, "-c", PRINT],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    word = "日本".encode() if encoding == "utf-8" else b"\\u65e5\\u672c"
    assert word in done.stdout
    assert word in done.stderr
    if encoding == "cp1252":
        assert "café".encode("cp1252") in done.stdout
