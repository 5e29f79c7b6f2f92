"""Check the tables of a registry against each other, and repair what a kill or a foreign hand left.

What repair deletes is what no query could show or use: embeddings without a task, tasks without an embedding,
the former of two rows with one key, embeddings that are no embeddings. It never touches what it cannot read.
"""

from collections import Counter, defaultdict
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from registry import schema
from registry.database import Database
from registry.errors import SchemaVersionError, StorageError
from registry.places import STAGING_FOLDER


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be.

    Attributes:
        kind: One of ``unreadable``, ``schema``, ``stale``, ``columns``, ``invalid``, ``duplicate``, ``orphan``,
            ``incomplete`` and ``dangling``. The last one is a warning: results on tasks and of experts
            that are not registered are allowed, but may be misspelt.
        where: The table, or the folder.
        message: One sentence: what, and how many.
        repaired: Whether it has been.
    """

    kind: str
    where: str
    message: str
    repaired: bool = False


def verify_database(database: Database, *, repair: bool) -> list[Problem]:
    """Check everything.

    Args:
        database: The tables; where there is no registry, there is no problem.
        repair: Whether to delete the rows at fault.

    Returns:
        The problems, in the order they were looked for.
    """
    try:
        if not database.is_present():
            return []
        database.registry_id()
    except SchemaVersionError as error:
        return [Problem("schema", "meta", str(error))]
    except StorageError as error:
        return [Problem("unreadable", "meta", str(error))]
    # Under the lock, so that a write in progress is not taken for a broken one; but a registry that
    # cannot be written, such as one on a read-only disk, can be verified too.
    locked = repair or database.place.is_writable()
    with database.write_lock() if locked else nullcontext():
        return _Check(database, repair=repair).run()


class _Check:
    """One run over all tables; collects problems, and rows to delete in one write per table."""

    def __init__(self, database: Database, *, repair: bool) -> None:
        self._database = database
        self._repair = repair
        self._problems: list[Problem] = []
        self._tables: dict[str, pa.Table] = {}
        self._spaces_are_whole = True
        self._doomed: dict[str, set[int]] = defaultdict(set)

    def run(self) -> list[Problem]:
        """Look at one thing after another; rows found at fault are not there for the later ones."""
        self._check_staging()
        for name, columns in schema.TABLES.items():
            self._load(name, columns)
        self._load_embeddings()
        for name in self._tables:
            self._check_duplicates(name)
        embeddings = [name for name in self._tables if name.startswith(schema.EMBEDDINGS_PREFIX)]
        for name in embeddings:
            self._check_vectors(name)
        if "tasks" in self._tables:
            self._check_commits(embeddings)
        self._check_references()
        if self._repair:
            for name, row_ids in self._doomed.items():
                self._database.delete_rows(name, sorted(row_ids))
        return self._problems

    def _check_staging(self) -> None:
        if self._database.place.is_being_created():
            self._report("stale", STAGING_FOLDER, "a creation of this registry was cut short at its end")
            if self._repair:
                self._database.place.remove_staging()

    def _load(self, name: str, columns: pa.Schema) -> None:
        """Read a table for the checks that follow, if it can be read and has the right columns."""
        try:
            table = self._database.read(name, row_ids=True)
        except StorageError as error:
            self._report("unreadable", name, str(error), repaired=False)
            return
        found = [(column.name, column.type) for column in table.schema if column.name != "_rowid"]
        if found == [(column.name, column.type) for column in columns]:
            self._tables[name] = table
        else:
            message = f"the columns are not those of schema version {schema.SCHEMA_VERSION}"
            self._report("columns", name, message, repaired=False)

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
        for name in others:
            self._check_stranger(name)
        strangers_remain = any(problem.where in others and not problem.repaired for problem in self._problems)
        self._spaces_are_whole = expected.keys() <= self._tables.keys() and not strangers_remain

    def _check_stranger(self, name: str) -> None:
        """A table of no space: the trace of a killed ``add_space`` if it is empty, else somebody's data."""
        try:
            empty = self._database.place.is_hollow(name) or not len(self._database.read(name))
        except StorageError as error:
            self._report("unreadable", name, str(error), repaired=False)
            return
        self._report("orphan", name, "the table belongs to no space", repaired=self._repair and empty)
        if self._repair and empty:
            self._database.drop_table(name)

    def _check_duplicates(self, name: str) -> None:
        """Of rows with the same key, all but the last are at fault."""
        rows = self._rows(name, _key_columns(name, self._tables[name]))
        if name == "experts":
            removed = self._rows(name, ["removed_at"])
            rows = {row_id: key for row_id, key in rows.items() if removed[row_id] == ("",)}
        last = {key: row_id for row_id, key in rows.items()}
        doubled = {row_id: key for row_id, key in rows.items() if last[key] != row_id}
        self._doom("duplicate", name, doubled, "with a key that another row has")

    def _check_vectors(self, name: str) -> None:
        """Embeddings must be finite, and Fisher information positive somewhere and negative nowhere."""
        table = self._tables[name]
        fisher = schema.matrix(table["fisher"])
        bad = (fisher < 0).any(axis=1) | ~fisher.any(axis=1)
        for column in ("fisher", "standard_error", "domain"):
            bad |= ~np.isfinite(schema.matrix(table[column])).all(axis=1)
        ids = table["_rowid"].to_numpy()[bad].tolist()
        rows = self._rows(name, schema.EMBEDDING_KEY)
        invalid = {row_id: rows[row_id] for row_id in ids if row_id in rows}
        self._doom("invalid", name, invalid, "with a vector that is not finite, negative or zero everywhere")

    def _check_commits(self, embeddings: list[str]) -> None:
        """Every embedding needs its task, every task an embedding."""
        tasks = self._rows("tasks", ["name", "version"])
        committed = set(tasks.values())
        embedded = set()
        for name in embeddings:
            rows = self._rows(name, schema.EMBEDDING_KEY)
            embedded |= set(rows.values())
            orphans = {row_id: key for row_id, key in rows.items() if key not in committed}
            self._doom("orphan", name, orphans, "of a task that was never committed")
        # A task may be embedded in a table that could not be read: then nothing can be said of it.
        if self._spaces_are_whole:
            incomplete = {row_id: key for row_id, key in tasks.items() if key not in embedded}
            self._doom("incomplete", "tasks", incomplete, "without an embedding in any space")

    def _check_references(self) -> None:
        """Warn of names that nothing has; removed tasks and experts still have theirs."""
        for name, column, target in (
            ("results", "task", "tasks"),
            ("results", "expert", "experts"),
            ("experts", "source_task", "tasks"),
        ):
            if name in self._tables and target in self._tables:
                known = {"", *self._tables[target]["name"].to_pylist()}
                counts = Counter(self._tables[name][column].to_pylist())
                for missing in sorted(counts.keys() - known):
                    message = f"{counts[missing]} rows name the {column} {missing!r}, which is not registered"
                    self._report("dangling", name, message, repaired=False)

    def _rows(self, name: str, columns: list[str]) -> dict[int, tuple[Any, ...]]:
        """Values of some columns by row id, in order, without the rows found at fault."""
        table = self._tables[name]
        values = zip(*(table[column].to_pylist() for column in columns), strict=True)
        ids = table["_rowid"].to_pylist()
        return {
            row_id: row for row_id, row in zip(ids, values, strict=True) if row_id not in self._doomed[name]
        }

    def _doom(self, kind: str, name: str, rows: dict[int, tuple[Any, ...]], what: str) -> None:
        """Report rows at fault, and have them deleted if this run repairs."""
        if rows:
            keys = sorted({"@".join(map(str, key[:2])) for key in rows.values()})
            shown = ", ".join(keys[:5]) + (", ..." if len(keys) > 5 else "")
            self._report(kind, name, f"{len(rows)} {'row' if len(rows) == 1 else 'rows'} {what}: {shown}")
            self._doomed[name] |= rows.keys()

    def _report(self, kind: str, where: str, message: str, *, repaired: bool | None = None) -> None:
        self._problems.append(Problem(kind, where, message, self._repair if repaired is None else repaired))


def _key_columns(name: str, table: pa.Table) -> list[str]:
    """The columns that tell rows of a table apart; of results, which are only appended, all."""
    keys = {"meta": ["key"], "spaces": ["space_id"], "tasks": ["name", "version"], "experts": ["name"]}
    if name in {"results", "audit"}:
        return [column for column in table.schema.names if column != "_rowid"]
    return keys.get(name, schema.EMBEDDING_KEY)
