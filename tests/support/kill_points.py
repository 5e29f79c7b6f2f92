"""Kill a process at a chosen step of an operation on a registry, without a hook in the code under test.

Three ways, each numbered from 0 so that a test can go through all of them:

- at a **step**: just before, or just after, a write of LanceDB's (its methods are wrapped here), and just
  before any other change of a file in the registry, which Python's own audit events report (opened for
  writing, renamed, removed, made). What a step changed is what the next one is killed before.
- **torn**: at a step, after half of what the file last opened for writing was given has been cut off.
- at a **change**: inside LanceDB, once the kernel has reported so many changes of files.

Processes come from multiprocessing's fork server, which has imported LanceDB but never connected: the state
that LanceDB itself recommends to fork from. That makes one in 0.05 seconds instead of two.
"""

import ctypes
import functools
import multiprocessing
import os
import shutil
import signal
import struct
import sys
import threading
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from builders import make_embedding, make_expert, make_result, make_space, make_task

from registry import TaskRegistry
from registry.builtin.starter import populate
from registry.errors import DuplicateError, NotFoundError
from registry.index import neighbors
from registry.snapshots import embeddings
from registry.storage.locks import FILES
from registry.storage.schema import embeddings_table_name
from registry.storage.store import Store

# Of the fork server, at each child: it has never connected, which is what the warning is about.
warnings.filterwarnings("ignore", message="lancedb fork support", category=RuntimeWarning)

ROOT = Path(__file__).parents[2]
SPACE, OTHER_SPACE = "space0", "space1"
INDEXED_FROM = 40  # tasks, so that those of these tests have an index; fewer can hardly have one
TASKS = ("a", "b", "c", "d", "e", *(f"t{number:02}" for number in range(INDEXED_FROM)))
TIMEOUT_SECONDS = 60

# Taken and rewritten by every write; what they hold is nothing that must last.
PASSING_FILES = FILES
CHANGING_EVENTS = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"})
WRITING_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

IN_MODIFY, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x2, 0x80, 0x100, 0x200
INOTIFY_EVENT = struct.Struct("iIII")

Operation = Callable[[Path], object]


# What is killed


def build(folder: Path) -> None:
    """A registry with something of each kind: versions, tags, aliases, two spaces, removed rows."""
    store = Store.create(folder, lambda new: new.add_space(make_space()))
    store.add_tasks([(make_task(name), make_embedding(name)) for name in (*TASKS, "gone")], SPACE)
    store.add_task(make_task("a", 2), SPACE, make_embedding("a", 2))
    store.add_space(make_space(OTHER_SPACE, dim=3, probe="other.test"))
    store.add_embedding(OTHER_SPACE, make_embedding("b", dim=3))
    store.add_experts([make_expert(f"resnet{number}.test") for number in range(3)])
    store.add_results(
        [make_result(task, f"resnet{number}.test") for task in ("a", "b", "gone") for number in range(2)]
    )
    store.set_alias("a@1", "first")
    store.set_tags("b", ["red"])
    store.remove_task("gone")
    store.remove_expert("resnet2.test")


def build_nothing(folder: Path) -> None:
    """A folder to come."""


def build_faulty(folder: Path) -> None:
    """A registry with something to repair of each kind that can be repaired."""
    build(folder)
    database = Store(folder).database
    database.append(embeddings_table_name(SPACE), [make_embedding("ghost")])
    database.append("tasks", [Store(folder).task("c"), make_task("bare")])
    database.create_table(embeddings_table_name("stray"), pa.schema([("task", pa.string())]))
    (folder / ".creating").mkdir()


def build_indexed(folder: Path) -> None:
    """A registry whose index lacks a task."""
    build(folder)
    ask(folder)
    add_task(folder)


def unzip(version: int) -> Operation:
    """Builds a registry of an earlier schema version."""

    def build_old(folder: Path) -> None:
        with zipfile.ZipFile(ROOT / "tests" / "support" / "fixtures" / f"registry_v{version}.zip") as archive:
            archive.extractall(folder)

    return build_old


