"""Backups: of one moment while others write, incremental, restored whole or not at all, whatever is killed."""

import json
import random
import re
import shutil
import subprocess

import kill_points
import pytest
from builders import make_embedding, make_result, make_task
from kill_points import COPIES, SPACE
from small_stores import add

from registry import TaskRegistry
from registry.errors import StorageError
from registry.storage.schema import RESULTS, to_arrow
from registry.storage.store import Store

WRITER = """
import time
from builders import make_embedding, make_result, make_task
from registry.storage.store import Store
store, number = Store(uri), 0
while number < 3 or not enough.is_set():
    task = f"{name}{number}"
    with store.write_lock():  # one write: nobody may see the one without the other
        store.add_task(make_task(task), "space0", make_embedding(task))
        store.add_results([make_result(task, "m.x")])
    number += 1
    time.sleep(0.2)  # the lock is free for the backup
"""


def fails(message):
    return pytest.raises(StorageError, match=re.escape(message))


@pytest.fixture
def registry(store):
    add(store, "flowers")
    store.add_results([make_result("flowers", "m.x")])
    return TaskRegistry(store.uri)


def restored(place, folder):
    TaskRegistry(folder).restore(place)
    return Store(folder)


def test_a_backup_copies_what_is_new_and_comes_back_equal(registry, store, tmp_path):
    place = tmp_path / "on another disk" / "backup"
    first = registry.backup(place)
    assert (first.copied_files, first.verified) == (first.files, True)
    rows = [make_result("flowers", "m.x", 0.5, protocol=f"fold{number}") for number in range(4000)]
    store.database.commit("results", lambda table: table.add(to_arrow(rows, RESULTS)))
    assert registry.backup(place).copied_bytes > 40_000
    add(store, "birds")
    last = registry.backup(place)
    assert 0 < last.copied_bytes < 0.2 * last.bytes
    assert registry.backup(place, verify=False).copied_files == 0
    assert {path.name for path in place.iterdir()} == {"backup.json", "tables", "write.lock", "write.lock.pid"}
    back = restored(place, tmp_path / "back")
    assert back.tasks() == store.tasks()
    assert back.results() == store.results()
    assert back.audit()[:-1] == store.audit()
    assert {problem.kind for problem in back.verify()} == {"dangling"}
    add(back, "trees")
    with fails("the registry was restored from a backup"):
        TaskRegistry(back.uri).at(0)


def test_what_was_purged_is_in_no_backup_of_later(registry, store, tmp_path):
    store.add_task(make_task("faces", data="/secret/path"), SPACE, make_embedding("faces"))
    place = tmp_path / "backup"
    registry.backup(place)
    registry.remove_task("faces", purge=True)
    registry.backup(place)
    for folder in (place, restored(place, tmp_path / "back").uri):
        found = subprocess.run(["grep", "-rlF", "/secret/path", str(folder)], capture_output=True, check=False)
        assert found.stdout == b""


def test_an_open_process_answers_from_what_was_restored(registry, store, tmp_path):
    place, other = tmp_path / "backup", TaskRegistry(store.uri)
    registry.backup(place)
    add(store, "birds")
    assert len(other.nearest("flowers", probe=SPACE)[1]) == 1
    before = other.version()
    with fails("there is a registry already; give --yes to replace it, it is kept"):
        registry.restore(place)
    summary = registry.restore(place, replace=True)
    assert other.nearest("flowers", probe=SPACE)[1] == []
    assert other.version() != before
    assert [task.name for task in Store(summary.kept).tasks()] == ["birds", "flowers"]
    add(store, "trees")  # by a process that had it open before
    assert [task.name for task in other.tasks()] == ["flowers", "trees"]
    assert {problem.kind for problem in Store(store.uri).verify()} == {"dangling"}


def test_a_backup_is_of_one_moment_while_processes_write(server, registry, store, tmp_path):
    enough = server.Event()
    writers = [
        server.Process(target=exec, args=(WRITER, {"uri": store.uri, "name": name, "enough": enough}))
        for name in ("left", "right")
    ]
    for writer in writers:
        writer.start()
    backups = 0
    try:
        while any(writer.is_alive() for writer in writers):
            registry.backup(tmp_path / "backup")
            folder = tmp_path / f"back{backups}"
            back = restored(tmp_path / "backup", folder)
            results = {result.task for result in back.results()}
            assert results == {task.name for task in back.tasks()}
            shutil.rmtree(folder)
            backups += 1
            if backups == 2:
                enough.set()
    finally:
        enough.set()
        for writer in writers:
            writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert backups > 1
    assert len(store.tasks()) >= 7


