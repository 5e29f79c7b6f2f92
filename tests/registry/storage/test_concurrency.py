"""Threads and processes on one registry: nothing lost, nothing doubled, what was acknowledged is seen at once.

The processes come from the fork server of ``kill_points``, once for all tests, and keep their stores open
between requests. That a process forked after the first use is refused is in ``test_writers.py``.
"""

import re
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from builders import make_embedding, make_expert, make_result, make_space, make_task
from kill_points import start_server

from registry import TaskRegistry
from registry.errors import DuplicateError, RegistryError, StorageError
from registry.storage import locks
from registry.storage.store import Store

SPACE = "space0"
NUM_PROCESSES, NUM_THREADS = 3, 4
TIMEOUT_SECONDS = 60


# What a process can be asked for; each answer is sent back, an error of ours too


def create(registry, store):
    Store.create(store.uri, lambda new: new.add_space(make_space()))


def add_task(registry, store, name):
    store.add_task(make_task(name), SPACE, make_embedding(name))


def add_own(registry, store, prefix):
    """Four of each kind, one by one and all at once."""
    for number in range(4):
        add_task(registry, store, f"{prefix}{number}")
        store.add_experts([make_expert(f"{prefix}{number}.test")])
    store.add_results([make_result(f"{prefix}{number}", f"{prefix}{number}.test") for number in range(4)])


def add_version(registry, store, name):
    """The next version, whatever it is by then."""
    with store.write_lock():
        version = store.next_version(name)
        store.add_task(make_task(name, version), SPACE, make_embedding(name, version))
    return version


def hide_and_show(registry, store, name):
    for _ in range(6):
        store.remove_task(name)
        store.restore_task(name)


def watch(registry, store, name, others):
    """Ask while a task comes and goes: all of it is there or nothing, and all others always are."""
    for _ in range(12):
        shown = [task.version for task in store.tasks(latest=False) if task.name == name]
        assert shown in ([], [1, 2]), shown
        _, found = registry.nearest(others[0])
        near = {neighbor.task for neighbor in found}
        assert set(others[1:]) <= near <= {*others[1:], name}, near
        assert len(near) == len(found)


def shown(registry, store):
    """What is seen of tasks, by every way of asking."""
    names = [task.name for task in registry.tasks()]
    query, found = registry.nearest(names[0], k=100)
    assert sorted([query.task, *(neighbor.task for neighbor in found)]) == names
    assert sorted({name for name, _ in store.embeddings(SPACE).keys}) == names
    return names


def hold_lock(registry, store, connection):
    """Hold the lock until a line says to let go."""
    with store.write_lock():
        connection.send("held")
        connection.recv()


def serve(connection):
    """Answer requests on registries that stay open, until a line says to end."""
    opened = {}
    while (request := connection.recv()) is not None:
        action, uri, *arguments = request
        if uri not in opened:
            opened[uri] = (TaskRegistry(uri), Store(uri))
        try:
            if action is hold_lock:
                arguments = [connection]
            connection.send(action(*opened[uri], *arguments))
        except (RegistryError, AssertionError) as error:
            connection.send(error)


class Process:
    """A process that can be asked."""

    def __init__(self):
        context = start_server()
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=[theirs], daemon=True)
        self._process.start()
        self.pid = self._process.pid

    def ask(self, action, uri, *arguments):
        self._connection.send((action, str(uri), *arguments))

    def answer(self):
        assert self._connection.poll(TIMEOUT_SECONDS), "no answer"
        answer = self._connection.recv()
        if isinstance(answer, AssertionError):
            raise answer
        return answer

    def let_go(self):
        self._connection.send("let go")

    def end(self):
        self._connection.send(None)
        self._process.join(TIMEOUT_SECONDS)


@pytest.fixture(scope="module")
def processes():
    started = [Process() for _ in range(NUM_PROCESSES)]
    yield started
    for process in started:
        process.end()


@pytest.fixture
def uri(tmp_path):
    """A registry of three tasks, one of which has two versions."""
    store = Store.create(tmp_path / "registry", lambda new: new.add_space(make_space()))
    store.add_tasks([(make_task(name), make_embedding(name)) for name in ("a", "b", "c")], SPACE)
    add_version(None, store, "c")
    return store.uri


def all_ask(processes, action, uri, *arguments):
    """Ask all at once; their answers."""
    for process in processes:
        process.ask(action, uri, *arguments)
    return [process.answer() for process in processes]


def check_rows(uri):
    """No row is there twice, not even one that lists would hide."""
    store = Store(uri)
    assert store.verify() == []
    for table, columns in (
        ("tasks", ["name", "version"]),
        ("experts", ["name"]),
        ("results", ["task", "expert"]),
        (f"embeddings__{SPACE}", ["task", "version"]),
    ):
        rows = Counter(map(str, store.database.read(table, columns=columns).to_pylist()))
        assert set(rows.values()) <= {1}, table


def test_processes_that_create_one_registry_make_one(processes, tmp_path):
    assert all_ask(processes, create, tmp_path / "new") == [None] * NUM_PROCESSES
    store = Store(tmp_path / "new")
    assert [space.space_id for space in store.spaces()] == [SPACE]
    assert store.verify() == []


