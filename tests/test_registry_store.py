import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import lancedb
import numpy as np
import pytest
from builders import make_embedding, make_expert, make_result, make_space, make_task

from registry import commits, database, locks, schema
from registry.errors import (
    DuplicateError,
    InvalidQueryError,
    InvalidRecordError,
    NotFoundError,
    SchemaVersionError,
    StorageError,
)
from registry.schema import to_arrow
from registry.store import Problem, Store

SPACE = "space0"


@pytest.fixture
def store(tmp_path):
    """A registry with one space and nothing else."""
    return Store.create(tmp_path / "registry", lambda new: new.add_space(make_space()))


def add(store, name, version=1, **changes):
    store.add_task(make_task(name, version, **changes), SPACE, make_embedding(name, version))


def keys(store, **options):
    return [(task.name, task.version) for task in store.tasks(**options)]


def insert(store, table, records):
    """Append rows without any check, as a foreign hand might."""
    store.database.append(table, records)


def same_embedding(a, b):
    return all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in ("fisher", "standard_error", "domain")
    ) and (a.task, a.version, a.head_loss, a.seed) == (b.task, b.version, b.head_loss, b.seed)


# Creating and opening


def test_missing_registry_reads_as_empty_and_leaves_no_trace(tmp_path):
    store = Store(tmp_path / "registry")
    assert not store.exists
    assert store.tasks() == store.experts() == store.results() == store.spaces() == store.verify() == []
    assert store.next_version("flowers") == 1
    assert store.embedding(SPACE, "flowers", 1) is None
    with pytest.raises(NotFoundError, match=re.escape("no task is named 'flowers'; there is no task yet")):
        store.task("flowers")
    with pytest.raises(NotFoundError, match=re.escape("no space is named 'space0'; there is no space yet")):
        store.embeddings(SPACE)
    assert list(tmp_path.iterdir()) == []


def test_writing_to_a_missing_registry_says_how_to_create_it(tmp_path):
    uri = str(tmp_path / "registry")
    with pytest.raises(
        StorageError, match=re.escape(f"there is no registry at {uri}; create it with `t2v init`")
    ):
        Store(uri).add_experts([make_expert()])


def test_create_populates_once(tmp_path):
    Store.create(tmp_path, lambda new: new.add_experts([make_expert("a.x")]))
    again = Store.create(tmp_path, lambda new: new.add_experts([make_expert("b.x")]))
    assert [expert.name for expert in again.experts()] == ["a.x"]
    assert not (tmp_path / ".creating").exists()


def test_create_that_fails_leaves_no_registry_and_can_be_tried_again(tmp_path):
    def fail(new):
        new.add_experts([make_expert()])
        raise ValueError("no starter content")

    with pytest.raises(ValueError, match=re.escape("no starter content")):
        Store.create(tmp_path, fail)
    assert not Store(tmp_path).exists
    assert Store.create(tmp_path).experts() == []


def test_create_discards_what_a_killed_creation_left(tmp_path):
    """As after a kill between the first and the last rename."""
    Store.create(tmp_path / "killed", lambda new: new.add_experts([make_expert()]))
    (tmp_path / "killed" / ".creating").mkdir()
    (tmp_path / "killed" / "meta.lance").rename(tmp_path / "killed" / ".creating" / "meta.lance")
    store = Store(tmp_path / "killed")
    assert not store.exists
    assert store.experts() == []
    assert Store.create(tmp_path / "killed").experts() == []
    assert not (tmp_path / "killed" / ".creating").exists()


def test_create_waits_for_another_creator_and_uses_its_registry(tmp_path):
    started, finish = threading.Event(), threading.Event()

    def populate_slowly(new):
        started.set()
        finish.wait(10)
        new.add_experts([make_expert("first.x")])

    first = threading.Thread(target=Store.create, args=(tmp_path, populate_slowly))
    first.start()
    started.wait(10)
    second = threading.Thread(
        target=Store.create, args=(tmp_path, lambda new: new.add_experts([make_expert("b.x")]))
    )
    second.start()
    assert not Store(tmp_path).exists
    finish.set()
    first.join(20)
    second.join(20)
    assert [expert.name for expert in Store(tmp_path).experts()] == ["first.x"]


