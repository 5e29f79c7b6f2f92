"""The read cache answers what the tables would, after every kind of write and whatever becomes of its files."""

import json
import os
import shutil
import subprocess
import sys
from itertools import cycle, islice
from pathlib import Path

import pytest
from command_lines import make_small_registry, t2v
from written_registries import DAMAGES, QUESTIONS, answers, writes

from registry import TaskRegistry
from registry.errors import StorageError
from registry.storage import cache as cache_files
from registry.storage import store as stores
from registry.storage.cache import CachedTable, ReadCache
from registry.storage.schema import SCHEMA_VERSION

FEW = [QUESTIONS[0], ("task", "show", "flowers"), ("expert", "list"), ("result", "list"), QUESTIONS[-1]]
LISTS = {"expert": ("expert", "list", "--json"), "result": ("result", "list", "--json")}


@pytest.fixture
def folder(tmp_path):
    """A registry of five tasks with a current cache."""
    place = make_small_registry(tmp_path / "small")
    t2v(place, *QUESTIONS[0])
    return place


@pytest.fixture
def slowly(monkeypatch):
    """Asks the tables themselves."""

    def ask(folder, questions=QUESTIONS):
        with monkeypatch.context() as patch:
            patch.setattr(stores.CachedDatabase, "_trusts_cache", False)
            patch.setattr(ReadCache, "names", lambda *_, **__: None)
            return answers(folder, questions)

    return ask


@pytest.fixture
def at_once(monkeypatch):
    """Asks where LanceDB must not be connected to."""

    def fail(place):
        raise AssertionError(f"{place.uri} was connected to")

    def ask(folder, questions=QUESTIONS):
        with monkeypatch.context() as patch:
            patch.setattr(stores, "_connect", fail)
            return answers(folder, questions)

    return ask


@pytest.mark.parametrize("count", [1, pytest.param(len(QUESTIONS), marks=pytest.mark.slow)])
def test_after_every_kind_of_write_answers_are_those_of_the_tables(folder, at_once, slowly, count):
    """By default after each write what lists it, the history, and one of all questions, which take turns."""
    assert at_once(folder) == slowly(folder)
    turns, seen = cycle(QUESTIONS), set()
    for name, write in writes().items():
        write(TaskRegistry(folder))
        listing = LISTS.get("expert" if name == "bundle" else name.partition("_")[0], ("task", "list"))
        questions = [*islice(turns, count), listing, ("history",)]
        stale, right, current = (ask(folder, questions) for ask in (answers, slowly, at_once))
        assert stale == right == current, name
        seen.add((current[-2], current[-1]))
    assert len(seen) == len(writes()) - 2  # tidying shows in no answer


def test_commands_that_write_leave_the_cache_for_the_next(tmp_path, at_once):
    t2v(tmp_path / "new", "init")
    assert any("mnist" in str(answer) for answer in at_once(tmp_path / "new"))
    t2v(tmp_path / "new", "task", "tag", "mnist", "--add", "seen")
    assert "seen" in str(at_once(tmp_path / "new", [("task", "show", "mnist")]))


@pytest.mark.parametrize("shift", [0, *(pytest.param(shift, marks=pytest.mark.slow) for shift in (1, 2))])
def test_a_damaged_file_is_as_if_there_were_none(folder, at_once, slowly, shift):
    right = slowly(folder, FEW)
    names = sorted(path.name for path in (folder / "index").iterdir())
    for number, name in enumerate(names, start=shift * len(names)):
        path, (damage, apply) = folder / "index" / name, list(DAMAGES.items())[number % len(DAMAGES)]
        if path.exists():
            apply(path)
            assert answers(folder, FEW) == right, (name, damage)
            if path.is_dir():
                path.rmdir()
                assert answers(folder, FEW) == right, (name, damage)
            assert at_once(folder, FEW) == right, (name, damage)


def rewritten(folder, **changes):
    path = folder / "index" / cache_files.MANIFEST
    manifest = json.loads(path.read_bytes().partition(b"\n")[2])
    path.write_bytes(cache_files._sealed({**manifest, **changes}))


def test_a_cache_of_another_version_is_made_again(folder, at_once, slowly):
    right = slowly(folder, FEW)
    for changes in ({"format": 2}, {"schema": 4}, {"tables": {}}, {"tables": None}):
        rewritten(folder, **changes)
        assert answers(folder, FEW) == right == at_once(folder, FEW), changes


def test_an_older_cache_and_that_of_another_registry_are_not_believed(folder, at_once, slowly, tmp_path):
    shutil.copytree(folder / "index", tmp_path / "older")
    TaskRegistry(folder).tag_task("flowers", add=["later"])
    right = slowly(folder, FEW)
    for foreign in (tmp_path / "older", make_small_registry(tmp_path / "other") / "index"):
        if not foreign.exists():
            answers(foreign.parent, FEW)
        shutil.rmtree(folder / "index")
        shutil.copytree(foreign, folder / "index")
        assert answers(folder, FEW) == right == at_once(folder, FEW)


