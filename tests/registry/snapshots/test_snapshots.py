"""What a process that stays open answers while others write: always what a fresh look at the tables does."""

import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from builders import make_embedding, make_space, make_task
from references_nearest import assert_nearest, plain_nearest
from templates import copied

from registry import TaskRegistry
from registry.errors import NotFoundError
from registry.index import neighbors
from registry.snapshots import embeddings, snapshots
from registry.storage.database import Database
from registry.storage.store import Store

SPACES = ("space0", "space1")
DISTANCES = ("task2vec", "task2vec_asymmetric", "euclidean")
FILTERS = (None, None, "num_classes < 12", "not tags = 'red'", "name like 'b%' or version > 1")


def entry(name, version=1, *, salt=0, **changes):
    """A task and an embedding that another salt makes another one."""
    embedding = make_embedding(name, version)
    fisher = embedding.fisher * np.random.default_rng([salt, 7]).lognormal(0, 1, 4)
    return make_task(name, version, **changes), make_embedding(name, version, fisher=fisher)


def create(folder, num_tasks):
    def make(new):
        store = Store.create(new, lambda it: [it.add_space(make_space(space)) for space in SPACES])
        if num_tasks:
            store.add_tasks([entry(f"t{i:03}", num_classes=2 + i % 20) for i in range(num_tasks)], SPACES[0])

    return copied(f"snapshots{num_tasks}", make, folder)


@pytest.fixture
def indexed(monkeypatch):
    """From thirty rows on there is an index, which is saved with every fifth further row."""
    monkeypatch.setattr(neighbors, "EXACT_BELOW", 30)
    monkeypatch.setattr(embeddings, "SAVE_ROWS", 5)


@pytest.fixture
def reads(monkeypatch):
    """For each read of a table: its name, number of rows, and whether vectors were among the columns."""
    seen = []
    read, read_batches = Database.read, Database.read_batches

    def note(name, columns, num_rows):
        kind = "embeddings" if name.startswith("embeddings") else name
        seen.append((kind, num_rows, columns is None or "fisher" in columns))

    def spy(self, name, *, columns=None, **options):
        rows = read(self, name, columns=columns, **options)
        note(name, columns, len(rows))
        return rows

    def spy_batches(self, name, *, columns, batch_rows):
        for batch in read_batches(self, name, columns=columns, batch_rows=batch_rows):
            note(name, columns, len(batch))
            yield batch

    monkeypatch.setattr(Database, "read", spy)
    monkeypatch.setattr(Database, "read_batches", spy_batches)
    return seen


class Writer:
    """Another store on the same folder, which does something at random."""

    def __init__(self, uri, seed):
        self.store = Store(uri)
        self.random = random.Random(seed)
        self.salt = seed * 1000

    def act(self):
        names = sorted(self.store.task_names())
        actions = [self.add, self.add_many, self.optimize]
        if names:
            actions += [self.add_version, self.tag, self.alias, self.remove, self.purge, self.embed_elsewhere]
        action = self.random.choice(actions)
        action(self.random.choice(names) if names else "")
        return action.__name__

    def new_entry(self, name, version):
        self.salt += 1
        builtin = version == 1 and self.random.random() < 0.2
        changes = {"num_classes": self.random.randrange(2, 20), "builtin": builtin}
        return entry(name, version, salt=self.salt, **changes)

    def add(self, _):
        name = f"{self.random.choice('abt')}{self.random.randrange(15):03}"
        if name not in self.store.task_names():
            self.store.add_task(*self.in_space(self.new_entry(name, self.store.next_version(name))))

    def add_many(self, _):
        names = {f"m{self.random.randrange(10**6):06}" for _ in range(self.random.randrange(1, 12))}
        self.store.add_tasks([self.new_entry(name, 1) for name in sorted(names)], SPACES[0])

    def add_version(self, name):
        self.store.add_task(*self.in_space(self.new_entry(name, self.store.next_version(name))))

    def in_space(self, entry):
        task, embedding = entry
        return task, self.random.choice(SPACES), embedding

    def tag(self, name):
        self.store.set_tags(name, self.random.sample(["red", "green", "blue"], self.random.randrange(3)))

    def alias(self, name):
        version = self.random.choice(self.store.versions(name)).version
        self.store.set_alias(f"{name}@{version}", self.random.choice(["best", "old"]))

    def remove(self, name):
        self.store.remove_task(name)
        if self.random.random() < 0.5:
            self.store.restore_task(name)

    def purge(self, name):
        self.store.purge_task(name)
        if self.random.random() < 0.5:  # other content under the same key
            self.store.add_task(*self.in_space(self.new_entry(name, 1)))

    def embed_elsewhere(self, name):
        version = self.store.versions(name)[-1].version
        for space in SPACES:
            if self.store.embedding(space, name, version) is None:
                self.store.add_embedding(space, self.new_entry(name, version)[1])

    def optimize(self, _):
        self.store.optimize()

    def question(self):
        """A reference to ask about, and how."""
        task = self.random.choice(self.store.tasks(latest=False))
        words = [task.name, f"{task.name}@{task.version}", f"{task.name}@latest"]
        words += [f"{task.name}@{alias}" for alias in task.aliases]
        return self.random.choice(words), {
            "distance": self.random.choice(DISTANCES),
            "where": self.random.choice(FILTERS),
        }