def test_create_refuses_a_folder_of_something_else(tmp_path):
    (tmp_path / "photo.jpg").touch()
    message = f"{tmp_path} is not empty and holds no registry; give a new or empty folder"
    with pytest.raises(StorageError, match=re.escape(message)):
        Store.create(tmp_path)
    assert [child.name for child in tmp_path.iterdir()] == ["photo.jpg"]


def test_place_that_is_a_file_is_refused(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(
        StorageError, match=re.escape(f"{file} is a file; a registry needs a folder of its own")
    ):
        Store.create(file)
    with pytest.raises(StorageError, match=re.escape(f"{file} is a file, not the folder of a registry")):
        Store(file).tasks()
    with pytest.raises(
        StorageError, match=re.escape(f"{file}/sub: a registry cannot be created here: Not a directory")
    ):
        Store.create(file / "sub")


def test_url_is_refused():
    with pytest.raises(
        StorageError, match=re.escape("s3://bucket/x: a registry must be a local folder, not an URL")
    ):
        Store("s3://bucket/x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_registry_can_be_read_and_verified_but_not_written(store):
    add(store, "flowers")
    store.database.place.path.chmod(0o500)
    try:
        assert keys(Store(store.uri)) == [("flowers", 1)]
        assert store.verify() == []
        with pytest.raises(StorageError, match=re.escape(f"{store.uri} cannot be written: Permission denied")):
            add(store, "birds")
    finally:
        store.database.place.path.chmod(0o700)


def test_registry_may_be_moved(store, tmp_path):
    add(store, "flowers")
    moved = Path(store.uri).rename(tmp_path / "elsewhere")
    assert keys(Store(moved)) == [("flowers", 1)]


@pytest.mark.parametrize("page_size", [1, 2, 3, 6, 7])
def test_table_names_follows_pages(store, monkeypatch, page_size):
    monkeypatch.setattr(database, "PAGE_SIZE", page_size)
    assert store.database.table_names() == sorted([*schema.TABLES, "embeddings__space0"])


# Schema versions


def set_schema_version(store, version):
    table = lancedb.connect(store.uri).open_table("meta")
    table.update(where="key = 'schema_version'", values={"value": str(version)})


def test_newer_schema_is_refused(store):
    set_schema_version(store, 7)
    message = (
        f"{store.uri}: schema version 7 is newer than 2, the newest that this version understands; "
        "upgrade task2vec-registry"
    )
    with pytest.raises(SchemaVersionError, match=re.escape(message)):
        Store(store.uri).tasks()
    assert Store(store.uri).verify() == [Problem("schema", "meta", message)]


def test_older_schema_is_migrated_step_by_step_once(store, monkeypatch):
    calls = []
    monkeypatch.setattr(schema, "SCHEMA_VERSION", 4)
    monkeypatch.setattr(
        schema,
        "MIGRATIONS",
        {
            3: lambda open_table: calls.append((3, open_table("tasks").count_rows())),
            4: lambda open_table: (
                open_table("experts").add_columns({"note": "'old'"}) and calls.append((4, "note"))
            ),
        },
    )
    assert Store(store.uri).database.read("experts").schema.names[-1] == "note"
    assert Store(store.uri).tasks() == []
    assert calls == [(3, 0), (4, "note")]
    assert {"key": "schema_version", "value": "4"} in store.database.read("meta").to_pylist()


def test_interrupted_migration_goes_on_where_it_stopped(store, monkeypatch):
    calls = []

    def fail_once(open_table):
        calls.append(4)
        if calls.count(4) == 1:
            raise KeyboardInterrupt("killed")

    monkeypatch.setattr(schema, "SCHEMA_VERSION", 4)
    monkeypatch.setattr(schema, "MIGRATIONS", {3: lambda open_table: calls.append(3), 4: fail_once})
    with pytest.raises(KeyboardInterrupt, match=r"^killed$"):
        Store(store.uri).tasks()
    assert Store(store.uri).tasks() == []
    assert calls == [3, 4, 4]


# Tasks and embeddings


def test_task_and_embedding_come_back_as_they_went_in(store):
    task = make_task("flowers", class_names=("a'", 'b"', "ü"), tags=("x", "medical"), data="./it's")
    embedding = make_embedding("flowers")
    store.add_task(task, SPACE, embedding)
    other = Store(store.uri)
    assert other.tasks() == [task]
    assert other.task("flowers") == task
    assert same_embedding(other.embedding(SPACE, "flowers", 1), embedding)


def test_space_comes_back_as_it_went_in_and_is_added_once(store):
    store.add_space(make_space(probe="another.one"))
    assert [space.probe for space in store.spaces()] == ["tiny.test"]
    space = store.space(SPACE)
    assert space.dim == 4
    np.testing.assert_array_equal(space.trivial, make_space().trivial)
    assert replace(space, trivial=None).__dict__ == replace(make_space(), trivial=None).__dict__


def test_versions_and_references(store):
    assert store.next_version("flowers") == 1
    for version in (1, 2, 10):
        add(store, "flowers", version)
    add(store, "birds")
    assert store.next_version("flowers") == 11
    assert keys(store) == [("birds", 1), ("flowers", 10)]
    assert keys(store, latest=False) == [("birds", 1), ("flowers", 1), ("flowers", 2), ("flowers", 10)]
    assert store.task("flowers").version == 10
    assert store.task("flowers@2").version == 2


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("flower", "no task is named 'flower'; did you mean flowers?"),
        ("flowers@3", "no task is named 'flowers@3'; did you mean flowers@2 or flowers@1?"),
        ("flowers@", "no task is named 'flowers@'; did you mean flowers@2 or flowers@1?"),
        ("flowers@01", "no task is named 'flowers@01'; did you mean flowers@1 or flowers@2?"),
        ("' or 1 = 1 --", 'no task is named "\' or 1 = 1 --"; known are flowers'),
        ("x@y@z", "no task is named 'x@y@z'; known are flowers"),
    ],
)
def test_unknown_reference_offers_what_is_there(store, reference, message):
    add(store, "flowers", 1)
    add(store, "flowers", 2)
    with pytest.raises(NotFoundError, match=f"^{re.escape(message)}$"):
        store.task(reference)


