"""What a registry was at a moment, and writes that are taken back, by what anybody can ask."""

import re
import shutil
import time
from datetime import UTC, datetime, timedelta

import pytest
from builders import make_embedding, make_expert, make_result, make_space
from hypothesis import given, settings
from hypothesis import strategies as st
from small_stores import SPACE, OwnResults, add
from templates import copied

from registry import TaskRegistry
from registry.errors import InvalidQueryError, NotFoundError, StorageError
from registry.storage import database, moments, places
from registry.storage.schema import embeddings_table_name
from registry.storage.store import Store


def state(registry):
    """All that a registry shows, but for when it was written."""
    tasks = registry.tasks()
    own = {"probe": SPACE} if SPACE in {space.space_id for space in registry.spaces()} else {}
    nearest = registry.nearest(tasks[0].name, k=50, **own) if tasks else ()
    return {
        "tasks": registry._store.tasks(latest=False),
        "experts": registry.experts(),
        "results": registry.results(),
        "spaces": [space.space_id for space in registry.spaces()],
        "nearest": [(one.task, one.version, one.distance) for one in nearest[1]] if nearest else [],
    }


class Writes:
    """Writes of every kind, each by a number; some do nothing."""

    def __init__(self, uri):
        self.store, self.registry, self.count = Store(uri), OwnResults(uri), 0

    def write(self, kind):
        """Write; whether anything was."""
        self.count += 1
        names, before = sorted(self.store.task_names()), len(self.store.audit())
        first, last = (names[0], names[-1]) if names else ("", "")
        new = f"task{self.count}"
        match kind:
            case "add":
                add(self.store, new)
            case "version" if last:
                add(self.store, last, self.store.next_version(last))
            case "space" if last:
                self.store.add_space(make_space(new, probe=f"{new}.probe"))
            case "embed" if first and not self.store.embedding("other", first, 1):
                with self.store.write_lock():
                    self.store.add_space(make_space("other", probe="other.probe"))
                    if self.store.task_versions([(first, 1)]):
                        self.store.add_embedding("other", make_embedding(first))
            case "tag" if first:
                self.store.set_tags(first, [new])
            case "alias" if last:
                self.store.set_alias(last, "chosen")
            case "remove" if last:
                self.store.remove_task(last)
            case "expert":
                self.store.add_experts([make_expert(f"{new}.x")])
            case "retire" if self.store.experts():
                self.store.remove_expert(self.store.experts()[0].name)
            case "result" if first and self.store.experts():
                self.store.add_results([make_result(first, self.store.experts()[0].name, source=new)])
            case "optimize":
                self.store.optimize()
        return len(self.store.audit()) > before


KINDS = ["add", "version", "embed", "space", "tag", "alias", "remove", "expert", "retire", "result", "optimize"]


def check_undos(uri, kinds):
    """After k undos is what was before the last k writes, also for who had asked before; so with redos."""
    Store.create(uri, lambda new: new.add_space(make_space()))
    writes = Writes(uri)
    add(writes.store, "first")
    asked, before = writes.registry, [state(writes.registry)]
    before += [state(asked) for kind in kinds if writes.write(kind)]
    for expected in reversed(before[:-1]):
        asked.undo()
        assert state(asked) == expected
    assert state(OwnResults(uri)) == before[0]
    assert asked.verify() == []
    for expected in before[1:]:
        asked.undo(redo=True)
        assert state(asked) == expected
    assert state(OwnResults(uri)) == before[-1]
    for number, expected in enumerate(before, 1):
        assert state(asked.at(number)) == expected
    assert {problem.kind for problem in asked.verify()} <= {"dangling"}


def test_undos_lead_back_through_every_kind_of_write(tmp_path):
    kinds = "add version expert result tag alias embed space optimize remove retire"
    check_undos(tmp_path / "all", kinds.split())


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(kinds=st.lists(st.sampled_from(KINDS), max_size=12))
def test_undos_lead_back_through_many_writes(tmp_path_factory, kinds):
    check_undos(tmp_path_factory.mktemp("many") / "registry", kinds)