def add_task(folder: Path) -> None:
    Store(folder).add_task(make_task("new"), SPACE, make_embedding("new"))


def add_version(folder: Path) -> None:
    Store(folder).add_task(make_task("a", 3), SPACE, make_embedding("a", 3))


def build_for_undo(folder: Path) -> None:
    """A registry whose last write changed tasks, embeddings and results."""
    build(folder)
    with Store(folder).write_lock():
        add_version(folder)
        Store(folder).add_results([make_result("a")])
        Store(folder).set_tags("c", ["blue"])


def undo(folder: Path) -> None:
    """Once: done again, it would take back the write before."""
    moments = Store(folder).database.moments
    if not moments.all()[-1].undoes:
        moments.undo()


def build_copied(folder: Path) -> None:
    """A registry, and a backup of it as it was a write before."""
    build(folder / "team")
    TaskRegistry(folder / "team").backup(folder / "backup")
    add_version(folder / "team")


def add_in_space(folder: Path) -> None:
    """In a space that is new."""
    Store(folder).add_space(make_space("space2", dim=5, probe="third.test"))
    Store(folder).add_embedding("space2", make_embedding("c", dim=5))


def ask(folder: Path) -> Any:
    """Makes the index, or extends it, and saves it."""
    neighbors.EXACT_BELOW = INDEXED_FROM
    embeddings.SAVE_ROWS, embeddings.SAVE_SHARE = 1, 0.0
    return TaskRegistry(folder).nearest("b", probe=SPACE)[1]


@dataclass(frozen=True)
class Case:
    """An operation, and the registry it is done to.

    Attributes:
        build: Makes the registry.
        run: The operation.
        faults: Kinds of problems that a kill may leave, as ``verify`` names them.
        between: What else than before and after may be shown in between, by its part of ``snapshot``.
    """

    build: Operation
    run: Operation
    faults: frozenset[str] = frozenset({"orphan"})
    between: tuple[tuple[str, Any], ...] = ()


CASES: dict[str, Case] = {
    "create": Case(build_nothing, lambda folder: Store.create(folder, populate), frozenset({"stale"})),
    "add-task": Case(build, add_task),
    "add-version": Case(build, add_version),
    "add-in-space": Case(build, add_in_space),
    "add-experts": Case(build, lambda f: Store(f).add_experts([make_expert("x.test"), make_expert("y.test")])),
    "update-experts": Case(
        build, lambda f: Store(f).update_experts([make_expert("resnet0.test", license="mit", flops=None)])
    ),
    "add-results": Case(build, lambda f: Store(f).add_results([make_result("c"), make_result("d")])),
    "remove-task": Case(build, lambda folder: Store(folder).remove_task("a")),
    "restore-task": Case(build, lambda folder: Store(folder).restore_task("gone")),
    "purge-task": Case(  # hidden first
        build,
        lambda folder: Store(folder).purge_task("a"),
        frozenset({"orphan", "incomplete"}),
        (("removed", [1, 2, 1]),),
    ),
    "remove-expert": Case(build, lambda folder: Store(folder).remove_expert("resnet1.test")),
    "purge-expert": Case(build, lambda folder: Store(folder).purge_expert("resnet1.test")),
    "tag": Case(build, lambda folder: Store(folder).set_tags("c", ["blue"])),
    "alias": Case(build, lambda folder: Store(folder).set_alias("a@2", "first")),
    "undo": Case(build_for_undo, undo),
    "optimize": Case(build, lambda folder: Store(folder).optimize()),
    "repair": Case(
        build_faulty,
        lambda folder: Store(folder).verify(repair=True),
        frozenset({"stale", "orphan", "duplicate", "incomplete"}),
    ),
    "index-save": Case(build, ask),
    "index-extend": Case(build_indexed, ask),
    "migrate-1": Case(unzip(1), lambda folder: Store(folder).tasks()),
    "migrate-2": Case(unzip(2), lambda folder: Store(folder).tasks()),
    "migrate-3": Case(unzip(3), lambda folder: Store(folder).tasks()),
}


