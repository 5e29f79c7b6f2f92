"""What a shell completes, by click's own classes and once by bash itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner
from command_lines import EXPERT, TASKS, make_small_registry

from registry.cli.completion import SHELLS, VARIABLE
from registry.cli.main import main
from registry.distances import DISTANCES


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A registry of five tasks; tests only read it."""
    return make_small_registry(tmp_path_factory.mktemp("registry"))


def completions(*words, place):
    """What the last word is completed to, files left out, and whether files are among it."""
    *before, incomplete = words
    shell = BashComplete(main, {}, "t2v", VARIABLE)
    items = shell.get_completions(["--registry", str(place), *before], incomplete)
    return [item.value for item in items if item.type == "plain"], any(item.type == "file" for item in items)


@pytest.mark.parametrize(
    "words", [("nearest", ""), ("recommend", ""), ("distance", ""), ("distance", "birds", "")]
)
def test_questions_are_completed_to_tasks_and_files(folder, words):
    assert completions(*words, place=folder) == (sorted(TASKS), True)


@pytest.mark.parametrize(
    "words",
    [
        ("task", "show", ""),
        ("task", "remove", ""),
        ("task", "history", ""),
        ("result", "measure", ""),
        ("result", "list", "--task", ""),
        ("export", "team.t2v", "--task", ""),
    ],
)
def test_names_of_tasks_are_completed(folder, words):
    assert completions(*words, place=folder) == (sorted(TASKS), False)


def test_only_what_begins_alike_is_offered(folder):
    assert completions("task", "show", "fl", place=folder) == (["flowers"], False)
    assert completions("task", "show", "nonesuch", place=folder) == ([], False)


def test_experts_distances_and_commands_are_completed(folder):
    assert completions("expert", "show", "", place=folder) == ([EXPERT, "small.mit"], False)
    assert completions("nearest", "birds", "--distance", "", place=folder) == (sorted(DISTANCES), False)
    assert completions("task", "sh", place=folder) == (["show"], False)


def test_data_is_completed_to_files(folder):
    assert completions("embed", "./f", place=folder) == ([], True)
    assert completions("task", "add", "new", "", place=folder) == ([], True)


def test_without_a_registry_there_are_no_names_and_none_comes_into_being(tmp_path):
    assert completions("task", "show", "", place=tmp_path / "nowhere") == ([], False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_has_its_script(shell):
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0
    assert f"{VARIABLE}={shell}_complete" in done.stdout


def test_bash_completes_with_the_script(folder):
    program = Path(sys.executable).with_name("t2v")
    script = f"""
        source <({program} completion bash)
        COMP_WORDS=({program} nearest fl); COMP_CWORD=2
        _t2v_completion {program}
        echo "${{COMPREPLY[@]}}"
    """
    environment = {**os.environ, "T2V_REGISTRY": str(folder)}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["flowers"]
