"""Check the tables of a registry against each other, and repair what a kill or another program left.

What repair deletes is what no query could show or use: embeddings without a task, tasks without an embedding,
the first of two rows with one key, rows that are no records. It never touches what it cannot read, nor a table
of which a file is damaged, since then anything in it may look wrong.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from registry.answers import Problem
from registry.errors import InvalidRecordError, SchemaVersionError, StorageError
from registry.names import DATASETS
from registry.records import ExpertRecord, ResultRecord, TaskRecord
from registry.storage import schema
from registry.storage.database import Database
from registry.storage.moments import DAMAGED, torn_tables
from registry.storage.places import META_TABLE, STAGING_FOLDER, storage_errors
from registry.storage.rows import SheetRecord, audit_lines

RECORDS: dict[str, type] = {
    "tasks": TaskRecord,
    "experts": ExpertRecord,
    "results": ResultRecord,
    schema.SHEETS: SheetRecord,
}
MOST_NAMED = 5  # rows or files in a message
PAST = "what was before cannot be asked or taken back"


def verify_database(database: Database, *, repair: bool) -> list[Problem]:
    """Check everything.

    Returns:
        The problems, in the order they were looked for.
    """
    torn: list[Problem] = []
    try:
        if not database.is_present():
            return []
        torn = torn_tables(database, repair=repair)
        if any(problem.where == META_TABLE and not problem.repaired for problem in torn):
            return torn
        database.registry_id()
    except SchemaVersionError as error:
        return [*torn, Problem("schema", "meta", str(error))]
    except StorageError as error:
        return [*torn, _damage(database, META_TABLE)[0] or Problem("unreadable", META_TABLE, str(error))]
    # Under the lock, so that a write in progress is not taken for a broken one; but a registry that
    # cannot be written, such as one on a read-only disk, can be verified too.
    locked = repair or database.place.is_writable()
    with ExitStack() as held:
        if locked:
            held.enter_context(database.place.import_lock())  # whose embeddings have no task yet
            held.enter_context(database.write_lock())
        return _Check(database, torn, repair=repair).run()


class _Check:
    """One run over all tables; collects problems, and rows to delete in one write per table."""

    def __init__(self, database: Database, torn: list[Problem], *, repair: bool) -> None:
        self._database = database
        self._repair = repair
        self._problems = list(torn)
        self._past: list[str] = []  # tables of which only former versions are damaged
        self._torn = {problem.where for problem in torn if not problem.repaired}
        self._tables: dict[str, pa.Table] = {}
        self._spaces_are_whole = True
        self._faulty: dict[str, set[int]] = defaultdict(set)
        self._ambiguous: dict[int, set[str]] = defaultdict(set)

    def run(self) -> list[Problem]:
        """Look at one thing after another; rows found at fault are not there for the later ones."""
        self._check_staging()
        self._check_notes()
        for name, columns in schema.TABLES.items():
            self._load(name, columns)
        self._load_embeddings()
        self._check_indexes()
        for name in RECORDS:
            self._check_records(name)
        for name in self._tables:
            self._check_duplicates(name)
        embeddings = [name for name in self._tables if name.startswith(schema.EMBEDDINGS_PREFIX)]
        for name in embeddings:
            self._check_vectors(name)
        if "tasks" in self._tables:
            self._check_commits(embeddings)
            self._check_aliases()
        self._check_references()
        if self._repair:
            self._repair_past()
            self._repair_tables()
        return self._problems

    def _check_notes(self) -> None:
        """What is known of former states; a note that is damaged or lost is a bound, as after a repair."""
        moments = self._database.moments.all()
        if any(moment.bound == DAMAGED for moment in moments):
            self._past.append("")
            self._report("past", "moments", f"{DAMAGED}: {PAST}")

    def _repair_past(self) -> None:
        """Give up what was before, and delete the files of former versions that are not whole."""
        if self._past:
            self._database.moments.forget("it was damaged, and given up by a repair")
        for name in filter(None, self._past):
            with suppress(StorageError), storage_errors(name):
                self._database.moments.prune(self._database.open_table(name), timedelta(0))
                self._database.place.record_checksums(name)

    def _repair_tables(self) -> None:
        """Delete the rows at fault, then aliases; before that, note it in the audit if that can be read."""
        faults = {name: len(row_ids) for name, row_ids in self._faulty.items() if row_ids}
        if faults or self._ambiguous:
            self._database.moments.forget("the registry was repaired")
        if "audit" in self._tables:
            for name, count in faults.items():
                self._database.append("audit", audit_lines("repair", [name], deleted_rows=count))
        for name in faults:
            self._database.delete_rows(name, sorted(self._faulty[name]))
        if self._ambiguous:
            self._take_aliases()

    def _take_aliases(self) -> None:
        """Rewrite the tasks that have an alias which a later version has too, without it."""
        tasks = self._tables["tasks"]
        rows = tasks.filter(pc.is_in(tasks["_rowid"], value_set=pa.array(self._ambiguous, pa.uint64())))
        aliases = [
            [alias for alias in row["aliases"] if alias not in self._ambiguous[row["_rowid"]]]
            for row in rows.select(["_rowid", "aliases"]).to_pylist()
        ]
        position, column = rows.schema.get_field_index("aliases"), schema.TASKS.field("aliases")
        rows = rows.set_column(position, column, pa.array(aliases, column.type)).drop_columns("_rowid")
        self._database.replace_rows("tasks", schema.TASK_KEY, rows)

    def _check_staging(self) -> None:
        if self._database.place.is_being_created():
            self._report("stale", STAGING_FOLDER, "a creation of this registry was cut short at its end")
            if self._repair:
                self._database.place.remove_staging()

    def _load(self, name: str, columns: pa.Schema) -> None:
        """Read a table for the checks that follow, if it can be read, is whole and has the right columns."""
        if name in self._torn:
            return
        try:
            damage, past = _damage(self._database, name)
            if damage:
                self._problems.append(damage)
                return
            if past:
                self._past.append(name)
                self._report(
                    "past", name, f"files of former versions are missing or damaged: {_shown(past)}: {PAST}"
                )
            table = self._database.read(name, row_ids=True)
            with storage_errors(f"{self._database.uri}: table {name} makes no sense"):
                table.validate(full=True)
            self._check_checksums(name)
        except StorageError as error:
            self._report("unreadable", name, str(error), repaired=False)
            return
        actual = [(column.name, column.type) for column in table.schema if column.name != "_rowid"]
        if actual == [(column.name, column.type) for column in columns]:
            self._tables[name] = table
        else:
            message = f"the columns are not those of schema version {schema.SCHEMA_VERSION}"
            self._report("columns", name, message, repaired=False)

    def _check_checksums(self, name: str) -> None:
        """Checksums that are lost are no loss of data: they are made again of what was just read."""
        if not self._database.place.checksums_are_whole(name):
            self._report("stale", name, "the checksums of its files are missing or damaged")
            if self._repair:
                with storage_errors(f"{self._database.uri}: the checksums of table {name} cannot be written"):
                    self._database.place.record_checksums(name)

    def _check_indexes(self) -> None:
        """An index is a cache: one that cannot be used is built again by whoever needs it, or deleted here."""
        registry_id = self._database.registry_id()
        folder = self._database.place.cache_folder(registry_id)
        if not folder.is_dir():
            return
        from registry.index.files import IndexFiles  # brings faiss

        for name in [name for name in self._tables if name.startswith(schema.EMBEDDINGS_PREFIX)]:
            files = IndexFiles(folder, registry_id, name.removeprefix(schema.EMBEDDINGS_PREFIX))
            if damage := files.damage():
                message = f"the saved index is {damage}; it is built again when it is needed"
                self._report("index", name, message, repaired=self._repair and files.removed())

    def _load_embeddings(self) -> None:
        """Read the table of every space, and look for tables of no space."""
        expected = {}
        if "spaces" in self._tables:
            for space in self._tables["spaces"].to_pylist():
                columns = schema.embeddings_schema(len(space["trivial"]), space["domain_dim"])
                expected[schema.embeddings_table_name(space["space_id"])] = columns
        for name, columns in expected.items():
            self._load(name, columns)
        others = [name for name in self._database.table_names() if name not in schema.TABLES.keys() | expected]
        for name in set(others) - self._torn:
            self._check_unexpected(name)
        others_remain = any(problem.where in others and not problem.repaired for problem in self._problems)
        self._spaces_are_whole = expected.keys() <= self._tables.keys() and not others_remain

    def _check_unexpected(self, name: str) -> None:
        """A table of no space: the trace of a killed ``add_space`` if it is empty, else somebody's data."""
        try:
            empty = self._database.place.has_no_version(name) or not len(self._database.read(name))
        except StorageError as error:
            self._report("unreadable", name, str(error), repaired=False)
            return
        if empty and any(name in moment.tables for moment in self._database.moments.all()):
            return  # a space that was taken back, and may be done again
        self._report("orphan", name, "the table belongs to no space", repaired=self._repair and empty)
        if self._repair and empty:
            self._database.drop_table(name)

    def _check_records(self, name: str) -> None:
        """Every row must make a record; one that does not would make every list of them fail."""
        if name not in self._tables:
            return
        table = self._tables[name].drop_columns("_rowid")
        try:
            schema.from_arrow(RECORDS[name], table)
        except InvalidRecordError:
            rows = self._rows(name, _key_columns(name, table))
            bad = [index for index in range(len(table)) if not _makes(RECORDS[name], table.slice(index, 1))]
            ids = self._tables[name]["_rowid"].take(bad).to_pylist()
            self._report_rows(
                "invalid", name, {row_id: rows[row_id] for row_id in ids}, "that cannot be a record"
            )

    def _check_duplicates(self, name: str) -> None:
        """All but the last of the rows with one key are at fault; lines of the audit have no key."""
        if name == "audit":
            return
        rows = self._rows(name, _key_columns(name, self._tables[name]))
        if name == "experts":
            removed = self._rows(name, ["removed_at"])
            rows = {row_id: key for row_id, key in rows.items() if removed[row_id] == ("",)}
        last = {key: row_id for row_id, key in rows.items()}
        doubled = {row_id: key for row_id, key in rows.items() if last[key] != row_id}
        self._report_rows("duplicate", name, doubled, "with a key that another row has")

    def _check_vectors(self, name: str) -> None:
        """Vectors must be finite, Fisher information positive somewhere, negative nowhere, checksums right."""
        table = self._tables[name]
        fisher = schema.matrix(table["fisher"])
        bad = (fisher < 0).any(axis=1) | ~fisher.any(axis=1)
        for column in ("fisher", "standard_error", "domain"):
            bad |= ~np.isfinite(schema.matrix(table[column])).all(axis=1)
        ids = table["_rowid"].to_numpy()[bad].tolist()
        rows = self._rows(name, schema.EMBEDDING_KEY)
        invalid = {row_id: rows[row_id] for row_id in ids if row_id in rows}
        self._report_rows(
            "invalid", name, invalid, "with a vector that is not finite, negative or zero everywhere"
        )
        stored, made = table["checksum"].to_pylist(), schema.made_checksums(table)
        ids = [
            row_id
            for row_id, *pair in zip(table["_rowid"].to_pylist(), stored, made, strict=True)
            if pair[0] not in {0, pair[1]}
        ]
        changed = {row_id: rows[row_id] for row_id in ids if row_id in rows.keys() - invalid.keys()}
        self._report_rows("invalid", name, changed, "that is not what its checksum was made of")

    def _check_commits(self, embeddings: list[str]) -> None:
        """Every embedding and contact sheet needs its task, every task an embedding."""
        tasks = self._rows("tasks", ["name", "version"])
        committed = set(tasks.values())
        embedded = set()
        for name in [*embeddings, *self._tables.keys() & {schema.SHEETS}]:
            rows = self._rows(name, schema.EMBEDDING_KEY)
            embedded |= set(rows.values()) if name != schema.SHEETS else set()
            orphans = {row_id: key for row_id, key in rows.items() if key not in committed}
            self._report_rows("orphan", name, orphans, "of a task that was never committed")
        # A task may be embedded in a table that could not be read: then nothing can be said of it.
        if self._spaces_are_whole:
            incomplete = {row_id: key for row_id, key in tasks.items() if key not in embedded}
            self._report_rows("incomplete", "tasks", incomplete, "without an embedding in any space")

    def _check_aliases(self) -> None:
        """An alias names one version of a task; of several, the latest keeps it."""
        holders: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
        columns = ["name", "version", "aliases", "removed_at"]
        for row_id, (name, version, aliases, removed_at) in self._rows("tasks", columns).items():
            for alias in aliases if not removed_at else ():
                holders[name, alias][version] = row_id
        shared = {key: versions for key, versions in holders.items() if len(versions) > 1}
        for (_, alias), versions in shared.items():
            for version in sorted(versions)[:-1]:
                self._ambiguous[versions[version]].add(alias)
        if shared:
            shown = _shown(f"{name}@{alias}" for name, alias in shared)
            self._report(
                "duplicate",
                "tasks",
                f"{_counted(len(shared), 'alias names', 'aliases name')} several versions of a task: {shown}",
            )

    def _check_references(self) -> None:
        """Warn of names that nothing has; removed tasks and experts still have theirs."""
        for name, column, target in (
            ("results", "task", "tasks"),
            ("results", "expert", "experts"),
            ("experts", "source_task", "tasks"),
        ):
            if name in self._tables and target in self._tables:
                registered = {"", *self._tables[target]["name"].to_pylist()}
                if column == "source_task":  # datasets of the field, which libraries name
                    registered |= DATASETS.keys()
                counts = Counter(self._tables[name][column].to_pylist())
                for missing in sorted(counts.keys() - registered):
                    rows = "1 row names" if counts[missing] == 1 else f"{counts[missing]} rows name"
                    message = f"{rows} the {column} {missing!r}, which is not registered"
                    self._report("dangling", name, message, repaired=False)

    def _rows(self, name: str, columns: list[str]) -> dict[int, tuple[Any, ...]]:
        """Values of some columns by row id, in order, without the rows found at fault."""
        table = self._tables[name]
        values = zip(*(table[column].to_pylist() for column in columns), strict=True)
        ids = table["_rowid"].to_pylist()
        return {
            row_id: row for row_id, row in zip(ids, values, strict=True) if row_id not in self._faulty[name]
        }

    def _report_rows(self, kind: str, name: str, rows: dict[int, tuple[Any, ...]], what: str) -> None:
        """Report rows at fault, and have them deleted if this run repairs."""
        if rows:
            shown = _shown({"@".join(map(str, key[:2])) for key in rows.values()})
            self._report(kind, name, f"{_counted(len(rows), 'row', 'rows')} {what}: {shown}")
            self._faulty[name] |= rows.keys()

    def _report(self, kind: str, where: str, message: str, *, repaired: bool | None = None) -> None:
        self._problems.append(Problem(kind, where, message, self._repair if repaired is None else repaired))


