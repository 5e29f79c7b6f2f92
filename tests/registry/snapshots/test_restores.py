"""A process that stays open answers from what is in place now, however a copy was put there."""

import shutil
from pathlib import Path

import pytest
from builders import make_embedding, make_space, make_task
from templates import copied

from registry import TaskRegistry
from registry.storage.store import Store


def add(store, name):
    store.add_task(make_task(name), "space0", make_embedding(name))


def make_registry(place):
    store = Store.create(place, lambda new: new.add_space(make_space()))
    for name in ("ants", "bees", "cats"):
        add(store, name)


def by_rename(copy, place):
    place.rename(place.with_name("damaged"))
    copy.rename(place)


def by_copy(copy, place):
    shutil.copytree(copy, place, dirs_exist_ok=True)
    for path in sorted(place.rglob("*"), reverse=True):
        if not (copy / path.relative_to(place)).exists():
            path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize("restore", [by_rename, by_copy])
@pytest.mark.parametrize("writes", [0, 1, 3])
def test_what_was_replaced_is_noticed_after_fewer_as_many_and_more_writes(tmp_path, restore, writes):
    place = tmp_path / "registry"
    copied("restores", make_registry, place)
    shutil.copytree(place, tmp_path / "copy")
    registry = TaskRegistry(place)

    def near():
        return {neighbor.task for neighbor in registry.nearest("ants", k=9)[1]}

    assert near() == {"bees", "cats"}
    registry.remove_task("bees")
    assert near() == {"cats"}
    seen = registry.version()
    restore(tmp_path / "copy", place)
    for number in range(writes):
        other = Store(Path(place))
        other.remove_task("cats") if number == 0 else add(other, f"new{number}")
    expected = {"bees"} | ({"cats"} if writes == 0 else set()) | {f"new{number}" for number in range(1, writes)}
    assert registry.version() != seen
    assert near() == expected
    assert registry.version() == registry.version()
    assert {task.name for task in registry.tasks()} == expected | {"ants"}
