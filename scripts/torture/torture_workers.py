"""The processes of ``torture.py``: writers that report what was acknowledged, and readers that compare.

A writer does random operations on a registry, and right after a call returned writes it to a journal of its own
and syncs that. Whoever reads the journals, and then the registry, must find all of it. Names that start with a
writer's own are changed by nobody else; before it changes one, it says so, since the change may be seen before
it is acknowledged, or be cut short.
"""

import json
import logging
import os
import random
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from registry import TaskRegistry
from registry.errors import DuplicateError, NotFoundError, RegistryError
from registry.index import neighbors
from registry.records import EmbeddingRecord, ExpertRecord, ResultRecord, SpaceRecord, TaskRecord
from registry.snapshots import embeddings
from registry.storage import database
from registry.storage.store import Store

# Of the fork server, at each process: it has opened nothing, which is what the warning is about.
warnings.filterwarnings("ignore", message="lancedb fork support", category=RuntimeWarning)

SPACE, DIM = "torture", 16
INDEXED_FROM = 64  # tasks, so that there is an index from the start
SHARED_NAMES = 12
BATCH = 5  # tasks, after which a reader saves the index
FAULTS = ("wrong read", "failed open", "failed write")


def make_registry(folder: Path) -> None:
    """A registry of one space, with as many tasks as have an index, and a folder for journals."""
    (folder / "journals").mkdir()
    space = SpaceRecord(SPACE, "tiny.torture", '{"probe":"tiny.torture"}', "none", np.full(DIM, 0.01), 3)
    store = Store.create(folder / "registry", lambda new: new.add_space(space))
    names = [f"base{number}" for number in range(INDEXED_FROM)]
    store.add_tasks([make_task(name, 1) for name in names], SPACE)
    journal = Journal(folder / "journals" / "base")
    for name in names:
        journal.add("task", name, 1)


def use_small_index() -> None:
    """Have an index, and save it often, with few tasks already; that two save at once is no news here."""
    logging.getLogger("registry").setLevel(logging.ERROR)
    neighbors.EXACT_BELOW = INDEXED_FROM
    embeddings.SAVE_ROWS, embeddings.SAVE_SHARE = BATCH, 0.0


def make_task(name: str, version: int) -> tuple[TaskRecord, EmbeddingRecord]:
    """A version of a task that is the same whoever makes it."""
    generator = np.random.default_rng([version, *name.encode()])
    fisher = generator.lognormal(-3, 1, DIM).astype(np.float32)
    settings = '{"max_samples":100,"seed":0,"split":"all"}'
    task = TaskRecord(name, version, f"./{name}", 2, 100, ("no", "yes"), f"{name}-{version}", settings)
    domain = generator.normal(size=3)
    return task, EmbeddingRecord(name, version, fisher, fisher / 10, domain, 100, 0.5, 0.5, 0, 1.0)


class Journal:
    """A file of one worker, to which a line is added and synced after each call that returned."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, kind: str, *words: Any) -> None:
        """Acknowledge."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([kind, *words]) + "\n")
            file.flush()
            os.fsync(file.fileno())


def read_journals(folder: Path) -> Iterator[list[Any]]:
    """All that was acknowledged so far; a line that is being written is not."""
    for path in sorted((folder / "journals").iterdir()):
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
            yield json.loads(line)