def assert_answers_as_the_tables_say(registry, store, space, asked, *, distance, where=None, k=5):
    try:
        expected = plain_nearest(store, space, asked, distance=distance, where=where, builtin=registry.builtin)
    except KeyError:  # not embedded in this space
        with pytest.raises(NotFoundError, match=r"^no task embedded with tiny\.test is named "):
            registry.nearest(asked, k=k, distance=distance, where=where, probe=space)
        return
    query, found = registry.nearest(asked, k=k, distance=distance, where=where, probe=space)
    task = store.task(asked)
    assert (query.task, query.version, query.space) == (task.name, task.version, space)
    assert_nearest(found, expected, k)
    shown = {task.name: task for task in store.tasks()}
    for neighbor in found:
        task = shown[neighbor.task]
        assert (neighbor.num_classes, neighbor.num_samples, neighbor.tags) == (
            task.num_classes,
            task.num_samples,
            task.tags,
        )


def act_and_ask(folder, seed, num_tasks, num_steps):
    """Write at random and ask after each write: who stays open, and now and then a newcomer.

    Raises:
        AssertionError: If one answers otherwise than the tables, with all that was done.
    """
    create(folder, num_tasks)
    writer = Writer(folder, seed)
    registry, mine = (TaskRegistry(folder, builtin=builtin) for builtin in (True, False))
    done = []
    for step in range(num_steps):
        done.append(writer.act())
        if not writer.store.task_names():
            continue
        asked, options = writer.question()
        try:
            assert_answers_as_the_tables_say(registry, writer.store, SPACES[step % 3 == 0], asked, **options)
            if step % 4 == 0:
                newcomer = TaskRegistry(folder)
                for other in (mine, newcomer):
                    assert_answers_as_the_tables_say(other, writer.store, SPACES[0], asked, **options)
        except AssertionError as err:
            err.add_note(f"after {done}, asked {asked} {options}")
            raise
    assert writer.store.verify() == []


@pytest.mark.parametrize(
    ("seed", "num_tasks"),
    [pytest.param(0, 0, marks=pytest.mark.slow), (1, 20), pytest.param(2, 45, marks=pytest.mark.slow)],
    ids=["from_empty", "grows_into_the_index", "index"],
)
def test_answers_are_those_of_the_tables_whatever_others_write(tmp_path, indexed, seed, num_tasks):
    act_and_ask(tmp_path / "registry", seed, num_tasks, num_steps=10)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 9))
def test_answers_are_those_of_the_tables_whatever_others_write_for_long(tmp_path, indexed, seed):
    act_and_ask(tmp_path / "registry", seed, 15 * (seed % 4), num_steps=150)


# What is read


def ask(registry, asked="t000", **options):
    return [(neighbor.task, neighbor.version) for neighbor in registry.nearest(asked, **options)[1]]


@pytest.fixture
def opened(tmp_path, reads):
    """A store with twenty tasks and a registry on it that was asked once."""
    store = create(tmp_path / "registry", 20)
    registry = TaskRegistry(tmp_path / "registry")
    ask(registry, probe=SPACES[0])
    del reads[:]
    return store, registry


