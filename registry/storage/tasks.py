"""Versions of tasks and their embeddings, as the store keeps them.

Axes: T embeddings, D filters of the probe, F features of the probe.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from registry.errors import DuplicateError, InvalidRecordError, NotFoundError, StorageError
from registry.filters import parse_where
from registry.names import Key, Reference, checked_alias
from registry.records import AuditRecord, EmbeddingRecord, TaskRecord
from registry.storage import schema
from registry.storage.rows import (
    PRESENT,
    REMOVED,
    SheetRecord,
    StoredSheets,
    among,
    listed,
    lookup,
    refuse_duplicates,
)
from registry.storage.schema import SHEETS, EmbeddingTable, quoted


class StoredEmbeddings(StoredSheets):
    """The embeddings in each space."""

    def embedding(self, space_id: str, task: str, version: int) -> EmbeddingRecord | None:
        """The embedding of a task version, or ``None`` where task, space or embedding is not there.

        Raises:
            StorageError: If it is not what its checksum was made of.
        """
        if not self.database.has_table(schema.embeddings_table_name(space_id)):
            return None
        if not self._task_keys(where=f"name = {quoted(task)} and version = {version} and {PRESENT}"):
            return None
        name = schema.embeddings_table_name(space_id)
        where = f"task = {quoted(task)} and version = {version}"
        # The file may be huge, and one row is wanted: that is checked instead, unless there seems to be none.
        rows = self.database.read(name, where=where, trust_large_files=True)
        rows = rows if len(rows) else self.database.read(name, where=where)
        try:
            records = schema.from_arrow(EmbeddingRecord, rows.slice(max(len(rows) - 1, 0)))
        except InvalidRecordError as err:
            raise StorageError(
                f"{self.database.uri}: table {name} is damaged: {err}; restore the registry from a copy"
            ) from err
        return records[0] if records else None

    def embedded_keys(self, space_id: str, names: Collection[str]) -> set[Key]:
        """Names and versions of the tasks of some names that have an embedding in a space."""
        name = schema.embeddings_table_name(space_id)
        if not names or not self.database.has_table(name):
            return set()
        rows = self.database.read(name, columns=schema.EMBEDDING_KEY, where=among("task", names))
        return {key for key in schema.table_keys(rows) if key[0] in names}

    def embeddings(self, space_id: str) -> EmbeddingTable:
        """Embeddings of all versions of the tasks that are not removed, in one space.

        Rows are in order of ``keys``. A space that is not there is a ``NotFoundError``.
        """
        name = self._embeddings_table(space_id)
        # The tasks are read first: one that is added meanwhile is left out, not shown without its embedding.
        committed = set(self._task_keys())
        columns = [*schema.EMBEDDING_KEY, "fisher", "domain"]
        return EmbeddingTable.from_arrow(self.database.read(name, columns=columns), committed)

    def _embeddings_table(self, space_id: str) -> str:
        """Name of the embeddings table of a space; ``NotFoundError`` if there is no such space."""
        name = schema.embeddings_table_name(space_id)
        if not self.database.has_table(name):
            raise NotFoundError("space", space_id, (space.space_id for space in self.spaces()))
        return name

    def _check_widths(self, space_id: str, embeddings: Sequence[EmbeddingRecord]) -> None:
        """Check that embeddings fit a space; ``InvalidRecordError`` if one does not."""
        space = self.space(space_id)
        expected = (space.dim, space.dim, space.domain_dim)
        for embedding in embeddings:
            widths = (len(embedding.fisher), len(embedding.standard_error), len(embedding.domain))
            if widths != expected:
                raise InvalidRecordError(
                    f"embedding of task {embedding.task}: the widths of fisher, standard_error and domain must "
                    f"be {expected} in space {space_id}, got {widths}"
                )

    def _remove_embeddings(
        self, keys: set[Key], remove: Callable[[str, Sequence[int]], None] | None = None
    ) -> None:
        """Delete the embeddings of keys in every space: what a killed writer left, or what is purged."""
        remove = remove or self.database.delete_rows
        where = among("task", {name for name, _ in keys})
        for space in self.spaces():
            name = schema.embeddings_table_name(space.space_id)
            rows = self.database.read(name, columns=schema.EMBEDDING_KEY, where=where, row_ids=True)
            row_ids = rows["_rowid"].to_pylist()
            remove(
                name, [row for key, row in zip(schema.table_keys(rows), row_ids, strict=True) if key in keys]
            )


class StoredTasks(StoredEmbeddings):
    """The versions of tasks."""

    def next_version(self, name: str) -> int:
        """The version that a task of this name would get; one that was removed or purged is not given again."""
        return self.next_versions([name])[name]

    def next_versions(self, names: Collection[str]) -> dict[str, int]:
        """The next version of each of many names, for the price of one."""
        highest = dict.fromkeys(names, 0)
        for name, version in self._task_keys(among("name", names)):
            if name in highest:
                highest[name] = max(highest[name], version)
        for name, versions in self.purged_versions(names).items():
            highest[name] = max(highest[name], *versions, 0)
        return {name: version + 1 for name, version in highest.items()}

    def purged_versions(self, names: Collection[str]) -> dict[str, set[int]]:
        """Numbers of versions that were purged, by name; of the names for which there are some."""
        purged: dict[str, set[int]] = {}
        some = among("subject", names)
        for purge in self._records(AuditRecord, "audit", f"action = 'task.purge' and {some or 'true'}"):
            if purge.subject in names:
                purged.setdefault(purge.subject, set()).update(purge.values["versions"])
        return purged

    def add_task(self, task: TaskRecord, space_id: str, embedding: EmbeddingRecord) -> None:
        """Register one version of a task with its embedding; see ``add_tasks``."""
        self.add_tasks([(task, embedding)], space_id)

    def add_tasks(
        self,
        entries: Sequence[tuple[TaskRecord, EmbeddingRecord]],
        space_id: str,
        sheets: Sequence[SheetRecord] = (),
    ) -> None:
        """Register task versions with their embeddings, all or none.

        A version that is registered, even if it was removed, or is given twice is a ``DuplicateError``.

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
            where = among("name", {task.name for task, _ in entries})
            registered = {f"{name}@{version}" for name, version in self._task_keys(where)}
            refuse_duplicates("task", keys, registered)
            self.pin_results(self._latest_versions({task.name for task, _ in entries if task.version > 1}))
            self._remove_embeddings({(task.name, task.version) for task, _ in entries})
            self._remove_sheets({(task.name, task.version) for task, _ in entries})
            self.database.append(SHEETS, sheets)
            self.database.append(schema.embeddings_table_name(space_id), embeddings)
            self._note("task.add", keys, space=space_id)
            self.database.append("tasks", [task for task, _ in entries])

    def add_embedding(self, space_id: str, embedding: EmbeddingRecord) -> None:
        """Embed a registered task version in a further space; see ``add_embeddings``."""
        self.add_embeddings(space_id, [embedding])

    def add_embeddings(self, space_id: str, embeddings: Sequence[EmbeddingRecord]) -> None:
        """Embed registered task versions in a further space, all or none.

        Raises:
            NotFoundError: If a task version is not there.
            DuplicateError: If one has an embedding in that space.
        """
        with self.write_lock():
            self._check_widths(space_id, embeddings)
            keys = [(embedding.task, embedding.version) for embedding in embeddings]
            present = {(task.name, task.version) for task in self.task_versions(keys)}
            for name, version in set(keys) - present:
                self.task(f"{name}@{version}")  # says what is known instead
            embedded = self.embedded_keys(space_id, {name for name, _ in keys})
            for name, version in keys:
                if (name, version) in embedded:
                    raise DuplicateError(f"task {name}@{version} has an embedding in space {space_id} already")
            self._note("task.embed", [f"{name}@{version}" for name, version in keys], space=space_id)
            self.database.append(schema.embeddings_table_name(space_id), embeddings)

    def latest_tasks(self, names: Collection[str]) -> dict[str, TaskRecord]:
        """The latest version of each task of a name that is not removed; without names that are not there."""
        some = among("name", names)
        rows = self._records(TaskRecord, "tasks", f"{PRESENT} and {some or 'true'}") if names else []
        rows.sort(key=lambda task: task.version)
        return {task.name: task for task in rows if task.name in names}

    def tasks(self, *, where: str | None = None, builtin: bool = True, latest: bool = True) -> list[TaskRecord]:
        """Registered tasks, sorted by name and version.

        Args:
            where: A filter, see ``registry.filters``; it chooses among the versions that ``latest`` leaves.
            builtin: Whether starter content is listed.
            latest: Whether only the latest version of each name is.
        """
        chosen = parse_where(where) if where is not None else None
        rows = self._records(TaskRecord, "tasks", listed(builtin))
        by_key = {(task.name, task.version): task for task in rows}
        tasks = [by_key[key] for key in sorted(by_key)]
        if latest:
            tasks = list({task.name: task for task in tasks}.values())
        return tasks if chosen is None else chosen.passing(tasks)

    def task_names(self) -> set[str]:
        """Names of all tasks that are not removed."""
        return {name for name, _ in self._task_keys()}

    def task(self, reference: str) -> TaskRecord:
        """The task of a reference.

        Args:
            reference: A name, for its latest version, or ``name@version`` or ``name@alias``.

        Raises:
            NotFoundError: If there is none.
        """
        asked = Reference.parse(reference)
        versions = self.versions(asked.name)
        if versions and asked.is_latest:
            return versions[-1]
        for task in versions:
            if asked.fits(task.version, task.aliases):
                return task
        others = [f"{asked.name}@{word}" for task in versions for word in (task.version, *task.aliases)]
        raise NotFoundError("task", reference, others or self.task_names())

    def versions(self, name: str, *, removed: bool = False) -> list[TaskRecord]:
        """All versions of a task, rising; those that are removed if asked for, and only those."""
        where = f"name = {quoted(name)} and {REMOVED if removed else PRESENT}"
        versions = {task.version: task for task in self._records(TaskRecord, "tasks", where)}
        return [versions[version] for version in sorted(versions)]

    def task_versions(self, keys: Sequence[Key]) -> list[TaskRecord]:
        """Versions of tasks by name and version, in this order; without those that are gone."""
        where = f"{among('name', {name for name, _ in keys}) or 'true'} and {PRESENT}"
        rows = self._records(TaskRecord, "tasks", where) if keys else []
        by_key = {(task.name, task.version): task for task in rows}
        return [by_key[key] for key in keys if key in by_key]

    def _some_versions(self, name: str, *, removed: bool = False) -> list[TaskRecord]:
        """All versions of a task, rising, at least one; ``NotFoundError`` if there is none."""
        versions = self.versions(name, removed=removed)
        if not versions:
            kind, others = ("removed task", REMOVED) if removed else ("task", PRESENT)
            raise NotFoundError(kind, name, dict(self._task_keys(others)))
        return versions

    def remove_task(self, name: str) -> None:
        """Hide all versions of a task; their rows stay, and so do results, which are of these versions only."""
        with self.write_lock():
            versions = self._some_versions(name)
            self._note("task.remove", [name])
            self.pin_results({name: versions[-1].version})
            self._mark_removed("tasks", name)

    def restore_task(self, name: str) -> None:
        """Show all versions of a removed task again; an alias stays with the version that has it now."""
        with self.write_lock():
            hidden = self._some_versions(name, removed=True)
            taken = {alias for task in self.versions(name) for alias in task.aliases}
            restored = []
            for task in reversed(hidden):
                free = tuple(alias for alias in task.aliases if alias not in taken)
                restored.append(replace(task, removed_at="", aliases=free))
                taken.update(free)
            self._note("task.restore", [name])
            self.update_tasks(restored)

    def purge_task(self, name: str) -> None:
        """Delete all versions of a task, hidden or not, its embeddings and the results on it for good."""
        with self.write_lock():
            lookup("task", name, dict(self._task_keys(where="")))
            keys = set(self._task_keys(f"name = {quoted(name)}"))
            self.database.moments.forget(f"task {name} was purged")
            self._note("task.purge", [name], versions=sorted(version for _, version in keys))
            # Hidden first and deleted last: after a kill or on a full disk, the task can be purged again.
            self._mark_removed("tasks", name)
            self._purge("results", f"task = {quoted(name)}")
            self._remove_embeddings(keys, self.database.purge_rows)
            self._purge(SHEETS, f"task = {quoted(name)}")
            self._drop_caches()
            self._purge("tasks", f"name = {quoted(name)}")

    def _latest_versions(self, names: Collection[str]) -> dict[str, int]:
        """The latest version of each task of a name, of those that are not removed."""
        keys = sorted(self._task_keys(f"{PRESENT} and {among('name', names) or 'true'}")) if names else []
        return {name: version for name, version in keys if name in names}

    def move_tasks(self, tasks: Sequence[TaskRecord], data: str) -> None:
        """Let versions of tasks be read from another place."""
        with self.write_lock():
            keys = [f"{task.name}@{task.version}" for task in tasks]
            self._note("task.move", keys, data=data)
            self.update_tasks([replace(task, data=data) for task in tasks])

    def set_tags(self, name: str, tags: Sequence[str]) -> None:
        """Replace the tags of all versions of a task."""
        with self.write_lock():
            versions = self._some_versions(name)
            self._note("task.tag", [name], tags=sorted(tags))
            self.update_tasks([replace(task, tags=tuple(tags)) for task in versions])

    def set_alias(self, reference: str, alias: str) -> None:
        """Let an alias name the version of a reference, and no other version of that task."""
        checked_alias(alias)
        with self.write_lock():
            named = self.task(reference)
            self._note("task.alias", [f"{named.name}@{named.version}"], alias=alias)
            self._move_alias(named.name, alias, to_version=named.version)

    def remove_alias(self, name: str, alias: str) -> None:
        """Let an alias name nothing; ``NotFoundError`` if there is no such task, or no version has it."""
        with self.write_lock():
            named = self.task(f"{name}@{alias}")
            if alias not in named.aliases:
                others = (other for task in self.versions(name) for other in task.aliases)
                raise NotFoundError("alias", alias, others)
            self._note("task.unalias", [f"{name}@{named.version}"], alias=alias)
            self._move_alias(name, alias, to_version=None)

    def _move_alias(self, name: str, alias: str, *, to_version: int | None) -> None:
        """In one commit, so that nobody sees an alias twice or not at all while it moves."""
        changed = []
        for task in self.versions(name):
            others = tuple(word for word in task.aliases if word != alias)
            aliases = (*others, alias) if task.version == to_version else others
            changed.append(replace(task, aliases=aliases))
        self.update_tasks(changed)

    def update_tasks(self, tasks: Sequence[TaskRecord]) -> None:
        """Replace the rows of task versions that are there, in one commit."""
        self.database.replace_rows("tasks", schema.TASK_KEY, schema.to_arrow(tasks, schema.TASKS))