class Writer:
    """Does random operations and reports each to its journal."""

    def __init__(self, folder: Path, name: str, seed: int) -> None:
        self._store = Store(folder / "registry")
        self._journal = Journal(folder / "journals" / name)
        self._random = random.Random(f"{name}{seed}")
        self._name = name
        self._own: list[str] = []
        self._count = 0

    def run(self) -> None:
        """Until killed."""
        weights = {
            self.add_task: 6,
            self.add_batch: 2,
            self.add_shared: 3,
            self.add_version: 2,
            self.add_expert: 2,
            self.add_results: 2,
            self.tag: 1,
            self.alias: 1,
            self.remove: 1,
            self.remove_and_restore: 1,
            self.optimize: 0.3,
        }
        while True:
            (operation,) = self._random.choices(list(weights), list(weights.values()))
            try:
                operation()
            except (DuplicateError, NotFoundError):
                continue  # of a shared name, which another worker was quicker to add
            except RegistryError as error:
                self._journal.add("failed write", f"{operation.__name__}: {error}")

    def _new_name(self, kind: str) -> str:
        self._count += 1
        return f"{self._name}-{kind}{self._count}"

    def add_task(self) -> None:
        """A task of an own name."""
        name = self._new_name("task")
        task, embedding = make_task(name, 1)
        self._store.add_task(task, SPACE, embedding)
        self._journal.add("task", name, 1)
        self._own.append(name)

    def add_batch(self) -> None:
        """Several at once."""
        names = [self._new_name("batch") for _ in range(BATCH)]
        self._store.add_tasks([make_task(name, 1) for name in names], SPACE)
        for name in names:
            self._journal.add("task", name, 1)

    def add_shared(self) -> None:
        """The next version of a name that all want, or one that another worker has added meanwhile."""
        name = f"shared{self._random.randrange(SHARED_NAMES)}"
        self._add_next(name)

    def add_version(self) -> None:
        """The next version of an own task."""
        if self._own:
            self._add_next(self._random.choice(self._own))

    def _add_next(self, name: str) -> None:
        version = self._store.next_version(name)
        task, embedding = make_task(name, version)
        self._store.add_task(task, SPACE, embedding)
        self._journal.add("task", name, version)

    def add_expert(self) -> None:
        """An own one, and one that all want."""
        name = self._new_name("expert")
        self._store.add_experts([ExpertRecord(name, name)])
        self._journal.add("expert", name)
        self._store.add_experts([ExpertRecord("shared.expert", "shared.expert")])
        self._journal.add("expert", "shared.expert")

    def add_results(self) -> None:
        """Results with a source that keeps them apart."""
        sources = [self._new_name("result") for _ in range(3)]
        results = [ResultRecord("shared0", "shared.expert", 0.5, source=source) for source in sources]
        self._store.add_results(results)
        for source in sources:
            self._journal.add("result", source)

    def tag(self) -> None:
        """New tags of an own task."""
        if self._own:
            name, tag = self._random.choice(self._own), f"tag{self._random.randrange(9)}"
            self._journal.add("will", name)
            self._store.set_tags(name, [tag])
            self._journal.add("tag", name, tag)

    def alias(self) -> None:
        """An alias of a version of an own task."""
        if self._own:
            name = self._random.choice(self._own)
            version = self._random.randrange(1, self._store.next_version(name))
            self._journal.add("will", name)
            self._store.set_alias(f"{name}@{version}", "best")
            self._journal.add("alias", name, version)

    def remove(self) -> None:
        """An own task for good."""
        if len(self._own) > 3:
            name = self._own.pop(self._random.randrange(len(self._own)))
            self._journal.add("will", name)
            self._store.remove_task(name)
            self._journal.add("removed", name)

    def remove_and_restore(self) -> None:
        """An own task for a moment."""
        if self._own:
            name = self._random.choice(self._own)
            self._journal.add("will", name)
            self._store.remove_task(name)
            self._journal.add("removed", name)
            self._store.restore_task(name)
            self._journal.add("restored", name)

    def optimize(self) -> None:
        """Compact all tables."""
        self._store.optimize()
        self._journal.add("optimize")


def write(folder: Path, name: str, seed: int) -> None:
    """Be a writer until killed."""
    Writer(folder, name, seed).run()


class Acknowledged:
    """What must be there, by the journals as they are now.

    Attributes:
        counts: Lines by their kind.
        touched: How often each task was about to be changed by its owner.
        unsure: Tasks in the middle of a change, by a worker that is at it or was killed.
        told: Faults that workers saw themselves.
    """

    def __init__(self, folder: Path) -> None:
        self.counts: Counter[str] = Counter()
        self.touched: Counter[str] = Counter()
        self.unsure: set[str] = set()
        self.told: list[tuple[str, str]] = []
        self.tasks: set[tuple[str, int]] = set()
        self.experts: set[str] = set()
        self.results: set[str] = set()
        self.removed: set[str] = set()
        self.tags: dict[str, str] = {}
        self.aliases: dict[str, int] = {}
        for kind, *words in read_journals(folder):
            self.counts[kind] += 1
            self._take(kind, *words)

    def _take(self, kind: str, *words: Any) -> None:
        if kind == "task":
            self.tasks.add((words[0], words[1]))
        elif kind == "will":
            self.touched[words[0]] += 1
            self.unsure.add(words[0])
        elif kind in {"removed", "restored", "tag", "alias"}:
            self._change(kind, *words)
        elif kind == "expert":
            self.experts.add(words[0])
        elif kind == "result":
            self.results.add(words[0])
        elif kind in FAULTS:
            self.told.append((kind, words[0]))

    def _change(self, kind: str, name: str, value: Any = None) -> None:
        self.unsure.discard(name)
        if kind == "removed":
            self.removed.add(name)
        elif kind == "restored":
            self.removed.discard(name)
        elif kind == "tag":
            self.tags[name] = value
        else:
            self.aliases[name] = value

    def may_be_hidden(self, name: str) -> bool:
        """Whether a task is removed, or may be."""
        return name in self.removed or name in self.unsure

    def faults_of(self, store: Store) -> list[tuple[str, str]]:
        """What is lost or doubled in a registry that is read after the journals were, each with the name."""
        shown = Counter((task.name, task.version) for task in store.tasks(latest=False))
        faults = [("lost", key[0]) for key in self.tasks - shown.keys() if not self.may_be_hidden(key[0])]
        faults += [("doubled", name) for (name, _), count in shown.items() if count > 1]
        experts = [expert.name for expert in store.experts()]
        results = [result.source for result in store.results()]
        for wanted, found in ((self.experts, Counter(experts)), (self.results, Counter(results))):
            faults += [("lost", name) for name in wanted - found.keys()]
            faults += [("doubled", name) for name, count in found.items() if count > 1]
        return faults

    def faults_at_the_end(self, store: Store) -> list[tuple[str, str]]:
        """The same once nobody writes any more, when removals, tags and aliases can be compared too."""
        faults = self.faults_of(store)
        for task in store.tasks(latest=False):
            name = task.name
            if name in self.unsure:
                continue
            if name in self.removed:
                faults.append(("lost", f"removal of {name}"))
            if task.version == 1 and name in self.tags and task.tags != (self.tags[name],):
                faults.append(("lost", f"tag {self.tags[name]} of {name}"))
            if ("best" in task.aliases) != (self.aliases.get(name) == task.version):
                faults.append(("lost", f"alias of {name}@{task.version}"))
        return faults


