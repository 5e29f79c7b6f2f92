"""Many tasks at once: resumed, reported, interrupted; nothing lost and nothing doubled."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from builders_datasets import noise_image, write_folder
from command_lines import t2v

from registry import TaskRegistry, TaskRow
from registry.errors import InvalidRecordError, NotFoundError, StorageError
from registry.ingest.writer import TaskWriter
from registry.storage.store import Store

NAMES = [f"t{number}" for number in range(5)]
PROBE = "resnet14w32.mnist"  # the smallest that ships


def add_many(tasks, *arguments, **options):
    """Add many with the small probe."""
    return tasks.add_many(*arguments, probe=PROBE, **options)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Five folders of four images each."""
    folder = tmp_path_factory.mktemp("sets")
    for number, name in enumerate(NAMES):
        write_folder(folder / name, {"no": 2, "yes": 2}, first_seed=10 * number)
    return folder


@pytest.fixture(scope="module")
def filled(tmp_path_factory, sets):
    """A registry that holds them, one task a commit; what was reported; and the summary. Tests only read it."""
    tasks = TaskRegistry(tmp_path_factory.mktemp("many") / "registry")
    tasks.init(empty=True)
    told = []
    rows = [TaskRow(name, str(sets / name), (name,)) for name in NAMES]
    rows.insert(2, TaskRow("broken", str(sets / "nowhere")))
    added = add_many(
        tasks, rows, tags=["all"], batch=2, report=lambda progress, news: told.append((progress, news))
    )
    return tasks, told, added


def rows_of(sets, *names):
    """Rows of some of them."""
    return [TaskRow(name, str(sets / name)) for name in names]


def test_a_task_that_fails_stops_no_other(filled):
    tasks, _, added = filled
    assert (added.asked, added.added, added.unchanged, added.failed) == (6, 5, 0, 1)
    assert [one.task for one in added.tasks] == ["t0", "t1", "broken", "t2", "t3", "t4"]
    assert [one.status for one in added.tasks] == ["added", "added", "failed", "added", "added", "added"]
    assert "no such file or folder" in added.tasks[2].error
    assert added.tasks[2].version is None
    assert [task.name for task in tasks.tasks()] == NAMES
    assert [task.tags for task in tasks.tasks()] == [("all", name) for name in NAMES]


def test_each_is_what_adding_it_alone_makes(filled, sets, tmp_path):
    """Rounding apart: alone it has all cores."""
    tasks, _, added = filled
    alone = TaskRegistry(tmp_path / "alone")
    alone.init(empty=True)
    alone.add_task("t1", str(sets / "t1"), tags=["all", "t1"], probe=PROBE)
    one, other = tasks.task("t1"), alone.task("t1")
    assert replace(one, created_at="") == replace(other, created_at="")
    ((space, found),), ((other_space, expected),) = tasks.embeddings_of("t1"), alone.embeddings_of("t1")
    assert space.space_id == other_space.space_id == added.space
    np.testing.assert_allclose(found.fisher, expected.fisher, rtol=1e-4)
    assert found.head_accuracy == expected.head_accuracy


def test_what_is_reported_as_added_comes_in_batches_and_counts_up(filled):
    _, told, added = filled
    assert sorted(one.task for _, news in told for one in news) == sorted(["broken", *NAMES])
    assert added.commits >= 3
    last = told[-1][0]
    assert (last.done, last.total, last.added, last.failed) == (6, 6, 5, 1)
    assert last.per_second > 0
    assert [progress.done for progress, _ in told] == sorted(progress.done for progress, _ in told)


