"""What verify finds, and what it repairs."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import make_embedding, make_expert, make_result, make_space, make_task
from small_stores import SPACE, add, insert, keys, same_embedding

from registry import TaskRegistry
from registry.answers import Problem
from registry.errors import StorageError
from registry.index import neighbors
from registry.storage import schema
from registry.storage.checksums import CHECKSUMS_FOLDER
from registry.storage.store import Store


def data_files(store, table):
    return sorted((Path(store.uri) / f"{table}.lance" / "data").iterdir())


def corrupt(store, table):
    for file in data_files(store, table):
        file.write_bytes(b"garbage")


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def remove_checksums(store):
    shutil.rmtree(Path(store.uri) / CHECKSUMS_FOLDER)


def test_corrupt_table_without_checksums_is_one_clear_error(store):
    add(store, "flowers")
    remove_checksums(store)
    corrupt(store, "tasks")
    with pytest.raises(StorageError) as caught:  # noqa: PT011 - the whole message is looked at below
        Store(store.uri).tasks()
    message = str(caught.value)
    assert message.startswith(f"{store.uri}: table tasks cannot be read: ")
    assert message.endswith("; `t2v verify` reports what is damaged")
    assert ".rs:" not in message
    assert "\n" not in message
    problems = Store(store.uri).verify(repair=True)
    assert ("unreadable", "tasks", False) in kinds(problems)
    assert {problem.kind for problem in problems} == {"unreadable", "stale"}
    assert kinds(Store(store.uri).verify()) == [("unreadable", "tasks", False)]


def test_damaged_file_is_told_and_nothing_in_its_table_is_touched(store):
    add(store, "flowers")
    (file,) = data_files(store, "embeddings__space0")
    whole = file.read_bytes()
    one = f"{store.uri}: table embeddings__space0 is damaged: its file data/{file.name} is not what was written"
    all_of_it = f"1 file is not what was written: data/{file.name}; restore the registry from a copy"
    for position in (0, 100, -1):
        flip(file, position)
        other = Store(store.uri)
        with pytest.raises(StorageError, match=f"^{re.escape(one)}; restore the registry from a copy$"):
            other.embeddings(SPACE)
        assert other.verify(repair=True) == [Problem("damaged", "embeddings__space0", all_of_it)]
        file.write_bytes(whole)
    assert Store(store.uri).verify() == []
    assert keys(store) == [("flowers", 1)]


def test_damaged_meta_is_told(store):
    for file in data_files(store, "meta"):
        flip(file, 50)
    assert kinds(Store(store.uri).verify(repair=True)) == [("damaged", "meta", False)]


def lose_checksums(store):
    (Path(store.uri) / CHECKSUMS_FOLDER / "tasks").unlink()


def damage_checksums(store):
    flip(Path(store.uri) / CHECKSUMS_FOLDER / "tasks", 3)


def cut_checksums(store):
    path = Path(store.uri) / CHECKSUMS_FOLDER / "tasks"
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize("damage", [lose_checksums, damage_checksums, cut_checksums])
def test_lost_checksums_are_no_loss_and_made_again(store, damage):
    add(store, "flowers")
    damage(store)
    assert keys(Store(store.uri)) == [("flowers", 1)]
    problem = Problem("stale", "tasks", "the checksums of its files are missing or damaged")
    assert Store(store.uri).verify() == [problem]
    assert Store(store.uri).verify(repair=True) == [replace(problem, repaired=True)]
    assert Store(store.uri).verify() == []
    flip(data_files(store, "tasks")[0], 50)
    assert kinds(Store(store.uri).verify()) == [("damaged", "tasks", False)]


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch], ids=["folder", "empty file"])
def test_other_things_in_the_place_of_checksums_are_replaced(store, make):
    path = Path(store.uri) / CHECKSUMS_FOLDER / "tasks"
    path.unlink()
    make(path)
    assert [problem.kind for problem in Store(store.uri).verify()] == ["stale"]
    assert [problem.repaired for problem in Store(store.uri).verify(repair=True)] == [True]
    assert Store(store.uri).verify() == []


def test_lost_meta_is_an_error_not_an_empty_registry(store):
    add(store, "flowers")
    shutil.rmtree(Path(store.uri) / "meta.lance")
    message = f"{store.uri}: table meta is missing; restore the registry from a copy"
    with pytest.raises(StorageError, match=re.escape(message)):
        store.tasks()
    assert store.verify() == [Problem("unreadable", "meta", message)]


def test_meta_without_version_is_an_error(store):
    store.database.commit("meta", lambda table: table.delete("key = 'schema_version'"))
    message = f"{store.uri}: table meta lacks the schema version; restore the registry from a copy"
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
    insert(store, "results", store.results(task="kept", expert="m.x")[:1])


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


def damage_checksum(store):
    embedding = make_embedding("odd")
    object.__setattr__(embedding, "head_accuracy", 0.25)
    store.add_space(make_space("other"))
    store.add_task(make_task("odd"), "other", make_embedding("odd"))
    insert(store, "embeddings__space0", [embedding])


def damage_record(store):
    """A row that a foreign hand wrote; its embedding would be told as an orphan, so it has none."""
    task = make_task("odd")
    object.__setattr__(task, "tags", ("no tag",))
    insert(store, "tasks", [task])


def damage_staging(store):
    (Path(store.uri) / ".creating").mkdir()


def damage_empty_stranger(store):
    store.database.create_table("embeddings__lost", schema.embeddings_schema(2, 2))


def damage_hollow_stranger(store):
    (Path(store.uri) / "embeddings__hollow.lance" / "data").mkdir(parents=True)


@pytest.mark.parametrize(
    "damages",
    [
        {
            damage_incomplete: ("incomplete", "tasks"),
            damage_duplicate_embedding: ("duplicate", "embeddings__space0"),
            damage_duplicate_expert: ("duplicate", "experts"),
            damage_duplicate_result: ("duplicate", "results"),
            damage_duplicate_space: ("duplicate", "spaces"),
            damage_staging: ("stale", ".creating"),
        },
        {
            damage_orphan: ("orphan", "embeddings__space0"),
            damage_duplicate_task: ("duplicate", "tasks"),
            damage_infinite: ("invalid", "embeddings__space0"),
            damage_empty_stranger: ("orphan", "embeddings__lost"),
            damage_hollow_stranger: ("orphan", "embeddings__hollow"),
        },
        {damage_zero: ("invalid", "embeddings__space0")},
        {damage_negative: ("invalid", "embeddings__space0")},
        {damage_checksum: ("invalid", "embeddings__space0")},
        {damage_record: ("invalid", "tasks")},
    ],
    ids=["one a table", "several in a table", "zero", "negative", "checksum", "record"],
)
def test_verify_finds_and_repairs(store, damages):
    add(store, "kept")
    store.add_experts([make_expert("m.x")])
    store.add_results([make_result("kept", "m.x")])
    assert store.verify() == []
    for damage in damages:
        damage(store)
    expected = sorted(damages.values())
    for _ in range(2):  # looking must not change anything
        assert sorted(kinds(store.verify())) == [(*it, False) for it in expected]
    assert sorted(kinds(store.verify(repair=True))) == [(*it, True) for it in expected]
    assert store.verify() == []
    assert store.task("kept") == make_task("kept")
    assert same_embedding(store.embedding(SPACE, "kept", 1), make_embedding("kept"))
    assert len(store.experts()) == len(store.results()) == 1


@pytest.fixture
def indexed(store, monkeypatch):
    """A registry with a saved index, and its files by how their names end."""
    monkeypatch.setattr(neighbors, "EXACT_BELOW", 50)
    entries = [(make_task(f"task{number}"), make_embedding(f"task{number}")) for number in range(60)]
    store.add_tasks(entries, SPACE)
    TaskRegistry(store.uri).nearest("task0", k=1)
    folder = store.database.place.cache_folder(store.database.registry_id())
    return store, {path.suffix: path for path in folder.iterdir()}


def test_damaged_index_is_told_and_removed(indexed):
    store, files = indexed
    assert store.verify() == []
    whole = {path: path.read_bytes() for path in files.values() if path.is_file()}
    for kind in (".json", ".rows", ".faiss", ".vectors"):
        for path, content in whole.items():
            path.write_bytes(content)
        flip(files[kind], 40)
        (problem,) = store.verify()
        assert (problem.kind, problem.where) == ("index", "embeddings__space0"), kind
        assert problem.message.startswith("the saved index is ")
        assert store.verify(repair=True) == [replace(problem, repaired=True)]
        assert store.verify() == []
        assert not any(path.exists() for path in files.values() if path.suffix)
    assert len(TaskRegistry(store.uri).nearest("task0", k=2)[1]) == 2


def test_index_that_is_behind_or_gone_is_no_problem(indexed):
    store, files = indexed
    add(store, "later")
    assert store.verify() == []
    for path in files.values():
        path.unlink()
    assert store.verify() == []


def test_verify_counts_and_names_the_rows(store):
    insert(store, "embeddings__space0", [make_embedding(f"stray{number}") for number in range(7)])
    message = "7 rows of a task that was never committed: stray0@1, stray1@1, stray2@1, stray3@1, stray4@1, ..."
    assert store.verify() == [Problem("orphan", "embeddings__space0", message)]


def test_verify_leaves_a_shared_alias_to_the_latest_version(store):
    for version in (1, 2, 3):
        add(store, "flowers", version, aliases=("old",) if version == 1 else ())
    add(store, "gone", aliases=("best",))
    add(store, "gone", 2)
    store.remove_task("gone")
    share = {"aliases": "make_array('best', 'good')"}
    store.database.commit("tasks", lambda table: table.update(where="version < 3", values_sql=share))
    message = "2 aliases name several versions of a task: flowers@best, flowers@good"
    problem = Problem("duplicate", "tasks", message)
    assert store.verify() == [problem]
    assert store.verify(repair=True) == [replace(problem, repaired=True)]
    assert [task.aliases for task in store.versions("flowers")] == [(), ("best", "good"), ()]
    assert [task.aliases for task in store.versions("gone", removed=True)] == [("best", "good")] * 2
    assert store.task("flowers@best").version == 2
    assert store.verify() == []


def test_verify_notes_what_it_repairs(store):
    add(store, "kept")
    insert(store, "tasks", [make_task("bare"), make_task("kept")])
    insert(store, "results", [make_result("kept", "m.x")] * 2)
    store.verify(repair=True)
    lines = [(line.action, line.subject, line.details) for line in store.audit()[-2:]]
    assert sorted(lines) == [
        ("repair", "results", '{"deleted_rows": 1}'),
        ("repair", "tasks", '{"deleted_rows": 2}'),
    ]


def test_lines_of_the_audit_may_be_alike(store):
    add(store, "flowers")
    store.add_experts([make_expert("m.x")])
    store.add_results([make_result("flowers", "m.x", 0.5), make_result("flowers", "m.x", 0.6)])
    assert store.verify() == []


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
    assert kinds(problems) == [("damaged", "embeddings__space0", False)]
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
    message = f"the columns are not those of schema version {schema.SCHEMA_VERSION}"
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
        Problem("dangling", "experts", "1 row names the source_task 'imagenet', which is not registered"),
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
