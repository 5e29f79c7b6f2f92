"""A registry that an earlier version of this package wrote opens, is brought up to date, and answers as before.

``fixtures/registry_v1.zip`` was written by schema version 1: two samples of scikit-learn's digits, really
embedded, one expert and one result.
"""

import re
import threading
import zipfile
from pathlib import Path

import lancedb
import numpy as np
import pytest
from builders import make_embedding, make_task
from command_lines import answer

from registry import TaskRegistry, ingest, schema
from registry.errors import StorageError
from registry.store import Store

FIXTURE = Path(__file__).parent / "fixtures" / "registry_v1.zip"
DIGITS = "sklearn:digits"


@pytest.fixture
def old(tmp_path):
    """The folder of a registry of version 1."""
    folder = tmp_path / "old"
    with zipfile.ZipFile(FIXTURE) as archive:
        archive.extractall(folder)
    return folder


def raw(folder, table):
    """Rows of a table as they lie there, whatever their version."""
    return lancedb.connect(folder).open_table(table).to_arrow()


def version_of(folder):
    return {row["key"]: row["value"] for row in raw(folder, "meta").to_pylist()}["schema_version"]


def test_the_fixture_is_of_version_1_and_small(old):
    assert version_of(old) == "1"
    assert "kind" not in raw(old, "tasks").schema.names
    assert FIXTURE.stat().st_size < 100_000


def test_an_old_registry_is_brought_up_to_date_and_sound(old):
    assert Store(old).verify() == []
    assert version_of(old) == str(schema.SCHEMA_VERSION)
    assert raw(old, "tasks").schema.equals(schema.TASKS)
    assert TaskRegistry(old).verify() == []


def test_nothing_else_changes(old):
    names = ["spaces", "tasks", "experts", "results", "embeddings__deac4466713c82ef"]
    before = {name: raw(old, name).to_pylist() for name in names}
    Store(old).tasks()
    after = {name: raw(old, name).to_pylist() for name in names}
    assert all(row.pop("kind") == "single_label" for row in after["tasks"])
    assert after == before


def test_an_old_registry_answers_as_it_did(old):
    registry = TaskRegistry(old)
    assert [(task.name, task.kind, task.num_classes) for task in registry.tasks()] == [
        ("digits", "single_label", 10),
        ("few", "single_label", 10),
    ]
    assert [task.name for task in registry.tasks(where="kind = 'single_label' and tags = 'grey'")] == ["digits"]
    query, [neighbor] = registry.nearest("digits")
    assert (query.space, neighbor.task) == ("deac4466713c82ef", "few")
    assert neighbor.distance == pytest.approx(0.11217728270925997, abs=1e-9)
    assert [expert.name for expert in registry.experts()] == ["resnet14w32.mnist"]
    assert [result.accuracy for result in registry.results(task="digits")] == [0.9]
    assert registry.recommend("few").recommendations[0].expert == "resnet14w32.mnist"
    card = answer(old, "task", "show", "digits")
    assert (card["kind"], card["head_metric"], card["num_samples_drawn"]) == (
        "single_label",
        "balanced accuracy",
        50,
    )


@pytest.mark.parametrize(
    ("name", "options"), [("digits", {"max_samples": 50}), ("few", {"max_samples": 40, "seed": 3})]
)
def test_the_same_data_with_the_settings_of_an_old_registry_is_not_added_again(old, name, options):
    prepared = ingest.prepare_task(DIGITS, ingest.make_settings(**options))
    Store(old).database.commit(
        "tasks",
        lambda table: table.update(where=f"name = '{name}'", values={"fingerprint": prepared.fingerprint}),
    )
    added = TaskRegistry(old).add_task(name, DIGITS, **options)
    assert (added.version, added.created, added.kind) == (1, False, "single_label")


def test_an_old_registry_can_be_written(old):
    store = Store(old)
    space = store.spaces()[0]
    several = make_task("several", kind="multi_label")
    embedding = make_embedding("several", dim=space.dim, domain_dim=space.domain_dim)
    store.add_task(several, space.space_id, embedding)
    store.set_tags("digits", ("changed",))
    kinds = {task.name: (task.kind, task.tags) for task in Store(old).tasks()}
    assert kinds == {
        "digits": ("single_label", ("changed",)),
        "few": ("single_label", ()),
        "several": ("multi_label", ()),
    }
    assert Store(old).verify() == []


def test_a_kill_between_the_steps_is_made_good(old):
    """The column is there, its version is not: as a kill leaves it after the first of the two commits."""
    schema.MIGRATIONS[2](lancedb.connect(old).open_table)
    assert "kind" in raw(old, "tasks").schema.names
    assert version_of(old) == "1"
    assert [task.kind for task in Store(old).tasks()] == ["single_label"] * 2
    assert version_of(old) == str(schema.SCHEMA_VERSION)
    assert raw(old, "tasks").schema.equals(schema.TASKS)


def test_a_registry_without_tasks_is_brought_up_to_date(old):
    lancedb.connect(old).open_table("tasks").delete("true")
    lancedb.connect(old).open_table("results").delete("true")
    lancedb.connect(old).open_table("embeddings__deac4466713c82ef").delete("true")
    store = Store(old)
    assert store.tasks() == []
    assert store.verify() == []
    assert raw(old, "tasks").schema.equals(schema.TASKS)


def test_stores_that_open_an_old_registry_at_once_migrate_it_once(old):
    seen, stores = [], [Store(old) for _ in range(4)]
    threads = [threading.Thread(target=lambda store=store: seen.append(len(store.tasks()))) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [2] * 4
    assert raw(old, "tasks").schema.names.count("kind") == 1


def test_an_old_registry_that_cannot_be_written_says_what_it_needs(old, monkeypatch):
    def refuse(folder):
        raise StorageError(f"{folder} cannot be written: Read-only file system")

    monkeypatch.setattr("registry.database.folder_lock", refuse)
    message = (
        f"{old}: schema version 1 has to be brought up to 2 once, by any command of somebody who can write "
        f"there: {old} cannot be written: Read-only file system"
    )
    with pytest.raises(StorageError, match=f"^{re.escape(message)}$"):
        Store(old).tasks()


def test_vectors_of_an_old_registry_are_read_bit_by_bit(old):
    stored = {row["task"]: row["fisher"] for row in raw(old, "embeddings__deac4466713c82ef").to_pylist()}
    [(_, embedding)] = TaskRegistry(old).embeddings_of("digits")
    np.testing.assert_array_equal(embedding.fisher, np.array(stored["digits"], np.float32))