def test_a_damaged_backup_is_refused_whole(registry, tmp_path):
    place = tmp_path / "backup"
    registry.backup(place)
    listed = (place / "backup.json").read_bytes()
    for name in json.loads(listed)["files"]:
        path = place / "tables" / name
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with fails(f"{place}: file {name} of the backup is missing or not what was written"):
            TaskRegistry(tmp_path / "back").restore(place)
        path.write_bytes(content)
    for broken in (b"", b"{}", b"[]", listed[:-9], listed.replace(b'"format": 1', b'"format": "x"')):
        (place / "backup.json").write_bytes(broken)
        with fails("backup.json is damaged; restore from another backup"):
            TaskRegistry(tmp_path / "back").restore(place)
    listed = listed[: listed.index(b', "checksum"')] + b"}"  # as before there was one
    (place / "backup.json").write_bytes(listed.replace(b"meta.lance/", b"../x.lance/"))
    with fails("names files outside of the backup"):
        TaskRegistry(tmp_path / "back").restore(place)
    (place / "backup.json").write_bytes(listed.replace(b'"format": 1', b'"format": 2'))
    with fails("was written by a newer version of this package"):
        TaskRegistry(tmp_path / "back").restore(place)
    assert not (tmp_path / "back").exists()
    assert [path.name for path in tmp_path.glob(".back*")] == []


def test_places_that_are_none_are_refused_in_a_sentence(registry, store, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").touch()
    other = TaskRegistry(tmp_path / "other")
    other.init(empty=True)
    other.backup(tmp_path / "of-other")
    for place, message in {
        full: "is not empty and holds no backup",
        full / "thesis.txt": "a backup needs a folder of its own",
        f"{store.uri}/backup": "lies in the registry; give a folder elsewhere",
        store.uri: "lies in the registry; give a folder elsewhere",
        tmp_path / "of-other": "holds a backup of another registry",
        "s3://bucket/backup": "a backup is made in a folder; give one",
    }.items():
        with fails(message):
            registry.backup(place)
    for place, message in {
        full: "holds no backup; give the folder that `t2v backup` wrote",
        tmp_path / "missing": "holds no backup",
    }.items():
        with fails(message):
            registry.restore(place, replace=True)
    with fails("is not empty and holds no registry"):
        TaskRegistry(full).restore(tmp_path / "of-other")
    with fails("lie in one another"):
        TaskRegistry(tmp_path / "of-other" / "inside").restore(tmp_path / "of-other")
    assert [path.name for path in full.iterdir()] == ["thesis.txt"]


def test_a_registry_that_cannot_be_read_any_more_is_replaced_and_kept(registry, store, tmp_path):
    registry.backup(tmp_path / "backup")
    shutil.rmtree(f"{store.uri}/meta.lance")
    for path in store.database.place.path.glob("tasks.lance/_versions/*"):
        path.write_bytes(b"")
    summary = TaskRegistry(store.uri).restore(tmp_path / "backup", replace=True)
    assert [task.name for task in Store(store.uri).tasks()] == ["flowers"]
    assert summary.kept.startswith(f"{store.uri}.before-")


# Kills


@pytest.fixture(scope="module")
def server():
    """Makes processes that have everything imported and nothing opened."""
    return kill_points.start_server()


def check_kills(name, server, folder, choose):
    """At some steps: registry and backup are each as before or as after, and doing it again completes it."""
    template, place = folder / "template", folder / "place"
    COPIES[name].build(template)
    shown = [kill_points.snapshot(template / "team"), kill_points.snapshot(restored_of(template, folder))]
    whole = kill_points.run(server, name, kill_points.copy(template, place))
    for point in choose(kill_points.points_of(whole.steps)):
        kill_points.run(server, name, kill_points.copy(template, place), point)
        assert kill_points.snapshot(place / "team") in shown, point
        assert kill_points.snapshot(restored_of(place, folder)) in shown, point
        COPIES[name].run(place)
        assert kill_points.snapshot(place / "team") == shown[name == "restore"], point
        assert kill_points.snapshot(restored_of(place, folder)) == shown[name == "restore"], point
        kept = [path for path in place.iterdir() if path.name.startswith("team.before-")]
        assert {path.name for path in place.iterdir()} == {"team", "backup", *(path.name for path in kept)}, (
            point
        )
        assert all(kill_points.snapshot(path) in shown for path in kept), point


def restored_of(folder, aside):
    shutil.rmtree(aside / "restored", ignore_errors=True)
    return restored(folder / "backup", aside / "restored").uri


@pytest.mark.parametrize("name", COPIES)
def test_a_kill_leaves_registry_and_backup_whole(name, server, tmp_path):
    check_kills(name, server, tmp_path, lambda points: random.Random(name).sample(points, 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", COPIES)
def test_a_kill_at_every_step_leaves_registry_and_backup_whole(name, server, tmp_path):
    check_kills(name, server, tmp_path, list)