def _damage(database: Database, name: str) -> tuple[Problem | None, list[str]]:
    """The files of a table that are not what was written, as one problem; and those of former versions only."""
    with storage_errors(f"{database.uri}: the files of table {name} cannot be compared with their checksums"):
        states = [moment.tables for moment in database.moments.all()]
        versions = {tables[name] for tables in states if name in tables}
        files, past = database.place.damaged_files(name, versions)
    if not files:
        return None, past
    what = _counted(len(files), "file is", "files are")
    said = f"{what} not what was written: {_shown(files)}; restore the registry from a copy"
    return Problem("damaged", name, said), []


def _makes(record_type: type, row: pa.Table) -> bool:
    try:
        schema.from_arrow(record_type, row)
    except InvalidRecordError:
        return False
    return True


def _counted(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def _shown(names: Iterable[str]) -> str:
    """The first names, in order."""
    ordered = sorted(names)
    return ", ".join(ordered[:MOST_NAMED]) + (", ..." if len(ordered) > MOST_NAMED else "")


def _key_columns(name: str, table: pa.Table) -> list[str]:
    """The columns that distinguish the rows of a table: all of them for results, which are only appended."""
    keys = {"meta": ["key"], "spaces": ["space_id"], "tasks": ["name", "version"], "experts": ["name"]}
    if name == "results":
        return [column for column in table.schema.names if column != "_rowid"]
    return keys.get(name, schema.EMBEDDING_KEY)