def test_version_is_immutable(store):
    add(store, "flowers")
    message = "task flowers@1 is registered already; remove it first or choose another name"
    with pytest.raises(DuplicateError, match=re.escape(message)):
        add(store, "flowers")


def test_add_tasks_is_all_or_none(store):
    entries = [(make_task(name), make_embedding(name)) for name in ("a", "b", "a")]
    with pytest.raises(DuplicateError, match=re.escape("task a@1 is given twice")):
        store.add_tasks(entries, SPACE)
    assert store.tasks() == []
    store.add_tasks(entries[:2], SPACE)
    assert keys(store) == [("a", 1), ("b", 1)]
    assert store.embeddings(SPACE).keys == (("a", 1), ("b", 1))


def test_embedding_of_another_task_or_width_is_refused(store):
    message = "task flowers@1 came with the embedding of birds@1"
    with pytest.raises(InvalidRecordError, match=re.escape(message)):
        store.add_task(make_task("flowers"), SPACE, make_embedding("birds"))
    message = (
        "embedding of task flowers: the widths of fisher, standard_error and domain must be (4, 4, 3) "
        "in space space0, got (5, 5, 3)"
    )
    with pytest.raises(InvalidRecordError, match=re.escape(message)):
        store.add_task(make_task("flowers"), SPACE, make_embedding("flowers", dim=5))
    with pytest.raises(NotFoundError, match=re.escape("no space is named 'space1'; did you mean space0?")):
        store.add_task(make_task("flowers"), "space1", make_embedding("flowers"))
    assert store.tasks() == []


def test_removed_task_is_hidden_and_its_versions_are_not_given_again(store):
    for name, version in (("flowers", 1), ("flowers", 2), ("birds", 1)):
        add(store, name, version)
    store.remove_task("flowers")
    assert keys(store, latest=False) == [("birds", 1)]
    assert store.embeddings(SPACE).keys == (("birds", 1),)
    assert store.embedding(SPACE, "flowers", 1) is None
    assert store.next_version("flowers") == 3
    for lost in ("flowers", "flowers@1"):
        with pytest.raises(NotFoundError, match=re.escape(f"no task is named '{lost}'; known are birds")):
            store.task(lost)
    with pytest.raises(NotFoundError, match=re.escape("no task is named 'flowers'; known are birds")):
        store.remove_task("flowers")
    add(store, "flowers", 3)
    assert store.task("flowers").version == 3