def fails(message, kind=StorageError):
    return pytest.raises(kind, match=re.escape(message))


@pytest.fixture
def store(tmp_path):
    """A registry of one space, written to three times."""

    def make(folder):
        store = Store.create(folder, lambda new: new.add_space(make_space()))
        add(store, "flowers")
        add(store, "birds")
        store.set_tags("birds", ["wings"])

    return copied("three-writes", make, tmp_path / "registry")


@pytest.fixture
def registry(store):
    return OwnResults(store.uri)


def test_an_undo_is_a_write_that_says_what_it_took_back(registry, store):
    assert registry.undo(preview=True).number == 3
    done = registry.undo()
    assert (done.number, done.actions, done.subjects, done.stands) == (3, ("task.tag",), ("birds",), False)
    assert [one.number for one in registry.writes() if one.stands] == [1, 2]
    line = registry.audit()[-1]
    assert (line.action, line.subject, line.values) == ("undo", "birds", {"write": 3})
    with fails("write 3 is not the last one any more, 2 is; look again"):
        registry.undo(3)
    assert registry.undo(2).subjects == ("birds@1",)
    assert [task.name for task in registry.tasks()] == ["flowers"]
    add(store, "trees")
    with fails("the last write is no undo, so there is nothing to do again"):
        registry.undo(redo=True)
    registry.undo()
    registry.undo()
    assert registry.tasks() == []
    with fails("there is no write to undo"):
        registry.undo()


def test_questions_about_the_past_see_nothing_later_and_write_nothing(registry, store):
    then = registry.at(2)
    assert then.as_of == "after write 2"
    assert then.task("birds").tags == ()
    store.remove_task("birds")
    assert [one.task for one in then.nearest("flowers", probe=SPACE)[1]] == ["birds"]
    assert then.version() == then.version() != registry.version()
    assert then.verify() == []
    for write in (
        lambda: then.tag_task("birds", add=["x"]),
        lambda: then.undo(),
        lambda: then.optimize(),
        lambda: then.verify(repair=True),
        lambda: then.backup(store.uri + "-backup"),
        lambda: then.add_task("new", "sklearn:digits"),
    ):
        with fails(f"{store.uri} after write 2 can be read only; leave out --at to write"):
            write()
    assert then.export(f"{store.uri}.t2v").tasks == 2


def test_times_are_those_of_this_machine_and_never_guessed(registry, store):
    first, second, third = registry.writes()
    assert registry.at(first.at).as_of.startswith("at ")
    assert len(registry.at(datetime.fromisoformat(second.at)).tasks()) == 2
    local = datetime.fromisoformat(second.at).astimezone() - timedelta(microseconds=1)
    assert len(registry.at(local.replace(tzinfo=None).isoformat()).tasks()) == 1
    assert len(registry.at("0s").tasks()) == len(registry.at(str(third.number)).tasks()) == 2
    assert registry.at(0).tasks() == []
    with fails("no write is named '9'; they go from 1 to 3", NotFoundError):
        registry.at(9)
    with fails("is not yet; give a time that has been", InvalidQueryError):
        registry.at(datetime.now(UTC) + timedelta(hours=1))
    assert len({len(registry.at(same).tasks()) for same in ("now", "0s", "0 minutes ago", "0days", "0 h")}) == 1
    for before in ("yesterday", "3 days ago", "1 week", "2020-01-01", "2026-11-01T10:00+09:00"):
        with fails("is not kept; kept is what was from write 0 on"):
            registry.at(before)
    for nothing in ("soon", "tomorrow", "3 months", "2026-13-01", "-1", "9" * 20 + "w", ""):
        with fails("is no moment; give the number of a write, a time such as", InvalidQueryError):
            registry.at(nothing)
    with fails("is not kept; kept is what was from write 0 on"):
        registry.at("2w")


