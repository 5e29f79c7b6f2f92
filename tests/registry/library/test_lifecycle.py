"""Aliases, removal, restoring, purging, history and optimize, in the store and on the command line."""

import subprocess
from datetime import timedelta

import numpy as np
import pytest
from builders import make_embedding, make_expert, make_result, make_space, make_task
from command_lines import answer, make_small_registry, ok, t2v
from small_stores import SPACE, add, fails, keys

from registry import TaskRegistry
from registry.errors import DuplicateError, InvalidRecordError, NotFoundError
from registry.storage.store import Store


def actions(store, subject=None):
    return [(line.action, line.subject) for line in store.audit(subject)]


@pytest.fixture
def small(tmp_path):
    """A registry of five tasks and two experts, of flowers two versions."""
    folder = make_small_registry(tmp_path / "small")
    settings = '{"max_samples": 50, "seed": 0, "split": null}'
    Store(folder).add_task(make_task("flowers", 2, settings=settings), "space0", make_embedding("flowers", 2))
    return folder


# Aliases


def test_alias_names_one_version_and_moves(store):
    for version in (1, 2, 3):
        add(store, "flowers", version)
    add(store, "birds")
    store.set_alias("birds", "best")
    store.set_alias("flowers@1", "best")
    store.set_alias("flowers@1", "old")
    assert store.task("flowers@best").version == 1
    store.set_alias("flowers@2", "best")
    assert [task.aliases for task in store.versions("flowers")] == [("old",), ("best",), ()]
    store.set_alias("flowers@best", "two")
    assert store.task("flowers@two") == make_task("flowers", 2, aliases=("best", "two"))
    assert store.task("birds@best").name == "birds"
    assert store.task("flowers").version == store.task("flowers@latest").version == 3
    store.remove_alias("flowers", "best")
    with fails(
        NotFoundError, "no task is named 'flowers@best'; did you mean flowers@two or flowers@3 or flowers@2?"
    ):
        store.task("flowers@best")
    assert store.verify() == []


def test_aliases_stay_where_they_are_when_a_version_is_added_or_tagged(store):
    add(store, "flowers")
    store.set_alias("flowers", "best")
    add(store, "flowers", 2)
    store.set_tags("flowers", ["red"])
    assert store.task("flowers@best") == make_task("flowers", aliases=("best",), tags=("red",))


@pytest.mark.parametrize(
    ("alias", "message"),
    [
        ("2", "'2' cannot be an alias: name@2 is a version; use a word of your own"),
        ("latest", "'latest' cannot be an alias: name@latest is a version; use a word of your own"),
        ("a b", "'a b' cannot name an alias: allowed are 1 to 128 of the characters A-Z a-z 0-9 . _ -"),
        ("", "'' cannot name an alias: allowed are 1 to 128 of the characters A-Z a-z 0-9 . _ -"),
    ],
)
def test_words_that_cannot_be_aliases_are_refused(store, alias, message):
    add(store, "flowers")
    with fails(InvalidRecordError, message):
        store.set_alias("flowers", alias)
    assert actions(store, "flowers") == [("task.add", "flowers@1")]


def test_aliases_that_are_not_there_cannot_be_removed(store):
    add(store, "flowers")
    store.set_alias("flowers", "best")
    with fails(NotFoundError, "no task is named 'flowers@bast'; did you mean flowers@best or flowers@1?"):
        store.remove_alias("flowers", "bast")
    with fails(NotFoundError, "no alias is named '1'; known are best"):
        store.remove_alias("flowers", "1")


def test_questions_take_aliases(small):
    ok(small, "task", "alias", "flowers@1", "champion")
    for reference in ("flowers@1", "flowers@champion"):
        card = answer(small, "task", "show", reference)
        assert (card["version"], card["aliases"]) == (1, ["champion"])
        assert answer(small, "nearest", reference)["query"]["version"] == 1
        assert answer(small, "recommend", reference, "--no-published")["query"]["version"] == 1
    assert answer(small, "nearest", "flowers@latest")["query"]["version"] == 2
    first, alias, latest, plain = (
        answer(small, "distance", reference, "birds")["value"]
        for reference in ("flowers@1", "flowers@champion", "flowers@latest", "flowers")
    )
    assert first == alias != latest == plain


def test_alias_commands_say_what_they_did(small):
    assert ok(small, "task", "alias", "flowers@1", "champion").stderr == "flowers@champion is flowers@1.\n"
    assert ok(small, "task", "alias", "flowers", "champion").stderr == "flowers@champion is flowers@2.\n"
    assert "aliases\tchampion\n" in ok(small, "task", "show", "flowers").stdout
    done = ok(small, "task", "alias", "flowers", "champion", "--remove")
    assert done.stderr == "Removed the alias champion of flowers.\n"
    assert t2v(small, "task", "show", "flowers@champion").exit_code == 1


# Removal and restoring


