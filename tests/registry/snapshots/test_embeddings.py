"""registry.snapshots.embeddings: the index is made once, loaded, extended, replaced, whatever its files
hold."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from builders import make_embedding, make_space, make_task
from references_nearest import assert_nearest, plain_nearest
from templates import copied

from registry import TaskRegistry
from registry.distances import DISTANCES
from registry.errors import StorageError
from registry.index import files as index_files
from registry.index import neighbors
from registry.index.neighbors import NO_KEY, DamagedIndexError
from registry.index.vector_index import VectorIndex
from registry.snapshots import embeddings
from registry.snapshots.embeddings import EmbeddingCache
from registry.storage.store import Store

SPACE = "space0"


def entry(name, version=1, **changes):
    return make_task(name, version), make_embedding(name, version, **changes)


def add(store, *names):
    store.add_tasks([entry(name) for name in names], SPACE)


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Sixty tasks, where from fifty on there is an index, which is saved with every fifth further row."""
    monkeypatch.setattr(neighbors, "EXACT_BELOW", 50)
    monkeypatch.setattr(embeddings, "SAVE_ROWS", 5)

    def make(folder):
        store = Store.create(folder, lambda new: new.add_space(make_space()))
        add(store, *(f"t{number:03}" for number in range(60)))

    return copied("embeddings", make, tmp_path / "registry")


@pytest.fixture
def events(monkeypatch):
    """What is done to indexes, in order."""
    seen = []
    for name in ("build", "extended", "from_bytes"):
        original = getattr(VectorIndex, name)

        def spy(*args, name=name, original=original):
            seen.append(name)
            return original(*args)

        monkeypatch.setattr(VectorIndex, name, spy)
    return seen


def cache_of(store):
    """What a process that opens the registry now has."""
    return EmbeddingCache(Store(store.uri).database, store.space(SPACE))


def folder_of(store):
    return Path(store.uri) / "index"


def files(store):
    return sorted(path.name for path in folder_of(store).iterdir())


def path_of(store, kind):
    (path,) = folder_of(store).glob(f"{SPACE}.*{kind}")
    return path


def assert_rows_are_those_of_the_table(rows, store):
    """Every key of the table once, with its embedding."""
    table = store.embeddings(SPACE)
    keys = [key for key in rows.keys.to_pylist() if key != NO_KEY]
    assert sorted(keys) == sorted(f"{name}@{version}" for name, version in table.keys)
    numbers = {key: number for number, key in enumerate(rows.keys.to_pylist())}
    found = rows.take(np.array([numbers[f"{name}@{version}"] for name, version in table.keys], dtype=np.int64))
    np.testing.assert_array_equal(found, table.fisher)


def assert_answers_right(registry, store, asked="t000"):
    for distance in ("task2vec", "euclidean"):
        found = registry.nearest(asked, k=10, distance=distance)[1]
        assert_nearest(found, plain_nearest(store, SPACE, asked, distance=distance), 10)


# Made once, loaded, extended


def test_few_rows_are_in_memory_and_have_no_index(store, events, monkeypatch):
    monkeypatch.setattr(neighbors, "EXACT_BELOW", 61)
    rows = cache_of(store).refresh()
    assert (len(rows), rows.num_mapped, rows.saved) == (60, 0, None)
    assert_rows_are_those_of_the_table(rows, store)
    assert rows.shortlist(rows.memory[0], 5, np.arange(60) < 40).tolist() == list(range(40))
    assert events == []
    assert not folder_of(store).exists()


def test_the_index_is_made_once_and_loaded_by_the_next_process(store, events):
    rows = cache_of(store).refresh()
    assert (rows.num_mapped, len(rows.memory)) == (60, 0)
    assert isinstance(rows.saved.vectors, np.memmap)
    assert events == ["build", "from_bytes"]
    assert len(files(store)) == 5
    again = cache_of(store).refresh()
    assert events == ["build", "from_bytes", "from_bytes"]
    for found in (rows, again):
        assert_rows_are_those_of_the_table(found, store)
    assert store.verify() == []


def test_the_same_token_gives_the_same_rows(store):
    cache = cache_of(store)
    rows = cache.refresh()
    assert cache.refresh() is rows
    add(store, "new")
    assert cache.refresh() is not rows
    assert (len(rows), len(cache.refresh())) == (60, 61)