@pytest.mark.parametrize("kind", ["task", "expert", "repair", "optimize"])
def test_nothing_of_before_a_purge_is_asked_or_comes_back(registry, store, kind):
    store.add_experts([make_expert("m.x")])
    store.add_results([make_result("birds", "m.x")])
    then = registry.at(5)
    assert len(then.nearest("birds", probe=SPACE)[1]) == 1
    if kind == "repair":
        store.database.append(embeddings_table_name(SPACE), [make_embedding("ghost")])
        assert registry.verify(repair=True)
    elif kind == "optimize":
        registry.optimize(keep=timedelta(0))
    else:
        getattr(registry, f"remove_{kind}")({"task": "birds", "expert": "m.x"}[kind], purge=True)
    why = {
        "task": "task birds was purged",
        "expert": "expert m.x was purged",
        "repair": "the registry was repaired",
        "optimize": "older versions were deleted",
    }[kind]
    with fails(f"cannot be taken back, nor what was before it: {why}"):
        registry.undo()
    for when in (4, "2d"):
        with fails(f"is not kept: {why}"):
            registry.at(when)
    with fails("what was after write 5 is not kept any more"):
        then.nearest("birds", probe=SPACE)
    add(store, "later")
    last = registry.writes()[-1].number
    assert registry.undo().subjects == ("later@1",)
    assert len(registry.at(last).tasks()) == len(registry.tasks()) + 1


def test_versions_are_kept_for_what_was_written_lately_however_old_they_are(registry, store, monkeypatch):
    registry.optimize(keep=timedelta(days=1))
    assert state(registry.at(1))["nearest"] == []
    for number in range(5):
        time.sleep(0.5 if number == 2 else 0)
        add(store, f"late{number}")
    monkeypatch.setattr(moments, "MOST_KEPT", 2)
    monkeypatch.setattr(moments, "READERS", timedelta(seconds=0.2))
    registry.optimize()
    assert [one.number for one in registry.writes()] == [7, 8]
    assert len(store.database.place.versions("tasks")) < 6
    assert len(registry.at(7).tasks()) == len(registry.tasks()) - 1
    with fails("what was after write 4 is not kept; kept is what was from write 6 on"):
        registry.at(4)


@pytest.mark.parametrize("seconds", [60, 0])
def test_what_a_method_writes_in_parts_is_one_write(tmp_path, monkeypatch, seconds):
    monkeypatch.setattr(moments, "PARTS", timedelta(seconds=seconds))
    source, target = TaskRegistry(tmp_path / "source"), TaskRegistry(tmp_path / "target")
    source.init()
    source.export(tmp_path / "all.t2v")
    target.init(empty=True)
    target.import_bundle(tmp_path / "all.t2v")
    whole = state(target)
    (write,) = target.writes()
    assert (write.number > 1) == (seconds == 0)  # it took the lock more than once
    assert "import" in write.actions
    target.undo()
    assert (target.tasks(), target.experts(), target.results()) == ([], [], [])
    target.undo(redo=True)
    assert state(target) == whole


def test_writes_compact_tables_and_keep_what_undo_needs(store, registry, monkeypatch):
    monkeypatch.setattr(database, "MAX_FRAGMENTS", 3)
    for number in range(6):
        add(store, f"task{number}")
    for number in reversed(range(2, 8)):
        registry.undo()
        assert len(registry.tasks()) == number


