"""A registry that an earlier version of this package wrote opens, is brought up to date, and answers as before.

``fixtures/registry_vN.zip`` was written by schema version N. All hold samples of scikit-learn's digits, really
embedded, one expert and one result: version 1 the tasks digits and few, the others digits@1, digits@2, few, and
gone, which was removed; from version 3 on also an alias of digits@1 and an expert that was removed.
``fixtures/bundle_vN.t2v`` is what version N exported of that registry.
"""

import re
import threading
import zipfile
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from builders import make_embedding, make_task
from command_lines import answer

from registry import TaskRegistry
from registry.errors import StorageError
from registry.ingest.data import make_settings
from registry.ingest.prepare import prepare_task
from registry.storage import schema
from registry.storage.store import Store

FIXTURES = Path(__file__).parents[2] / "support" / "fixtures"
DIGITS = "sklearn:digits"
SPACE = "deac4466713c82ef"
EMBEDDINGS = f"embeddings__{SPACE}"

IDENTITY = {"experts": {"toy", "aliases", "weights_hash"}}
IDENTITY["results"] = {"lower_is_better", "task_version", "weights_hash", "run_id"}
OF_EXPERTS = {"source_accuracy", "cached_as"} | IDENTITY["experts"]
ADDED_COLUMNS = {
    1: IDENTITY | {"tasks": {"kind", "aliases"}, EMBEDDINGS: {"checksum"}, "experts": OF_EXPERTS},
    2: IDENTITY | {"tasks": {"aliases"}, EMBEDDINGS: {"checksum"}, "experts": OF_EXPERTS},
    3: IDENTITY | {"experts": OF_EXPERTS},
    4: IDENTITY,
    5: {},
}
KEYS = {1: [("digits", 1), ("few", 1)], 2: [("digits", 1), ("digits", 2), ("few", 1)]}
KEYS[3] = KEYS[4] = KEYS[5] = KEYS[2]
# Of few to the latest digits, as that version said.
DISTANCE = {1: 0.11217728270925997, 2: 0.149941137925101, 3: 0.14994122965863255, 4: 0.14994122965863255}
DISTANCE[5] = DISTANCE[4]
NUM_COMMITS = {1: 14, 2: 12, 3: 7, 4: 5, 5: 2}


def unpack(version, folder):
    with zipfile.ZipFile(FIXTURES / f"registry_v{version}.zip") as archive:
        archive.extractall(folder)
    return folder


BETWEEN = [pytest.param(number, marks=pytest.mark.slow) for number in (2, 3, 4, 5)]
"""What version 1 passes through on its way anyway."""


@pytest.fixture(params=[1, *BETWEEN], ids=["v1", "v2", "v3", "v4", "v5"])
def version(request):
    return request.param


@pytest.fixture
def old(version, tmp_path):
    """The folder of a registry of that version."""
    return unpack(version, tmp_path / "old")


def raw(folder, table):
    """Rows of a table as they lie there, whatever their version."""
    return lancedb.connect(folder).open_table(table).to_arrow()


def version_of(folder):
    return {row["key"]: row["value"] for row in raw(folder, "meta").to_pylist()}["schema_version"]


def check_up_to_date(folder, version):
    """It has the columns and rows that it should have, with checksums that are right, and no problem."""
    store = Store(folder)
    assert [(task.name, task.version) for task in store.tasks(latest=False)] == KEYS[version]
    assert version_of(folder) == str(schema.SCHEMA_VERSION)
    for name, columns in schema.TABLES.items():
        assert raw(folder, name).schema.equals(columns), name
    embeddings = raw(folder, EMBEDDINGS)
    space = store.space(SPACE)
    assert embeddings.schema.equals(schema.embeddings_schema(space.dim, space.domain_dim))
    assert embeddings["checksum"].to_pylist() == schema.made_checksums(embeddings)
    assert {problem.kind for problem in store.verify()} <= {"dangling"}
    assert [store.database.place.checksums_are_whole(name) for name in store.database.table_names()] == [
        True
    ] * 8


