"""A registry in an object store: what the others test on folders holds there too, over real HTTP."""

import os
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from builders import make_embedding, make_expert, make_result, make_space, make_task
from command_lines import EXPERT, TASKS, make_small_registry, ok, t2v
from markdown_pages import ROOT
from s3_server import S3Server

from registry import TaskRegistry
from registry.errors import DuplicateError, StorageError
from registry.storage import locks, object_store
from registry.storage.object_store import ObjectPlace
from registry.storage.store import Store

TTL_SECONDS = 2.0
SPACE = "space0"

# Waits until it is told to, creates the registry if need be, adds tasks PREFIX0, PREFIX1, ... and some that all
# writers want, and prints every name when it is stored.
WRITER = """
import sys
from builders import make_embedding, make_space, make_task
from registry.storage import database
from registry.storage import locks
from registry.errors import DuplicateError
from registry.storage.store import Store

uri, prefix, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
locks.TTL_SECONDS = float(sys.argv[4])
database.MAX_FRAGMENTS = 4
print("ready", flush=True)
sys.stdin.readline()
store = Store.create(uri, lambda new: new.add_space(make_space()))
for number in range(count):
    for name in (f"{prefix}{number}", f"shared{number}"):
        try:
            store.add_tasks([(make_task(name), make_embedding(name))], "space0")
        except DuplicateError:
            continue
        print(name, flush=True)
"""


@pytest.fixture(autouse=True)
def short_ttl(monkeypatch):
    monkeypatch.setattr(locks, "TTL_SECONDS", TTL_SECONDS)


@pytest.fixture
def uri(bucket):
    return f"{bucket}/team/registry"