def test_what_is_done_is_left_alone_and_changed_data_makes_a_version(sets, tmp_path, monkeypatch):
    """The second run embeds what is new or changed and nothing else."""
    tasks = TaskRegistry(tmp_path / "registry")
    tasks.init(empty=True)
    changing = write_folder(tmp_path / "changing", {"no": 2, "yes": 2}, first_seed=500)
    first = [*rows_of(sets, "t0"), TaskRow("changing", str(changing), ("kept",))]
    add_many(tasks, first)
    noise_image(999).save(changing / "no" / "new.png")
    embedded = []
    take = TaskWriter.take
    monkeypatch.setattr(
        TaskWriter, "take", lambda self, row, *rest: (embedded.append(row.name), take(self, row, *rest))[1]
    )
    again = add_many(tasks, [*rows_of(sets, "t0", "t1"), replace(first[1], tags=("new",))])
    assert [(one.task, one.status, one.version) for one in again.tasks] == [
        ("t0", "unchanged", 1),
        ("t1", "added", 1),
        ("changing", "added", 2),
    ]
    assert embedded == ["t1", "changing"]
    assert tasks.task("changing").tags == ("kept", "new")
    other = add_many(tasks, rows_of(sets, "t0"), max_samples=4)  # another setting is another version
    assert [(one.status, one.version) for one in other.tasks] == [("added", 2)]
    lines = [line.subject for line in tasks.audit() if line.action == "task.add"]
    assert sorted(lines) == ["changing@1", "changing@2", "t0@1", "t0@2", "t1@1"]


def test_a_name_that_was_purged_or_removed_gets_the_next_version(sets, tmp_path):
    tasks = TaskRegistry(tmp_path / "registry")
    tasks.init(empty=True)
    add_many(tasks, rows_of(sets, "t0", "t1"))
    tasks.remove_task("t0", purge=True)
    tasks.remove_task("t1")
    again = add_many(tasks, rows_of(sets, "t0", "t1", "t2"))
    assert [one.version for one in again.tasks] == [2, 2, 1]


def test_a_further_space_embeds_the_same_versions_in_one_commit(sets, tmp_path):
    tasks = TaskRegistry(tmp_path / "registry")
    tasks.init(empty=True)
    add_many(tasks, rows_of(sets, "t0", "t1"))
    more = add_many(tasks, rows_of(sets, "t0", "t1"), estimator="empirical")
    assert [(one.status, one.version) for one in more.tasks] == [("added", 1), ("added", 1)]
    assert more.commits == 1
    assert len(tasks.embeddings_of("t0")) == len(tasks.embeddings_of("t1")) == 2
    again = add_many(tasks, rows_of(sets, "t0", "t1"), estimator="empirical")
    assert again.unchanged == 2


def test_an_interrupted_run_keeps_what_is_done_and_is_finished_by_the_same_call(sets, tmp_path):
    tasks = TaskRegistry(tmp_path / "registry")
    tasks.init(empty=True)
    calls = []

    def interrupt(progress, news):
        calls.append(news)
        if len(calls) == 3:  # two tasks are embedded, and wait to be written
            raise KeyboardInterrupt("by hand")

    with pytest.raises(KeyboardInterrupt, match="by hand"):
        add_many(tasks, rows_of(sets, *NAMES), report=interrupt)
    before = [task.name for task in tasks.tasks()]
    assert 1 <= len(before) < 5
    again = add_many(tasks, rows_of(sets, *NAMES))
    assert (again.unchanged, again.added) == (len(before), 5 - len(before))
    assert [task.name for task in tasks.tasks()] == NAMES
    assert tasks.verify() == []


def test_a_registry_that_cannot_be_written_ends_the_run(sets, tmp_path, monkeypatch):
    tasks = TaskRegistry(tmp_path / "registry")
    tasks.init(empty=True)

    def fail(*arguments):
        raise StorageError("the disk is full")

    monkeypatch.setattr(Store, "add_tasks", fail)
    with pytest.raises(StorageError, match="the disk is full"):
        add_many(tasks, rows_of(sets, "t0"))


