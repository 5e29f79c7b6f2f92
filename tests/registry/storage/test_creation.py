"""A registry appears whole or not at all, and what is no registry is refused."""

import os
import re
import threading
from pathlib import Path

import pytest
from builders import make_expert
from small_stores import SPACE, add, keys

from registry.errors import NotFoundError, StorageError
from registry.storage import database, schema
from registry.storage.store import Store


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
    with pytest.raises(
        StorageError, match=re.escape(f"{file} is a file; a registry needs a folder of its own")
    ):
        Store(file).tasks()
    with pytest.raises(
        StorageError, match=re.escape(f"{file}/sub: a registry cannot be created here: Not a directory")
    ):
        Store.create(file / "sub")


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


def test_a_registry_that_may_not_be_entered_is_told_in_one_sentence(tmp_path):
    place = tmp_path / ("x" * 300)  # stat fails, as it does in a folder without the right to enter it
    with pytest.raises(StorageError, match=r"the registry cannot be looked for: File name too long$"):
        Store(place).tasks()