def start_writers(uri, prefixes, count=1_000_000):
    """Writers that are ready to go."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, uri, prefix, str(count), str(TTL_SECONDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )
        for prefix in prefixes
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    return writers


def go(writer):
    writer.stdin.write("\n")
    writer.stdin.flush()


def kill_after(writer, num_names, seconds):
    """Let a writer store some names and go on for a while, kill it; return the names it acknowledged."""
    go(writer)
    acknowledged = [writer.stdout.readline().strip() for _ in range(num_names)]
    time.sleep(seconds)
    writer.send_signal(signal.SIGKILL)
    output, _ = writer.communicate(timeout=60)
    return acknowledged + output.split("\n")[:-1]  # what follows the last line end is empty or cut off


def check_whole(uri, acknowledged):
    """Everything acknowledged is there, and at most orphans have to be repaired."""
    store = Store(uri)
    assert store.exists or not acknowledged
    before = {task.name for task in store.tasks()}
    assert before >= set(acknowledged)
    assert {problem.kind for problem in store.verify()} <= {"orphan", "stale"}
    store.verify(repair=True)
    assert store.verify() == []
    assert {task.name for task in store.tasks()} == before
    for name in acknowledged:
        assert store.embedding(SPACE, name, 1).fisher.tolist() == make_embedding(name).fisher.tolist()


def check_writers(uri, prefixes, count):
    """Writers that go at once store every name once, and a reader sees each as soon as it is acknowledged."""
    reader = Store.create(uri, lambda new: new.add_space(make_space()))
    assert reader.tasks() == []
    writers = start_writers(uri, prefixes, count)
    for writer in writers:
        go(writer)
    acknowledged = []
    for line in writers[0].stdout:
        acknowledged.append(line.strip())
        assert reader.task(acknowledged[-1]).name == acknowledged[-1]
    for writer in writers:
        acknowledged += writer.communicate(timeout=120)[0].split()
        assert writer.returncode == 0
    numbers = range(count)
    expected = {f"{prefix}{number}" for prefix in [*prefixes, "shared"] for number in numbers}
    assert sorted(acknowledged) == sorted(expected)
    assert [task.name for task in reader.tasks()] == sorted(expected)
    assert (
        len(reader.database.read("tasks")) == len(reader.database.read("embeddings__space0")) == len(expected)
    )
    assert reader.verify() == []


def test_starter_content_answers_as_in_a_folder(uri, tmp_path):
    remote, local = TaskRegistry(uri), TaskRegistry(tmp_path / "local")
    for registry in (remote, local):
        registry.init()
    assert [task.name for task in remote.tasks()] == [task.name for task in local.tasks()]
    name = remote.tasks()[0].name
    assert remote.nearest(name, k=5) == local.nearest(name, k=5)
    assert remote.recommend(name, published=False) == local.recommend(name, published=False)
    assert remote._store.verify() == []
    with pytest.raises(StorageError, match=f"^{re.escape(uri)}: there is a registry already$"):
        remote.init()


def test_every_write_is_kept(uri):
    store = Store.create(uri, lambda new: new.add_space(make_space()))
    store.add_tasks([(make_task(name), make_embedding(name)) for name in ("birds", "trees")], SPACE)
    store.add_experts([make_expert()])
    store.add_results([make_result("birds"), make_result("trees")])
    store.set_tags("trees", ["plants"])
    store.remove_task("birds")
    with pytest.raises(DuplicateError, match="task trees@1 is registered already"):
        store.add_task(make_task("trees"), SPACE, make_embedding("trees"))
    other = Store(uri)
    assert [(task.name, task.tags) for task in other.tasks()] == [("trees", ("plants",))]
    assert [expert.name for expert in other.experts()] == [EXPERT]
    assert [result.task for result in other.results()] == ["birds", "trees"]
    assert list(other.embeddings(SPACE).keys) == [("trees", 1)]
    other.remove_expert(EXPERT)
    other.optimize()
    assert store.experts() == []
    assert store.verify() == []
    np.testing.assert_array_equal(store.embedding(SPACE, "trees", 1).fisher, make_embedding("trees").fisher)


def test_command_line_works_on_a_store(uri):
    make_small_registry(uri)
    assert ok(uri, "task", "list").stdout.count("\n") >= len(TASKS)
    assert "flowers" in ok(uri, "nearest", "trees").stdout
    assert ok(uri, "verify").exit_code == 0


def test_place_of_something_else_is_refused(bucket):
    registry = TaskRegistry(f"{bucket}/team")
    registry.init(empty=True)
    message = f"{bucket} is not empty and holds no registry; give a new or empty prefix"
    with pytest.raises(StorageError, match=f"^{re.escape(message)}$"):
        TaskRegistry(bucket).init(empty=True)


@pytest.mark.slow
def test_two_writers_store_every_name_once(uri):
    check_writers(uri, "ab", 3)


@pytest.mark.slow
def test_four_writers_store_every_name_once(uri):
    check_writers(uri, "abcd", 10)


@pytest.mark.slow
def test_killed_writers_lose_nothing_acknowledged(uri):
    """The first is killed while it creates the registry, the next finishes that and is killed while it adds."""
    creator, writer = start_writers(uri, "ab")
    check_whole(uri, kill_after(creator, 0, 0.15))
    acknowledged = kill_after(writer, 2, 0.15)
    assert len(acknowledged) >= 2
    check_whole(uri, acknowledged)


@pytest.mark.slow
def test_many_kills_lose_nothing_acknowledged(bucket):
    generator = random.Random(0)
    for number in range(2):
        uri, acknowledged = f"{bucket}/{number}", []
        for writer in start_writers(uri, "abcd"):
            acknowledged += kill_after(writer, generator.randrange(4), generator.uniform(0, 0.4))
            check_whole(uri, acknowledged)


def test_server_that_is_gone_is_one_sentence(monkeypatch):
    monkeypatch.setattr(object_store, "MAX_RETRIES", 1)
    with S3Server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        uri = make_small_registry(f"s3://{server.new_bucket()}/registry")
        store, place = Store(uri), ObjectPlace(f"s3://{server.new_bucket()}/registry")
        assert len(store.tasks()) == len(TASKS)
        gone = f"^{place.uri} cannot be read: HTTP error: error sending request$"
        with place.lock():
            server.stop()
            with pytest.raises(StorageError, match=gone):
                place.check()
    with pytest.raises(StorageError, match=gone), place.lock():
        pass
    for words in (("task", "list"), ("verify",)):
        done = t2v(uri, *words)
        assert done.exit_code == 1
        assert re.fullmatch(rf"Error: {uri}[^\n]*: HTTP error: error sending request[^\n]*\n", done.output)
    with pytest.raises(StorageError, match=f"^{uri}.*error sending request"):
        store.tasks()
    with pytest.raises(StorageError, match=f"^{uri}.*error sending request"):
        store.remove_task("trees")