def test_further_rows_stay_in_memory_until_they_are_worth_a_save(store, events):
    cache = cache_of(store)
    cache.refresh()
    before = files(store)
    add(store, *"abcd")
    rows = cache.refresh()
    assert (rows.num_mapped, len(rows.memory), rows.projected.shape) == (60, 4, (4, 4))
    assert files(store) == before
    add(store, "e")
    rows = cache.refresh()
    assert (rows.num_mapped, len(rows.memory)) == (65, 0)
    assert events == ["build", "from_bytes", "extended", "from_bytes"]
    assert len(files(store)) == 5
    assert path_of(store, "vectors").name in before
    assert_rows_are_those_of_the_table(rows, store)
    assert_rows_are_those_of_the_table(cache_of(store).refresh(), store)
    assert events[4:] == ["from_bytes"]


def test_two_processes_take_turns(store, events):
    """What one saved, the other takes over instead of saving its own."""
    first, second = cache_of(store), cache_of(store)
    first.refresh()
    second.refresh()
    del events[:]
    add(store, *"abcde")
    assert (first.refresh().num_mapped, second.refresh().num_mapped) == (65, 65)
    assert events == ["extended", "from_bytes", "from_bytes"]
    add(store, *"fghij")
    assert (second.refresh().num_mapped, first.refresh().num_mapped) == (70, 70)
    for cache in (first, second):
        assert_rows_are_those_of_the_table(cache.refresh(), store)


def test_a_save_is_left_to_the_process_that_is_at_it(store):
    cache = cache_of(store)
    cache.refresh()
    add(store, *"abcde")
    with index_files.IndexFiles(folder_of(store), "", SPACE).writing(wait=True):
        rows = cache.refresh()
    assert (rows.num_mapped, len(rows.memory)) == (60, 5)
    assert_rows_are_those_of_the_table(rows, store)


def test_a_table_that_outgrew_its_index_gets_a_new_one(store, events):
    cache, other = cache_of(store), cache_of(store)
    cache.refresh()
    other.refresh()
    old = path_of(store, "vectors")
    add(store, *(f"u{number:03}" for number in range(61)))
    del events[:]
    rows = cache.refresh()
    assert events == ["from_bytes", "build", "from_bytes"]
    assert (rows.num_mapped, rows.saved.built_rows) == (121, 121)
    assert not old.exists()
    assert len(files(store)) == 5
    del events[:]
    assert other.refresh().saved.generation == rows.saved.generation  # not built twice
    assert events == ["from_bytes"]
    for found in (rows, other.refresh()):
        assert_rows_are_those_of_the_table(found, store)


def test_a_table_that_grows_while_it_is_open_is_indexed_in_memory(store, events, monkeypatch):
    monkeypatch.setattr(neighbors, "EXACT_BELOW", 62)
    cache = cache_of(store)
    assert cache.refresh().saved is None
    add(store, "a", "b")
    rows = cache.refresh()
    assert events == ["build"]
    assert (rows.num_mapped, rows.saved.generation) == (62, "")
    assert_rows_are_those_of_the_table(rows, store)
    add(store, *"cdefghijk")
    assert_rows_are_those_of_the_table(cache.refresh(), store)
    assert not folder_of(store).exists()


def test_a_deleted_row_stays_behind_without_a_key(store):
    cache = cache_of(store)
    rows = cache.refresh()
    store.purge_task("t007")
    after = cache.refresh()
    assert len(after) == len(rows)
    assert after.keys[rows.keys.to_pylist().index("t007@1")].as_py() == NO_KEY
    assert_rows_are_those_of_the_table(after, store)
    assert_rows_are_those_of_the_table(cache_of(store).refresh(), store)


def test_a_process_goes_on_when_its_files_are_deleted(store):
    """As by a purge, or by hand; what the next process builds is taken over."""
    cache = cache_of(store)
    cache.refresh()
    for name in files(store):
        (folder_of(store) / name).unlink()
    add(store, *"abcde")
    rows = cache.refresh()
    assert (rows.num_mapped, len(rows.memory)) == (60, 5)
    assert_rows_are_those_of_the_table(rows, store)
    assert files(store) == ["lock"]
    built = cache_of(store).refresh()
    add(store, "f")
    rows = cache.refresh()
    assert (rows.saved.generation, rows.num_mapped) == (built.saved.generation, 65)
    assert_rows_are_those_of_the_table(rows, store)