def test_asking_again_reads_nothing(opened, reads):
    _, registry = opened
    ask(registry, probe=SPACES[0])
    ask(registry, "t001", distance="cosine", probe=SPACES[0])
    assert reads == []


def rows_read(reads, table, *, vectors=False):
    """How many rows were read of a table; only reads of vectors if asked for."""
    return sum(num_rows for name, num_rows, whole in reads if name == table and (whole or not vectors))


@pytest.mark.parametrize("num_added", [1, 3])
def test_after_tasks_were_added_only_those_are_read(opened, reads, num_added):
    store, registry = opened
    for number in range(num_added):
        store.add_task(*entry_in_space(f"new{number}"))
    del reads[:]
    found = ask(registry, k=50, probe=SPACES[0])
    assert {(f"new{number}", 1) for number in range(num_added)} < set(found)
    assert rows_read(reads, "tasks") == num_added + 1  # and the last before, if it still is there
    assert rows_read(reads, "embeddings", vectors=True) == num_added + 1


def entry_in_space(name, version=1, **changes):
    task, embedding = entry(name, version, **changes)
    return task, SPACES[0], embedding


def test_after_a_compaction_keys_are_read_again_but_no_vector(opened, reads):
    store, registry = opened
    expected = ask(registry, probe=SPACES[0])
    store.add_task(*entry_in_space("new"))
    store.remove_task("new")
    ask(registry, probe=SPACES[0])  # knows the rows of before the compaction
    store.optimize()
    del reads[:]
    assert ask(registry, probe=SPACES[0]) == expected
    assert rows_read(reads, "embeddings") > 20
    assert rows_read(reads, "embeddings", vectors=True) == 0


def test_after_an_addition_and_a_compaction_few_vectors_are_read(opened, reads, monkeypatch):
    monkeypatch.setattr(embeddings, "MORE_MEANWHILE", 3)
    store, registry = opened
    store.add_task(*entry_in_space("new"))
    store.optimize()
    del reads[:]
    assert ("new", 1) in ask(registry, k=50, probe=SPACES[0])
    assert rows_read(reads, "embeddings", vectors=True) == 1 + 3 + 1  # as if added, then what is missing


def test_after_a_tag_no_embedding_is_read(opened, reads):
    store, registry = opened
    store.set_tags("t001", ["red"])
    del reads[:]
    (found,) = [it for it in registry.nearest("t000", k=50, probe=SPACES[0])[1] if it.task == "t001"]
    assert found.tags == ("red",)
    assert rows_read(reads, "embeddings") == 0


def test_after_a_purge_no_vector_is_read(opened, reads):
    store, registry = opened
    store.purge_task("t001")
    del reads[:]
    assert ("t001", 1) not in ask(registry, k=50, probe=SPACES[0])
    assert rows_read(reads, "embeddings", vectors=True) == 0


def test_other_content_under_the_key_of_a_purged_task_is_what_answers(opened):
    store, registry = opened
    nearest = ask(registry, k=1, probe=SPACES[0])[0][0]
    store.purge_task(nearest)
    store.add_task(*entry_in_space(nearest, salt=99))
    for asked in ("t000", nearest):
        assert_answers_as_the_tables_say(registry, store, SPACES[0], asked, distance="task2vec", k=50)


def test_the_same_content_again_after_a_purge_is_found(opened):
    store, registry = opened
    expected = ask(registry, k=50, probe=SPACES[0])
    store.purge_task("t007")
    assert ("t007", 1) not in ask(registry, k=50, probe=SPACES[0])
    store.add_task(*entry_in_space("t007"))
    assert ask(registry, k=50, probe=SPACES[0]) == expected


@pytest.mark.parametrize("num_known", [0, 20], ids=["all_are_read", "some_are_read"])
def test_rows_that_a_compaction_moves_while_they_are_read_are_not_lost(tmp_path, monkeypatch, num_known):
    """Between the list of keys and the reading of vectors."""
    store = create(tmp_path / "registry", 20)
    registry = TaskRegistry(tmp_path / "registry")
    if num_known:
        ask(registry, probe=SPACES[0])
    for number in range(4):  # pieces that a compaction joins
        store.add_task(*entry_in_space(f"new{number}"))
    store.purge_task("t019")  # so that keys are compared
    read = Database.read
    moved = []

    def compacting(self, name, *, columns=None, where="", **options):
        rows = read(self, name, columns=columns, where=where, **options)
        if name.startswith("embeddings") and self is not store.database and not where and not moved:
            moved.append(len(rows))
            store.optimize()
        return rows

    monkeypatch.setattr(Database, "read", compacting)
    expected = {(f"t{number:03}", 1) for number in range(1, 19)} | {(f"new{number}", 1) for number in range(4)}
    assert set(ask(registry, k=50, probe=SPACES[0])) == expected
    assert moved == [23]