def test_the_fixture_is_of_its_version_and_small(old, version):
    assert version_of(old) == str(version)
    assert ("kind" in raw(old, "tasks").schema.names) == (version > 1)
    assert ("checksum" in raw(old, EMBEDDINGS).schema.names) == (version > 2)
    assert ADDED_COLUMNS[version].get("experts", set()).isdisjoint(raw(old, "experts").schema.names)
    assert (FIXTURES / f"registry_v{version}.zip").stat().st_size < 100_000


def test_there_is_a_fixture_of_every_earlier_version():
    versions = [int(path.stem.removeprefix("registry_v")) for path in FIXTURES.glob("registry_v*.zip")]
    assert sorted(versions) == list(range(1, schema.SCHEMA_VERSION))
    assert sorted(schema.MIGRATIONS) == list(range(2, schema.SCHEMA_VERSION + 1))


def test_an_old_registry_is_brought_up_to_date_and_sound(old, version):
    check_up_to_date(old, version)
    assert {problem.kind for problem in TaskRegistry(old).verify()} <= {"dangling"}


def test_nothing_else_changes(old, version):
    names = ["spaces", "tasks", "experts", "results", EMBEDDINGS]
    before = {name: raw(old, name).to_pylist() for name in names}
    Store(old).tasks()
    after = {name: raw(old, name).to_pylist() for name in names}
    assert {row["kind"] for row in after["tasks"]} == {"single_label"}
    assert [row["name"] for row in after["tasks"] if row["aliases"]] == (["digits"] if version > 2 else [])
    if version < 4:
        assert {(row["source_accuracy"], row["cached_as"]) for row in after["experts"]} == {(None, "")}
    assert {(row["toy"], *row["aliases"], row["weights_hash"]) for row in after["experts"]} == {(False, "")}
    assert [(row["lower_is_better"], row["task_version"], row["run_id"]) for row in after["results"]] == [
        (False, 0, "")
    ]
    for table, columns in ADDED_COLUMNS[version].items():
        after[table] = [{key: row[key] for key in row if key not in columns} for row in after[table]]
    assert after == before


def test_an_old_registry_answers_as_it_did(old, version):
    registry = TaskRegistry(old)
    assert [(task.name, task.kind, task.num_classes) for task in registry.tasks()] == [
        ("digits", "single_label", 10),
        ("few", "single_label", 10),
    ]
    assert [task.name for task in registry.tasks(where="kind = 'single_label' and tags = 'grey'")] == ["digits"]
    query, [neighbor] = registry.nearest("digits")
    assert (query.space, neighbor.task) == (SPACE, "few")
    assert neighbor.distance == pytest.approx(DISTANCE[version], rel=1e-6)
    assert [expert.name for expert in registry.experts()] == ["resnet14w32.mnist"]
    assert [result.accuracy for result in registry.results(task="digits")] == [0.9]
    assert registry.recommend("few", published=False).recommendations[0].expert == "resnet14w32.mnist"
    card = answer(old, "task", "show", "digits@1")
    assert (card["kind"], card["head_metric"], card["num_samples_drawn"]) == (
        "single_label",
        "balanced accuracy",
        50,
    )


@pytest.mark.parametrize("version", [2, 3, 4, 5], ids=["v2", "v3", "v4", "v5"])
def test_versions_and_removed_tasks_of_an_old_registry_are_what_they_were(version, tmp_path):
    folder = unpack(version, tmp_path / "old")
    registry, store = TaskRegistry(folder), Store(folder)
    assert registry.task("digits").version == 2
    assert registry.distance("digits@1", "digits@2") == pytest.approx(0.052619918962873435, rel=2e-6)
    assert [task.name for task in store.versions("gone", removed=True)] == ["gone"]
    assert store.next_version("gone") == 2
    store.restore_task("gone")
    assert store.embedding(SPACE, "gone", 1) is not None


