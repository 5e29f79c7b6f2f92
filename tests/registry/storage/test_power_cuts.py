"""What was acknowledged survives a power cut, and what one leaves of a write in progress can be repaired."""

import os
import re
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from builders import make_space, make_task
from click.testing import CliRunner
from small_stores import SPACE, add, keys

from registry.cli.main import main as t2v
from registry.errors import StorageError
from registry.storage.folders import LocalPlace
from registry.storage.moments import Moments
from registry.storage.store import Store


def manifests(store, table):
    """Newest first."""
    return sorted((Path(store.uri) / f"{table}.lance" / "_versions").glob("*.manifest"))


def empty(path):
    path.write_bytes(b"")


def cut_short(path):
    path.write_bytes(path.read_bytes()[:50])


def zeros(path):
    path.write_bytes(bytes(path.stat().st_size))


def problems_of(store, kind="torn", **options):
    return [problem for problem in Store(store.uri).verify(**options) if problem.kind == kind]


@pytest.mark.parametrize("tear", [empty, cut_short, zeros])
def test_a_torn_version_that_was_acknowledged_is_named_and_repair_goes_back(store, tear):
    add(store, "kept")
    add(store, "lost")
    tear(manifests(store, "tasks")[0])
    message = (
        f"{store.uri}: table tasks cannot be read: a version is empty or cut short, as a power cut leaves it; "
        "`t2v verify --repair` goes back to the last whole one and says what was lost"
    )
    with pytest.raises(StorageError, match=f"^{re.escape(message)}$"):
        Store(store.uri).tasks()
    with pytest.raises(StorageError, match=re.escape("cannot be written: a version is empty or cut short")):
        Store(store.uri).database.append("tasks", [make_task("other")])
    (problem,) = problems_of(store)
    assert (problem.where, problem.repaired) == ("tasks", False)
    assert problem.message == "version 3 is empty, cut short or without its data, as a power cut leaves it"
    (problem,) = problems_of(store, repair=True)
    assert problem.repaired
    assert re.search(
        r"leaves it: it is as of 20\S+ again, and what was written to it since is lost", problem.message
    )
    assert "task.add lost@1" in problem.message
    assert Store(store.uri).verify() == []
    assert keys(Store(store.uri)) == [("kept", 1)]
    add(Store(store.uri), "lost")
    assert keys(Store(store.uri)) == [("kept", 1), ("lost", 1)]


def unfinished(store, table="tasks"):
    """Files of a write to a table that did not get to list them: the manifest first, then the data."""
    folder, checksums = Path(store.uri) / f"{table}.lance", Path(store.uri) / "seals" / table
    before, listed = set(folder.rglob("*")), checksums.read_bytes()
    add(store, "lost")
    checksums.write_bytes(listed)
    return sorted(set(folder.rglob("*.manifest")) - before) + sorted(set(folder.rglob("data/*")) - before)


@pytest.mark.parametrize(
    ("tear", "torn", "then"),
    [
        (empty, 0, keys),
        (zeros, 0, lambda store: add(store, "kept", 2)),
        (cut_short, 1, lambda store: add(store, "kept", 2)),
        (Path.unlink, 1, keys),
    ],
    ids=["empty-manifest-read", "zeros-manifest-written", "short-data-written", "no-data-read"],
)
def test_what_nobody_acknowledged_is_given_up_by_whoever_meets_it(store, tear, torn, then, caplog):
    add(store, "kept")
    tear(unfinished(store)[torn])
    assert [problem.repaired for problem in problems_of(store)] == [False]
    then(Store(store.uri))
    (message,) = caplog.messages
    assert f"{store.uri}: a write to table tasks was cut short and is given up: it is as of 20" in message
    assert message.endswith(("task.add lost@1", "task.add lost@1, task.add kept@2"))
    assert "lost" not in Store(store.uri).task_names()
    add(Store(store.uri), "lost")
    assert ("lost", 1) in keys(Store(store.uri))
    assert Store(store.uri).verify() == []


def test_a_version_of_meta_that_was_cut_short_keeps_no_other_table_from_being_asked(store):
    add(store, "kept")
    seals = Path(store.uri) / "seals" / "meta"
    listed = seals.read_bytes()
    store.database.commit("meta", lambda table: table.delete("key = ''"))
    seals.write_bytes(listed)
    empty(manifests(store, "meta")[0])
    assert keys(Store(store.uri)) == [("kept", 1)]
    assert Store(store.uri).verify() == []


def test_it_is_given_up_before_an_undo_that_was_cut_short_is_finished(store, monkeypatch):
    add(store, "kept")
    empty(unfinished(store)[0])

    def fail(moments):
        raise StorageError("the undo needs the table")

    monkeypatch.setattr(Moments, "begin", fail)
    assert keys(Store(store.uri)) == [("kept", 1)]