@pytest.mark.parametrize("tags", [(), ("medical",), ("b", "a")])
def test_set_tags_replaces_tags_of_all_versions_of_that_task_only(store, tags):
    for name, version in (("flowers", 1), ("flowers", 2), ("birds", 1)):
        add(store, name, version, tags=("old",))
    store.set_tags("flowers", tags)
    assert [store.task(f"flowers@{version}").tags for version in (1, 2)] == [tuple(sorted(tags))] * 2
    assert store.task("birds").tags == ("old",)
    assert store.task("flowers@1") == make_task("flowers", 1, tags=tags)
    assert store.verify() == []


def test_tags_and_removal_need_a_known_name(store):
    add(store, "flowers")
    for change in (lambda name: store.set_tags(name, ()), store.remove_task):
        with pytest.raises(
            NotFoundError, match=re.escape("no task is named 'flowers@1'; did you mean flowers?")
        ):
            change("flowers@1")
    with pytest.raises(InvalidRecordError, match=re.escape("'a b' cannot name a tag")):
        store.set_tags("flowers", ["a b"])


def test_lists_can_leave_out_starter_content_and_filter(store):
    add(store, "flowers", builtin=True, num_classes=5)
    add(store, "birds", num_classes=50)
    add(store, "birds", 2, num_classes=5)
    store.add_experts([make_expert("a.x", builtin=True), make_expert("b.x")])
    store.add_results([make_result("birds", builtin=True), make_result("birds", accuracy=0.5)])
    assert keys(store, builtin=False) == [("birds", 2)]
    assert keys(store, where="num_classes < 20") == [("birds", 2), ("flowers", 1)]
    assert keys(store, where="num_classes > 20") == []
    assert keys(store, where="num_classes > 20", latest=False) == [("birds", 1)]
    assert [expert.name for expert in store.experts(builtin=False)] == ["b.x"]
    assert [result.accuracy for result in store.results(builtin=False)] == [0.5]
    with pytest.raises(InvalidQueryError, match=re.escape("character 1: expected a field")):
        store.tasks(where="")


def test_embeddings_match_row_by_row_reading(store):
    entries = [
        (make_task(name, version), make_embedding(name, version)) for name in "cab" for version in (2, 1)
    ]
    store.add_tasks(entries[:4], SPACE)
    store.add_tasks(entries[4:], SPACE)
    store.remove_task("a")
    table = store.embeddings(SPACE)
    assert table.keys == (("b", 1), ("b", 2), ("c", 1), ("c", 2))
    rows = [store.embedding(SPACE, *key) for key in table.keys]
    np.testing.assert_array_equal(table.fisher, np.stack([row.fisher for row in rows]))
    np.testing.assert_array_equal(table.domain, np.stack([row.domain for row in rows]))
    assert table.fisher.dtype == table.domain.dtype == np.float32


def test_embeddings_of_an_empty_space_have_its_widths(store):
    table = store.embeddings(SPACE)
    assert (table.keys, table.fisher.shape, table.domain.shape) == ((), (0, 4), (0, 3))


def test_embedding_in_a_further_space(store):
    add(store, "flowers")
    store.add_space(make_space("wide", dim=6, domain_dim=2))
    embedding = make_embedding("flowers", dim=6, domain_dim=2)
    store.add_embedding("wide", embedding)
    assert same_embedding(store.embedding("wide", "flowers", 1), embedding)
    assert store.embedding(SPACE, "flowers", 1).fisher.shape == (4,)
    with pytest.raises(
        DuplicateError, match=re.escape("task flowers@1 has an embedding in space wide already")
    ):
        store.add_embedding("wide", embedding)
    with pytest.raises(NotFoundError, match=re.escape("no task is named 'birds@1'; known are flowers")):
        store.add_embedding("wide", make_embedding("birds", dim=6, domain_dim=2))


def test_embedding_of_an_uncommitted_task_is_invisible_and_replaced(store):
    """A killed writer's row must not become the embedding of a task that is added later, in any space."""
    store.add_space(make_space("other"))
    stray = make_embedding("flowers", fisher=np.full(4, 9))
    for space_id in (SPACE, "other"):
        insert(store, f"embeddings__{space_id}", [stray])
        assert store.embedding(space_id, "flowers", 1) is None
        assert store.embeddings(space_id).keys == ()
    add(store, "flowers")
    np.testing.assert_array_equal(store.embeddings(SPACE).fisher, [make_embedding("flowers").fisher])
    assert store.embedding("other", "flowers", 1) is None
    assert store.verify() == []


