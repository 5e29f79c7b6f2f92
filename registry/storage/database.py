"""The tables of a registry: opened lazily, written under a lock, conflicts retried, errors in one sentence.

Knows rows, not records. What connects to the place is passed in, so that one file alone imports LanceDB.
"""

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from functools import cached_property, partial
from typing import Any

import pyarrow as pa

from registry.errors import StorageError
from registry.storage import places, schema
from registry.storage.folders import give_up_unfinished, is_readable
from registry.storage.moments import AUDIT, KEEP, Moments
from registry.storage.places import CONFLICT, FOREIGN_ERRORS, META_TABLE, VANISHED, retried, storage_errors
from registry.storage.rows import TURN_SECONDS, rewrite, scattered, slice_rows, within

PAGE_SIZE = 100  # tables listed per call
MAX_FRAGMENTS = 64  # every write adds one, and reading slows down with their number
LAST_FRAGMENT, GENERATION = 2**32, 2**40  # the latter is more than there are versions of a table
ALL_VERSIONS = timedelta(days=36525)
READ_ATTEMPTS, WRITE_ATTEMPTS = 3, 6
FIRST_WAIT_SECONDS = 0.05
CHECKED_BYTES = 2**26  # larger data files are checked row by row, or whole by a read of all they hold


class Database:
    """The tables of one place.

    Attributes:
        generation: Rises where another registry, or another state of it, was put in place of the open one.
    """

    def __init__(self, place: places.Place, connect: Callable[[places.Place], Any]) -> None:
        """Remember the place and how to connect to it, which is done when first needed."""
        self.place = place
        self.uri = place.uri
        self.connect = connect
        self._connection: Any = None
        self._process_id = 0
        self._open_tables: dict[str, Any] = {}
        self._registry_id = ""
        self._identity = ""
        self._states: dict[str, tuple[int, str]] = {}  # version and stamp of each table when last looked at
        self.generation = 0

    moments = cached_property(Moments)
    present: "Database | None" = None  # where this is what was
    """Its states between writes."""

    @property
    def exists(self) -> bool:
        """Whether there is a registry; its ``meta`` table is made last."""
        with storage_errors(f"{self.uri}: the registry cannot be looked for"):
            return self.place.has_table(META_TABLE)

    def is_present(self) -> bool:
        """Whether there is a registry; an error where something else or something broken lies in its place.

        Raises:
            StorageError: If the place is a registry that lost its ``meta``, or no place for one.
        """
        if self.exists:
            return True
        # While a registry is created, its tables appear before meta; exists is asked last for the moment after.
        if self.place.has_table("tasks") and not self.place.is_being_created() and not self.exists:
            raise StorageError(f"{self.uri}: table meta is missing; restore the registry from a copy")
        self.place.check_kind()
        return False

    @contextmanager
    def write_lock(self) -> Iterator[None]:
        """Keep other writers out of a sequence of reads and writes; re-entrant.

        Raises:
            StorageError: If there is no registry, it is not writable, or another writer does not finish.
        """
        if not self.is_present():
            raise StorageError(f"there is no registry at {self.uri}; create it with `t2v init`")
        with self.place.lock():
            self.moments.begin()
            yield

    def registry_id(self) -> str:
        """A random text that no other registry has."""
        self._answer("meta", lambda: self._table("meta"))
        return self._registry_id

    def table_names(self) -> list[str]:
        """Names of all tables, sorted; none where there is no registry."""
        names: list[str] = []
        token: str | None = None
        with storage_errors(f"{self.uri}: the folder cannot be listed"):
            while self.is_present():
                page = self._database().list_tables(page_token=token, limit=PAGE_SIZE)
                names += page.tables
                token = page.page_token
                if not token:
                    break
        return sorted(names)

    def has_table(self, name: str) -> bool:
        """Whether a table is there, without opening it."""
        with storage_errors(f"{self.uri}: table {name} cannot be looked for"):
            return self.is_present() and self.place.has_table(name)

    def table_version(self, name: str) -> int:
        """A number that differs for every state of a table, also after it was restored from a copy."""
        self.notice_replacement()
        version = self._answer(name, lambda: self._version(name))
        with self._read_errors(name):
            last, stamp = self._states.get(name, (0, ""))
            now = self.place.version_stamp(name, last) if stamp else ""
            if version < last or (now and now != stamp):  # no version is ever written twice, or lost
                self.reopen()
                version = self._version(name)
            self._states[name] = version, self.place.version_stamp(name, version)
        return version + self.generation * GENERATION

    def _version(self, name: str) -> int:
        return int(self._table(name).version)

    def state(self) -> str:
        """A text that differs for every state of the registry, and after any part of it was restored."""
        parts = [self.registry_id(), self.place.identity()]
        for name in self.table_names():
            version = self.table_version(name) % GENERATION
            parts.append(f"{name}:{version}:{self.place.version_stamp(name, version)}")
        return " ".join(parts)

    def notice_changes(self) -> None:
        """Start anew where a table that was looked at was restored from a copy; a write says what is wrong."""
        for name in list(self._states) if self.place.identity() else ():
            with suppress(StorageError):
                self.table_version(name)

    def notice_replacement(self) -> None:
        """Start anew where another folder was put in place of the one that was open, as in a restore."""
        identity = self.place.identity()
        if self._identity and identity and identity != self._identity:
            self.reopen()
        self._identity = identity or self._identity

    def reopen(self) -> None:
        """Forget what was opened."""
        self._connection, self._process_id, self._registry_id = None, 0, ""
        self._open_tables, self._states = {}, {}
        self.place.forget_files()
        self.generation += 1

    def count_rows(self, name: str) -> int:
        """How many rows a table has now."""
        return self._answer(name, lambda: int(self._table(name).count_rows()))

    def read(
        self,
        name: str,
        *,
        columns: list[str] | None = None,
        where: str = "",
        row_ids: bool = False,
        trust_large_files: bool = False,
        most: int = 0,
    ) -> pa.Table:
        """Rows of a table as they are now.

        Args:
            name: Table to read.
            columns: Names of the columns to read; all if not given.
            where: SQL condition; values in it must be ``quoted``.
            row_ids: Whether to add the column ``_rowid``, for ``delete_rows``.
            trust_large_files: Whether data files above ``CHECKED_BYTES`` are read without having been compared
                with their checksums; for a caller that reads few rows and checks each.
            most: Rows that are read at most, whichever these are; all if 0.

        Returns:
            The rows, in no order to rely on; none where there is no registry.
        """
        if not self.is_present():
            return schema.TABLES[name].empty_table()

        def query() -> pa.Table:
            self.place.check_files(name, largest=CHECKED_BYTES if trust_large_files else None)
            return retried(lambda: self._query(name, columns, where, row_ids, most), VANISHED, READ_ATTEMPTS)

        return self._answer(name, query)

    def _answer(self, name: str, question: Callable[[], places.Answer]) -> places.Answer:
        """Ask a table; again, where a write that was cut short before anybody was told of it is given up.

        Raises:
            StorageError: If the table cannot be read.
        """
        try:
            with self._read_errors(name):
                return question()
        except StorageError:
            if not give_up_unfinished(self, name):
                raise
        with self._read_errors(name):
            return question()

    def read_batches(self, name: str, *, columns: list[str], batch_rows: int) -> Iterator[pa.Table]:
        """All rows of a table as they are now, with ``_rowid``, some at a time."""
        with self._read_errors(name):
            self.place.check_files(name)
            query = self._table(name).search().with_row_id(True).select(columns)
            for batch in query.to_batches(batch_rows):
                yield pa.Table.from_batches([batch])

    def _query(self, name: str, columns: list[str] | None, where: str, row_ids: bool, most: int) -> pa.Table:
        table = self._table(name)
        if not (columns or where or row_ids):
            return table.to_arrow()  # in one step of LanceDB's loop rather than in four
        query = table.search().with_row_id(row_ids).limit(most)
        query = query.where(where) if where else query
        return (query.select(columns) if columns else query).to_arrow()

    def append(self, name: str, records: Sequence[Any]) -> None:
        """Add a row per record, all or none."""
        if records:
            self.commit(name, lambda table: table.add(schema.to_arrow(records, table.schema)))

    def commit(self, name: str, operation: Callable[[Any], object]) -> None:
        """Run one write on a table, under the lock, and compact the table if it has become scattered.

        It is on disk when this returns, and nothing of before is deleted until it is; see ``registry.files``.
        """
        with self.write_lock(), self._errors(name, "written"):
            give_up_unfinished(self, name)  # nothing is built on what may not be whole
            self.place.check_files(name, largest=CHECKED_BYTES)
            table = self._table(name)
            self.moments.before_commit()
            if name == AUDIT:
                self.moments.before_audit()

            def attempt() -> None:
                self.place.check_lock()  # it may have been lost while waiting for this attempt
                operation(table)

            retried(attempt, CONFLICT, WRITE_ATTEMPTS, FIRST_WAIT_SECONDS)
            self.place.sync_table(name)
            # The write is done: whatever cannot be tidied now is no error of it, and is done at the next one.
            with suppress(*FOREIGN_ERRORS):
                fragments = table.stats()["fragment_stats"]["num_fragments"]
                if fragments > max(MAX_FRAGMENTS, math.isqrt(table.count_rows())):
                    self.moments.trim(KEEP)
                    self._compact(name)
                    self.moments.prune(self._table(name), KEEP)
            with suppress(*FOREIGN_ERRORS):
                self.place.record_checksums(name)

    def optimize(self, name: str, *, keep: timedelta = KEEP) -> None:
        """Compact a table, a slice under the lock at a time; delete versions that are older and not needed."""
        with self._errors(name, "written"):
            self.place.check_files(name, largest=CHECKED_BYTES)  # all that is there, while others may write
            last = max((of.number for of in self.place.fragments(name)), default=0)
        more = True
        while more:
            with self.write_lock(), self._errors(name, "written"):
                self.place.check_files(name, largest=CHECKED_BYTES)
                self.place.check_lock()
                more = retried(partial(self._compact, name, last), CONFLICT, WRITE_ATTEMPTS, FIRST_WAIT_SECONDS)
                if not more:
                    self.moments.prune(self._table(name), keep)
                self.place.record_checksums(name)
            time.sleep(TURN_SECONDS * more)

    def _compact(self, name: str, last: int = LAST_FRAGMENT) -> bool:
        """Put scattered rows together in one commit, which is on disk then; whether there may be more.

        Args:
            name: Name of the table.
            last: Number of the last fragment that counts, since others may write new ones all the time.
        """
        table, fragments = self._table(name), self.place.fragments(name)
        most, numbers = slice_rows(table.schema), list[int]()
        if sum(of.rows - of.deleted for of in fragments) <= most:
            table.optimize(cleanup_older_than=ALL_VERSIONS)
        elif numbers := scattered([of for of in fragments if of.number <= last], most):
            where, column = within(numbers), table.schema.names[0]
            rows = table.search().with_row_id(True).where(where).select([column]).to_arrow()["_rowid"]
            rewrite(table, f"({where}) and _rowid <= {sorted(rows.to_pylist())[:most][-1]}")
        self.place.sync_table(name)
        return bool(numbers)

    def purge_rows(self, name: str, row_ids: Sequence[int]) -> None:
        """Delete rows so that no file holds them any more, and all former versions of the table with them.

        What lies in the same fragments, or in those of rows deleted before, is written anew first: LanceDB only
        marks rows of large ones as deleted.
        """
        numbers = {row >> 32 for row in row_ids} | {
            of.number for of in self.place.fragments(name) if of.deleted
        }
        if numbers:
            others = f"({within(numbers)}) and _rowid not in ({', '.join(map(str, row_ids)) or -1})"
            self.commit(name, lambda table: rewrite(table, others))
            self.delete_rows(name, row_ids)
        with self.write_lock(), self._errors(name, "written"):
            self.moments.prune(self._table(name), timedelta(0))
            self.place.record_checksums(name)

    def delete_rows(self, name: str, row_ids: Sequence[int]) -> None:
        """Delete rows by the ids that ``read`` gave; they hold until the next write."""
        if row_ids:
            self.commit(name, lambda table: table.delete(f"_rowid in ({', '.join(map(str, row_ids))})"))

    def replace_rows(self, name: str, key: list[str], rows: pa.Table) -> None:
        """Write rows in place of those with the same key, in one commit; rows of a new key are left out."""
        self.commit(name, lambda table: table.merge_insert(key).when_matched_update_all().execute(rows))

    def create_table(self, name: str, columns: pa.Schema) -> None:
        """Make an empty table, unless it is there."""
        with self.write_lock(), self._errors(name, "created"):
            self.place.check_lock()
            unlisted = self.place.is_unlisted(name) or not self.place.checksums_are_whole(name)
            if self.place.has_table(name) and unlisted and not is_readable(self, name):
                self._database().drop_table(name)  # an attempt that was cut short
            self.moments.before_commit()
            self._database().create_table(name, schema=columns, exist_ok=True)
            self.place.sync_table(name)
            self.place.record_checksums(name)

    def drop_table(self, name: str) -> None:
        """Delete a table for good."""
        with self.write_lock(), storage_errors(f"{self.uri}: table {name} cannot be dropped"):
            self.place.check_lock()
            self._database().drop_table(name)
            self._open_tables.pop(name, None)
            self._states.pop(name, None)
            self.place.forget_checksums(name)

    def lay_out(self) -> None:
        """Make the tables of a new registry in this place."""
        with storage_errors(f"{self.uri}: a registry cannot be created here"):
            for name, rows in schema.first_rows().items():
                self._database().create_table(name, data=rows)
                self.place.sync_table(name)
                self.place.record_checksums(name)

    def _database(self) -> Any:
        """The connection, made when first needed; a forked process has to ask for its own."""
        if self._process_id != os.getpid():
            self._connection = self.connect(self.place)
            self._process_id = os.getpid()
        return self._connection

    def open_table(self, name: str) -> Any:
        """A table as LanceDB knows it, whatever the schema version; for migrations."""
        database = self._database()
        if name not in self._open_tables:
            self.place.check_files(name, largest=CHECKED_BYTES)
            self._open_tables[name] = database.open_table(name)
        return self._open_tables[name]

    def _table(self, name: str) -> Any:
        """A table of a registry whose schema version is known to be right."""
        if not self._registry_id:
            self._check_schema()
        return self.open_table(name)

    def _check_schema(self) -> None:
        """Learn the registry's id; bring an older one up to date."""
        give_up_unfinished(self, META_TABLE)  # else no other table could be asked
        rows = self.open_table(META_TABLE).to_arrow().to_pylist()
        version, registry_id = schema.read_meta(self.uri, rows)
        if version < schema.SCHEMA_VERSION:
            schema.migrate(self, version)
        self._registry_id = registry_id

    def _read_errors(self, name: str) -> AbstractContextManager[None]:
        return self._errors(name, "read", "`t2v verify` reports what is damaged")

    @contextmanager
    def _errors(self, name: str, done: str, hint: str = "") -> Iterator[None]:
        """Errors of a table in one sentence; it says how to go on where a write was cut short.

        Raises:
            StorageError: In place of each.
        """
        try:
            with storage_errors(f"{self.uri}: table {name} cannot be {done}", hint):
                yield
        except StorageError as error:
            torn = []
            with suppress(OSError):
                torn = [table for table in (name, META_TABLE) if self.place.torn_versions(table)]
            if not torn:
                raise
            raise StorageError(
                f"{self.uri}: table {torn[0]} cannot be {done}: a version is empty or cut short, as a power "
                "cut leaves it; `t2v verify --repair` goes back to the last whole one and says what was lost"
            ) from error