def test_a_registry_that_is_replaced_is_read_anew_by_an_open_process(folder, tmp_path):
    registry = TaskRegistry(folder)
    assert "new" not in [task.name for task in registry.tasks()] + [
        n.task for n in registry.nearest("flowers")[1]
    ]
    other = make_small_registry(tmp_path / "other")
    writes()["add"](TaskRegistry(other))
    answers(other)
    folder.rename(tmp_path / "before")
    other.rename(folder)
    assert "new" in [task.name for task in registry.tasks()]
    assert "new" in [neighbor.task for neighbor in registry.nearest("flowers")[1]]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_read(folder, at_once, slowly):
    folder.chmod(0o500)
    assert at_once(folder) == slowly(folder)
    (folder / "index").chmod(0o000)
    assert answers(folder) == slowly(folder)
    (folder / "index").chmod(0o700)
    folder.chmod(0o700)


def test_a_cache_that_cannot_be_written_is_no_error(folder, slowly):
    shutil.rmtree(folder / "index")
    (folder / "index").write_text("in the way")
    assert answers(folder, FEW) == slowly(folder, FEW)


def test_a_damaged_table_is_reported_though_the_cache_is_whole(folder):
    [file] = (folder / "tasks.lance" / "data").iterdir()
    content = file.read_bytes()
    file.write_bytes(content[:-40] + bytes(8) + content[-32:])
    with pytest.raises(StorageError, match="damaged"):
        TaskRegistry(folder).tasks()
    assert [problem.kind for problem in TaskRegistry(folder).verify()] != []


def test_a_write_between_check_and_read_gives_the_rows_of_before(folder, monkeypatch):
    read, written = ReadCache._rows, []

    def rows(self, file):
        if not written:
            written.append(TaskRegistry(folder).remove_task("birds"))
        return read(self, file)

    monkeypatch.setattr(ReadCache, "_rows", rows)
    registry = TaskRegistry(folder)
    assert {"birds", "flowers"} <= {task.name for task in registry.tasks()}
    assert "birds" not in {task.name for task in registry.tasks()}


def test_what_changes_while_it_is_copied_is_left_out(folder):
    registry = TaskRegistry(folder)
    registry.tag_task("flowers", add=["x"])
    database = registry._store.database

    def read(name):
        rows = CachedTable(database._version(name), database.read(name, row_ids=True))
        if name == "tasks":
            TaskRegistry(folder).tag_task("flowers", add=["y"])
        return rows

    cache = database.place.cache
    cache.renew(database.registry_id(), read)
    assert cache.table("tasks") is None
    assert cache.table("experts").rows.num_rows
    assert ReadCache(folder).names("tasks", builtin=True) is None


def test_a_cache_is_current_however_the_place_is_spelled_and_after_a_move(folder, at_once, monkeypatch):
    right = at_once(folder, FEW)
    monkeypatch.chdir(folder.parent)
    for spelled in ("small", "./small/", "../" + folder.parent.name + "/small"):
        assert at_once(spelled, FEW) == right, spelled
        assert ReadCache(Path(spelled)).names("tasks", builtin=True) is not None
    folder.rename(folder.with_name("moved"))
    assert at_once(folder.with_name("moved"), FEW) == right


def test_a_reader_keeps_what_it_has_mapped(folder):
    kept = ReadCache(folder, SCHEMA_VERSION).table("tasks") or pytest.fail("no cache")
    before = kept.rows.to_pylist()
    TaskRegistry(folder).tag_task("flowers", add=["x"])
    answers(folder)  # which removes the file
    assert kept.rows.to_pylist() == before


LOADED = """
import os, sys
from registry.cli.main import main
try:
    main(prog_name="t2v")
except SystemExit:
    print(sorted({"numpy", "pyarrow"} & sys.modules.keys()))
del os.environ["_T2V_COMPLETE"]
for words in (["nearest", "flowers"], ["task", "list"], ["task", "show", "flowers"], ["expert", "list"],
              ["result", "list"], ["recommend", "flowers"]):
    main(words, standalone_mode=False)
print(sorted({"lancedb", "pandas", "torch"} & sys.modules.keys()))
main(["task", "tag", "flowers", "--add", "new"], standalone_mode=False)
print(sorted({"lancedb", "pandas", "torch", "urllib3"} & sys.modules.keys()))
"""


def test_questions_load_no_lancedb_and_writes_little_besides(folder):
    complete = {"_T2V_COMPLETE": "bash_complete", "COMP_WORDS": "t2v task show fl", "COMP_CWORD": "3"}
    environment = {**os.environ, "T2V_REGISTRY": str(folder), **complete}
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, env=environment)
    lines = done.stdout.splitlines()
    assert (lines[:2], lines[-2:]) == (["plain,flowers", "[]"], ["[]", "['lancedb']"]), done.stderr
