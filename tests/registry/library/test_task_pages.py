import itertools
import re

import pytest
from builders import make_space
from small_stores import SPACE, add

from registry import TaskRegistry
from registry.errors import InvalidQueryError, NoRegistryError, NotFoundError
from registry.snapshots.snapshots import NO_VERSION
from registry.storage.store import Store
from registry.task_answers import SORTS

TAGS = (("grey", "digits"), ("medical",), (), ("Medical-x",))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A registry of 20 tasks; tests only read it."""
    folder = tmp_path_factory.mktemp("pages") / "registry"
    store = Store.create(folder, lambda new: new.add_space(make_space()))
    for number in range(20):
        add(
            store,
            f"task{number:02}",
            tags=TAGS[number % 4],
            num_samples=100 - number % 7,
            builtin=number % 5 == 0,
            class_names=tuple("abcdefghij")[: number % 9 + 2],
            num_classes=number % 9 + 2,
        )
    add(store, "task03", version=2, num_samples=3)
    return TaskRegistry(folder)


def names(page):
    return [task.name for task in page.tasks]


def slow(tasks, words=(), where=None, sort="name", descending=False):
    """The obviously right twin of ``find_tasks``, all on one page."""
    found = [
        task
        for task in tasks.tasks(where=where)
        if all(word.lower() in " ".join((task.name, *task.tags)).lower() for word in words)
    ]
    return [task.name for task in sorted(found, key=lambda task: getattr(task, sort), reverse=descending)]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("sort", SORTS)
def test_find_tasks_sorts_as_the_slow_twin(tasks, sort, descending):
    found = names(tasks.find_tasks(sort=sort, descending=descending))
    assert found == slow(tasks, sort=sort, descending=descending)
    assert len(found) == 20


@pytest.mark.parametrize(
    ("search", "where"),
    [
        ("TASK1", None),
        ("medical", None),
        ("med 1", None),
        ("  ", "num_classes < 5"),
        ("grey", "num_samples > 97"),
    ],
)
def test_find_tasks_finds_what_the_slow_twin_does(tasks, search, where):
    page = tasks.find_tasks(search=search, where=where)
    assert names(page) == slow(tasks, search.split(), where)
    assert 0 < page.total == len(page.tasks) <= 20


def test_find_tasks_pages_make_the_whole(tasks):
    pages = [tasks.find_tasks(sort="num_samples", limit=6, offset=offset) for offset in range(0, 24, 6)]
    assert list(itertools.chain(*map(names, pages))) == slow(tasks, sort="num_samples")
    assert [len(page.tasks) for page in pages] == [6, 6, 6, 2]
    assert {page.total for page in pages} == {20}


def test_find_tasks_gives_latest_versions_whole(tasks):
    (task,) = tasks.find_tasks(search="task03").tasks
    assert task == tasks.task("task03")
    assert task.version == 2


def test_find_tasks_behind_the_end_is_empty(tasks):
    page = tasks.find_tasks(offset=1000)
    assert (page.total, page.tasks) == (20, [])


def test_find_tasks_leaves_starter_content_out(tasks):
    own = TaskRegistry(tasks.uri, builtin=False)
    assert own.find_tasks().total == 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "limit must be from 1 to 1000, got 0"),
        ({"limit": 1001}, "limit must be from 1 to 1000, got 1001"),
        ({"offset": -1}, "offset must be at least 0, got -1"),
        ({"sort": "size"}, "tasks cannot be sorted by 'size'; choose name, kind, num_classes, num_samples"),
        ({"search": "a " * 17}, "search must be at most 16 words, got 17"),
    ],
)
def test_find_tasks_tells_what_is_out_of_range(tasks, options, message):
    with pytest.raises(InvalidQueryError, match=re.escape(message)):
        tasks.find_tasks(**options)


def test_find_tasks_sees_what_another_process_wrote(store):
    tasks = TaskRegistry(store.uri)
    add(store, "one")
    assert names(tasks.find_tasks()) == ["one"]
    add(store, "a-second")
    store.set_tags("one", ("late",))
    assert names(tasks.find_tasks()) == ["a-second", "one"]
    assert names(tasks.find_tasks(search="late")) == ["one"]
    store.remove_task("one")
    assert names(tasks.find_tasks()) == ["a-second"]


def test_version_changes_with_every_write_and_with_nothing_else(store):
    tasks, other = TaskRegistry(store.uri), TaskRegistry(store.uri)
    seen = [tasks.version()]
    writes = (
        lambda: add(store, "one"),
        lambda: store.set_tags("one", ("late",)),
        lambda: other.remove_task("one"),
        lambda: other.restore_task("one"),
        lambda: other.optimize(),
    )
    for write in writes:
        write()
        tasks.find_tasks()
        seen.append(tasks.version())
        assert tasks.version() == seen[-1] == other.version()
    assert len(set(seen)) == len(seen)


def test_versions_of_two_registries_differ(tmp_path):
    registries = [TaskRegistry(tmp_path / name) for name in "ab"]
    for each in registries:
        each.init(empty=True)
    assert registries[0].version() != registries[1].version()


def test_where_there_is_no_registry(tmp_path):
    tasks = TaskRegistry(tmp_path / "none")
    assert tasks.version() == NO_VERSION
    for question in (tasks.find_tasks, tasks.spaces, tasks.space, lambda: tasks.has_task("x")):
        with pytest.raises(NoRegistryError, match="there is no registry yet"):
            question()


def test_has_task_knows_names_versions_and_nothing_else(tasks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    references = (
        "task03",
        "task03@1",
        "task03@latest",
        "task03@9",
        "task99",
        "data",
        "./data",
        "sklearn:digits",
        "",
    )
    assert [it for it in references if tasks.has_task(it)] == ["task03", "task03@1", "task03@latest"]


def test_space_is_the_one_of_the_probe(tasks):
    assert tasks.space().space_id == SPACE == tasks.space(SPACE).space_id
    assert [space.space_id for space in tasks.spaces()] == [SPACE]
    with pytest.raises(NotFoundError, match="no probe with embedded tasks is named"):
        tasks.space("resnet18.IMAGENET1K_V1")
