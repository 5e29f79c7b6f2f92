"""A registry survives ``kill -9`` at every step of every operation, a full disk and one that cannot be written.

By default a few points of each operation are tried, chosen by a seed; ``-m slow`` tries all of them.
"""

import random
import re
import subprocess

import kill_points
import pytest
from builders import make_embedding, make_expert, make_result, make_space, make_task
from kill_points import CASES, SPACE, Point

from registry.errors import DuplicateError, RegistryError, StorageError
from registry.index import neighbors
from registry.snapshots import embeddings
from registry.storage.store import Store

DISK_BYTES = 2 * 2**20


@pytest.fixture(scope="module")
def server():
    """Makes processes that have everything imported and nothing opened."""
    return kill_points.start_server()


@pytest.fixture(scope="module")
def templates(tmp_path_factory):
    """Builds the registry that an operation is done to once, to be copied."""
    folder, built = tmp_path_factory.mktemp("templates"), {}

    def template(case):
        if case.build not in built:
            built[case.build] = folder / str(len(built))
            case.build(built[case.build])
        return built[case.build]

    return template


@pytest.fixture
def indexed(monkeypatch):
    """The few tasks of these tests have an index."""
    monkeypatch.setattr(neighbors, "EXACT_BELOW", kill_points.INDEXED_FROM)
    monkeypatch.setattr(embeddings, "SAVE_ROWS", 1)
    monkeypatch.setattr(embeddings, "SAVE_SHARE", 0.0)


class Operation:
    """An operation run to its end once, to know its steps and what it leads to."""

    def __init__(self, name, server, template, folder):
        self.name, self.case, self.server, self.template = name, CASES[name], server, template
        self.folder = folder / "registry"
        whole = kill_points.run(server, name, self.fresh())
        assert not whole.killed
        self.steps = whole.steps
        self.after = kill_points.snapshot(self.folder)
        self.answer = self.nearest()
        # A snapshot of an old registry would migrate it; what it holds is what the migrated one shows.
        migrates = name.startswith("migrate")
        self.before = self.after if migrates else kill_points.snapshot(template)

    def fresh(self):
        return kill_points.copy(self.template, self.folder)

    def check_killed_at(self, point):
        """Kill at a point; whether it was reached.

        Each list is as before or as after, what is left is what may be, repair mends it, and the operation can
        be run again.
        """
        result = kill_points.run(self.server, self.name, self.fresh(), point)
        where = f"{self.name} killed at {point}, after {list(result.steps[-2:])}"
        self.check_each_is_before_or_after(where)
        if not result.killed:
            assert kill_points.snapshot(self.folder) == self.after, where
            return False
        assert self.nearest() == self.answer, where
        # A list of checksums that was cut off is reported too, and written again.
        self.repair(self.case.faults | ({"stale"} if point.way == "torn" else set()), where)
        kill_points.run_again(self.case, self.folder)
        self.repair(self.case.faults | {"duplicate"}, where)  # results are appended again, to the last field
        assert kill_points.snapshot(self.folder) == self.after, where
        return True

    def nearest(self):
        """What the index answers, where it is what is written."""
        return kill_points.ask(self.folder) if self.name.startswith("index") else None

    def repair(self, expected, where):
        """Mend what verify finds, which must be nothing else than expected, and all."""
        found = Store(self.folder).verify(repair=True)
        assert {problem.kind for problem in found} <= expected | {"dangling"}, (where, found)
        assert {problem.kind for problem in Store(self.folder).verify()} <= {"dangling"}, where

    def check_each_is_before_or_after(self, where):
        found = kill_points.snapshot(self.folder)
        for part in found:
            allowed = [state[part] for state in (self.before, self.after) if part in state]
            empty = [[(), [], []]] if part.startswith("embeddings") else []  # a space that is new
            between = [shown for name, shown in self.case.between if name == part]
            assert found[part] in allowed + empty + between, (where, part)


@pytest.fixture
def operation(request, server, templates, tmp_path, indexed):
    return Operation(request.param, server, templates(CASES[request.param]), tmp_path)


SOME = ("add-version", "purge-task", "repair", "undo")


@pytest.mark.parametrize(
    "operation",
    [name if name in SOME else pytest.param(name, marks=pytest.mark.slow) for name in CASES],
    indirect=True,
)
def test_a_kill_at_a_step_loses_and_doubles_nothing(operation):
    generator = random.Random(operation.name)
    points = kill_points.points_of(operation.steps)
    assert operation.check_killed_at(generator.choice(points))


@pytest.mark.parametrize(
    "operation",
    [
        "add-task",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("purge-task", "optimize", "index-extend")),
    ],
    indirect=True,
)
def test_a_kill_inside_of_lancedb_loses_and_doubles_nothing(operation):
    point = Point(random.Random(operation.name).randrange(8), "change")
    # On a busy machine the operation may be over before the kernel has told of the change.
    assert any(operation.check_killed_at(point) for _ in range(5))