def test_restored_task_is_as_before(store):
    for version in (1, 2):
        add(store, "flowers", version)
    store.set_alias("flowers@1", "best")
    before = store.tasks(latest=False)
    store.remove_task("flowers")
    assert store.tasks() == []
    store.restore_task("flowers")
    assert store.tasks(latest=False) == before
    assert store.embeddings(SPACE).keys == (("flowers", 1), ("flowers", 2))
    with fails(NotFoundError, "no removed task is named 'flowers'; there is no removed task yet"):
        store.restore_task("flowers")
    assert actions(store)[-2:] == [("task.remove", "flowers"), ("task.restore", "flowers")]
    assert store.verify() == []


def test_restored_versions_leave_their_aliases_to_those_that_have_them_now(store):
    add(store, "flowers")
    store.set_alias("flowers", "best")
    store.remove_task("flowers")
    add(store, "flowers", 2, aliases=("best", "new"))
    store.remove_task("flowers")
    store.restore_task("flowers")
    assert [task.aliases for task in store.versions("flowers")] == [(), ("best", "new")]
    store.remove_task("flowers")
    add(store, "flowers", 3, aliases=("new",))
    store.restore_task("flowers")
    assert [task.aliases for task in store.versions("flowers")] == [(), ("best",), ("new",)]
    assert store.verify() == []


def test_the_expert_that_was_removed_last_is_restored(store):
    for number in (1, 2):
        store.add_experts([make_expert("a.x", num_params=number)])
        store.remove_expert("a.x")
    store.restore_expert("a.x")
    assert [expert.num_params for expert in store.experts()] == [2]
    with fails(DuplicateError, "expert a.x is registered already; remove it first or choose another name"):
        store.restore_expert("a.x")
    store.remove_expert("a.x")
    store.restore_expert("a.x")
    assert [expert.num_params for expert in store.experts()] == [2]
    with fails(NotFoundError, "no removed expert is named 'b.x'; did you mean a.x?"):
        store.restore_expert("b.x")


def test_removing_and_restoring_on_the_command_line(small):
    assert ok(small, "task", "remove", "flowers").stderr == "Removed task flowers.\n"
    assert t2v(small, "task", "show", "flowers").exit_code == 1
    assert ok(small, "task", "restore", "flowers").stderr == "Restored task flowers.\n"
    assert answer(small, "task", "show", "flowers")["version"] == 2
    assert ok(small, "expert", "remove", "small.mit").stderr == "Removed expert small.mit.\n"
    assert ok(small, "expert", "restore", "small.mit").stderr == "Restored expert small.mit.\n"
    assert answer(small, "expert", "show", "small.mit")["license"] == "mit"


# Purging


def files_with(folder, text):
    done = subprocess.run(["grep", "-rlF", text, str(folder)], capture_output=True, text=True, check=False)
    return done.stdout.split()


def test_purged_task_is_gone_from_every_table_and_file(store):
    fisher = np.array([1.5, 2.5, 3.5, 4.5], np.float32)
    store.add_space(make_space("other"))
    faces = make_task("faces", data="/secret/path"), make_embedding("faces", fisher=fisher)
    others = [(make_task(f"task{number}"), make_embedding(f"task{number}")) for number in range(40)]
    store.add_tasks([*others, faces], SPACE)  # in one file
    store.add_embedding("other", make_embedding("faces", fisher=fisher))
    add(store, "flowers")
    store.add_results([make_result("faces", "m.x"), make_result("flowers", "m.x")])
    cache = store.database.place.cache_folder(store.database.registry_id())
    cache.mkdir()
    for name in ("lock", "other.vectors"):
        (cache / name).write_text("as an index that holds its vector")
    registry = TaskRegistry(store.uri)
    assert files_with(store.uri, "/secret/path")
    registry.remove_task("faces", purge=True)
    for table in ("tasks", "embeddings__space0", "embeddings__other", "results"):
        assert "faces" not in str(store.database.read(table).to_pylist())
    assert [path.name for path in cache.iterdir()] == ["lock"]
    assert files_with(store.uri, "/secret/path") == []
    values = fisher.tobytes()
    assert not any(
        values in path.read_bytes() for path in store.database.place.path.rglob("*") if path.is_file()
    )
    assert keys(Store(store.uri)) == sorted([("flowers", 1), *((task.name, 1) for task, _ in others)])
    assert [result.task for result in store.results()] == ["flowers"]
    assert {problem.kind for problem in store.verify()} == {"dangling"}


def test_versions_that_were_purged_are_not_given_again(store):
    for version in (1, 2):
        add(store, "flowers", version)
    store.remove_task("flowers")
    add(store, "flowers", 3)
    store.purge_task("flowers")
    assert store.next_version("flowers") == 4
    add(store, "flowers", 4)
    assert keys(store, latest=False) == [("flowers", 4)]
    assert store.next_version("birds") == 1
    store.purge_task("flowers")
    assert store.next_version("flowers") == 5
    with fails(
        NotFoundError, "no task is named 'flowers'; there is no task yet; add one with `t2v task add NAME DATA`"
    ):
        store.purge_task("flowers")