COPIES: dict[str, Case] = {
    "backup": Case(build_copied, lambda folder: TaskRegistry(folder / "team").backup(folder / "backup")),
    "restore": Case(
        build_copied, lambda folder: TaskRegistry(folder / "team").restore(folder / "backup", replace=True)
    ),
}
"""Of a registry ``team`` and its ``backup`` in one folder."""


def run_again(case: Case, folder: Path) -> None:
    """Repeat an operation that may have been done just before the kill."""
    with suppress(DuplicateError, NotFoundError):
        case.run(folder)


def snapshot(folder: Path) -> dict[str, Any]:
    """All that a registry shows, by what may change in one commit; without times, which differ each run."""
    store = Store(folder)
    if not store.exists:
        return {}
    shown: dict[str, Any] = {
        "spaces": [space.space_id for space in store.spaces()],
        "tasks": [replace(task, created_at="") for task in store.tasks(latest=False)],
        "removed": [task.version for name in ("a", "gone") for task in store.versions(name, removed=True)],
        "experts": [replace(expert, created_at="") for expert in store.experts()],
        "results": [replace(result, created_at="") for result in store.results()],
    }
    for space in shown["spaces"]:
        table = store.embeddings(space)
        shown[f"embeddings in {space}"] = [table.keys, table.fisher.tolist(), table.domain.tolist()]
    return shown


# The killing


@dataclass(frozen=True)
class Point:
    """Where to kill: at a step, whole or torn, or at a change that the kernel reports."""

    number: int
    way: str = "step"


@dataclass(frozen=True)
class Run:
    """How a run ended, and the steps it took before."""

    killed: bool
    steps: tuple[str, ...]