def test_aliases_history_and_removed_experts_of_version_3_are_what_they_were(tmp_path):
    registry = TaskRegistry(unpack(3, tmp_path / "old"))
    assert registry.task("digits@first").version == 1
    assert [line.action for line in registry.audit()].count("task.add") == 4
    registry.restore_expert("plain.none")
    assert registry.expert("plain.none") == replace(
        registry.expert("plain.none"), num_params=None, source_accuracy=None, cached_as=""
    )


def test_an_expert_of_an_old_registry_can_get_what_it_lacked(old):
    changed = replace(Store(old).expert("resnet14w32.mnist"), source_accuracy=0.99)
    Store(old).add_experts([replace(changed, name="another.mnist")])
    assert Store(old).expert("another.mnist").source_accuracy == 0.99
    assert {problem.kind for problem in Store(old).verify()} <= {"dangling"}


@pytest.mark.parametrize(
    ("version", "source_accuracy"), [(3, None), (4, 0.98), (5, 0.98)], ids=["v3", "v4", "v5"]
)
def test_an_older_bundle_can_be_imported(tmp_path, version, source_accuracy):
    bundle = FIXTURES / f"bundle_v{version}.t2v"
    registry = TaskRegistry(tmp_path / "new")
    summary = registry.import_bundle(bundle)
    assert (summary.tasks, summary.embeddings, summary.experts, summary.results) == (3, 3, 1, 1)
    expert = registry.expert("resnet14w32.mnist")
    assert (expert.source_task, expert.source_accuracy, expert.toy) == ("mnist", source_accuracy, False)
    assert registry.task("digits@first").version == 1
    assert registry.distance("few", "digits") == pytest.approx(DISTANCE[3], rel=1e-6)
    again = registry.import_bundle(bundle)
    assert (again.tasks, again.embeddings, again.experts, again.results) == (0, 0, 0, 0)


@pytest.mark.parametrize("version", [3, 4, 5], ids=["v3", "v4", "v5"])
def test_an_older_bundle_is_what_its_registry_is_now(tmp_path, version):
    registry = TaskRegistry(unpack(version, tmp_path / "old"))
    summary = registry.import_bundle(FIXTURES / f"bundle_v{version}.t2v")
    assert (summary.tasks, summary.experts, summary.results, summary.conflicts) == (0, 0, 0, ())


@pytest.mark.parametrize(
    ("name", "options"), [("digits", {"max_samples": 50}), ("few", {"max_samples": 40, "seed": 3})]
)
def test_the_same_data_with_the_settings_of_an_old_registry_is_not_added_again(tmp_path, name, options):
    old = unpack(1, tmp_path / "old")
    prepared = prepare_task(DIGITS, make_settings(**options))
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
    store.set_alias("digits@1", "first")
    kinds = {task.name: (task.kind, task.tags) for task in Store(old).tasks()}
    assert kinds == {
        "digits": ("single_label", ("changed",)),
        "few": ("single_label", ()),
        "several": ("multi_label", ()),
    }
    assert Store(old).task("digits@first").version == 1
    assert [line.action for line in Store(old).audit()][-3:] == ["task.add", "task.tag", "task.alias"]
    assert {problem.kind for problem in Store(old).verify()} <= {"dangling"}