def test_purged_expert_is_gone_with_its_results(store):
    store.add_experts([make_expert("a.x")])
    store.remove_expert("a.x")
    store.add_experts([make_expert("a.x"), make_expert("b.x")])
    store.add_results([make_result("flowers", "a.x"), make_result("flowers", "b.x")])
    TaskRegistry(store.uri).remove_expert("a.x", purge=True)
    assert store.database.read("experts")["name"].to_pylist() == ["b.x"]
    assert [result.expert for result in store.results()] == ["b.x"]


def test_purging_on_the_command_line(small):
    assert ok(small, "task", "remove", "birds", "--purge").stderr == "Purged task birds.\n"
    assert ok(small, "expert", "remove", "small.mit", "--purge").stderr == "Purged expert small.mit.\n"
    for words in (("task", "restore", "birds"), ("expert", "restore", "small.mit")):
        done = t2v(small, *words)
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1)


# History


def test_every_write_has_its_line(store, monkeypatch):
    monkeypatch.setenv("T2V_USER", "ada")
    add(store, "flowers", tags=("red",))
    store.add_space(make_space("other"))
    store.add_embedding("other", make_embedding("flowers"))
    store.add_experts([make_expert("a.x"), make_expert("b.x")])
    store.add_results([make_result("flowers", "a.x")])
    assert actions(store) == [
        ("space.add", "space0"),
        ("task.add", "flowers@1"),
        ("space.add", "other"),
        ("task.embed", "flowers@1"),
        ("expert.add", "a.x"),
        ("expert.add", "b.x"),
        ("result.add", "a.x on flowers"),
    ]
    line = store.audit("flowers")[0]
    assert (line.actor, line.values) == ("ada", {"space": "space0"})
    assert [line.action for line in store.audit("a.x")] == ["expert.add", "result.add"]
    assert store.audit("flower") == store.audit("x") == []
    assert len(TaskRegistry(store.uri).audit(limit=3)) == 3
    assert TaskRegistry(store.uri).audit(limit=3) == store.audit()[-3:]


def test_history_tells_versions_removed_ones_and_who_wrote_them(small):
    ok(small, "task", "alias", "flowers@1", "champion")
    ok(small, "task", "remove", "flowers")
    Store(small).add_task(make_task("flowers", 3), "space0", make_embedding("flowers", 3))
    history = answer(small, "task", "history", "flowers")
    assert list(history) == ["task", "versions", "audit"]
    versions = [(it["version"], it["aliases"], it["removed_at"] is None) for it in history["versions"]]
    assert versions == [(1, ["champion"], False), (2, [], False), (3, [], True)]
    assert history["versions"][1]["settings"] == '{"max_samples": 50, "seed": 0, "split": null}'
    told = [(line["action"], line["subject"], line["details"]) for line in history["audit"]]
    assert told == [
        ("task.add", "flowers@1", {"space": "space0"}),
        ("task.add", "flowers@2", {"space": "space0"}),
        ("task.alias", "flowers@1", {"alias": "champion"}),
        ("task.remove", "flowers", {}),
        ("task.add", "flowers@3", {"space": "space0"}),
    ]
    assert history["audit"][0]["versions"].keys() >= {"python", "lancedb", "numpy"}
    shown = ok(small, "task", "history", "flowers").stdout
    assert "champion" in shown
    assert "task.remove" in shown


def test_history_outlives_a_purge(small):
    ok(small, "task", "remove", "flowers", "--purge")
    history = TaskRegistry(small).history("flowers")
    assert history.versions == ()
    assert history.audit[-1].values == {"versions": [1, 2]}
    assert ok(small, "task", "history", "flowers").stderr == "No version of flowers is left.\n"
    with fails(NotFoundError, "no task is named 'flower'; known are birds, digits, letters, trees"):
        TaskRegistry(small).history("flower")


def test_history_of_the_registry_shows_the_last_lines(small):
    document = answer(small, "history", "--limit", 2)
    assert [line["subject"] for line in document] == ["resnet18.tv_in1k on trees", "flowers@2"]
    assert len(answer(small, "history")) == 11
    shown = ok(small, "history", "--limit", 1).stdout
    assert "flowers@2" in shown
    assert "space space0" in shown


# Optimize


def test_optimize_tells_files_before_and_after_and_changes_no_answer(store, tmp_path):
    for number in range(6):
        add(store, f"task{number}")
    before = store.tasks()
    sizes = {it.table: it for it in store.optimize(keep=timedelta(milliseconds=1))}
    assert sizes.keys() == set(store.database.table_names())
    assert sizes["tasks"].files < sizes["tasks"].files_before
    assert sizes["tasks"].bytes < sizes["tasks"].bytes_before
    assert store.tasks() == Store(store.uri).tasks() == before
    assert store.verify() == []
    files = store.database.place.path / "tasks.lance"
    assert sizes["tasks"].files == sum(path.is_file() for path in files.rglob("*"))


def test_optimize_on_the_command_line(small):
    document = answer(small, "optimize")
    assert [it["table"] for it in document] == sorted(Store(small).database.table_names())
    assert list(document[0]) == ["table", "files_before", "bytes_before", "files", "bytes"]
    assert "embeddings__space0" in ok(small, "optimize").stdout