def read(folder: Path, name: str, seed: int) -> None:
    """Compare what is shown with what was acknowledged before, over and over, until killed."""
    use_small_index()
    journal, chooser = Journal(folder / "journals" / name), random.Random(f"{name}{seed}")
    kept = TaskRegistry(folder / "registry"), Store(folder / "registry")
    while True:
        fresh = chooser.random() < 0.5
        registry = TaskRegistry(folder / "registry") if fresh else kept[0]
        store = Store(folder / "registry") if fresh else kept[1]
        try:
            before = Acknowledged(folder)
            faults = before.faults_of(store)
            journal.add("read")
            for task in chooser.sample(sorted(before.tasks), min(3, len(before.tasks))):
                faults += nearest_faults(registry, store, *task)
                journal.add("nearest")
        except RegistryError as error:
            journal.add("failed open", str(error))
            continue
        now = Acknowledged(folder) if faults else before
        for fault, about in faults:
            # What its owner was about to change meanwhile may well have been hidden for a moment.
            if now.touched[about] == before.touched[about] and not before.may_be_hidden(about):
                journal.add("wrong read", f"{fault} {about}")


def nearest_faults(registry: TaskRegistry, store: Store, name: str, version: int) -> list[tuple[str, str]]:
    """What is wrong with the tasks near to one, and with its embedding."""
    try:
        _, found = registry.nearest(f"{name}@{version}", k=5)
        embedding = store.embedding(SPACE, name, version)
    except NotFoundError:
        return [("nearest knows nothing of", name)]
    if embedding is None:
        return [("no embedding of", name)]
    distances, shown = [neighbor.distance for neighbor in found], [neighbor.task for neighbor in found]
    if distances != sorted(distances) or len(set(shown)) < len(shown) or name in shown:
        return [(f"nearest are {shown} to", name)]
    right = make_task(name, version)[1].fisher
    return [] if np.array_equal(embedding.fisher, right) else [("wrong embedding of", name)]


# Killed inside one operation


def optimize_forever(folder: Path, name: str, seed: int, sender: Connection) -> None:
    """Write a little, then compact all tables and delete their old versions, over and over."""
    database.KEEP_VERSIONS = timedelta(0)
    writer = Writer(folder, name, seed)
    while True:
        writer.add_batch()
        writer.add_results()
        _say_when_inside(writer.optimize, sender)


def save_index_forever(folder: Path, name: str, seed: int, sender: Connection) -> None:
    """Add a few tasks, then ask, which saves the index, over and over."""
    use_small_index()
    writer, registry = Writer(folder, name, seed), TaskRegistry(folder / "registry")
    while True:
        writer.add_batch()
        _say_when_inside(lambda: registry.nearest("base0", k=5), sender)


def _say_when_inside(operation: Callable[[], object], sender: Connection) -> None:
    """Say when it goes in, and when it is out again how many seconds it took."""
    sender.send("in")
    start = time.monotonic()
    operation()
    sender.send(time.monotonic() - start)