class Killer:
    """Counts steps in the process that is to die, and ends it at one of them."""

    def __init__(self, folder: Path, point: Point | None, tell: Callable[[str], None]) -> None:
        self._folder = str(folder)
        self._point = point
        self._tell = tell
        self._count = 0
        self._written: tuple[str, int] | None = None
        self._busy = False

    def start(self) -> None:
        """Watch from now on."""
        if self._point and self._point.way == "change":
            threading.Thread(target=self._kill_at_change, args=[self._point.number], daemon=True).start()
        else:
            self._wrap_lancedb()
            sys.addaudithook(self._hear)

    def step(self, name: str) -> None:
        """Die here, if it is the one."""
        if self._point and self._point.way != "change" and self._count == self._point.number:
            if self._point.way == "torn" and self._written:
                self._tear(*self._written)
            die()
        self._count += 1
        self._written = None
        self._tell(name)

    def _tear(self, path: str, size_before: int) -> None:
        """Leave half of what was written to a file since it was opened."""
        self._busy = True
        if (size := _size(path)) > size_before:
            os.truncate(path, (size_before + size) // 2)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        """Take what Python is about to do to a file as a step."""
        if self._busy or event not in CHANGING_EVENTS | {"open"}:
            return
        path = self._path(args[0], args[-1] if event in {"os.remove", "os.rmdir"} else -1)
        if not path.startswith(self._folder) or Path(path).name in PASSING_FILES:
            return
        if event == "os.mkdir" and Path(path).is_dir():
            return
        if event != "open":
            self.step(f"{event} {path}")
        elif args[2] & WRITING_FLAGS:
            self.step(f"open {path}")
            self._written = (path, 0 if args[2] & os.O_TRUNC else _size(path))

    @staticmethod
    def _path(path: Any, folder_handle: int) -> str:
        if isinstance(path, int):
            return ""
        folder = Path(f"/proc/self/fd/{folder_handle}").readlink() if folder_handle > 0 else Path()
        return str(folder / os.fsdecode(path))

    def _wrap_lancedb(self) -> None:
        from lancedb.db import LanceDBConnection
        from lancedb.merge import LanceMergeInsertBuilder
        from lancedb.table import LanceTable

        for owner, names in (
            (LanceDBConnection, ("create_table", "drop_table")),
            (LanceTable, ("add", "update", "delete", "optimize", "add_columns", "restore")),
            (LanceMergeInsertBuilder, ("execute",)),
        ):
            for name in names:
                setattr(owner, name, self._wrapped(name, getattr(owner, name)))

    def _wrapped(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def stepping(*args: Any, **kwargs: Any) -> Any:
            self.step(f"before {name}")
            answer = method(*args, **kwargs)
            self.step(f"after {name}")
            return answer

        return stepping

    def _kill_at_change(self, number: int) -> None:
        """Die once the kernel has reported so many changes under the folder; new folders are watched too."""
        libc = ctypes.CDLL(None, use_errno=True)
        handle, watched, seen = libc.inotify_init(), set[str](), 0
        while True:
            above = str(Path(self._folder).parent)  # where the folder itself may be yet to come
            for folder in [above, *(folder for folder, _, _ in os.walk(self._folder))]:
                if folder not in watched:
                    mask = IN_MODIFY | IN_MOVED_TO | IN_CREATE | IN_DELETE
                    libc.inotify_add_watch(handle, folder.encode(), mask)
                    watched.add(folder)
            buffer = os.read(handle, 2**16)
            while buffer:
                *_, length = INOTIFY_EVENT.unpack_from(buffer)
                name = buffer[INOTIFY_EVENT.size : INOTIFY_EVENT.size + length].rstrip(b"\0").decode()
                buffer = buffer[INOTIFY_EVENT.size + length :]
                seen += name not in PASSING_FILES
            if seen > number:
                die()


def _size(path: str) -> int:
    """Bytes of a file, 0 if it is not there."""
    return Path(path).stat().st_size if Path(path).exists() else 0


def die() -> None:
    """End this process as ``kill -9`` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def _child(name: str, folder: Path, point: Point | None, steps: Any) -> None:
    """Run an operation in a process of its own, telling its steps."""
    killer = Killer(folder, point, steps.send)
    killer.start()
    (CASES | COPIES)[name].run(folder)
    killer.step("end")


def start_server() -> Any:
    """A context whose processes have everything imported and nothing opened."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["kill_points", "lancedb", "registry.core", "registry.index.vector_index", "registry.builtin.starter"]
    )
    # The server does not take over sys.path before it imports; this variable it does.
    known = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT), str(ROOT / "tests" / "support"), *([known] if known else [])]
    )
    try:
        from multiprocessing import forkserver

        forkserver.ensure_running()
    finally:
        if known is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = known
    return context


def run(context: Any, name: str, folder: Path, point: Point | None = None) -> Run:
    """Run an operation on a folder, killed at a point if given.

    Args:
        context: From ``start_server``.
        name: In ``CASES``.
        folder: Of the registry.
        point: Where to kill.

    Returns:
        How it ended.

    Raises:
        RuntimeError: If it neither completed nor was killed.
    """
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(name, folder, point, sender))
    process.start()
    sender.close()
    steps: list[str] = []
    try:
        while receiver.poll(TIMEOUT_SECONDS):
            steps.append(receiver.recv())
    except EOFError:
        pass
    process.join(TIMEOUT_SECONDS)
    if process.exitcode not in {0, -signal.SIGKILL}:
        process.kill()
        raise RuntimeError(f"{name} at {point} ended with {process.exitcode} after {steps[-3:]}")
    return Run(process.exitcode != 0, tuple(steps))


def points_of(steps: tuple[str, ...]) -> list[Point]:
    """Every step, and torn where a file was opened for writing just before."""
    points = [Point(number) for number in range(len(steps))]
    points += [Point(number + 1, "torn") for number, step in enumerate(steps) if step.startswith("open ")]
    return points


def copy(template: Path, folder: Path) -> Path:
    """A fresh copy of a registry, or nothing where there is none."""
    shutil.rmtree(folder, ignore_errors=True)
    if template.exists():
        shutil.copytree(template, folder)
    return folder
