"""Import into a registry that has records of its own, and after a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from builders import make_embedding, make_expert, make_result, make_true_space
from exportable import SPACE0, SPACE1, add, content, exported, imported, make_source
from forgery import Forgery
from small_stores import insert
from templates import copied

from registry.bundles import format as bundle_format
from registry.errors import BundleError, ConflictError, InvalidQueryError, StorageError
from registry.gate import OTHER_DATA
from registry.storage import schema
from registry.storage.database import Database
from registry.storage.store import Store

ROOT = Path(__file__).parents[3]


@pytest.fixture
def source(tmp_path):
    return make_source(tmp_path / "source")


@pytest.fixture
def theirs(source, tmp_path):
    exported(source, tmp_path / "theirs.t2v")
    return tmp_path / "theirs.t2v"


@pytest.fixture
def ours(tmp_path):
    """A registry whose flowers@1 and vit.tiny are others."""

    def make(folder):
        store = Store.create(folder, lambda new: new.add_space(make_true_space()))
        store.add_experts([make_expert("vit.tiny", num_params=5, license="mit")])
        add(store, "flowers", fingerprint="ours", aliases=("champion",))
        add(store, "flowers", 2, fingerprint="ours too")

    return copied("differing", make, tmp_path / "ours")


def test_conflicts_are_all_named_and_nothing_is_written(theirs, ours):
    before = content(ours)
    with pytest.raises(ConflictError, match="nothing was imported, as it differs") as refused:
        imported(theirs, ours.uri)
    assert refused.value.conflicts == [
        "task flowers@1 is of other data or settings here",
        "task flowers@2 is of other data or settings here",
        "expert vit.tiny has another num_params and license here",
    ]
    assert str(refused.value).startswith(
        f"{theirs}: nothing was imported, as it differs from the registry: task"
    )
    assert content(ours) == before


def test_keep_takes_nothing_of_what_differs(theirs, ours):
    taken = imported(theirs, ours.uri, "keep")
    assert (taken.tasks, taken.experts, taken.results, len(taken.conflicts)) == (2, 2, 2, 3)
    assert [it.fingerprint for it in ours.versions("flowers")] == ["ours", "ours too"]
    assert ours.expert("vit.tiny").num_params == 5
    assert {it.task for it in ours.results()} == {"cars"}
    assert ours.verify() == []
    assert imported(theirs, ours.uri, "keep").tasks == 0


def test_take_adds_versions_and_replaces_experts(theirs, ours):
    taken = imported(theirs, ours.uri, "take")
    assert taken.renumbered == ("flowers@1 as flowers@3", "flowers@2 as flowers@4")
    assert (taken.tasks, taken.experts, taken.results) == (4, 3, 5)
    fingerprints = [it.fingerprint for it in ours.versions("flowers")]
    assert fingerprints == ["ours", "ours too", "fingerprint-flowers-1", "fingerprint-flowers-2"]
    assert ours.task("flowers@champion").version == 4
    assert ours.expert("vit.tiny").num_params == make_expert().num_params
    assert len(ours.experts()) == 3
    embedding = ours.embedding(SPACE0, "flowers", 3)
    assert embedding.fisher.tolist() == make_embedding("flowers", 1).fisher.tolist()
    assert ours.embedding(SPACE1, "flowers", 4).version == 4
    assert ours.verify() == []
    line = next(line for line in ours.audit("flowers") if line.subject == "flowers@3")
    assert (line.action, json.loads(line.details)["was"]) == ("task.import", "flowers@1")
    again = imported(theirs, ours.uri, "take")
    assert (again.tasks, again.embeddings, again.experts, again.results, again.tagged) == (0, 0, 0, 0, 0)


def test_results_are_of_the_versions_that_their_data_has_here(source, ours, tmp_path):
    source.add_results([make_result("flowers", "vit.tiny", 0.1, task_version=1, protocol="full")])
    ours.add_results([make_result("flowers", "vit.tiny", 0.9, task_version=1, protocol="full")])
    exported(source, tmp_path / "results.t2v")
    imported(tmp_path / "results.t2v", ours.uri, "take")
    results = ours.results(task="flowers")
    assert {it.task_version for it in results if it.protocol != "full"} == {4}  # said of no version: the latest
    versions = {(it.task_version, it.accuracy) for it in results if it.protocol == "full"}
    assert versions == {(1, 0.9), (3, 0.1)}
    assert {it.task_version for it in ours.results(task="cars")} == {1}
    assert imported(tmp_path / "results.t2v", ours.uri, "take").results == 0


def test_results_of_versions_and_weights_that_did_not_come_are_of_none_here(source, tmp_path):
    source.remove_task("flowers")
    add(source, "flowers", 3, fingerprint="other")
    source.remove_expert("vit.tiny")
    source.add_experts([make_expert("vit.tiny", num_params=3)])
    source.add_results([make_result("flowers", "vit.tiny", 0.3)])
    exported(source, tmp_path / "later.t2v")
    here = Store.create(tmp_path / "here", lambda new: new.add_space(make_true_space()))
    add(here, "flowers", fingerprint="of another team")
    for policy in ("fail", "keep", "take"):
        ours = Store(shutil.copytree(tmp_path / "here", tmp_path / policy))
        imported(tmp_path / "later.t2v", ours.uri, policy)
        of_flowers = {(it.accuracy, it.task_version) for it in ours.results(task="flowers")}
        assert of_flowers == {(0.9, OTHER_DATA), (0.8, OTHER_DATA), (0.3, 3)}, policy
        assert [(it.task, it.accuracy) for it in ours.results(expert="vit.tiny")] == [("flowers", 0.3)]
        assert imported(tmp_path / "later.t2v", ours.uri, policy).results == 0


def test_results_stay_with_weights_that_others_replace(source, ours, tmp_path):
    retired = make_expert("vit.tiny", loader="here.pt", weights_hash="1")
    ours.update_experts([retired])
    insert(ours, "results", [make_result("flowers", "vit.tiny", 0.9, protocol="full")])  # of the latest, once
    source.update_experts([make_expert("vit.tiny", loader="there.pt", weights_hash="2")])
    source.add_results([make_result("flowers", "vit.tiny", 0.1, task_version=1, protocol="full")])
    exported(source, tmp_path / "other.t2v")
    with pytest.raises(ConflictError, match=r"expert vit\.tiny has another loader here"):
        imported(tmp_path / "other.t2v", ours.uri)
    imported(tmp_path / "other.t2v", ours.uri, "take")
    results = [it for it in ours.results(expert="vit.tiny") if it.protocol == "full"]
    assert {(it.accuracy, it.task_version, it.weights_hash) for it in results} == {(0.9, 2, "1"), (0.1, 3, "2")}
    assert ours.expert("vit.tiny").weights_hash == "2"
    source.update_experts([make_expert("vit.tiny", loader="there.pt", weights_hash="3")])
    exported(source, tmp_path / "other.t2v")
    with pytest.raises(ConflictError, match=r"expert vit\.tiny has another hash of its weights here"):
        imported(tmp_path / "other.t2v", ours.uri)


def test_what_was_removed_here_is_a_conflict(source, theirs):
    source.remove_task("birds")
    source.remove_expert("vit.tiny")
    with pytest.raises(ConflictError, match="nothing was imported, as it differs") as refused:
        imported(theirs, source.uri)
    assert refused.value.conflicts == ["task birds@1 was removed here", "expert vit.tiny was removed here"]
    imported(theirs, source.uri, "keep")
    assert "birds" not in {it.name for it in source.tasks()}
    assert imported(theirs, source.uri, "take").renumbered == ("birds@1 as birds@2",)
    assert source.task("birds").version == 2
    assert source.expert("vit.tiny")
    assert imported(theirs, source.uri, "take").tasks == 0
    assert source.verify() == []


def test_many_conflicts_are_counted():
    error = ConflictError("x.t2v", [f"task t{number}" for number in range(150)])
    assert "task t99; and 50 more; say" in str(error)
    assert len(error.conflicts) == 150


def test_other_policies_are_refused(theirs, ours):
    with pytest.raises(InvalidQueryError, match="on_conflict must be fail or keep or take, got 'theirs'"):
        imported(theirs, ours.uri, "theirs")


def test_tags_and_aliases_are_united(source, theirs):
    source.set_tags("flowers", ["ours"])
    source.set_alias("flowers@1", "champion")
    source.set_alias("flowers@2", "mine")
    taken = imported(theirs, source.uri)
    assert taken.tagged == 2
    first, second = source.versions("flowers")
    assert (first.tags, first.aliases) == (("ours", "plants"), ("champion",))
    assert (second.tags, second.aliases) == (("new", "ours", "plants"), ("mine",))
    assert imported(theirs, source.uri).tagged == 0
    imported(theirs, source.uri, "take")
    assert source.task("flowers@champion").version == 2
    source.remove_alias("flowers", "champion")
    imported(theirs, source.uri)
    assert source.task("flowers@champion").version == 2


def test_a_version_gets_the_embeddings_it_lacks(source, theirs, tmp_path):
    exported(source, tmp_path / "some.t2v", tasks=["birds"])
    imported(tmp_path / "some.t2v", tmp_path / "target")
    target = Store(tmp_path / "target")
    target.add_space(make_true_space(6))
    add(target, "flowers", 2)
    taken = imported(theirs, target.uri)
    assert (taken.tasks, taken.embeddings) == (2, 3)
    assert len(target.embedding(SPACE1, "flowers", 2).fisher) == 6
    assert "task.embed" in {line.action for line in target.audit("flowers")}


@pytest.mark.parametrize(
    "change", [{"description": '{"probe":"other"}'}, {"trivial": np.full(4, 0.02, np.float32)}]
)
def test_a_space_that_is_another_one_here_is_refused(theirs, tmp_path, change):
    store = Store.create(tmp_path / "other")
    store.add_space(make_true_space(**change))
    for policy in ("fail", "keep", "take"):
        with pytest.raises(BundleError, match=f"space {SPACE0} is another one here"):
            imported(theirs, store.uri, policy)
    assert store.tasks() == []


def test_a_trivial_task_that_differs_by_rounding_is_the_same(theirs, tmp_path):
    store = Store.create(tmp_path / "other")
    store.add_space(make_true_space(trivial=np.full(4, 0.0100001, np.float32)))
    assert imported(theirs, store.uri).spaces == 1


def test_a_place_of_something_else_is_left_alone(theirs, tmp_path):
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="is not empty and holds no registry"):
        imported(theirs, tmp_path / "else")


# Kills


class Killed(BaseException):
    """What ends an import where a kill would."""


def end_at(monkeypatch, number):
    """End the process at the given commit, from 0: half of the time before it, half of the time after it."""
    commit, count = Database.commit, 0

    def counted(self, name, operation):
        nonlocal count
        count += 1
        if count - 1 == number // 2 and number % 2 == 0:
            raise Killed
        commit(self, name, operation)
        if count - 1 == number // 2:
            raise Killed

    monkeypatch.setattr(Database, "commit", counted)


@pytest.mark.parametrize(
    ("policy", "every"),
    [
        pytest.param("take", 29, marks=pytest.mark.slow),
        pytest.param("take", 11, marks=pytest.mark.slow),
        pytest.param("fail", 7, marks=pytest.mark.slow),
    ],
)
def test_an_import_that_ended_anywhere_is_finished_by_another(
    source, ours, tmp_path, monkeypatch, policy, every
):
    """At some commits: nothing is seen that is not whole, and the second import completes the first."""
    monkeypatch.setattr(bundle_format, "GROUP_ROWS", 2)
    exported(source, tmp_path / "all.t2v")
    with_ours = policy == "take"
    if with_ours:
        exported(ours, tmp_path / "ours.t2v")
    expected, number = None, -1
    while True:
        target = Store.create(tmp_path / f"target{number}")
        if with_ours:
            imported(tmp_path / "ours.t2v", target.uri)
        try:
            with monkeypatch.context() as patch:
                if number >= 0:
                    end_at(patch, number)
                imported(tmp_path / "all.t2v", target.uri, policy)
            ended = False
        except Killed:
            ended = True
            kinds = {problem.kind for problem in target.verify()}
            assert kinds <= {"orphan", "dangling"}, number
            imported(tmp_path / "all.t2v", target.uri, policy)
        rows = content(target)
        history = rows.pop("audit")  # with what the first import noted and the second one wrote
        assert {repr(line) for line in source.audit()} <= set(history)
        expected = expected or rows
        assert rows == expected, number
        assert target.verify() == []
        if not ended and number >= 0:
            break
        number += every
    assert number > 15


IMPORTER = """
import os, signal, sys
from registry import TaskRegistry
from registry.bundles import format as bundle_format
from registry.storage.database import Database