def test_an_older_registry_with_a_newer_index_answers_from_its_tables(store, tmp_path):
    """A copy that was restored: some rows of the index are of no task, some tasks have no row."""
    cache_of(store).refresh()
    index = {path.name: path.read_bytes() for path in folder_of(store).iterdir()}
    for name in ("t001", "t002"):
        store.purge_task(name)
    store.add_task(make_task("t002"), SPACE, make_embedding("t002", fisher=[1, 2, 3, 4]))
    add(store, "new")
    for name in files(store):
        (folder_of(store) / name).unlink()
    for name, content in index.items():
        (folder_of(store) / name).write_bytes(content)
    rows = cache_of(store).refresh()
    assert (rows.num_mapped, len(rows.memory)) == (60, 2)
    assert_rows_are_those_of_the_table(rows, store)
    assert_answers_right(TaskRegistry(store.uri), store, "t002")


def test_the_index_of_another_registry_is_not_used(store, tmp_path, events):
    twin = Store.create(tmp_path / "twin", lambda new: new.add_space(make_space()))
    add(twin, *(f"t{number:03}" for number in range(60)))
    cache_of(twin).refresh()
    folder_of(twin).rename(folder_of(store))
    del events[:]
    assert_rows_are_those_of_the_table(cache_of(store).refresh(), store)
    assert events == ["build", "from_bytes"]