def test_embeddings_version_changes_with_every_change_and_only_then(store, tmp_path):
    other = Store(store.uri)
    seen = [store.embeddings_version(SPACE)]
    changes = [
        lambda: add(store, "flowers"),
        lambda: add(store, "flowers", 2),
        lambda: store.remove_task("flowers"),
    ]
    for change in changes:
        change()
        seen.append(store.embeddings_version(SPACE))
        assert other.embeddings_version(SPACE) == seen[-1]
    store.add_experts([make_expert()])
    assert store.embeddings_version(SPACE) == seen[-1]
    twin = Store.create(tmp_path / "twin", lambda new: new.add_space(make_space()))
    seen.append(twin.embeddings_version(SPACE))
    assert len(set(seen)) == len(seen)
    with pytest.raises(NotFoundError, match=re.escape("no space is named 'nowhere'; known are space0")):
        store.embeddings_version("nowhere")


# Experts and results


def test_experts_come_back_sorted_with_unknown_numbers(store):
    experts = [
        make_expert("b.x", num_params=None, flops=None, input_size=None),
        make_expert("a.x", license="MIT"),
    ]
    store.add_experts(experts)
    assert store.experts() == [experts[1], experts[0]]
    assert store.expert("b.x") == experts[0]
    with pytest.raises(NotFoundError, match=re.escape("no expert is named 'c.x'; did you mean b.x or a.x?")):
        store.expert("c.x")


def test_expert_names_are_taken_until_removed(store):
    store.add_experts([make_expert("a.x")])
    message = "expert a.x is registered already; remove it first or choose another name"
    with pytest.raises(DuplicateError, match=re.escape(message)):
        store.add_experts([make_expert("b.x"), make_expert("a.x")])
    with pytest.raises(DuplicateError, match=re.escape("expert b.x is given twice")):
        store.add_experts([make_expert("b.x"), make_expert("b.x")])
    assert [expert.name for expert in store.experts()] == ["a.x"]
    store.remove_expert("a.x")
    assert store.experts() == []
    store.add_experts([make_expert("a.x", num_params=1)])
    assert store.expert("a.x").num_params == 1
    assert store.verify() == []


def test_results_are_appended_and_filtered(store):
    first = make_result("a", "m.x", 0.5, created_at="2024-01-01", seed=3)
    again = make_result("a", "m.x", 0.6, created_at="2024-01-02", source="o'neill")
    other = make_result("b", "n.x", 1 / 3)
    store.add_results([other, again, first])
    assert store.results() == [first, again, other]
    assert store.results(task="a") == [first, again]
    assert store.results(expert="n.x") == [other]
    assert store.results(task="a", expert="n.x") == store.results(task="a' or 'a' = 'a") == []
    store.add_results([])
    assert len(store.results()) == 3


# Several writers


def test_another_store_sees_writes_at_once(store):
    other = Store(store.uri)
    assert other.tasks() == []
    add(store, "flowers")
    assert keys(other) == [("flowers", 1)]
    add(other, "birds")
    assert keys(store) == [("birds", 1), ("flowers", 1)]


def test_lock_is_reentrant_across_stores_of_a_thread(store):
    with store.write_lock(), Store(store.uri).write_lock():
        add(store, "flowers")
    assert keys(store) == [("flowers", 1)]


def test_lock_held_elsewhere_times_out_naming_the_holder(store, monkeypatch):
    monkeypatch.setattr(locks, "TIMEOUT_SECONDS", 0.1)
    held, finish = threading.Event(), threading.Event()

    def hold():
        with store.write_lock():
            held.set()
            finish.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    message = (
        f"{store.uri} is being written by process {os.getpid()}, which did not finish within 0.1 seconds; "
        "try again later, or end that process if it hangs"
    )
    with pytest.raises(StorageError, match=re.escape(message)):
        add(store, "flowers")
    (Path(store.uri) / locks.HOLDER_FILE).write_text("")
    with pytest.raises(StorageError, match=re.escape("is being written by another process, which")):
        add(store, "flowers")
    finish.set()
    holder.join(10)
    add(store, "flowers")


