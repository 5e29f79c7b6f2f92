"""``print(answer)`` in Python prints what the command line prints."""

import pickle

from click.testing import CliRunner
from templates import starter

from registry import TaskRegistry
from registry.cli.main import main
from registry.faces import terminal


def test_answers_print_as_on_the_command_line(tmp_path):
    registry = starter(tmp_path / "registry")
    for command in ("nearest mnist -k 3", "recommend mnist -k 2"):
        name, _, _, k = command.split()
        answer = getattr(registry, name)("mnist", k=int(k))
        with terminal.for_people():
            done = CliRunner().invoke(main, ["--registry", str(tmp_path / "registry"), *command.split()])
        assert str(answer) == done.output.rstrip("\n")
        assert str(pickle.loads(pickle.dumps(answer))) == str(answer)
        assert "<table>" in answer._repr_html_()
        if name == "nearest":
            query, neighbors = answer
            assert (query.task, len(neighbors)) == ("mnist", 3)


def test_an_embedding_prints_as_on_the_command_line(tmp_path):
    embedding = TaskRegistry(tmp_path / "registry").embed("sklearn:digits", max_samples=40)
    with terminal.for_people():
        done = CliRunner().invoke(main, ["embed", "sklearn:digits", "--max-samples", "40"])
    shown, printed = done.output.splitlines()[:-1], str(embedding).splitlines()
    assert [line for line in shown if "seconds" not in line] == [
        line for line in printed if "seconds" not in line
    ]
    assert "<pre>sklearn:digits" in embedding._repr_html_()
