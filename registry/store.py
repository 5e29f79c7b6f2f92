"""The store: records in LanceDB tables in one folder, safe against kills and concurrent writers.

There are no transactions across tables, so an order of writes stands in for them: the row that makes others
visible is written last (a task after its embedding, a space after its table, ``meta`` after a whole registry).
Every writer holds the folder's lock, because LanceDB lets two writers insert the same key.

Axes: T embeddings, D filters of the probe, F features of the probe.
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import lancedb

from registry import schema
from registry.creation import check_place, create_registry
from registry.database import Database, quoted
from registry.errors import DuplicateError, InvalidRecordError, NotFoundError, StorageError
from registry.filters import parse_where
from registry.records import (
    EmbeddingRecord,
    ExpertRecord,
    ResultRecord,
    SpaceRecord,
    TaskRecord,
    checked_name,
    utc_now,
)
from registry.schema import EmbeddingTable, Key
from registry.verify import Problem, verify_database

__all__ = ["EmbeddingTable", "Problem", "Store"]

_PRESENT = "removed_at = ''"
_NOT_BUILTIN = "builtin = false"

Record = TypeVar("Record")


class Store:
    """The records of one registry folder.

    Nothing is opened before it is needed and nothing is created but by ``create``. Where there is no registry,
    lists are empty, names are not found and writing is an error. Several threads may use one store; processes
    have to be started by ``spawn``, since LanceDB does not survive a fork.

    Attributes:
        uri: The folder as it was given.
        database: Its tables.
    """

    def __init__(self, uri: str | Path) -> None:
        """Remember the place, which must be a local folder."""
        self.database = Database(uri, _connect)
        self.uri = self.database.uri

    @property
    def exists(self) -> bool:
        """Whether there is a registry at this place."""
        return self.database.exists

    @staticmethod
    def create(uri: str | Path, populate: Callable[["Store"], None] | None = None) -> "Store":
        """Open the registry at a place, creating it whole or not at all if there is none.

        Args:
            uri: A folder that is missing, empty, or a registry.
            populate: Fills a new registry before anybody sees it; if it raises, there is no registry.

        Returns:
            The store, whoever created it.
        """
        store = Store(uri)

        def make(folder: Path) -> None:
            staged = Store(folder)
            staged.database.lay_out()
            if populate is not None:
                populate(staged)

        create_registry(store.database, make)
        return store

    def check_place(self) -> None:
        """Fail where a registry neither is nor can be made, before the work that would be in vain."""
        check_place(self.database)

    def write_lock(self) -> AbstractContextManager[None]:
        """Keep other writers out of a sequence of reads and writes; re-entrant."""
        return self.database.write_lock()

    def add_space(self, space: SpaceRecord) -> None:
        """Register a space and make its table; nothing happens if its id is registered."""
        checked_name("space", space.space_id)
        with self.write_lock():
            if space.space_id in {known.space_id for known in self.spaces()}:
                return
            name = schema.embeddings_table_name(space.space_id)
            self.database.create_table(name, schema.embeddings_schema(space.dim, space.domain_dim))
            self.database.append("spaces", [space])

    def spaces(self) -> list[SpaceRecord]:
        """All spaces, sorted by id."""
        spaces = {space.space_id: space for space in self._records(SpaceRecord, "spaces")}
        return [spaces[space_id] for space_id in sorted(spaces)]

    def space(self, space_id: str) -> SpaceRecord:
        """The space of an id; ``NotFoundError`` if there is none."""
        return _found("space", space_id, {space.space_id: space for space in self.spaces()})

    def next_version(self, name: str) -> int:
        """The version that a task of this name would get; versions of removed tasks are not given again."""
        versions = self.database.read("tasks", where=f"name = {quoted(name)}")["version"].to_pylist()
        return max(versions, default=0) + 1

    def add_task(self, task: TaskRecord, space_id: str, embedding: EmbeddingRecord) -> None:
        """Register one version of a task with its embedding; see ``add_tasks``."""
        self.add_tasks([(task, embedding)], space_id)

    def add_tasks(self, entries: Sequence[tuple[TaskRecord, EmbeddingRecord]], space_id: str) -> None:
        """Register task versions with their embeddings, all or none.

        A version that is registered, even if it was removed, or is given twice is a ``DuplicateError``.

        Args:
            entries: Each a task and its embedding.
            space_id: The space of the embeddings.

        Raises:
            InvalidRecordError: If an embedding is of another task, or its widths are not those of the space.
        """
        embeddings = [embedding for _, embedding in entries]
        for task, embedding in entries:
            if (task.name, task.version) != (embedding.task, embedding.version):
                raise InvalidRecordError(
                    f"task {task.name}@{task.version} came with the embedding of "
                    f"{embedding.task}@{embedding.version}"
                )
        with self.write_lock():
            self._check_widths(space_id, embeddings)
            keys = [f"{task.name}@{task.version}" for task, _ in entries]
            known = {f"{name}@{version}" for name, version in self._task_keys(where="")}
            _refuse_duplicates("task", keys, known)
            self._remove_stray_embeddings({(task.name, task.version) for task, _ in entries})
            self.database.append(schema.embeddings_table_name(space_id), embeddings)
            self.database.append("tasks", [task for task, _ in entries])

    def add_embedding(self, space_id: str, embedding: EmbeddingRecord) -> None:
        """Embed a registered task version in a further space.

        Raises:
            DuplicateError: If it has an embedding in that space.
        """
        with self.write_lock():
            self._check_widths(space_id, [embedding])
            key = f"{embedding.task}@{embedding.version}"
            self.task(key)
            if self.embedding(space_id, embedding.task, embedding.version) is not None:
                raise DuplicateError(f"task {key} has an embedding in space {space_id} already")
            self.database.append(schema.embeddings_table_name(space_id), [embedding])

    def tasks(self, *, where: str | None = None, builtin: bool = True, latest: bool = True) -> list[TaskRecord]:
        """Registered tasks, sorted by name and version.

        Args:
            where: A filter, see ``registry.filters``; it chooses among the versions that ``latest`` leaves.
            builtin: Whether starter content is listed.
            latest: Whether only the latest version of each name is.

        Returns:
            Tasks that are not removed.
        """
        passes = parse_where(where) if where is not None else None
        rows = self._records(TaskRecord, "tasks", _listed(builtin))
        found = {(task.name, task.version): task for task in rows}
        tasks = [found[key] for key in sorted(found)]
        if latest:
            tasks = list({task.name: task for task in tasks}.values())
        return [task for task in tasks if passes is None or passes(task)]

    def task(self, reference: str) -> TaskRecord:
        """The task of a reference.

        Args:
            reference: A name, for its latest version, or ``name@version``.

        Returns:
            A task that is not removed.

        Raises:
            NotFoundError: If there is none.
        """
        name, _, version = reference.partition("@")
        versions = {str(task.version): task for task in self._versions(name)}
        if versions and reference == name:
            return max(versions.values(), key=lambda task: task.version)
        if version in versions:
            return versions[version]
        names = [f"{name}@{known}" for known in versions] or {known for known, _ in self._task_keys()}
        raise NotFoundError("task", reference, names)

    def remove_task(self, name: str) -> None:
        """Hide all versions of a task; their rows stay, and so do results on it."""
        with self.write_lock():
            _found("task", name, dict(self._task_keys()))
            self._mark_removed("tasks", name)

    def set_tags(self, name: str, tags: Sequence[str]) -> None:
        """Replace the tags of all versions of a task."""
        with self.write_lock():
            _found("task", name, dict(self._task_keys()))
            tagged = [replace(task, tags=tuple(tags)) for task in self._versions(name)]
            rows = schema.to_arrow(tagged, schema.TASKS)
            self.database.commit(
                "tasks",
                lambda table: table.merge_insert(["name", "version"]).when_matched_update_all().execute(rows),
            )

    def embedding(self, space_id: str, task: str, version: int) -> EmbeddingRecord | None:
        """The embedding of a task version, or ``None`` where task, space or embedding is not there."""
        if not self.database.has_table(schema.embeddings_table_name(space_id)):
            return None
        if not self._task_keys(where=f"name = {quoted(task)} and version = {version} and {_PRESENT}"):
            return None
        where = f"task = {quoted(task)} and version = {version}"
        found = self._records(EmbeddingRecord, schema.embeddings_table_name(space_id), where)
        return found[-1] if found else None

    def embeddings(self, space_id: str) -> EmbeddingTable:
        """Embeddings of all versions of the tasks that are not removed, in one space.

        Row order is that of ``keys``. A space that is not there is a ``NotFoundError``.
        """
        name = self._embeddings_table(space_id)
        # The tasks are read first: one that is added meanwhile is left out, not shown without its embedding.
        committed = set(self._task_keys())
        columns = [*schema.EMBEDDING_KEY, "fisher", "domain"]
        return EmbeddingTable.from_arrow(self.database.read(name, columns=columns), committed)

    def embeddings_version(self, space_id: str) -> str:
        """A text that changes whenever the answer of ``embeddings`` may have; no two registries share one."""
        name = self._embeddings_table(space_id)
        versions = [self.database.table_version(table) for table in ("tasks", name)]
        return f"{self.database.registry_id()}-{versions[0]}-{versions[1]}"

    def add_experts(self, experts: Sequence[ExpertRecord]) -> None:
        """Register experts, all or none; a name that is registered or given twice is a ``DuplicateError``."""
        with self.write_lock():
            known = {expert.name for expert in self.experts()}
            _refuse_duplicates("expert", [expert.name for expert in experts], known)
            self.database.append("experts", experts)

    def experts(self, *, builtin: bool = True) -> list[ExpertRecord]:
        """Experts that are not removed, sorted by name; starter content only if ``builtin``."""
        found = {expert.name: expert for expert in self._records(ExpertRecord, "experts", _listed(builtin))}
        return [found[name] for name in sorted(found)]

    def expert(self, name: str) -> ExpertRecord:
        """The expert of a name; ``NotFoundError`` if there is none."""
        return _found("expert", name, {expert.name: expert for expert in self.experts()})

    def remove_expert(self, name: str) -> None:
        """Hide an expert; results of it stay."""
        with self.write_lock():
            self.expert(name)
            self._mark_removed("experts", name)

    def add_results(self, results: Sequence[ResultRecord]) -> None:
        """Append measured scores; a score that was measured again is kept beside the former."""
        with self.write_lock():
            self.database.append("results", results)

    def results(
        self, *, task: str | None = None, expert: str | None = None, builtin: bool = True
    ) -> list[ResultRecord]:
        """Results, of one task or expert if given; sorted by task, expert, metric, protocol and time."""
        conditions = [] if builtin else [_NOT_BUILTIN]
        conditions += [f"task = {quoted(task)}"] if task is not None else []
        conditions += [f"expert = {quoted(expert)}"] if expert is not None else []
        found = self._records(ResultRecord, "results", " and ".join(conditions))
        return sorted(found, key=lambda it: (it.task, it.expert, it.metric, it.protocol, it.created_at))

    def verify(self, *, repair: bool = False) -> list[Problem]:
        """Check every table against the others; see ``registry.verify``."""
        return verify_database(self.database, repair=repair)

    def optimize(self) -> None:
        """Compact all tables; writes do so by themselves when a table has become scattered."""
        for name in self.database.table_names():
            self.database.optimize(name)

    def _embeddings_table(self, space_id: str) -> str:
        """Name of the embeddings table of a space.

        Raises:
            NotFoundError: If there is no such space.
        """
        name = schema.embeddings_table_name(space_id)
        if not self.database.has_table(name):
            raise NotFoundError("space", space_id, (space.space_id for space in self.spaces()))
        return name

    def _records(self, record_type: type[Record], name: str, where: str = "") -> list[Record]:
        return schema.from_arrow(record_type, self.database.read(name, where=where))

    def _mark_removed(self, name: str, of_name: str) -> None:
        where = f"name = {quoted(of_name)} and {_PRESENT}"
        self.database.commit(name, lambda table: table.update(where=where, values={"removed_at": utc_now()}))

    def _task_keys(self, where: str = _PRESENT) -> list[Key]:
        return schema.table_keys(self.database.read("tasks", columns=["name", "version"], where=where))

    def _versions(self, name: str) -> list[TaskRecord]:
        return self._records(TaskRecord, "tasks", f"name = {quoted(name)} and {_PRESENT}")

    def _check_widths(self, space_id: str, embeddings: Sequence[EmbeddingRecord]) -> None:
        """Check that embeddings fit a space.

        Raises:
            InvalidRecordError: If one does not.
        """
        space = self.space(space_id)
        expected = (space.dim, space.dim, space.domain_dim)
        for it in embeddings:
            found = (len(it.fisher), len(it.standard_error), len(it.domain))
            if found != expected:
                raise InvalidRecordError(
                    f"embedding of task {it.task}: the widths of fisher, standard_error and domain must be "
                    f"{expected} in space {space_id}, got {found}"
                )

    def _remove_stray_embeddings(self, keys: set[Key]) -> None:
        """Delete what a killed writer left under keys that are about to be committed, in every space."""
        for space in self.spaces():
            name = schema.embeddings_table_name(space.space_id)
            rows = self.database.read(name, columns=schema.EMBEDDING_KEY, row_ids=True)
            row_ids = rows["_rowid"].to_pylist()
            self.database.delete_rows(
                name, [row for key, row in zip(schema.table_keys(rows), row_ids, strict=True) if key in keys]
            )


# The process that connected to a registry, here or before a fork.
_CONNECTED_PROCESSES: set[int] = set()


def _connect(folder: Path) -> Any:
    """Connect to a folder.

    Raises:
        StorageError: In a process forked from one that was connected: measured, a third of such processes
            crash inside LanceDB or read garbage, even on a connection of their own.
    """
    if _CONNECTED_PROCESSES - {os.getpid()}:
        raise StorageError(
            f"{folder} cannot be opened in a process forked from one that had opened a registry; "
            "start processes by 'spawn' (multiprocessing.get_context('spawn'))"
        )
    _CONNECTED_PROCESSES.add(os.getpid())
    # An interval of zero: a table handle always sees what other processes have written.
    return lancedb.connect(folder, read_consistency_interval=timedelta(0))


def _listed(builtin: bool) -> str:
    """Condition of the rows that a list shows."""
    return _PRESENT if builtin else f"{_PRESENT} and {_NOT_BUILTIN}"


def _found(kind: str, name: str, records: Mapping[str, Record]) -> Record:
    """The record of a name.

    Raises:
        NotFoundError: If there is none.
    """
    if name not in records:
        raise NotFoundError(kind, name, records)
    return records[name]


def _refuse_duplicates(kind: str, names: Sequence[str], known: set[str]) -> None:
    """Check that all names are new.

    Raises:
        DuplicateError: If one is known or there twice.
    """
    for name, count in Counter(names).items():
        if count > 1:
            raise DuplicateError(f"{kind} {name} is given twice")
        if name in known:
            raise DuplicateError(f"{kind} {name} is registered already; remove it first or choose another name")