def test_threads_that_add_the_same_names_store_each_once(store):
    refused = []

    def add_all():
        for number in range(6):
            try:
                add(Store(store.uri), f"task{number}")
            except DuplicateError:
                refused.append(number)

    threads = [threading.Thread(target=add_all) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert keys(store) == [(f"task{number}", 1) for number in range(6)]
    assert len(refused) == 12
    assert store.verify() == []


def test_fork_is_fine_before_the_first_use_and_refused_after(store):
    add(store, "flowers")
    script = """
import os, sys
from registry.errors import StorageError
from registry.store import Store

def in_child(store):
    child = os.fork()
    if child == 0:
        try:
            print(len(store.tasks()), flush=True)
        except StorageError as error:
            print(error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)

used = Store(sys.argv[1])
in_child(used)
used.tasks()
in_child(used)
in_child(Store(sys.argv[1]))
"""
    command = [sys.executable, "-W", "ignore", "-c", script, store.uri]
    root = Path(__file__).parents[1]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=root)
    refusal = (
        f"{store.uri} cannot be opened in a process forked from one that had opened a registry; "
        "start processes by 'spawn' (multiprocessing.get_context('spawn'))"
    )
    assert run.stdout.splitlines() == ["1", refusal, refusal]


def test_conflicting_commit_is_retried(monkeypatch):
    waits = []
    monkeypatch.setattr(commits.time, "sleep", waits.append)
    failures = [
        RuntimeError("lance error: Retryable commit conflict for version 5"),
        OSError("Too many concurrent writers"),
    ]

    def write():
        if failures:
            raise failures.pop()
        return "done"

    assert commits.retried(write) == "done"
    assert len(waits) == 2
    assert waits[0] <= commits.FIRST_WAIT_SECONDS
    assert waits[1] <= 2 * commits.FIRST_WAIT_SECONDS


def test_conflict_without_end_and_other_errors_are_passed_on(monkeypatch):
    calls = []
    monkeypatch.setattr(commits.time, "sleep", lambda seconds: None)

    def failing(message):
        def write():
            calls.append(message)
            raise RuntimeError(message)

        return write

    with pytest.raises(RuntimeError, match=re.escape("Commit conflict")):
        commits.retried(failing("Commit conflict"))
    with pytest.raises(RuntimeError, match=re.escape("disk full")):
        commits.retried(failing("disk full"))
    assert calls == ["Commit conflict"] * commits.ATTEMPTS + ["disk full"]


def test_scattered_table_is_compacted(store, monkeypatch):
    monkeypatch.setattr(database, "MAX_FRAGMENTS", 4)

    def num_fragments():
        return lancedb.connect(store.uri).open_table("experts").stats()["fragment_stats"]["num_fragments"]

    counts = []
    for number in range(7):
        store.add_experts([make_expert(f"e{number}.x")])
        counts.append(num_fragments())
    assert counts == [1, 2, 3, 4, 1, 2, 3]
    store.optimize()
    assert num_fragments() == 1
    assert len(store.experts()) == 7


def test_failed_compaction_is_no_error_of_the_write(store, monkeypatch):
    def fail(self, **options):
        raise RuntimeError("lance error: no space left on device")

    monkeypatch.setattr(database, "MAX_FRAGMENTS", 0)
    monkeypatch.setattr(lancedb.table.LanceTable, "optimize", fail)
    add(store, "flowers")
    assert keys(store) == [("flowers", 1)]


# Damage


def corrupt(store, table):
    for file in (Path(store.uri) / f"{table}.lance" / "data").iterdir():
        file.write_bytes(b"garbage")


def test_corrupt_table_is_one_clear_error(store):
    add(store, "flowers")
    corrupt(store, "tasks")
    with pytest.raises(StorageError) as caught:  # noqa: PT011 - the whole message is looked at below
        Store(store.uri).tasks()
    message = str(caught.value)
    assert message.startswith(f"{store.uri}: table tasks cannot be read: ")
    assert message.endswith("; `t2v verify` tells what is damaged")
    assert ".rs:" not in message
    assert "\n" not in message
    problems = Store(store.uri).verify(repair=True)
    assert [(problem.kind, problem.where, problem.repaired) for problem in problems] == [
        ("unreadable", "tasks", False)
    ]


