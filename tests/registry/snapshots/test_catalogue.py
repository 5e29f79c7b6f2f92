"""The catalogue of tasks: the same whether read at once or brought up to date, however that came about."""

import random

import numpy as np
import pytest
from builders import make_embedding, make_task
from small_stores import SPACE, add

from registry.snapshots import snapshots
from registry.snapshots.snapshots import CatalogueCache
from registry.storage.database import Database
from registry.storage.store import Store


def cache_of(store):
    return CatalogueCache(Store(store.uri).database)


def contents(known):
    """What a catalogue holds, whatever the order of its rows."""
    rows = known.rows.select(snapshots.COLUMNS).to_pylist()
    assert [f"{row['name']}@{row['version']}" for row in rows] == known.keys.to_pylist()
    assert np.flatnonzero(known.is_latest).tolist() == sorted(known.latest.values())
    return (
        sorted(rows, key=lambda row: (row["name"], row["version"])),
        {name: known.key(position) for name, position in known.latest.items()},
    )


def test_nothing_registered_is_an_empty_catalogue(store):
    known = cache_of(store).refresh()
    assert (len(known), known.latest, known.keys.to_pylist(), known.find("flowers")) == (0, {}, [], None)
    assert known.answerable(builtin=True, where=None).tolist() == []


def test_the_first_tasks_of_an_empty_registry_are_seen(store):
    cache = cache_of(store)
    cache.refresh()
    add(store, "flowers")
    assert list(cache.refresh().latest) == ["flowers"]


def test_the_same_state_gives_the_same_catalogue(store):
    cache = cache_of(store)
    add(store, "flowers")
    known = cache.refresh()
    assert cache.refresh() is known
    add(store, "birds")
    assert cache.refresh() is not known
    assert list(known.latest) == ["flowers"]


def test_versions_may_be_added_in_any_order(store):
    cache = cache_of(store)
    for version in (2, 10, 1, 9):
        add(store, "flowers", version)
        known = cache.refresh()
        expected = {2: 2}.get(version, 10)
        assert known.key(known.find("flowers")) == ("flowers", expected)
        assert known.is_latest.sum() == 1


def test_latest_is_the_latest_that_is_not_removed(store):
    cache = cache_of(store)
    add(store, "flowers")
    add(store, "flowers", 2)
    cache.refresh()
    store.remove_task("flowers")
    assert cache.refresh().find("flowers") is None
    add(store, "flowers", 3)
    known = cache.refresh()
    assert known.key(known.find("flowers")) == ("flowers", 3)
    assert known.find("flowers@2") is None
    store.restore_task("flowers")
    assert contents(cache.refresh()) == contents(cache_of(store).refresh())


def test_an_alias_that_moves_names_the_other_version(store):
    cache = cache_of(store)
    add(store, "flowers")
    add(store, "flowers", 2)
    for version in (1, 2, 1):
        store.set_alias(f"flowers@{version}", "best")
        known = cache.refresh()
        assert known.key(known.find("flowers@best")) == ("flowers", version)
    store.remove_alias("flowers", "best")
    assert cache.refresh().find("flowers@best") is None


def test_answerable_is_the_latest_that_passes(store):
    add(store, "birds", builtin=True)
    add(store, "flowers", num_classes=3)
    add(store, "flowers", 2)
    known = cache_of(store).refresh()

    def answers(**options):
        mask = known.answerable(**({"builtin": True, "where": None} | options))
        return [known.key(position) for position in np.flatnonzero(mask).tolist()]

    assert sorted(answers()) == [("birds", 1), ("flowers", 2)]
    assert answers(builtin=False) == [("flowers", 2)]
    assert answers(where="num_classes = 3") == []  # the filter is asked of the latest version
    assert answers(where="name != 'birds'") == [("flowers", 2)]


@pytest.mark.parametrize("max_chunks", [1, 32])
def test_brought_up_to_date_it_is_as_read_at_once(store, monkeypatch, max_chunks):
    monkeypatch.setattr(snapshots, "MAX_CHUNKS", max_chunks)
    cache = cache_of(store)
    generator = random.Random(0)
    for step in range(12):
        names = sorted(store.task_names())
        name = generator.choice(names) if names else ""
        match generator.choice(["add", "add", "version", "tag", "alias", "remove", "purge", "optimize"]):
            case "version" if name:
                add(store, name, store.next_version(name))
            case "tag" if name:
                store.set_tags(name, [f"tag{step}"])
            case "alias" if name:
                store.set_alias(name, "best")
            case "remove" if name:
                store.remove_task(name)
            case "purge" if name:
                store.purge_task(name)
            case "optimize":
                store.database.optimize("tasks")
            case _:
                add(store, f"task{step}")
        if step % 3:
            assert contents(cache.refresh()) == contents(cache_of(store).refresh())
    expected = sorted((task.name, task.version) for task in store.tasks())
    assert sorted(contents(cache.refresh())[1].values()) == expected


@pytest.mark.parametrize("change", ["purge", "tag"])
def test_a_change_that_an_addition_during_the_read_makes_up_for_is_seen(store, monkeypatch, change):
    """The added rows and the number of all, which are of two moments, agree by chance."""
    cache = cache_of(store)
    for name in "abc":
        add(store, name)
    cache.refresh()
    if change == "purge":
        store.purge_task("a")
        add(store, "x")
    else:
        store.set_tags("a", ["red"])
    add(store, "y")
    read, met = Database.read, []

    def adding(self, name, **options):
        rows = read(self, name, **options)
        if self is not store.database and not met:
            met.append(name)
            add(store, "d")
        return rows

    monkeypatch.setattr(Database, "read", adding)
    known = cache.refresh()
    assert met == ["tasks"]
    names = "bcdxy" if change == "purge" else "abcdy"
    assert sorted(known.keys.to_pylist()) == [f"{name}@1" for name in names]
    assert contents(known) == contents(cache_of(store).refresh())


def test_a_catalogue_that_only_grew_says_what_it_grew_from(store):
    cache = cache_of(store)
    add(store, "flowers")
    before = cache.refresh()
    assert before.extends is None
    store.add_tasks([(make_task("a"), make_embedding("a")), (make_task("b"), make_embedding("b"))], SPACE)
    after = cache.refresh()
    assert after.extends == before.token
    assert after.rows[: len(before)].equals(before.rows)
    store.set_tags("a", ["red"])
    assert cache.refresh().extends is None
