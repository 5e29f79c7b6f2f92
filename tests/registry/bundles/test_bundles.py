"""Export and import: what goes along, what comes back, and how the file is written."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from builders import make_embedding, make_expert, make_result, make_true_space
from exportable import SETTINGS, SPACE0, add, as_written, content, exported, imported, is_own, make_source, task
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import TaskRegistry
from registry.bundles import format as bundle_format
from registry.errors import BundleError, InvalidQueryError, InvalidRecordError, NotFoundError, StorageError
from registry.gate import MAX_VERSION
from registry.records import TaskRecord
from registry.storage import schema
from registry.storage.rows import audit_lines
from registry.storage.store import Store


@pytest.fixture
def source(tmp_path):
    return make_source(tmp_path / "source")


def test_everything_comes_back(source, tmp_path):
    summary = exported(source, tmp_path / "all.t2v")
    assert (summary.spaces, summary.tasks, summary.embeddings) == (2, 4, 5)
    assert (summary.experts, summary.results, summary.audit_lines) == (3, 5, len(source.audit()))
    assert summary.bytes == (tmp_path / "all.t2v").stat().st_size
    taken = imported(tmp_path / "all.t2v", tmp_path / "target")
    assert taken.created
    assert taken.checksum == summary.checksum
    target = Store(tmp_path / "target")
    here, there = content(target), content(source)
    there["audit"] += [
        as_written(line) for line in target.audit() if line.action == "space.add" and not is_own(line)
    ]
    for name in there:
        assert set(here[name]) == set(there[name]), name
    assert target.verify() == []
    assert target.task("flowers@champion").version == 2
    assert target.database.registry_id() != source.database.registry_id()


def test_the_same_content_makes_the_same_bytes(source, tmp_path):
    exported(source, tmp_path / "one.t2v")
    source.optimize()
    exported(source, tmp_path / "two.t2v")
    assert (tmp_path / "one.t2v").read_bytes() == (tmp_path / "two.t2v").read_bytes()


def test_importing_again_writes_nothing(source, tmp_path):
    exported(source, tmp_path / "all.t2v")
    imported(tmp_path / "all.t2v", tmp_path / "target")
    target = Store(tmp_path / "target")
    versions = {name: target.database.table_version(name) for name in target.database.table_names()}
    for policy in ("fail", "keep", "take"):
        again = imported(tmp_path / "all.t2v", tmp_path / "target", policy)
        counts = (again.spaces, again.tasks, again.embeddings, again.experts, again.results, again.audit_lines)
        assert (*counts, again.tagged, again.created) == (0,) * 8
    assert {name: target.database.table_version(name) for name in target.database.table_names()} == versions


def test_import_into_its_own_source_writes_nothing(source, tmp_path):
    exported(source, tmp_path / "all.t2v")
    before = content(source)
    imported(tmp_path / "all.t2v", source.uri)
    assert content(source) == before


def test_each_write_of_an_import_is_noted(source, tmp_path):
    exported(source, tmp_path / "all.t2v")
    imported(tmp_path / "all.t2v", tmp_path / "target")
    lines = [line for line in Store(tmp_path / "target").audit() if is_own(line)]
    assert lines[0].action == "import"
    assert json.loads(lines[0].details)["on_conflict"] == "fail"
    noted = sorted((line.action, line.subject) for line in lines[1:])
    assert [subject for action, subject in noted if action == "task.import"] == [
        "birds@1",
        "cars@1",
        "flowers@1",
        "flowers@2",
    ]
    assert len([action for action, _ in noted if action == "expert.import"]) == 3
    assert len([action for action, _ in noted if action == "result.import"]) == 5


# Selections


def test_a_task_goes_with_what_belongs_to_it(source, tmp_path):
    summary = exported(source, tmp_path / "some.t2v", tasks=["birds"])
    assert (summary.spaces, summary.tasks, summary.embeddings) == (1, 1, 1)
    assert (summary.experts, summary.results) == (1, 1)
    imported(tmp_path / "some.t2v", tmp_path / "target")
    target = Store(tmp_path / "target")
    assert [it.name for it in target.tasks()] == ["birds"]
    assert [it.name for it in target.experts()] == ["vit.tiny"]
    assert [it.space_id for it in target.spaces()] == [SPACE0]
    subjects = {line.subject for line in target.audit() if not is_own(line) and line.action != "space.add"}
    assert subjects == {"birds@1", "vit.tiny", "vit.tiny on birds"}
    assert target.verify() == []


@pytest.mark.parametrize(
    ("options", "names", "experts", "results"),
    [
        ({"where": "num_classes > 10"}, {"birds"}, {"vit.tiny"}, 1),
        pytest.param({"where": "tags = 'new'"}, {"flowers"}, {"resnet18.tv_in1k"}, 2, marks=pytest.mark.slow),
        ({"tasks": ["flowers", "birds"], "where": "num_classes > 10"}, {"birds"}, {"vit.tiny"}, 1),
        pytest.param(
            {"results": False},
            {"birds", "cars", "flowers"},
            {"builtin.net", "resnet18.tv_in1k", "vit.tiny"},
            0,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"tasks": ["flowers"], "results": False},
            {"flowers"},
            {"resnet18.tv_in1k"},
            0,
            marks=pytest.mark.slow,
        ),
        ({"results": False, "experts": False}, {"birds", "cars", "flowers"}, set(), 0),
        ({"builtin": False, "tasks": ["flowers", "cars"]}, {"flowers"}, {"resnet18.tv_in1k"}, 2),
    ],
)
def test_selections(source, tmp_path, options, names, experts, results):
    exported(source, tmp_path / "some.t2v", **options)
    imported(tmp_path / "some.t2v", tmp_path / "target")
    target = Store(tmp_path / "target")
    assert {it.name for it in target.tasks()} == names
    assert {it.name for it in target.experts()} == experts
    assert len(target.results()) == results
    assert target.verify() == []
    if "flowers" in names:
        assert [it.version for it in target.versions("flowers")] == [1, 2]


def test_without_starter_content_own_results_on_it_stay(source, tmp_path):
    summary = exported(source, tmp_path / "own.t2v", builtin=False)
    assert (summary.tasks, summary.experts, summary.results) == (3, 2, 4)
    with pytest.raises(
        BundleError, match="results of the task cars, which is neither in it nor in the registry"
    ):
        imported(tmp_path / "own.t2v", tmp_path / "target")
    assert not (tmp_path / "target").exists()
    exported(source, tmp_path / "cars.t2v", tasks=["cars"])
    imported(tmp_path / "cars.t2v", tmp_path / "target")
    imported(tmp_path / "own.t2v", tmp_path / "target")
    assert len(Store(tmp_path / "target").results()) == 5


def test_what_was_removed_stays_behind(source, tmp_path):
    source.remove_task("birds")
    source.remove_expert("resnet18.tv_in1k")
    summary = exported(source, tmp_path / "rest.t2v")
    assert (summary.tasks, summary.experts, summary.results) == (3, 2, 1)
    imported(tmp_path / "rest.t2v", tmp_path / "target")
    assert [it.name for it in Store(tmp_path / "target").tasks()] == ["cars", "flowers"]


def test_an_empty_registry_goes_and_comes(tmp_path):
    exported(Store.create(tmp_path / "source"), tmp_path / "none.t2v")
    taken = imported(tmp_path / "none.t2v", tmp_path / "target")
    assert (taken.created, taken.tasks) == (True, 0)
    assert Store(tmp_path / "target").tasks() == []


def test_selections_of_nothing_are_refused(source, tmp_path):
    path = tmp_path / "none.t2v"
    with pytest.raises(NotFoundError, match="no task is named 'bird'; did you mean birds"):
        exported(source, path, tasks=["bird"])
    with pytest.raises(InvalidRecordError, match="'flowers@2' cannot name a task"):
        exported(source, path, tasks=["flowers@2"])
    with pytest.raises(InvalidQueryError, match="no task is chosen, so nothing was exported"):
        exported(source, path, where="num_classes > 1000")
    with pytest.raises(InvalidQueryError, match="fields are"):
        exported(source, path, where="colour = 'red'")
    assert not path.exists()


# Writing the file


def test_a_former_file_is_replaced_only_by_a_whole_one(source, tmp_path, monkeypatch):
    path = tmp_path / "all.t2v"
    path.write_bytes(b"former")

    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(bundle_format.BundleWriter, "finish", fail)
        with pytest.raises(
            StorageError, match=r"all\.t2v: the file cannot be written: No space left on device"
        ):
            exported(source, path)
    assert path.read_bytes() == b"former"
    assert [it.name for it in tmp_path.iterdir() if it.is_file()] == ["all.t2v"]
    exported(source, path)
    assert imported(path, tmp_path / "target").tasks == 4


def test_places_that_cannot_be_written_are_told(source, tmp_path):
    with pytest.raises(StorageError, match="is a folder; give the file to write"):
        exported(source, tmp_path)
    with pytest.raises(StorageError, match=r"all\.t2v: the file cannot be written: No such file"):
        exported(source, tmp_path / "nowhere" / "all.t2v")
    with pytest.raises(StorageError, match="there is no registry yet"):
        TaskRegistry(tmp_path / "nothing").export(tmp_path / "all.t2v")


def test_a_damaged_embedding_is_not_exported(source, tmp_path):
    source.database.commit(f"embeddings__{SPACE0}", lambda table: table.update(values={"seed": 7}))
    with pytest.raises(StorageError, match=f"table embeddings__{SPACE0} is damaged: embedding of task"):
        exported(source, tmp_path / "all.t2v")
    assert not (tmp_path / "all.t2v").exists()


def test_embeddings_of_before_checksums_get_one(source, tmp_path):
    source.database.commit(f"embeddings__{SPACE0}", lambda table: table.update(values={"checksum": 0}))
    exported(source, tmp_path / "all.t2v")
    imported(tmp_path / "all.t2v", tmp_path / "target")
    assert Store(tmp_path / "target").embedding(SPACE0, "birds", 1).checksum == make_embedding("birds").checksum


def test_a_task_without_embedding_is_told(source, tmp_path):
    source.database.append("tasks", [task("bare")])
    with pytest.raises(StorageError, match="task bare@1 has no embedding; run `t2v verify --repair`"):
        exported(source, tmp_path / "all.t2v")


def test_long_texts_and_wide_vectors_make_small_row_groups():
    rows = schema.to_arrow([task(f"t{number}", data="x" * 2**16) for number in range(3200)], schema.TASKS)
    sizes = [len(group) for group in bundle_format.groups(rows)]
    assert sum(sizes) == 3200
    assert max(sizes) == 1600
    assert bundle_format.group_rows(schema.embeddings_schema(4, 3)) == bundle_format.GROUP_ROWS
    assert bundle_format.group_rows(schema.embeddings_schema(4800, 512)) == 2**26 // (4 * (2 * 4800 + 512))


# Any records

names = st.text("abcXYZ019._-", min_size=1, max_size=12)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
whole_numbers = st.integers(-(2**63), 2**63 - 1)
numbers = st.floats(allow_nan=False, allow_infinity=False)
singles = st.floats(0, 2**49, width=32)
times = st.datetimes().map(lambda time: f"{time.isoformat()}+00:00")
tasks = st.builds(
    TaskRecord,
    name=names,
    version=st.integers(1, MAX_VERSION),
    data=texts,
    num_classes=st.integers(1, 2**53),
    num_samples=st.integers(1, 2**53),
    class_names=st.lists(texts, max_size=3).map(tuple),
    fingerprint=texts,
    settings=st.just(SETTINGS),
    tags=st.lists(names, max_size=3).map(tuple),
    builtin=st.booleans(),
    created_at=times,
    kind=st.sampled_from(["single_label", "multi_label", "regression"]),
)


@st.composite
def entries(draw):
    """Some tasks with embeddings of any numbers."""
    found = []
    for record in draw(st.lists(tasks, max_size=4, unique_by=lambda it: (it.name, it.version))):
        embedding = make_embedding(
            record.name,
            record.version,
            fisher=np.array([1.0, *draw(st.lists(singles, min_size=3, max_size=3))], np.float32),
            domain=np.array(draw(st.lists(singles, min_size=3, max_size=3)), np.float32),
            num_samples_used=draw(st.integers(2, 2**53)),
            head_loss=draw(numbers),
            seed=draw(whole_numbers),
        )
        found.append((record, embedding))
    return found


@settings(max_examples=4, deadline=None)
@given(written=entries(), accuracy=st.floats(0, 1), source_text=texts, time=times)
def test_any_records_come_back(tmp_path_factory, written, accuracy, source_text, time):
    folder = tmp_path_factory.mktemp("any")
    store = Store.create(folder / "source", lambda new: new.add_space(make_true_space()))
    store.add_experts([make_expert(created_at=time)])
    if written:
        store.add_tasks(written, SPACE0)
        name = written[0][0].name
        store.add_results(
            [make_result(name, accuracy=accuracy, source=source_text, created_at=time, seed=None)]
        )
    exported(store, folder / "any.t2v")
    imported(folder / "any.t2v", folder / "target")
    rows, expected = content(Store(folder / "target")), content(store)
    for name in expected.keys() - {"audit"}:
        assert rows[name] == expected[name]
    assert set(expected["audit"]) <= set(rows["audit"])
    again = Store(folder / "target").tasks(latest=False)
    assert [replace(it, created_at="") for it in again] == [
        replace(it, created_at="")
        for it, _ in sorted(written, key=lambda entry: (entry[0].name, entry[0].version))
    ]


# Sizes

MEASURED = [make_result(accuracy=0.5, protocol="fold"), make_result("birds", "vit.tiny", 0.25, protocol="fold")]


def rows_of(table, count):
    """As many rows as one CSV of results may bring: alike but for a number."""
    folds = pa.array(range(count), pa.int64()).cast(pa.string())
    whole = schema.to_arrow(MEASURED, schema.RESULTS).take(
        pa.array([row % 2 for row in range(count)], pa.int64())
    )
    if table == "results":
        folds = pc.binary_join_element_wise("fold", folds, "_")
        return whole.set_column(whole.schema.names.index("protocol"), schema.RESULTS.field("protocol"), folds)
    (line,) = audit_lines("result.add", ["resnet18.tv_in1k on flowers"], accuracy=0.5, protocol="linear_probe")
    return schema.to_arrow([line], schema.AUDIT).take(pa.array([0] * count, pa.int64()))


def comes_back(source, tmp_path, count):
    for table in ("results", "audit"):
        source.database.commit(table, lambda rows, name=table: rows.add(rows_of(name, count)))
    exported(source, tmp_path / "large.t2v")
    imported(tmp_path / "large.t2v", tmp_path / "restored")
    restored = Store(tmp_path / "restored")
    key = [(name, "ascending") for name in schema.RESULTS.names]
    assert restored.verify() == []
    assert restored.database.read("results").sort_by(key).equals(source.database.read("results").sort_by(key))
    return restored


@pytest.mark.parametrize(
    "count", [0, 1, 4097, *(pytest.param(more, marks=pytest.mark.slow) for more in (4095, 20_000))]
)
def test_results_of_any_number_come_back_row_for_row(source, tmp_path, count):
    comes_back(source, tmp_path, count)


@pytest.mark.slow
def test_a_million_results_come_back_row_for_row(source, tmp_path):
    """The audit of one CSV shrinks by far more than any ratio that tells bombs."""
    comes_back(source, tmp_path, 1_000_000)


@pytest.mark.slow
def test_what_no_import_would_take_is_not_exported(source, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_format, "BOMB_FROM_BYTES", 2**20)
    for number in range(40):
        add(source, f"long{number}", data="x" * 2**16)
    with pytest.raises(StorageError, match=r"tasks.parquet would be refused where it is imported"):
        exported(source, tmp_path / "long.t2v")
    assert not list(tmp_path.glob("long*"))


def test_devices_pipes_and_folders_are_not_replaced(source, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "to-pipe").symlink_to("pipe")
    (tmp_path / "to-null").symlink_to(os.devnull)
    for name in ("pipe", "folder", "to-pipe", "to-null"):
        with pytest.raises(StorageError, match=r"must not replace|is a folder"):
            exported(source, tmp_path / name)
    assert (tmp_path / "pipe").is_fifo()
    assert Path(os.devnull).is_char_device()
    (tmp_path / "link").symlink_to("target.t2v")
    exported(source, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert imported(tmp_path / "target.t2v", tmp_path / "again").tasks == 4