def test_lost_meta_is_an_error_not_an_empty_registry(store):
    add(store, "flowers")
    shutil.rmtree(Path(store.uri) / "meta.lance")
    message = f"{store.uri}: table meta is missing; restore the folder from a copy"
    with pytest.raises(StorageError, match=re.escape(message)):
        store.tasks()
    assert store.verify() == [Problem("unreadable", "meta", message)]


def test_meta_without_version_is_an_error(store):
    store.database.commit("meta", lambda table: table.delete("key = 'schema_version'"))
    message = f"{store.uri}: table meta lacks the schema version; restore the folder from a copy"
    with pytest.raises(StorageError, match=re.escape(message)):
        Store(store.uri).tasks()


def kinds(problems):
    return [(problem.kind, problem.where, problem.repaired) for problem in problems]


def damage_orphan(store):
    insert(store, "embeddings__space0", [make_embedding("stray"), make_embedding("stray", 2)])


def damage_incomplete(store):
    insert(store, "tasks", [make_task("bare")])


def damage_duplicate_task(store):
    insert(store, "tasks", [make_task("kept")])


def damage_duplicate_embedding(store):
    insert(store, "embeddings__space0", [make_embedding("kept")])


def damage_duplicate_expert(store):
    insert(store, "experts", [make_expert("m.x")])


def damage_duplicate_result(store):
    insert(store, "results", [make_result("kept", "m.x")])


def damage_duplicate_space(store):
    insert(store, "spaces", [make_space()])


def damage_zero(store):
    invalid_embedding(store, np.zeros(4))


def damage_negative(store):
    invalid_embedding(store, np.array([1, 1, -1, 1]))


def damage_infinite(store):
    invalid_embedding(store, np.array([1, 1, np.inf, 1]))


def invalid_embedding(store, fisher):
    """An embedding that the record would not allow, beside a good one of the same task in another space."""
    embedding = make_embedding("odd")
    object.__setattr__(embedding, "fisher", fisher.astype(np.float32))
    store.add_space(make_space("other"))
    store.add_task(make_task("odd"), "other", make_embedding("odd"))
    insert(store, "embeddings__space0", [embedding])


def damage_staging(store):
    (Path(store.uri) / ".creating").mkdir()


def damage_empty_stranger(store):
    store.database.create_table("embeddings__lost", schema.embeddings_schema(2, 2))


def damage_hollow_stranger(store):
    (Path(store.uri) / "embeddings__hollow.lance" / "data").mkdir(parents=True)


@pytest.mark.parametrize(
    ("damage", "kind", "where"),
    [
        (damage_orphan, "orphan", "embeddings__space0"),
        (damage_incomplete, "incomplete", "tasks"),
        (damage_duplicate_task, "duplicate", "tasks"),
        (damage_duplicate_embedding, "duplicate", "embeddings__space0"),
        (damage_duplicate_expert, "duplicate", "experts"),
        (damage_duplicate_result, "duplicate", "results"),
        (damage_duplicate_space, "duplicate", "spaces"),
        (damage_zero, "invalid", "embeddings__space0"),
        (damage_negative, "invalid", "embeddings__space0"),
        (damage_infinite, "invalid", "embeddings__space0"),
        (damage_staging, "stale", ".creating"),
        (damage_empty_stranger, "orphan", "embeddings__lost"),
        (damage_hollow_stranger, "orphan", "embeddings__hollow"),
    ],
)
def test_verify_finds_and_repairs(store, damage, kind, where):
    add(store, "kept")
    store.add_experts([make_expert("m.x")])
    store.add_results([make_result("kept", "m.x")])
    assert store.verify() == []
    damage(store)
    assert kinds(store.verify()) == [(kind, where, False)]
    assert kinds(store.verify()) == [(kind, where, False)], "looking must not change anything"
    assert kinds(store.verify(repair=True)) == [(kind, where, True)]
    assert store.verify() == []
    assert store.task("kept") == make_task("kept")
    assert same_embedding(store.embedding(SPACE, "kept", 1), make_embedding("kept"))
    assert len(store.experts()) == len(store.results()) == 1


def test_verify_counts_and_names_the_rows(store):
    insert(store, "embeddings__space0", [make_embedding(f"stray{number}") for number in range(7)])
    message = "7 rows of a task that was never committed: stray0@1, stray1@1, stray2@1, stray3@1, stray4@1, ..."
    assert store.verify() == [Problem("orphan", "embeddings__space0", message)]


