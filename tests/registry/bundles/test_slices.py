"""Imports write in slices: others write between them, and what they change there is noticed."""

import fcntl
import json
from pathlib import Path

import pytest
from builders import make_expert, make_result, make_true_space
from exportable import add, content, exported, imported, make_source
from templates import copied

from registry.errors import ConflictError, InvalidRecordError, StorageError
from registry.storage import rows
from registry.storage.locks import LOCK_FILE
from registry.storage.store import Store


@pytest.fixture
def theirs(tmp_path):
    exported(make_source(tmp_path / "source"), tmp_path / "theirs.t2v")
    return tmp_path / "theirs.t2v"


@pytest.fixture
def ours(tmp_path):
    """A registry with a task of its own."""

    def make(folder):
        add(Store.create(folder, lambda new: new.add_space(make_true_space())), "own")

    return copied("own", make, tmp_path / "ours")


@pytest.fixture
def between(monkeypatch):
    """Rows are written one by one; what is put into this list runs between them, one each time."""
    works = []
    monkeypatch.setattr(rows, "SLICE_ROWS", 1)
    monkeypatch.setattr(rows.time, "sleep", lambda _: works.pop(0)() if works else None)
    return works


def is_free(store):
    with Path(store.uri, LOCK_FILE).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def without_audit(uri):
    return {name: set(rows) for name, rows in content(Store(uri)).items() if name != "audit"}


def test_others_write_between_the_slices_and_nobody_sees_half_a_task(theirs, ours, between):
    seen = []

    def look():
        other = Store(ours.uri)
        other.set_tags("own", (f"t{len(seen)}",))
        names = other.task_names()
        embedded = {key for space in other.spaces() for key in other.embedded_keys(space.space_id, names)}
        seen.append((is_free(ours), {(task.name, task.version) for task in other.tasks()} <= embedded))

    between += [look] * 100
    summary = imported(theirs, ours.uri)
    assert len(seen) > 15
    assert set(seen) == {(True, True)}
    assert ours.task("own").tags == (f"t{len(seen) - 1}",)
    assert (summary.tasks, summary.embeddings, summary.results) == (4, 5, 5)
    assert ours.verify() == []


def test_import_in_slices_writes_what_an_import_at_once_does(theirs, tmp_path, between):
    imported(theirs, tmp_path / "slices")
    rows.SLICE_ROWS = 2048  # until the fixture ends
    imported(theirs, tmp_path / "at-once")
    assert without_audit(tmp_path / "slices") == without_audit(tmp_path / "at-once")
    again = imported(theirs, tmp_path / "slices")
    assert (again.tasks, again.embeddings, again.results, again.audit_lines) == (0, 0, 0, 0)


def test_what_others_add_meanwhile_under_a_name_of_the_file_is_a_conflict(theirs, ours, between):
    """Nothing is doubled; importing again goes on as it is told."""
    between += [lambda: None] * 15 + [lambda: add(Store(ours.uri), "flowers", fingerprint="ours")]
    with pytest.raises(ConflictError, match="but for what came before another process wrote here") as refused:
        imported(theirs, ours.uri)
    assert "task flowers@1 is of other data" in str(refused.value)
    assert ours.task("flowers@1").fingerprint == "ours"
    assert {problem.kind for problem in ours.verify()} <= {"orphan", "dangling"}
    assert imported(theirs, ours.uri, "take").renumbered == ("flowers@1 as flowers@2", "flowers@2 as flowers@3")
    assert ours.verify() == []


@pytest.mark.parametrize("when", [12, *(pytest.param(when, marks=pytest.mark.slow) for when in (3, 22))])
def test_what_others_change_meanwhile_is_compared_again(theirs, ours, between, when):
    """The same task, added by another process at any time, is one task; an alias given meanwhile stays."""

    def work():
        if "birds" not in ours.task_names():
            add(Store(ours.uri), "birds", num_classes=30)
        Store(ours.uri).set_alias("birds", "favourite")

    between += [lambda: None] * when + [work]
    imported(theirs, ours.uri)
    assert not between
    assert ours.task("birds@favourite").version == 1
    assert len(ours.versions("birds")) == 1
    assert ours.verify() == []