def test_what_a_kill_cut_short_is_finished_by_the_next_write_or_undo(registry, store, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(moments.Moments, "_note", interrupt)
        with pytest.raises(CutError, match=r"^$"):
            registry.undo()
    assert registry.task("birds").tags == ("wings",)
    add(store, "trees")
    assert registry.task("birds").tags == ()
    assert [one.number for one in registry.writes() if one.stands] == [1, 2, 5]
    with monkeypatch.context() as patch:
        patch.setattr(moments.Moments, "_note", interrupt)
        with pytest.raises(CutError, match=r"^$"):
            registry.undo()
    assert OwnResults(store.uri).undo().subjects == ("trees@1",)
    assert [task.name for task in registry.tasks()] == ["birds", "flowers"]


@pytest.mark.parametrize("way", ["delete", "half", "flip", "folder", "zeros"])
def test_a_note_that_is_damaged_is_a_bound_and_never_a_wrong_answer(registry, store, way):
    note = store.database.place.path / "moments" / "2"
    content = note.read_bytes()
    note.unlink()
    match way:
        case "half":
            note.write_bytes(content[: len(content) // 2])
        case "flip":
            note.write_bytes(content.replace(b'"tasks": ', b'"tasks": 1', 1))
        case "folder":
            note.mkdir()
        case "zeros":
            note.write_bytes(bytes(len(content)))
    assert [(one.number, one.can_be_undone) for one in registry.writes()] == [(2, False), (3, True)]
    assert len(registry.at(2).tasks()) == 2
    with fails("the note of a write is damaged or lost"):
        registry.at(0)
    registry.undo()
    with fails("cannot be taken back, nor what was before it: the note of a write is damaged or lost"):
        registry.undo()
    assert [(problem.kind, problem.where) for problem in registry.verify(repair=True)] == [("past", "moments")]
    assert registry.verify() == []
    store.set_tags("birds", ["again"])
    assert registry.undo().subjects == ("birds",)


def test_an_undo_that_a_kill_cut_short_is_finished_though_its_note_is_damaged(registry, store):
    undone = registry.undo().number
    place = store.database.place
    place.write_note(moments.UNDOING, place.read_note(str(undone + 1))[:20])
    add(store, "trees")
    assert (registry.task("birds").tags, place.read_note(moments.UNDOING)) == ((), b"")
    place.write_note(moments.UNDOING, b"of an undo that had not begun")
    store.set_tags("birds", ["again"])
    assert [task.name for task in registry.tasks()] == ["birds", "flowers", "trees"]


def test_an_undo_that_cannot_be_finished_says_which_table_is_lost(registry, store):
    place, undone = store.database.place, registry.undo().number
    place.write_note(moments.UNDOING, place.read_note(str(undone + 1)))
    for manifest in (place.path / "tasks.lance" / "_versions").glob("*.manifest"):
        manifest.unlink()
    with fails("table tasks is damaged: its newest version, "):
        Store(store.uri).verify()


def test_files_of_former_versions_that_are_lost_cost_the_past_only(registry, store):
    versions = sorted((store.database.place.path / "tasks.lance" / "_versions").glob("*.manifest"))
    versions[-2].unlink()
    (problem,) = registry.verify()
    assert (problem.kind, problem.where, problem.repaired) == ("past", "tasks", False)
    assert [problem.repaired for problem in registry.verify(repair=True)] == [True]
    assert registry.verify() == []
    assert [task.name for task in registry.tasks()] == ["birds", "flowers"]
    with fails("it was damaged, and given up by a repair"):
        registry.undo()


def test_of_many_moments_of_one_write_the_first_stays(registry, monkeypatch):
    monkeypatch.setattr(moments, "PARTS", timedelta(0))
    monkeypatch.setattr(moments, "MOST_KEPT", 3)
    before = registry.tasks()
    with places.together():
        for number in range(6):
            add(registry._store, f"part{number}")
    registry.optimize()
    assert [one.number for one in registry.writes()] == [9]
    registry.undo()
    assert registry.tasks() == before


class CutError(BaseException):
    """As a kill."""


def interrupt(self, moment):
    raise CutError


def test_a_write_that_was_restored_over_by_a_copy_is_noticed_before_the_next_write(tmp_path, store):
    shutil.copytree(store.uri, tmp_path / "copy")
    add(store, "moths")
    shutil.rmtree(store.uri)
    (tmp_path / "copy").rename(store.uri)
    add(store, "trees")
    assert [task.name for task in Store(store.uri).tasks()] == ["birds", "flowers", "trees"]
    assert Store(store.uri).verify() == []
