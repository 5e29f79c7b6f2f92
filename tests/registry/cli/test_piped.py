"""What another program reads, and what ``t2v`` alone says."""

import os
import resource
import shutil
import subprocess
import sys

import pytest
from command_lines import TASKS, answer, make_small_registry, ok, shown, t2v

from registry import TaskRegistry
from registry.storage.cache import read_at_rest

ALONE = "import sys; from registry.cli.main import main; main([], standalone_mode=False); print(*sys.modules)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A registry of five tasks; tests only read it."""
    return make_small_registry(tmp_path_factory.mktemp("registry"))


def blocks(stdout):
    """The cells of each block of an answer."""
    return [[line.split("\t") for line in block.splitlines()] for block in stdout.split("\n\n")]


@pytest.mark.parametrize(
    ("words", "headers"),
    [
        ("task list", ["task"]),
        ("nearest flowers", ["rank"]),
        ("expert list", ["expert"]),
        ("result list", ["task"]),
        ("distances", ["distance"]),
        ("estimators", ["estimator"]),
        ("history", ["when (UTC)"]),
        ("task history flowers", ["version", "when (UTC)"]),
        ("task show flowers", ["task", "probe"]),
        ("expert show small.mit", ["expert"]),
        ("recommend flowers", ["take", "rank", "expert", "rule", "load"]),
        ("optimize", ["table"]),
    ],
)
def test_blocks_have_a_header_and_rows_of_as_many_cells(tmp_path, folder, words, headers):
    copy = shutil.copytree(folder, tmp_path / "copy")
    if "history" in words:
        ok(copy, "task", "tag", "flowers", "--add", "x")
    done = ok(copy, *words.split())
    tables = blocks(done.stdout)
    assert [table[0][0] for table in tables] == headers
    for table in tables:
        assert len(table) > 1
        assert {len(row) for row in table} == {len(table[0])}
        assert not any(cell != cell.strip() or "─" in cell for row in table for cell in row)


def test_what_is_piped_is_what_is_shown(folder):
    for words in (["task", "list"], ["nearest", "flowers"], ["expert", "list"]):
        rows = [row for table in blocks(ok(folder, *words).stdout) for row in table]
        people = shown(folder, *words).stdout.splitlines()[-len(rows) + 1 :]
        assert [" ".join(" ".join(row).split()) for row in rows[1:]] == [
            " ".join(line.split()) for line in people
        ]
    assert [row[0] for row in blocks(ok(folder, "task", "list").stdout)[0][1:]] == list(TASKS)
    verdict = dict(blocks(ok(folder, "recommend", "flowers").stdout)[0])
    assert verdict["take"] == answer(folder, "recommend", "flowers")["verdict"]["take"]


def test_alone_it_counts_rows_and_says_what_to_do(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    before = dict(blocks(ok(copy).stdout)[0])
    assert before["registry"] == str(copy)
    assert [before[name] for name in ("task versions", "experts", "results")] == ["5", "2", "2"]
    registry = TaskRegistry(copy)
    registry.remove_task("birds", purge=True)
    registry.remove_expert("small.mit", purge=True)
    registry.optimize()
    registry.tag_task("flowers", add=["x"])
    state = read_at_rest(copy)
    assert state.rows == {
        "tasks": len(registry.tasks()),
        "experts": len(registry.experts()),
        "results": len(registry.results()),
    }
    assert "t2v recommend ./photos" in ok(copy).stderr


def test_alone_it_creates_nothing_and_opens_no_database(tmp_path, folder):
    for place, word in ((tmp_path / "none", "nothing"), (folder, "task versions")):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", ALONE],
            env=os.environ | {"T2V_REGISTRY": str(place)},
            capture_output=True,
            text=True,
            check=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert word in done.stdout
        assert {"lancedb", "pyarrow", "numpy", "torch"}.isdisjoint(done.stdout.splitlines()[-1].split())
        assert after.ru_utime - before.ru_utime < 0.5
    assert not (tmp_path / "none").exists()


def test_alone_it_names_a_manifest_that_cannot_be_read(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    manifest = min((copy / "tasks.lance" / "_versions").glob("*.manifest"))
    for content in (b"", b"LANC", manifest.read_bytes()[:-4], b"\xff" * 64 + manifest.read_bytes()[-16:]):
        manifest.write_bytes(content)
        done = t2v(copy)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr == f"Error: {copy}: what it holds cannot be read; `t2v verify` says what is wrong\n"


def test_alone_it_calls_a_file_no_registry(tmp_path):
    place = tmp_path / "file"
    place.write_text("notes")
    done = t2v(place)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"Error: {place} is a file; a registry needs a folder of its own\n"


def test_an_undo_says_what_it_leaves_and_names_what_was_added_last(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    ok(copy, "task", "tag", "flowers", "--add", "x")
    ok(copy, "token", "add", "ada", "--role", "read")
    assert "a token ends by `t2v token revoke`" in ok(copy, "undo").stderr
    assert "active" in ok(copy, "token", "list").stdout
    assert "`t2v token revoke`" not in ok(copy, "undo").stderr
    experts = tmp_path / "experts.csv"
    experts.write_text("expert,source_task\n" + "".join(f"e{number},imagenet1k\n" for number in range(7)))
    ok(copy, "expert", "import", experts)
    assert "e4 and 2 more, the last e6\t" in ok(copy, "undo", "--list").stdout


def test_a_restore_says_what_it_made_of_which_moment(folder, tmp_path):
    ok(folder, "backup", tmp_path / "backup")
    place = tmp_path / "restored"
    said = ok(place, "restore", tmp_path / "backup").stderr
    assert said.startswith(f"Restored {place} from {tmp_path / 'backup'}, as it was at 2")
    assert said.endswith(" bytes, checked row by row.\n")