def test_verify_repairs_a_chain_in_one_run(store):
    """A task whose only embedding is invalid loses the embedding, and then is incomplete."""
    embedding = make_embedding("odd")
    embedding.fisher[:] = 0
    insert(store, "tasks", [make_task("odd")])
    insert(store, "embeddings__space0", [embedding, make_embedding("stray")])
    found = [("invalid", "embeddings__space0", True), ("orphan", "embeddings__space0", True)]
    assert kinds(store.verify(repair=True)) == [*found, ("incomplete", "tasks", True)]
    assert store.verify() == store.tasks() == []


def test_verify_drops_no_task_whose_embedding_may_be_in_an_unreadable_table(store):
    add(store, "flowers")
    corrupt(store, "embeddings__space0")
    problems = Store(store.uri).verify(repair=True)
    assert kinds(problems) == [("unreadable", "embeddings__space0", False)]
    assert keys(store) == [("flowers", 1)]


def test_verify_keeps_a_filled_table_of_no_space_and_its_tasks(store):
    add(store, "flowers")
    store.database.commit("spaces", lambda table: table.delete("true"))
    assert kinds(store.verify(repair=True)) == [("orphan", "embeddings__space0", False)]
    assert keys(store) == [("flowers", 1)]
    store.add_space(make_space())
    assert store.verify() == []
    assert store.embeddings(SPACE).keys == (("flowers", 1),)


def test_verify_reports_missing_tables_and_wrong_columns(store):
    shutil.rmtree(Path(store.uri) / "embeddings__space0.lance")
    store.database.commit("results", lambda table: table.drop_columns(["seed"]))
    other = Store(store.uri)
    assert kinds(other.verify(repair=True)) == [
        ("columns", "results", False),
        ("unreadable", "embeddings__space0", False),
    ]


def test_verify_reports_a_space_whose_width_is_not_its_tables(store):
    store.database.commit("spaces", lambda table: table.update(values={"domain_dim": 8}))
    message = "the columns are not those of schema version 2"
    assert store.verify() == [Problem("columns", "embeddings__space0", message)]


def test_verify_warns_of_names_that_nothing_has(store):
    add(store, "gone")
    store.remove_task("gone")
    store.add_experts([make_expert("m.x", source_task="imagenet"), make_expert("n.x", source_task="gone")])
    store.add_results(
        [make_result("gone", "m.x"), make_result("birds", "o.x"), make_result("birds", "o.x", 0.1)]
    )
    assert store.verify(repair=True) == [
        Problem("dangling", "results", "2 rows name the task 'birds', which is not registered"),
        Problem("dangling", "results", "2 rows name the expert 'o.x', which is not registered"),
        Problem("dangling", "experts", "1 rows name the source_task 'imagenet', which is not registered"),
    ]
    assert len(store.results()) == 3


def test_add_space_after_a_kill_within_it(store):
    """A table folder without any version in it, as a kill during its creation leaves it."""
    damage_hollow_stranger(store)
    store.add_space(make_space("hollow", dim=2, domain_dim=2))
    assert store.embeddings("hollow").fisher.shape == (0, 2)
    assert store.verify() == []


def test_rows_with_one_key_are_read_as_the_last(store):
    add(store, "flowers")
    again = make_embedding("flowers", fisher=np.full(4, 7))
    insert(store, "embeddings__space0", [again])
    insert(store, "tasks", [make_task("flowers", num_classes=9)])
    assert store.embeddings(SPACE).keys == (("flowers", 1),)
    np.testing.assert_array_equal(store.embeddings(SPACE).fisher, [again.fisher])
    assert [task.num_classes for task in store.tasks()] == [9]
    store.verify(repair=True)
    np.testing.assert_array_equal(store.embeddings(SPACE).fisher, [again.fisher])
    assert [task.num_classes for task in store.tasks()] == [9]


def test_quoted_text_is_one_literal(store):
    table = lancedb.connect(Path(store.uri) / "quotes").create_table(
        "t", data=to_arrow([make_task()], schema.TASKS)
    )
    for text in ("", "'", "''", "a'b''c", '"', "\\'", "ü\n"):
        found = table.search().where(f"{database.quoted(text)} = {database.quoted(text)}").to_arrow()
        assert found.num_rows == 1
    assert database.quoted("it's") == "'it''s'"