def test_an_expert_that_others_add_meanwhile_is_compared_again(theirs, ours, between):
    between += [lambda: None, lambda: Store(ours.uri).add_experts([make_expert("vit.tiny", num_params=5)])]
    with pytest.raises(ConflictError, match=r"expert vit\.tiny has another num_params here"):
        imported(theirs, ours.uri)
    assert len([expert for expert in ours.experts() if expert.name == "vit.tiny"]) == 1


def test_lines_of_the_history_that_came_in_say_from_where_and_by_whom(theirs, ours, tmp_path, monkeypatch):
    monkeypatch.setenv("T2V_USER", "bob")
    imported(theirs, ours.uri)
    added = next(line for line in ours.audit("flowers") if line.action == "task.add")
    assert json.loads(added.details)["imported_from"] == "theirs.t2v"
    assert (added.values["imported_by"], added.actor) == ("bob", next(iter(ours.audit("own"))).actor)
    assert added.actor != "bob"
    assert all("imported_from" not in line.values for line in ours.audit("own"))
    exported(ours, tmp_path / "back.t2v")
    assert imported(tmp_path / "back.t2v", ours.uri).audit_lines == 0
    imported(tmp_path / "back.t2v", tmp_path / "third")
    lines = [line for line in Store(tmp_path / "third").audit("flowers") if line.action == "task.add"]
    assert {line.values["imported_from"] for line in lines} == {"back.t2v"}


def measured(numbers, **changes):
    return [make_result("own", "e.x", protocol=f"fold{number}", seed=1, **changes) for number in numbers]


@pytest.fixture
def measurable(ours):
    ours.add_experts([make_expert("e.x"), make_expert("f.x")])
    return ours


def test_results_in_slices_are_one_write_and_others_write_between(measurable, between):
    def work():
        other = Store(measurable.uri)
        assert is_free(measurable)
        other.add_results(measured([7]))  # which is in the file too
        other.set_tags("own", ("meanwhile",))

    seen = len(measurable.database.moments.writes())
    assert measurable.add_results(measured(range(6))) == measurable.results()
    assert len(measurable.database.moments.writes()) == seen + 1
    measurable.database.moments.undo()
    assert measurable.results() == []
    between += [lambda: None, work]
    assert len(measurable.add_results(measured(range(10)))) == 9
    assert [result.protocol for result in measurable.results()] == [f"fold{number}" for number in range(10)]
    assert measurable.task("own").tags == ("meanwhile",)
    assert measurable.add_results(measured(range(10))) == []
    assert measurable.verify() == []


@pytest.mark.parametrize(
    ("work", "kind", "said"),
    [
        (
            lambda store: store.purge_expert("e.x"),
            StorageError,
            "another process removed e.x; 2 of 9 results were",
        ),
        (
            lambda store: store.add_results(measured([4], accuracy=0.1)),
            InvalidRecordError,
            "contradicts 0.1, which is there by the same protocol (fold4) and seed (1)",
        ),
    ],
)
def test_what_others_do_between_slices_of_results_is_noticed(measurable, between, work, kind, said):
    between += [lambda: None, lambda: work(Store(measurable.uri))]
    with pytest.raises(kind) as refused:
        measurable.add_results(measured(range(9)))
    assert said in str(refused.value)
    assert "results were added, the others can be added again" in str(refused.value)
    assert measurable.verify() == []
    with pytest.raises(InvalidRecordError, match="contradicts"):  # before anything is written
        measurable.add_results([*measured([20]), *measured([21, 21], accuracy=0.3), *measured([21])])
    assert "fold20" not in {result.protocol for result in measurable.results()}
