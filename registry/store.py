"""The store: records in LanceDB tables in one folder, safe against kills and concurrent writers.

There are no transactions across tables, so an order of writes stands in for them: the row that makes others
visible is written last (a task after its embedding, a space after its table, ``meta`` after a whole registry).
Every writer holds the folder's lock, because LanceDB lets two writers insert the same key.

Axes: T embeddings, D filters of the probe, F features of the probe.
"""

import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import lancedb

from registry import schema
from registry.audit import audit_lines
from registry.creation import check_place, create_registry
from registry.database import Database, quoted
from registry.errors import DuplicateError, InvalidRecordError, NotFoundError, StorageError
from registry.filters import parse_where
from registry.locations import place_of
from registry.places import Place
from registry.records import (
    LATEST,
    AuditRecord,
    EmbeddingRecord,
    ExpertRecord,
    ResultRecord,
    SpaceRecord,
    TaskRecord,
    checked_alias,
    checked_name,
    utc_now,
)
from registry.schema import EmbeddingTable, Key
from registry.verify import Problem, verify_database

__all__ = ["EmbeddingTable", "Problem", "Store"]

_PRESENT = "removed_at = ''"
_REMOVED = "removed_at != ''"
_NOT_BUILTIN = "builtin = false"

LONGEST_LIST = 1000  # names in a condition

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
        """Remember the place: a folder, or an object store such as ``s3://bucket/prefix``."""
        self.database = Database(place_of(uri), _connect)
        self.uri = self.database.uri

    @property
    def exists(self) -> bool:
        """Whether there is a registry at this place."""
        return self.database.exists

    @staticmethod
    def create(uri: str | Path, populate: Callable[["Store"], None] | None = None) -> "Store":
        """Open the registry at a place, creating it whole or not at all if there is none.

        Args:
            uri: A place that is missing, empty, or a registry.
            populate: Fills a new registry before anybody sees it; if it raises, there is no registry.

        Returns:
            The store, whoever created it.
        """
        store = Store(uri)

        def make(staging_uri: str) -> None:
            staged = Store(staging_uri)
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
            self._note("space.add", [space.space_id], probe=space.probe)
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
            where = _among("name", {task.name for task, _ in entries})
            known = {f"{name}@{version}" for name, version in self._task_keys(where)}
            _refuse_duplicates("task", keys, known)
            self._remove_embeddings({(task.name, task.version) for task, _ in entries})
            self.database.append(schema.embeddings_table_name(space_id), embeddings)
            self._note("task.add", keys, space=space_id)
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
            self._note("task.embed", [key], space=space_id)
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
            reference: A name, for its latest version, or ``name@version`` or ``name@alias``.

        Returns:
            A task that is not removed.

        Raises:
            NotFoundError: If there is none.
        """
        name, _, wanted = reference.partition("@")
        versions = self.versions(name)
        if versions and (reference == name or wanted == LATEST):
            return versions[-1]
        for task in versions:
            if wanted == str(task.version) or wanted in task.aliases:
                return task
        known = [f"{name}@{word}" for task in versions for word in (task.version, *task.aliases)]
        raise NotFoundError("task", reference, known or {known for known, _ in self._task_keys()})

    def versions(self, name: str, *, removed: bool = False) -> list[TaskRecord]:
        """All versions of a task, rising; those that are removed if asked for, and only those."""
        where = f"name = {quoted(name)} and removed_at {'!=' if removed else '='} ''"
        found = {task.version: task for task in self._records(TaskRecord, "tasks", where)}
        return [found[version] for version in sorted(found)]

    def remove_task(self, name: str) -> None:
        """Hide all versions of a task; their rows stay, and so do results on it."""
        with self.write_lock():
            _found("task", name, dict(self._task_keys()))
            self._note("task.remove", [name])
            self._mark_removed("tasks", name, utc_now())

    def restore_task(self, name: str) -> None:
        """Show all versions of a task that was removed again."""
        with self.write_lock():
            _found("removed task", name, dict(self._task_keys(_REMOVED)))
            self._note("task.restore", [name])
            self._mark_removed("tasks", name, "")

    def purge_task(self, name: str) -> None:
        """Delete all versions of a task, hidden or not, its embeddings and the results on it for good."""
        with self.write_lock():
            _found("task", name, dict(self._task_keys(where="")))
            keys = set(self._task_keys(f"name = {quoted(name)}"))
            self._note("task.purge", [name], versions=sorted(version for _, version in keys))
            self._delete("tasks", f"name = {quoted(name)}")
            self._remove_embeddings(keys)
            self._delete("results", f"task = {quoted(name)}")

    def set_tags(self, name: str, tags: Sequence[str]) -> None:
        """Replace the tags of all versions of a task."""
        with self.write_lock():
            _found("task", name, dict(self._task_keys()))
            self._note("task.tag", [name], tags=sorted(tags))
            self._update_tasks([replace(task, tags=tuple(tags)) for task in self.versions(name)])

    def set_alias(self, reference: str, alias: str) -> None:
        """Let an alias name the version of a reference, and no other version of that task."""
        checked_alias(alias)
        with self.write_lock():
            named = self.task(reference)
            self._note("task.alias", [f"{named.name}@{named.version}"], alias=alias)
            self._move_alias(named.name, alias, to_version=named.version)

    def remove_alias(self, name: str, alias: str) -> None:
        """Let an alias of a task name nothing.

        Raises:
            NotFoundError: If there is no such task, or it names none of its versions.
        """
        with self.write_lock():
            named = self.task(f"{name}@{alias}")
            if alias not in named.aliases:
                raise NotFoundError("alias", alias, (word for it in self.versions(name) for word in it.aliases))
            self._note("task.unalias", [f"{name}@{named.version}"], alias=alias)
            self._move_alias(name, alias, to_version=None)

    def _move_alias(self, name: str, alias: str, *, to_version: int | None) -> None:
        """In one commit, so that nobody sees an alias twice or not at all while it moves."""
        changed = []
        for task in self.versions(name):
            others = tuple(word for word in task.aliases if word != alias)
            aliases = (*others, alias) if task.version == to_version else others
            changed.append(replace(task, aliases=aliases))
        self._update_tasks(changed)

    def _update_tasks(self, tasks: Sequence[TaskRecord]) -> None:
        """Replace the rows of task versions that are there, in one commit."""
        rows = schema.to_arrow(tasks, schema.TASKS)
        self.database.commit(
            "tasks",
            lambda table: table.merge_insert(["name", "version"]).when_matched_update_all().execute(rows),
        )

    def embedding(self, space_id: str, task: str, version: int) -> EmbeddingRecord | None:
        """The embedding of a task version, or ``None`` where task, space or embedding is not there.

        Raises:
            StorageError: If it is not what its checksum was made of.
        """
        if not self.database.has_table(schema.embeddings_table_name(space_id)):
            return None
        if not self._task_keys(where=f"name = {quoted(task)} and version = {version} and {_PRESENT}"):
            return None
        name = schema.embeddings_table_name(space_id)
        where = f"task = {quoted(task)} and version = {version}"
        # One row of a file that may be huge: the row is checked instead, unless there seems to be none.
        rows = self.database.read(name, where=where, trust_large_files=True)
        rows = rows if len(rows) else self.database.read(name, where=where)
        try:
            found = schema.from_arrow(EmbeddingRecord, rows)
        except InvalidRecordError as err:
            raise StorageError(
                f"{self.uri}: table {name} is damaged: {err}; restore the registry from a copy"
            ) from err
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
            names = [expert.name for expert in experts]
            _refuse_duplicates("expert", names, known)
            self._note("expert.add", names)
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
            self._note("expert.remove", [name])
            self._mark_removed("experts", name, utc_now())

    def purge_expert(self, name: str) -> None:
        """Delete an expert, hidden or not, and the results of it for good."""
        with self.write_lock():
            names = self.database.read("experts", columns=["name"])["name"].to_pylist()
            _found("expert", name, dict.fromkeys(names))
            self._note("expert.purge", [name])
            self._delete("experts", f"name = {quoted(name)}")
            self._delete("results", f"expert = {quoted(name)}")

    def add_results(self, results: Sequence[ResultRecord]) -> None:
        """Append measured scores; a score that was measured again is kept beside the former."""
        with self.write_lock():
            self._note("result.add", [f"{result.expert} on {result.task}" for result in results])
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

    def audit(self, subject: str | None = None) -> list[AuditRecord]:
        """Who wrote what, in order of time; only of a task, an expert or a result if given.

        Args:
            subject: A name of a task stands for all its versions, aliases and results.
        """
        records = self._records(AuditRecord, "audit", _about(subject) if subject else "")
        return sorted(records, key=lambda record: record.at)

    def _note(self, action: str, subjects: Sequence[str], **details: Any) -> None:
        """Write the audit of a write that comes next."""
        self.database.append("audit", audit_lines(action, subjects, **details))

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

    def _mark_removed(self, name: str, of_name: str, removed_at: str) -> None:
        where = f"name = {quoted(of_name)} and {_PRESENT if removed_at else _REMOVED}"
        self.database.commit(name, lambda table: table.update(where=where, values={"removed_at": removed_at}))

    def _delete(self, name: str, where: str) -> None:
        self.database.commit(name, lambda table: table.delete(where))

    def _task_keys(self, where: str = _PRESENT) -> list[Key]:
        return schema.table_keys(self.database.read("tasks", columns=["name", "version"], where=where))

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

    def _remove_embeddings(self, keys: set[Key]) -> None:
        """Delete the embeddings of keys in every space: what a killed writer left, or what is purged."""
        where = _among("task", {name for name, _ in keys})
        for space in self.spaces():
            name = schema.embeddings_table_name(space.space_id)
            rows = self.database.read(name, columns=schema.EMBEDDING_KEY, where=where, row_ids=True)
            row_ids = rows["_rowid"].to_pylist()
            self.database.delete_rows(
                name, [row for key, row in zip(schema.table_keys(rows), row_ids, strict=True) if key in keys]
            )


# The process that connected to a registry, here or before a fork.
_CONNECTED_PROCESSES: set[int] = set()


def _connect(place: Place) -> Any:
    """Connect to a place.

    Raises:
        StorageError: In a process forked from one that was connected: measured, a third of such processes
            crash inside LanceDB or read garbage, even on a connection of their own.
    """
    if _CONNECTED_PROCESSES - {os.getpid()}:
        raise StorageError(
            f"{place.uri} cannot be opened in a process forked from one that had opened a registry; "
            "start processes by 'spawn' (multiprocessing.get_context('spawn'))"
        )
    _CONNECTED_PROCESSES.add(os.getpid())
    # An interval of zero: a table handle always sees what other processes have written.
    return lancedb.connect(
        place.connect_target,
        read_consistency_interval=timedelta(0),
        storage_options=place.storage_options or None,
    )


def _among(column: str, values: Collection[str]) -> str:
    """Condition that a column is one of some texts; none where all rows are read as fast."""
    if len(values) > LONGEST_LIST:
        return ""
    return f"{column} in ({', '.join(map(quoted, sorted(values)))})"


def _about(subject: str) -> str:
    """Condition of the lines about a task, with or without a version, an expert or results of either."""
    name = quoted(subject)
    return (
        f"subject = {name} or starts_with(subject, {quoted(subject + '@')}) "
        f"or starts_with(subject, {quoted(subject + ' on ')}) or ends_with(subject, {quoted(' on ' + subject)})"
    )


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
