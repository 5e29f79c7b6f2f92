"""The commands export and import."""

import json

import pytest
from builders import make_true_space
from click.testing import CliRunner
from exportable import add, make_source

from registry.cli.main import main
from registry.storage.store import Store


@pytest.fixture
def run(tmp_path):
    """Runs ``t2v`` on the registry of a name."""

    def call(name, *arguments, code=0):
        done = CliRunner().invoke(main, ["--registry", str(tmp_path / name), *map(str, arguments)])
        assert done.exit_code == code, done.output
        return done

    make_source(tmp_path / "source")
    return call


def test_export_and_import_tell_what_they_did(run, tmp_path):
    path = tmp_path / "some.t2v"
    written = run("source", "export", path, "--task", "flowers", "--task", "birds", "--no-results", "--json")
    assert {"tasks": 3, "results": 0, "experts": 2}.items() <= json.loads(written.stdout).items()
    assert json.loads(run("target", "import", path, "--json").stdout)["created"] is True
    again = run("target", "import", path)
    expected = "0 versions of tasks, 0 embeddings, 0 experts, 0 results, 0 lines of history"
    assert (again.stdout, again.stderr) == ("", f"Imported {path}: {expected}.\n")
    assert "Wrote" in run("source", "export", path, "--where", "num_classes > 10", "--no-experts").stderr
    run("source", "export", path, "--task", "birds")
    new = run("new", "import", path).stderr
    assert ": 1 version of tasks, 1 embedding, " in new
    assert new.endswith(
        "; the registry is new, without the starter content, which `t2v init` before an import adds.\n"
    )


def test_conflicts_are_told_in_one_sentence_and_resolved(run, tmp_path):
    path = tmp_path / "all.t2v"
    run("source", "export", path)
    ours = Store.create(tmp_path / "ours")
    ours.add_space(make_true_space())
    add(ours, "birds", fingerprint="ours")
    refused = run("ours", "import", path, code=1)
    assert refused.stderr.count("\n") == 1
    assert "task birds@1 is of other data or settings here; say which takes precedence" in refused.stderr
    kept = run("ours", "import", path, "--on-conflict", "keep").stderr
    assert "Warning: task birds@1 is of other data or settings here: kept what is here\n" in kept
    assert "Added birds@1 as birds@2.\n" in run("ours", "import", path, "--on-conflict", "take").stderr
    assert run("ours", "verify").exit_code == 0