# Several at once


OTHER_PROCESS = """
import sys
sys.path.insert(0, sys.argv[1])
from test_snapshots import SPACES, entry
from registry.storage.store import Store

store = Store(sys.argv[2])
for line in sys.stdin:
    name = line.strip()
    task, embedding = entry(name)
    store.add_task(task, SPACES[0], embedding)
    print(name, flush=True)
"""


def test_what_another_process_acknowledged_is_in_the_next_answer(tmp_path):
    create(tmp_path / "registry", 5)
    registry = TaskRegistry(tmp_path / "registry")
    command = [sys.executable, "-c", OTHER_PROCESS, str(Path(__file__).parent), str(tmp_path / "registry")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for number in range(5):
            process.stdin.write(f"new{number}\n")
            process.stdin.flush()
            assert process.stdout.readline().strip() == f"new{number}"
            assert (f"new{number}", 1) in ask(registry, k=50, probe=SPACES[0])
        process.stdin.close()
    assert process.returncode == 0


@pytest.mark.slow
def test_threads_ask_while_another_adds(tmp_path, indexed):
    """Each sees at least what was acknowledged before it asked, and no name twice."""
    store = create(tmp_path / "registry", 25)
    registry = TaskRegistry(tmp_path / "registry")
    acknowledged, failures, done = [], [], threading.Event()

    def keep_asking():
        while not done.is_set():
            known = len(acknowledged)
            try:
                found = ask(registry, k=200, probe=SPACES[0])
            except Exception as err:  # whatever a thread raises is the failure of this test
                failures.append(err)
                return
            if len(set(found)) != len(found) or not {(name, 1) for name in acknowledged[:known]} <= set(found):
                failures.append((known, found))

    threads = [threading.Thread(target=keep_asking) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(15):
        store.add_task(*entry_in_space(f"new{number:02}"))
        acknowledged.append(f"new{number:02}")
    done.set()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert len(ask(registry, k=200, probe=SPACES[0])) == 39


def test_masks_are_kept_and_bounded(tmp_path):
    store = create(tmp_path / "registry", 3)
    found = snapshots.Snapshots(store.database).of(store.space(SPACES[0]))
    assert found.answerable(builtin=True, where=None) is found.answerable(builtin=True, where=None)
    assert found.answerable(builtin=True, where=None).tolist() == [True] * 3
    for number in range(50):
        expected = [f"t{row:03}" > f"t{number:03}" for row in range(3)]
        assert found.answerable(builtin=False, where=f"name > 't{number:03}'").tolist() == expected
        assert len(found.masks) <= snapshots.MASKS_KEPT


def test_a_snapshot_stays_as_it_was(tmp_path):
    store = create(tmp_path / "registry", 3)
    cache = snapshots.Snapshots(store.database)
    space = store.space(SPACES[0])
    before = cache.of(space)
    store.add_task(*entry_in_space("new"))
    store.purge_task("t001")
    after = cache.of(space)
    assert (len(before.rows), len(before.catalogue)) == (3, 3)
    assert before.answerable(builtin=True, where=None).sum() == 3
    assert sorted(after.catalogue.latest) == ["new", "t000", "t002"]
    assert cache.of(space) is after


def test_spaces_are_read_again_only_when_there_are_others(tmp_path, reads):
    store = create(tmp_path / "registry", 0)
    cache = snapshots.Snapshots(Store(tmp_path / "registry").database)
    for _ in range(2):
        assert [space.space_id for space in cache.spaces()] == list(SPACES)
    assert rows_read(reads[-1:], "spaces") == 2
    num_reads = len(reads)
    store.add_space(make_space("space2"))
    assert len(cache.spaces()) == 3
    assert len(reads) > num_reads
