"""The pages of the command line are what the program prints, and every command says what a user needs."""

import re
import runpy
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from registry.cli.main import MODULES, main

ROOT = Path(__file__).parents[2]
REMAKE = "a page of docs/cli*.md is out of date: run python scripts/make/make_cli_docs.py"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "scripts" / "make" / "make_cli_docs.py"))


def leaf_commands(command=main, path="t2v"):
    """Every command that does something, by its words: all but groups, and those groups that work alone too."""
    if not isinstance(command, click.Group):
        return {path: command}
    leaves = {path: command} if command.invoke_without_command and command is not main else {}
    context = click.Context(command)
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        leaves |= leaf_commands(child, f"{path} {name}")
    return leaves


def examples(command):
    lines = [line.strip() for line in command.help.splitlines()]
    return [line for line in lines if line.startswith("t2v ")]


def parse(line):
    """Parse a command line without running it; returns the command that it would run."""
    context = click.Context(main, info_name="t2v", **main.context_settings)
    command, words = main, shlex.split(line)[1:]
    while isinstance(command, click.Group):
        words = command.make_parser(context).parse_args(args=words)[1]
        if not words and command.invoke_without_command:
            return command
        command = command.get_command(context, words.pop(0))
    command.make_context(command.name, words, parent=context)
    return command


def test_docs_are_the_help(script):
    rendered = script["render"]()
    assert {name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in rendered} == rendered, REMAKE
    assert {path.name for path in (ROOT / "docs").glob("cli*.md")} == set(rendered)
    assert {path: path in "\n".join(rendered.values()) for path in leaf_commands()} == dict.fromkeys(
        leaf_commands(), True
    )


@pytest.mark.parametrize("change", ["help", "option", "command"])
def test_a_change_of_the_program_would_be_noticed(script, monkeypatch, change):
    before = script["render"]()
    nearest = main.get_command(click.Context(main), "nearest")
    if change == "help":
        monkeypatch.setattr(nearest, "help", "Something else.")
    elif change == "option":
        monkeypatch.setattr(nearest, "params", nearest.params[:1])
    else:
        monkeypatch.delitem(MODULES, "nearest")
        monkeypatch.delitem(main.commands, "nearest")
    assert script["render"]() != before


def test_every_command_has_examples_and_each_parses():
    parsed = {path: {parse(line) for line in examples(leaf)} for path, leaf in leaf_commands().items()}
    assert parsed == {path: {leaf} for path, leaf in leaf_commands().items()}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("t2v nearest", "Missing parameter: query"),
        ("t2v nearest flowers --nonesuch", "No such option '--nonesuch'."),
        ("t2v recommend flowers --max-params much", "'much' is no size"),
    ],
)
def test_an_example_that_does_not_parse_would_be_noticed(line, message):
    with pytest.raises(click.UsageError, match=re.escape(message)):
        parse(line)


def test_help_lists_every_command_and_cuts_no_sentence():
    assert sorted(main.list_commands(None)) == sorted(main.commands)
    for words in ([], ["task"], ["expert"], ["result"], ["probes"]):
        printed = CliRunner().invoke(main, [*words, "--help"], terminal_width=80).stdout
        assert not re.search(r"\w\.\.\.$", printed, re.MULTILINE)


def test_every_option_is_explained():
    options = [
        (path, option)
        for path, command in leaf_commands().items()
        for option in command.params
        if isinstance(option, click.Option)
    ]
    assert [f"{path}: {option.name}" for path, option in options if not option.help] == []