bundles.GROUP_ROWS = 2
commit, left = Database.commit, int(sys.argv[3])

def counted(self, name, operation):
    global left
    commit(self, name, operation)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

Database.commit = counted
TaskRegistry(sys.argv[2]).import_bundle(sys.argv[1])
"""


@pytest.mark.slow
def test_an_import_that_was_killed_is_finished_by_another(source, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_format, "GROUP_ROWS", 2)
    exported(source, tmp_path / "all.t2v")
    imported(tmp_path / "all.t2v", tmp_path / "whole")
    processes = []
    for commits in (5, 13):
        target = tmp_path / f"killed{commits}"
        arguments = [sys.executable, "-c", IMPORTER, str(tmp_path / "all.t2v"), str(target), str(commits)]
        processes.append((target, subprocess.Popen(arguments, env=os.environ | {"PYTHONPATH": str(ROOT)})))
    for target, process in processes:
        assert process.wait(timeout=120) == -signal.SIGKILL
        imported(tmp_path / "all.t2v", target)
        store = Store(target)
        rows, whole = content(store), content(Store(tmp_path / "whole"))
        del rows["audit"], whole["audit"]  # the first import noted what the second one wrote again
        assert rows == whole
        assert store.verify() == []


def test_what_another_writer_left_is_replaced(source, theirs, tmp_path):
    """An embedding without task, in a space that the file does not have: it must not come to light."""
    target = Store.create(tmp_path / "target")
    for space in (make_true_space(), make_true_space(6), make_true_space(5)):
        target.add_space(space)
    target.database.append(f"embeddings__{make_true_space(5).space_id}", [make_embedding("birds", dim=5)])
    target.database.append(f"embeddings__{SPACE0}", [make_embedding("birds", seconds=9.0)])
    imported(theirs, target.uri)
    assert target.embedding(make_true_space(5).space_id, "birds", 1) is None
    assert target.embedding(SPACE0, "birds", 1).seconds == 1.5
    assert target.verify() == []


# Older schema versions


def test_every_schema_version_since_the_first_bundles_can_be_imported():
    expected = range(bundle_format.OLDEST_SCHEMA_VERSION + 1, schema.SCHEMA_VERSION + 1)
    assert list(bundle_format.UPGRADES) == list(expected)


def test_a_bundle_of_an_older_schema_is_brought_up(theirs, tmp_path, monkeypatch):
    """As if tasks had had no kind before the version of now."""
    forgery = Forgery.of(theirs)
    forgery.change("tasks", lambda rows: rows.drop_columns("kind"))
    forgery.manifest["schema_version"] = schema.SCHEMA_VERSION - 1
    position = schema.TASKS.get_field_index("kind")

    def former_columns(table, columns):
        return columns.remove(position) if table == "tasks" else columns

    def upgraded(table, rows):
        if table != "tasks":
            return rows
        kinds = pa.array(["regression"] * len(rows))
        return rows.add_column(position, schema.TASKS.field("kind"), kinds)

    monkeypatch.setattr(bundle_format, "OLDEST_SCHEMA_VERSION", schema.SCHEMA_VERSION - 1)
    monkeypatch.setitem(
        bundle_format.UPGRADES, schema.SCHEMA_VERSION, bundle_format.Upgrade(former_columns, upgraded)
    )
    imported(forgery.write(tmp_path / "older.t2v"), tmp_path / "target")
    assert {it.kind for it in Store(tmp_path / "target").tasks()} == {"regression"}


def test_numbers_of_purged_versions_are_not_given_again(theirs, source):
    source.purge_task("birds")
    with pytest.raises(ConflictError, match="task birds@1 was removed here"):
        imported(theirs, source.uri)
    assert imported(theirs, source.uri, "keep").tasks == 0
    taken = imported(theirs, source.uri, "take")
    assert taken.renumbered == ("birds@1 as birds@2",)
    assert [task.version for task in source.versions("birds")] == [2]
    assert source.verify() == []