def test_a_space_that_was_cut_short_is_made_again(store):
    space = make_space("other")
    store.database.create_table("embeddings__other", store.database.open_table("embeddings__space0").schema)
    (Path(store.uri) / "seals" / "embeddings__other").unlink()
    empty(manifests(store, "embeddings__other")[0])
    Store(store.uri).add_space(space)
    assert Store(store.uri).verify() == []


def test_what_nobody_acknowledged_stays_where_nothing_can_be_written(store, monkeypatch):
    add(store, "kept")
    empty(unfinished(store)[0])
    monkeypatch.setattr(LocalPlace, "is_writable", lambda place: False)
    with pytest.raises(StorageError, match=r"`t2v verify --repair` goes back to the last whole one"):
        Store(store.uri).tasks()


def test_an_older_torn_version_and_torn_meta_are_mended_too(store):
    add(store, "first")
    add(store, "second")
    empty(manifests(store, "tasks")[1])
    shutil.copyfile(manifests(store, "meta")[0], Path(store.uri) / "meta.lance" / "whole")
    store.database.commit("meta", lambda table: table.delete("key = ''"))
    empty(manifests(store, "meta")[0])
    mended = problems_of(store, repair=True)
    assert [(problem.where, problem.repaired) for problem in mended] == [("meta", True), ("tasks", True)]
    assert "nothing is lost, as a later version is whole" in mended[1].message
    assert keys(Store(store.uri)) == [("first", 1), ("second", 1)]


def test_nothing_is_given_up_where_no_version_is_whole(store):
    add(store, "flowers")
    for path in manifests(store, "tasks"):
        empty(path)
    before = manifests(store, "tasks")
    (problem,) = problems_of(store, repair=True)
    assert (problem.repaired, "none of before is whole" in problem.message) == (False, True)
    assert manifests(store, "tasks") == before
    result = CliRunner().invoke(t2v, ["--registry", str(store.uri), "verify", "--repair"])
    assert result.exit_code == 1


def test_the_table_of_a_space_that_was_never_registered_is_dropped(store):
    store.database.create_table("embeddings__lost", store.database.open_table("embeddings__space0").schema)
    (Path(store.uri) / "seals" / "embeddings__lost").unlink()
    empty(manifests(store, "embeddings__lost")[0])
    assert all(problem.repaired for problem in Store(store.uri).verify(repair=True))
    assert Store(store.uri).verify() == []
    assert not (Path(store.uri) / "embeddings__lost.lance").exists()


@pytest.fixture
def synced(monkeypatch):
    """Paths that were synced, in order, each with the manifests of the tasks that were there at that time."""
    monkeypatch.setenv("T2V_DURABILITY", "full")
    done, fsync = [], os.fsync

    def record(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        tasks = next((folder for folder in path.parents if folder.name == "tasks.lance"), None)
        done.append((path, sorted(tasks.glob("_versions/*")) if tasks else []))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    return done


def test_data_is_synced_before_the_manifest_and_the_embedding_before_the_task(store, synced):
    add(Store(store.uri), "flowers")
    steps = [path.relative_to(store.uri).parts[:2] for path, _ in synced]
    wanted = []
    for table in (f"embeddings__{SPACE}.lance", "audit.lance", "tasks.lance"):
        wanted += [(table, "data")] * 2 + [(table, "_versions")] * 2
    assert [step for step in steps if step[0].endswith(".lance")] == wanted
    assert not synced[0][0].is_dir()
    assert synced[1][0] == synced[0][0].parent


def test_a_compaction_is_synced_before_what_it_replaces_is_deleted(store, synced):
    for number in range(3):
        add(store, f"task{number}")
    old, opened = manifests(store, "tasks"), Store(store.uri)
    synced.clear()
    opened.optimize(keep=timedelta(milliseconds=1))
    (new,) = manifests(store, "tasks")
    at_sync = [listed for path, listed in synced if path == new]
    assert at_sync
    assert set(old) <= set(at_sync[0])
    assert not any(path.exists() for path in old)


def test_a_sync_that_fails_is_no_acknowledged_write(store, monkeypatch):
    monkeypatch.setenv("T2V_DURABILITY", "full")

    def fail(descriptor):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match=re.escape("cannot be written: Input/output error")):
        add(Store(store.uri), "flowers")


def test_durability_is_full_or_normal(store, synced, monkeypatch):
    run = CliRunner().invoke
    place = ["--registry", str(store.uri)]
    add(store, "flowers")
    monkeypatch.setenv("T2V_DURABILITY", "full")
    synced.clear()
    assert run(t2v, ["--durability", "normal", *place, "task", "tag", "flowers", "--add", "red"]).exit_code == 0
    assert synced == []
    monkeypatch.setenv("T2V_DURABILITY", "some")
    assert run(t2v, [*place, "task", "list"]).exit_code == 2
    with pytest.raises(StorageError, match=re.escape("T2V_DURABILITY must be full or normal, got 'some'")):
        add(Store(store.uri), "other")
