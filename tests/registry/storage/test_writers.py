"""Several threads and processes write to one registry; conflicts are retried and tables compacted."""

import os
import re
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import lancedb
import pytest
from builders import make_expert, make_task
from small_stores import SPACE, add, keys

from registry.errors import DuplicateError, StorageError
from registry.storage import database, locks, places, schema
from registry.storage.schema import to_arrow
from registry.storage.store import Store


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


@pytest.mark.slow
def test_fork_is_fine_before_the_first_use_and_refused_after(store):
    add(store, "flowers")
    script = """
import os, sys
from registry.errors import StorageError
from registry.storage.store import Store

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
    root = Path(__file__).parents[3]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=root)
    refusal = (
        f"{store.uri} cannot be opened in a process forked from one that had opened a registry; "
        "start processes by 'spawn' (multiprocessing.get_context('spawn'))"
    )
    assert run.stdout.splitlines() == ["1", refusal, refusal]


def retried_write(write):
    return places.retried(write, places.CONFLICT, database.WRITE_ATTEMPTS, database.FIRST_WAIT_SECONDS)


def test_conflicting_commit_is_retried(monkeypatch):
    waits = []
    monkeypatch.setattr(places.time, "sleep", waits.append)
    raised = [
        RuntimeError("lance error: Retryable commit conflict for version 5"),
        OSError("Too many concurrent writers"),
    ]

    def write():
        if raised:
            raise raised.pop()
        return "done"

    assert retried_write(write) == "done"
    assert len(waits) == 2
    assert waits[0] <= database.FIRST_WAIT_SECONDS
    assert waits[1] <= 2 * database.FIRST_WAIT_SECONDS


def test_conflict_without_end_and_other_errors_are_passed_on(monkeypatch):
    calls = []
    monkeypatch.setattr(places.time, "sleep", lambda seconds: None)

    def failing(message):
        def write():
            calls.append(message)
            raise RuntimeError(message)

        return write

    with pytest.raises(RuntimeError, match=re.escape("Commit conflict")):
        retried_write(failing("Commit conflict"))
    with pytest.raises(RuntimeError, match=re.escape("disk full")):
        retried_write(failing("disk full"))
    assert calls == ["Commit conflict"] * database.WRITE_ATTEMPTS + ["disk full"]


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


def test_a_large_table_is_compacted_in_slices_while_others_write(store, monkeypatch):
    """Whatever others write meanwhile, it ends; nothing is lost, and each write can be taken back."""
    monkeypatch.setattr(database, "slice_rows", lambda columns: 5)
    for number in range(20):
        add(store, f"task{number:02}")
    written = []

    def write(_):
        written.append(f"other{len(written)}")
        add(Store(store.uri), written[-1])

    monkeypatch.setattr(database.time, "sleep", write)
    store.optimize(keep=timedelta(0))
    assert len(written) > 5
    monkeypatch.undo()
    expected = sorted([*(f"task{number:02}" for number in range(20)), *written])
    assert [task.name for task in store.tasks()] == expected
    assert len(store.embeddings(SPACE).keys) == len(expected)
    assert store.verify() == []
    store.database.moments.undo()
    assert written[-1] not in Store(store.uri).task_names()


def test_failed_compaction_is_no_error_of_the_write(store, monkeypatch):
    def fail(self, **options):
        raise RuntimeError("lance error: no space left on device")

    monkeypatch.setattr(database, "MAX_FRAGMENTS", 0)
    monkeypatch.setattr(lancedb.table.LanceTable, "optimize", fail)
    add(store, "flowers")
    assert keys(store) == [("flowers", 1)]


def test_quoted_text_is_one_literal(store):
    table = lancedb.connect(Path(store.uri) / "quotes").create_table(
        "t", data=to_arrow([make_task()], schema.TASKS)
    )
    for text in ("", "'", "''", "a'b''c", '"', "\\'", "ü\n"):
        found = table.search().where(f"{schema.quoted(text)} = {schema.quoted(text)}").to_arrow()
        assert found.num_rows == 1
    assert schema.quoted("it's") == "'it''s'"