@pytest.mark.slow
@pytest.mark.parametrize("operation", CASES, indirect=True)
def test_a_kill_at_every_step_loses_and_doubles_nothing(operation):
    for point in kill_points.points_of(operation.steps):
        assert operation.check_killed_at(point), point


@pytest.mark.slow
@pytest.mark.parametrize("operation", CASES, indirect=True)
def test_a_kill_at_every_change_of_a_file_loses_and_doubles_nothing(operation):
    """Inside LanceDB; how far it got when the kernel told is a matter of microseconds."""
    number = 0
    while operation.check_killed_at(Point(number, "change")):
        number += 1
    assert number


def test_a_creation_that_fails_while_it_is_published_leaves_no_registry(tmp_path):
    """Some tables have been moved by then."""

    def obstruct(new):
        (tmp_path / "spaces.lance" / "in the way").mkdir(parents=True)

    with pytest.raises(StorageError, match=re.escape(f"{tmp_path}: a registry cannot be created here: ")):
        Store.create(tmp_path, obstruct)
    assert not Store(tmp_path).exists
    assert Store.create(tmp_path).verify() == []


# Disks


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own, in memory; only root may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here; root can")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path, leave):
    """Write a file until only so many bytes are free; to the last byte if 0."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(2**12))
        except OSError:
            file.truncate(max(0, file.tell() - leave))


def refused(operation):
    """Whether an operation was refused, in one line; ``DuplicateError`` counts as done."""
    try:
        operation()
    except DuplicateError:
        return False
    except RegistryError as err:
        error = str(err)
    else:
        return False
    assert len(error.splitlines()) == 1
    assert "cannot be written" in error or "cannot be created" in error
    return True


@pytest.mark.parametrize(
    "leave", [0, *(pytest.param(leave, marks=pytest.mark.slow) for leave in (3 * 2**12, 12 * 2**12))]
)
def test_a_full_disk_loses_nothing_and_doubles_nothing(disk, leave):
    folder, ballast = disk / "registry", disk / "ballast"
    store = Store.create(folder, lambda new: new.add_space(make_space()))
    writes = {
        f"task{number}": lambda name=f"task{number}": store.add_task(
            make_task(name), SPACE, make_embedding(name)
        )
        for number in range(12)
    }
    writes |= {"expert": lambda: store.add_experts([make_expert("one.test")])}
    writes |= {"result": lambda: store.add_results([make_result("task0", "one.test")])}
    writes["task0"]()
    fill(ballast, leave)
    later = {name for name, write in writes.items() if refused(write)}
    assert later
    check_shown(folder, writes.keys() - later)
    ballast.unlink()
    check_shown(folder, writes.keys() - later)
    assert not any(refused(writes[name]) for name in later)
    assert {problem.kind for problem in Store(folder).verify(repair=True)} <= {"orphan", "duplicate"}
    assert Store(folder).verify() == []
    check_shown(folder, writes.keys())


def check_shown(folder, names):
    """Everything acknowledged is there, and nothing else."""
    store = Store(folder)
    shown = [task.name for task in store.tasks(latest=False)]
    assert shown == sorted(name for name in names if name.startswith("task"))
    assert [name for name, _ in store.embeddings(SPACE).keys] == shown
    for name in shown:
        assert store.embedding(SPACE, name, 1).fisher.tolist() == make_embedding(name).fisher.tolist()
    assert len(store.experts()) == ("expert" in names)
    assert len(store.results()) == ("result" in names)


def test_no_registry_is_left_where_one_does_not_fit(disk):
    folder, ballast = disk / "registry", disk / "ballast"
    for leave in (0, 2**13, 2**15):
        fill(ballast, leave)
        assert refused(lambda: Store.create(folder, kill_points.populate))
        assert not Store(folder).exists
        ballast.unlink()
    Store.create(folder, lambda new: new.add_space(make_space()))
    assert Store(folder).verify() == []


def test_a_registry_that_cannot_be_written_is_read_asked_and_verified(disk, indexed):
    folder = disk / "registry"
    kill_points.build(folder)
    right = kill_points.ask(folder)
    kill_points.add_task(folder)  # so that the index lacks a task, and cannot be saved
    before = kill_points.snapshot(folder)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert kill_points.snapshot(folder) == before
    assert len(kill_points.ask(folder)) == len(right)
    assert {problem.kind for problem in Store(folder).verify()} <= {"dangling"}
    for write in (
        lambda: kill_points.add_version(folder),
        lambda: Store(folder).set_tags("a", ["red"]),
        lambda: Store(folder).remove_task("a"),
        lambda: Store(folder).optimize(),
        lambda: Store(folder).verify(repair=True),
        lambda: Store.create(disk / "another"),
    ):
        assert refused(write)
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert not refused(lambda: kill_points.add_version(folder))