# Damage


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_a_damaged_file_costs_no_answer_and_is_written_again(store, how):
    assert_answers_right(TaskRegistry(store.uri), store)
    for kind in ("json", "rows", "faiss", "vectors"):
        path = path_of(store, kind)
        content = path.read_bytes()
        if how == "flipped":
            flip(path, len(content) // 2)
        elif how == "gone":
            path.unlink()
        else:
            path.write_bytes(content[: len(content) // 2])
        assert_answers_right(TaskRegistry(store.uri), store)
        assert len(files(store)) == 5, kind
        rows = cache_of(store).refresh()
        assert rows.saved.damaged_row(np.arange(60)) is None
        assert_rows_are_those_of_the_table(rows, store)


def test_a_damaged_row_is_met_when_it_is_used(store, events, caplog):
    """Not before, as reading all of a large file would take long."""
    cache_of(store).refresh()
    flip(path_of(store, "vectors"), 16 * 7)
    cache = cache_of(store)
    rows = cache.refresh()
    assert rows.take(np.array([3])).shape == (1, 4)
    with pytest.raises(DamagedIndexError, match=r"vectors: row 7 is not what was written, once more; check"):
        rows.take(np.array([3, 7]))
    with pytest.raises(DamagedIndexError, match="row 7") as caught:
        rows.distances("cosine", rows.memory, np.array([7, 3]), trivial=None, alpha=0.15)
    del events[:]
    cache.discard_index(caught.value)
    cache.refresh()
    assert events == ["from_bytes", "from_bytes", "build", "from_bytes"]  # loaded once more under the lock
    assert caplog.messages == [f"the index of embeddings__{SPACE} is built again: row 7 is damaged"]
    cache.discard_index(caught.value)  # by another thread that met the same
    cache.refresh()
    assert events[4:] == []
    assert_rows_are_those_of_the_table(cache.refresh(), store)


def test_garbage_in_a_row_that_is_no_answer_is_not_noticed(store):
    """The row of a removed task is compared with nothing, whatever became of it."""
    cache_of(store).refresh()
    store.remove_task("t007")
    with path_of(store, "vectors").open("r+b") as file:
        file.seek(16 * 7)
        file.write(b"\xff" * 16)
    registry = TaskRegistry(store.uri)
    for distance in DISTANCES:
        found = registry.nearest("t000", k=10, distance=distance)[1]
        assert_nearest(found, plain_nearest(store, SPACE, "t000", distance=distance), 10)


def test_threads_share_what_was_compared(store):
    cache_of(store).refresh()
    rows = cache_of(store).refresh()
    rows.take(np.array([1, 5, 5]))
    assert np.flatnonzero(rows.saved.verified).tolist() == [1, 5]
    rows.distances("cosine", rows.take(np.array([1]))[0], np.arange(60), trivial=None, alpha=0.15)
    assert rows.saved.verified.all()


def test_an_embedding_that_is_none_is_told_and_leaves_no_file(store):
    invalid = make_embedding("bad")
    invalid.fisher[1] = -1
    store.database.append(f"embeddings__{SPACE}", [invalid])
    for _ in range(2):
        with pytest.raises(
            StorageError, match=r"the embedding of task bad@1 must be finite and non-negative; run"
        ):
            cache_of(store).refresh()
    assert files(store) == ["lock"]


# A folder that cannot be written


def refuse_writes(monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)


@pytest.fixture(params=["file_in_the_way", "disk_full"])
def unwritable(request, store, monkeypatch):
    if request.param == "disk_full":
        refuse_writes(monkeypatch)
    else:
        folder_of(store).write_text("in the way")
    return store


def test_where_nothing_can_be_kept_the_index_is_in_memory(unwritable, events, caplog):
    cache = cache_of(unwritable)
    rows = cache.refresh()
    assert caplog.messages[0].startswith(f"the index of embeddings__{SPACE} is not kept: ")
    assert (rows.num_mapped, rows.saved.generation) == (60, "")
    assert_rows_are_those_of_the_table(rows, unwritable)
    assert_answers_right(TaskRegistry(unwritable.uri), unwritable)
    add(unwritable, *(f"u{number:03}" for number in range(61)))
    rows = cache.refresh()
    assert (rows.num_mapped, rows.saved.built_rows) == (121, 121)
    assert_rows_are_those_of_the_table(rows, unwritable)
    if folder_of(unwritable).is_dir():
        assert files(unwritable) == ["lock"]


def test_a_full_disk_leaves_the_saved_index_as_it_is(store, monkeypatch):
    cache = cache_of(store)
    cache.refresh()
    before = files(store)
    with monkeypatch.context() as patch:
        refuse_writes(patch)
        add(store, *"abcde")
        rows = cache.refresh()
        assert (rows.num_mapped, len(rows.memory)) == (60, 5)
        add(store, *(f"u{number:03}" for number in range(60)))
        rows = cache.refresh()  # outgrown, and cannot be built again
        assert (rows.num_mapped, len(rows.memory)) == (60, 65)
        assert_rows_are_those_of_the_table(rows, store)
        assert files(store) == before
    add(store, "z")
    rows = cache.refresh()  # there is room again
    assert (rows.num_mapped, len(rows.memory)) == (126, 0)
    assert_rows_are_those_of_the_table(rows, store)


def test_a_damaged_index_that_cannot_be_replaced_costs_no_answer(store, monkeypatch):
    cache_of(store).refresh()
    flip(path_of(store, "vectors"), 16 * 7)
    refuse_writes(monkeypatch)
    registry = TaskRegistry(store.uri)
    for asked in ("t000", "t007"):
        assert_answers_right(registry, store, asked)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_costs_no_answer(store):
    folder_of(store).mkdir()
    folder_of(store).chmod(0o500)
    try:
        assert_answers_right(TaskRegistry(store.uri), store)
    finally:
        folder_of(store).chmod(0o700)


# Other processes


BUILDER = """
import sys
sys.path.insert(0, sys.argv[1])
from registry.snapshots import embeddings
from registry.index import neighbors
from registry.storage.store import Store
import test_embeddings as tests

neighbors.EXACT_BELOW, embeddings.SAVE_ROWS = 50, 5
store = Store(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
tests.assert_rows_are_those_of_the_table(tests.cache_of(store).refresh(), store)
"""


@pytest.mark.slow
def test_processes_that_build_at_once_make_one_index(store):
    command = [sys.executable, "-c", BUILDER, str(Path(__file__).parent), store.uri]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in started:
        process.communicate(timeout=60)
    assert [process.returncode for process in started] == [0, 0]
    assert len(files(store)) == 5
    assert_rows_are_those_of_the_table(cache_of(store).refresh(), store)
