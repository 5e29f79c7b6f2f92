"""What is done to a registry while the power is cut, and what must be in it afterwards.

    python scripts/torture/power_cut_writer.py DISK_FOLDER MARKS OUTSIDE OPERATIONS SEED

``power_cuts.py`` starts it. It does one operation after another in the registry on the disk, says in MARKS when
each begins and when its call has returned, and keeps outside of that disk what all tables held after each.
"""

import hashlib
import json
import random
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from torture_workers import make_task

from registry import TaskRegistry
from registry.errors import StorageError
from registry.records import ExpertRecord, ResultRecord, SpaceRecord
from registry.storage.store import Store

DIM, BUNDLES, BATCH = 16, 40, 8
REGISTRY, BACKUP, BUNDLE = "registry", "backup", "bundle{}.t2v"
KEYS = {
    "meta": ["key"],
    "spaces": ["space_id"],
    "tasks": ["name", "version"],
    "embeddings": ["task", "version"],
}


def true_space(number: int) -> SpaceRecord:
    """A space whose id is that of its description, as bundles need; space 0 is the one most is written to."""
    description = json.dumps({"number": number, "probe": "tiny.torture"}, separators=(",", ":"))
    space_id = hashlib.blake2b(description.encode(), digest_size=8).hexdigest()
    return SpaceRecord(space_id, "tiny.torture", description, "none", np.full(DIM, 0.01), 3)


SPACE = true_space(0)


def make_bundles(folder: Path) -> None:
    """Files to import, each of its own tasks, experts and results, every fourth with a space of its own."""
    for number in range(BUNDLES):
        space = true_space(number if number % 4 == 3 else 0)
        store = Store.create(folder / f"source{number}", lambda new, space=space: new.add_space(space))
        names = [f"imported{number}-{one}" for one in range(3)]
        store.add_tasks([make_task(name, 1) for name in names], space.space_id)
        store.add_experts([ExpertRecord(f"expert-of-{names[0]}", "tiny.torture")])
        store.add_results([ResultRecord(names[0], f"expert-of-{names[0]}", 0.5)])
        TaskRegistry(folder / f"source{number}").export(folder / BUNDLE.format(number))


@dataclass(frozen=True)
class State:
    """All rows of a registry.

    Attributes:
        rows: How often each row is in each table.
        keys: How often each key is.
    """

    rows: dict[str, Counter[str]]
    keys: dict[str, Counter[str]]

    @staticmethod
    def from_json(values: Any) -> "State":
        """What ``json`` makes of one."""
        parts = [{table: Counter(counts) for table, counts in part.items()} for part in values]
        return State(*parts)


@dataclass(frozen=True)
class Operation:
    """What was done, and what all tables held before and after.

    Attributes:
        kind: Name of it.
        before: When it began.
        after: When it had returned.
        bundle: Number of the file that was imported; none for others.
    """

    kind: str
    before: State
    after: State
    bundle: int | None = None


def read_state(store: Store) -> State:
    """All rows as they are now, but for lines of the audit about repairs."""
    rows, keys = {}, {}
    for name in store.database.table_names():
        table = [row for row in store.database.read(name).to_pylist() if row.get("action") != "repair"]
        columns = KEYS.get("embeddings" if name.startswith("embeddings__") else name)
        rows[name] = Counter(json.dumps(row, sort_keys=True, default=str) for row in table)
        keys[name] = (
            Counter(str([row[column] for column in columns]) for row in table) if columns else rows[name]
        )
    return State(rows, keys)