def test_processes_that_add_the_same_task_store_it_once(processes, uri):
    answers = all_ask(processes, add_task, uri, "same")
    refused = [answer for answer in answers if isinstance(answer, DuplicateError)]
    assert (answers.count(None), len(refused)) == (1, NUM_PROCESSES - 1)
    check_rows(uri)


def test_processes_that_add_versions_number_them_one_after_the_other(processes, uri):
    answers = all_ask(processes, add_version, uri, "c") + all_ask(processes, add_version, uri, "c")
    assert sorted(answers) == list(range(3, 3 + 2 * NUM_PROCESSES))
    check_rows(uri)


def test_processes_that_add_different_things_store_all(processes, uri):
    for number, process in enumerate(processes):
        process.ask(add_own, uri, f"own{number}-")
    assert [process.answer() for process in processes] == [None] * NUM_PROCESSES
    store = Store(uri)
    own = {f"own{process}-{number}" for process in range(NUM_PROCESSES) for number in range(4)}
    assert {task.name for task in store.tasks()} == own | {"a", "b", "c"}
    assert {expert.name for expert in store.experts()} == {f"{name}.test" for name in own}
    assert {result.task for result in store.results()} == own
    check_rows(uri)


def test_a_task_that_comes_and_goes_is_seen_whole_or_not_at_all(processes, uri):
    changer, *watchers = processes
    changer.ask(hide_and_show, uri, "c")
    assert all_ask(watchers, watch, uri, "c", ["a", "b"]) == [None] * len(watchers)
    assert changer.answer() is None
    check_rows(uri)


def test_every_process_sees_what_another_has_just_acknowledged(processes, uri):
    for number in range(NUM_PROCESSES + 1):
        writer = processes[number % NUM_PROCESSES]
        writer.ask(add_task, uri, f"ping{number}")
        assert writer.answer() is None
        expected = sorted(["a", "b", "c", *(f"ping{other}" for other in range(number + 1))])
        assert all_ask(processes, shown, uri) == [expected] * NUM_PROCESSES


def test_a_lock_that_a_process_holds_names_it(processes, uri, monkeypatch):
    monkeypatch.setattr(locks, "TIMEOUT_SECONDS", 0.2)
    holder = processes[0]
    holder.ask(hold_lock, uri)
    assert holder.answer() == "held"
    message = f"{uri} is being written by process {holder.pid}, which did not finish within 0.2 seconds"
    with pytest.raises(StorageError, match=re.escape(message)):
        Store(uri).remove_task("a")
    assert len(Store(uri).tasks()) == 3
    holder.let_go()
    assert holder.answer() is None
    Store(uri).remove_task("a")


def in_threads(work):
    """Run something in all threads at once; what each returned."""
    barrier = threading.Barrier(NUM_THREADS)

    def at_once(number):
        barrier.wait(TIMEOUT_SECONDS)
        return work(number)

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return list(pool.map(at_once, range(NUM_THREADS)))


@pytest.mark.parametrize("shared", [True, False], ids=["one store", "a store each"])
def test_threads_that_add_the_same_and_different_things_store_each_once(uri, shared):
    store = Store(uri)

    def work(number):
        mine = store if shared else Store(uri)
        add_task(None, mine, f"own{number}")
        mine.add_experts([make_expert(f"own{number}.test")])
        mine.add_results([make_result(f"own{number}", f"own{number}.test")])
        try:
            add_task(None, mine, "same")
        except DuplicateError:
            return "refused"
        return "added"

    assert Counter(in_threads(work)) == {"added": 1, "refused": NUM_THREADS - 1}
    assert {task.name for task in store.tasks()} == {
        "a",
        "b",
        "c",
        "same",
        *(f"own{n}" for n in range(NUM_THREADS)),
    }
    assert len(store.experts()) == len(store.results()) == NUM_THREADS
    check_rows(uri)


def test_threads_ask_one_registry_while_others_change_it(uri):
    """One thread asks, the others write; what two write at once does not undo what the other wrote."""
    registry, store = TaskRegistry(uri), Store(uri)

    def work(number):
        if number == 0:
            hide_and_show(registry, store, "c")
        elif number == 1:
            watch(registry, store, "c", ["a", "b"])
        else:
            for turn in range(4):
                store.set_alias("b@1", f"alias{number}-{turn}")
        return number

    assert in_threads(work) == list(range(NUM_THREADS))
    assert len(store.task("b").aliases) == 4 * (NUM_THREADS - 2)
    assert {task.name for task in store.tasks()} == {"a", "b", "c"}
    check_rows(uri)


def test_two_registries_in_one_process_see_each_other(uri):
    one, other = TaskRegistry(uri), TaskRegistry(uri)
    assert other.nearest("a")[1]
    one.tag_task("a", add=["red"])
    assert other.task("a").tags == ("red",)
    other.remove_task("b")
    assert [neighbor.task for neighbor in one.nearest("a")[1]] == ["c"]
    add_task(None, Store(uri), "d")
    for registry in (one, other):
        assert shown(registry, Store(uri)) == ["a", "c", "d"]