@contextmanager
def killed_before_commit(number):
    """Stop with ``KeyboardInterrupt`` instead of the commit of that number, and count the commits before it."""
    commits = []

    def counted(method):
        def commit(self, *args, **options):
            if len(commits) == number:
                raise KeyboardInterrupt(f"killed before commit {number}")
            commits.append(method.__name__)
            return method(self, *args, **options)

        return commit

    with pytest.MonkeyPatch.context() as patch:
        for owner, names in (
            (lancedb.table.LanceTable, ("add_columns", "merge_insert", "update")),
            (lancedb.db.LanceDBConnection, ("create_table",)),
        ):
            for name in names:
                patch.setattr(owner, name, counted(getattr(owner, name)))
        yield commits


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_at_any_commit_is_made_good(version, tmp_path, every):
    for number in range(0, NUM_COMMITS[version], every):
        folder = unpack(version, tmp_path / str(number))
        message = f"^killed before commit {number}$"
        with killed_before_commit(number) as commits, pytest.raises(KeyboardInterrupt, match=message):
            Store(folder).tasks()
        assert len(commits) == number
        assert int(version_of(folder)) < schema.SCHEMA_VERSION
        check_up_to_date(folder, version)
    folder = unpack(version, tmp_path / "whole")
    with killed_before_commit(NUM_COMMITS[version]) as commits:
        Store(folder).tasks()
    assert len(commits) == NUM_COMMITS[version]


def test_a_kill_at_any_commit_of_the_second_attempt_is_made_good(tmp_path):
    """What was done is not done again: two commits an attempt are enough to come to an end."""
    folder = unpack(1, tmp_path / "old")
    for _ in range(NUM_COMMITS[1]):
        with killed_before_commit(2), suppress(KeyboardInterrupt):
            Store(folder).tasks()
    assert version_of(folder) == str(schema.SCHEMA_VERSION)
    check_up_to_date(folder, 1)


def test_a_registry_without_tasks_is_brought_up_to_date(old):
    for table in ("tasks", "results", EMBEDDINGS):
        lancedb.connect(old).open_table(table).delete("true")
    store = Store(old)
    assert store.tasks() == []
    assert {problem.kind for problem in store.verify()} <= {"dangling"}
    assert raw(old, "tasks").schema.equals(schema.TASKS)


@pytest.mark.parametrize("version", [1, 2], ids=["v1", "v2"])
def test_of_old_rows_with_one_key_the_last_has_the_right_checksum(version, tmp_path):
    """Early versions could leave two rows of one embedding; from version 3 on rows have checksums."""
    old = unpack(version, tmp_path / "old")
    table = lancedb.connect(old).open_table(EMBEDDINGS)
    few = table.to_arrow().filter(pa.compute.field("task") == "few")
    table.add(few.set_column(6, few.schema.field(6), pa.array([0.125])))
    embedding = Store(old).embedding(SPACE, "few", 1)
    assert embedding.head_accuracy == 0.125
    problems = Store(old).verify(repair=True)
    assert ("duplicate", EMBEDDINGS) in {(problem.kind, problem.where) for problem in problems}
    check_up_to_date(old, version)


def test_stores_that_open_an_old_registry_at_once_migrate_it_once(old, version):
    seen, stores = [], [Store(old) for _ in range(4)]
    threads = [threading.Thread(target=lambda store=store: seen.append(len(store.tasks()))) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [2] * 4
    check_up_to_date(old, version)


def test_an_old_registry_that_cannot_be_written_says_what_it_needs(old, version, monkeypatch):
    def refuse(folder):
        raise StorageError(f"{folder} cannot be written: Read-only file system")

    monkeypatch.setattr("registry.storage.folders.folder_lock", refuse)
    message = (
        f"{old}: schema version {version} has to be brought up to {schema.SCHEMA_VERSION} once, by any command "
        f"of somebody who can write there: {old} cannot be written: Read-only file system"
    )
    with pytest.raises(StorageError, match=f"^{re.escape(message)}$"):
        Store(old).tasks()


def test_vectors_of_an_old_registry_are_read_bit_by_bit(old):
    stored = {(row["task"], row["version"]): row["fisher"] for row in raw(old, EMBEDDINGS).to_pylist()}
    [(_, embedding)] = TaskRegistry(old).embeddings_of("digits@1")
    np.testing.assert_array_equal(embedding.fisher, np.array(stored["digits", 1], np.float32))