def test_bad_rows_stop_it_before_it_begins(tmp_path):
    path = tmp_path / "tasks.csv"
    path.write_text("name,data\na,x\n,y\nb c,z\n")
    with pytest.raises(
        InvalidRecordError, match=r"2 rows are no tasks, so nothing was started: .*line 3: .*line 4: "
    ):
        add_many(TaskRegistry(tmp_path / "registry"), path)
    assert not (tmp_path / "registry").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch": 0}, InvalidRecordError, "batch must be at least 1, got 0"),
        ({"tags": ["a b"]}, InvalidRecordError, "'a b' cannot name a tag"),
        ({"engine": "serail"}, NotFoundError, "no engine is named 'serail'; did you mean serial?"),
    ],
)
def test_what_cannot_be_is_told_before_it_begins(tmp_path, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        add_many(TaskRegistry(tmp_path / "registry"), [], **options)
    assert not (tmp_path / "registry").exists()


def test_the_command_tells_failures_and_ends_with_1(filled, sets, tmp_path):
    tasks, _, _ = filled
    path = tmp_path / "tasks.csv"
    path.write_text(f"name,data\nt0,{sets}/t0\nbad,{sets}/none\n,{sets}/t1\n")
    refused = t2v(tasks.uri, "task", "add-many", path, "--probe", PROBE)
    assert refused.exit_code == 1
    assert f"1 row is no task, so nothing was started: {path}, line 4: " in refused.stderr
    assert refused.stdout == ""
    found = t2v(tasks.uri, "task", "add-many", path, "--probe", PROBE, "--skip-bad", "--json")
    assert found.exit_code == 1
    told = json.loads(found.stdout)
    assert {name: told[name] for name in ("asked", "added", "unchanged", "failed")} == {
        "asked": 3,
        "added": 0,
        "unchanged": 1,
        "failed": 2,
    }
    assert f"Failed: bad (line 3): {sets}/none: no such file or folder" in found.stderr
    shown = t2v(tasks.uri, "task", "add-many", path, "--probe", PROBE, "--skip-bad")
    assert "unchanged\t1, found in 0 s" in shown.stdout
    assert "bad" in shown.stdout


def test_the_command_ends_with_0_if_none_failed_and_2_on_wrong_usage(filled, sets):
    tasks, _, _ = filled
    assert t2v(tasks.uri, "task", "add-many", sets, "--probe", PROBE).exit_code == 0
    assert t2v(tasks.uri, "task", "add-many").exit_code == 2
    assert t2v(tasks.uri, "task", "add-many", sets, "--jobs", "0").exit_code == 2
    refused = t2v(tasks.uri, "task", "add-many", sets, "--probe", PROBE, "--jobs", "2")
    assert refused.exit_code == 1
    assert "the engine serial does not heed jobs; use processes or ray, or leave it out" in refused.stderr


def test_one_dataset_in_shards_is_the_same_task(sets, tmp_path):
    """Registered whole, it is unchanged when it comes in parts; without parts, engines are refused."""
    tasks = TaskRegistry(tmp_path / "registry")
    tasks.init(empty=True)
    whole = tasks.add_task("t0", str(sets / "t0"), probe=PROBE)
    parts = tasks.add_task("t0", str(sets / "t0"), shards=3, probe=PROBE)
    assert (parts.created, parts.version, parts.space) == (False, 1, whole.space)
    other = t2v(tasks.uri, "task", "add", "other", sets / "t0", "--probe", PROBE, "--shards", "2", "--json")
    assert json.loads(other.stdout)["norm"] == pytest.approx(whole.norm, rel=1e-5)
    assert tasks.task("other").fingerprint == tasks.task("t0").fingerprint
    refused = t2v(tasks.uri, "embed", sets / "t0", "--engine", "processes", "--jobs", "2")
    assert refused.exit_code == 1
    assert "engine and jobs would change nothing: one dataset is embedded in this process" in refused.stderr


def test_an_interrupt_of_the_command_ends_with_130_and_says_how_to_go_on(sets, tmp_path, monkeypatch):
    registered = TaskWriter.write

    def interrupt(self):
        registered(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(TaskWriter, "is_due", True)
    monkeypatch.setattr(TaskWriter, "write", interrupt)
    tasks = TaskRegistry(tmp_path / "registry")
    tasks.init(empty=True)
    ended = t2v(tasks.uri, "task", "add-many", sets, "--probe", PROBE)
    assert ended.exit_code == 130
    assert "Tasks embedded so far are kept; the same command does the rest.\nInterrupted.\n" in ended.stderr
    assert [task.name for task in tasks.tasks()] == ["t0"]