class Writer:
    """Operations by name; each method is one call that returns once it is acknowledged."""

    def __init__(self, disk: Path, outside: Path, seed: int) -> None:
        self._disk, self._outside = disk, outside
        self._store = Store(disk / REGISTRY)
        self._registry = TaskRegistry(disk / REGISTRY)
        self._random = random.Random(seed)
        self._tasks, self._experts, self._removed = list[str](), list[str](), list[str]()
        self._count = self.imported = 0

    def operations(self) -> dict[str, Any]:
        """What can be done."""
        return {
            "add": self._add,
            "add many": self._add_many,
            "next version": self._add_version,
            "tag": lambda: self._store.set_tags(self._one(), [f"tag{self._number()}"]),
            "alias": lambda: self._store.set_alias(f"{self._one()}@1", "best"),
            "remove": self._remove,
            "restore": self._restore,
            "purge": lambda: self._store.purge_task(self._take()),
            "expert": self._add_expert,
            "results": self._add_results,
            "optimize": lambda: self._store.optimize(keep=timedelta(milliseconds=1)),
            "import": self._import,
            "undo": self._undo,
            "backup": lambda: self._registry.backup(self._disk / BACKUP, verify=self._random.random() < 0.5),
        }

    def _number(self) -> int:
        self._count += 1
        return self._count

    def _one(self) -> str:
        return self._random.choice(self._tasks)

    def _take(self) -> str:
        return self._tasks.pop(self._random.randrange(len(self._tasks)))

    def _add(self) -> None:
        name = f"task{self._number()}"
        task, embedding = make_task(name, 1)
        self._store.add_task(task, SPACE.space_id, embedding)
        self._tasks.append(name)

    def _add_many(self) -> None:
        names = [f"batch{self._number()}" for _ in range(BATCH)]
        self._store.add_tasks([make_task(name, 1) for name in names], SPACE.space_id)
        self._tasks += names

    def _add_version(self) -> None:
        name = self._one()
        task, embedding = make_task(name, self._store.next_version(name))
        self._store.add_task(task, SPACE.space_id, embedding)

    def _remove(self) -> None:
        self._removed.append(self._take())
        self._store.remove_task(self._removed[-1])

    def _restore(self) -> None:
        if not self._removed:
            return self._remove()
        self._tasks.append(self._removed.pop())
        return self._store.restore_task(self._tasks[-1])

    def _add_expert(self) -> None:
        self._experts.append(f"expert{self._number()}")
        self._store.add_experts([ExpertRecord(self._experts[-1], "tiny.torture")])

    def _add_results(self) -> None:
        expert = self._random.choice(self._experts)
        self._store.add_results([ResultRecord(self._one(), expert, 0.5, seed=self._number()) for _ in range(3)])

    def _undo(self) -> None:
        with suppress(StorageError):  # after a purge nothing of before can be taken back
            self._registry.undo()
        self._tasks, self._removed = [task.name for task in self._store.tasks()], []
        self._experts = [expert.name for expert in self._store.experts()]

    def _import(self) -> None:
        self.imported += 1
        self._registry.import_bundle(self._outside / BUNDLE.format(self.imported % BUNDLES))


def work(disk: Path, marks: Path, outside: Path, operations: int, seed: int) -> None:
    """Create a registry, do so many operations, and say what happens."""

    def say(text: str) -> None:
        with marks.open("ab", buffering=0) as file:
            file.write(text.encode())

    store = Store(disk / REGISTRY)
    say("begin 0")
    Store.create(disk / REGISTRY, lambda new: new.add_space(SPACE))
    say("end 0")
    done: list[tuple[str, State, int | None]] = [("create", read_state(store), None)]
    writer, chooser = Writer(disk, outside, seed), random.Random(seed)
    kinds = writer.operations()
    names = ["add", "add many", "expert"]
    while len(names) < operations:
        names += chooser.sample(list(kinds), len(kinds))
    for number, name in enumerate(names[:operations], start=1):
        say(f"begin {number}")
        kinds[name]()
        say(f"end {number}")
        bundle = writer.imported % BUNDLES if name == "import" else None
        done.append((name, read_state(store), bundle))
    values = [(name, (state.rows, state.keys), bundle) for name, state, bundle in done]
    (outside / "operations").write_text(json.dumps(values))


def read_operations(outside: Path) -> list[Operation]:
    """What was done, in order."""
    operations, before = [], State({}, {})
    for name, values, bundle in json.loads((outside / "operations").read_text()):
        operations.append(Operation(name, before, State.from_json(values), bundle))
        before = operations[-1].after
    return operations


if __name__ == "__main__":
    work(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
