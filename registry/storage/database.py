"""The tables of a registry: opened lazily, written under a lock, conflicts retried, errors in one sentence.

Knows rows, not records. What connects to the place is passed in, so that one file alone imports LanceDB.
"""

import math
import os
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import pyarrow as pa

from registry.errors import RegistryError, SchemaVersionError, StorageError
from registry.records import utc_now
from registry.storage import schema
from registry.storage.places import META_TABLE, Place

PAGE_SIZE = 100  # tables listed per call
MAX_FRAGMENTS = 64  # every write adds one, and reading slows down with their number
GENERATION = 2**40  # more than there are versions of a table
KEEP_VERSIONS = timedelta(minutes=1)  # a reader whose files are deleted meanwhile starts over
READ_ATTEMPTS, WRITE_ATTEMPTS = 3, 6
FIRST_WAIT_SECONDS = 0.05
CHECKED_BYTES = 2**26  # larger data files are checked row by row, or whole by a read of all they hold

# What LanceDB and pyarrow raise for a missing file, a full disk, a damaged table or a lost race alike.
FOREIGN_ERRORS = (OSError, RuntimeError, ValueError, pa.ArrowException)

# What a damaged file can make of Rust code. It derives from BaseException and cannot be imported.
_PANIC = "PanicException"
CONFLICT = re.compile(r"commit conflict|too many concurrent writers", re.IGNORECASE)
_VANISHED = re.compile(r"not found", re.IGNORECASE)
_RUST_PREFIX = re.compile(r"^(lance error: |LanceError\(\w+\): |Invalid input, )+")
_RUST_REQUEST = re.compile(r"Generic \w+ error: (?:.*? - )+")
_RUST_LOCATION = re.compile(r",? (location: )?/\S+\.rs:\d+.*", re.DOTALL)

Answer = TypeVar("Answer")


class Database:
    """The tables of one place.

    Attributes:
        place: Where the tables lie.
        uri: The place as the user gave it.
        generation: Rises where another registry, or another state of it, was put in place of the open one.
    """

    def __init__(self, place: Place, connect: Callable[[Place], Any]) -> None:
        """Remember the place and ``connect``, which opens a LanceDB connection to it when first needed."""
        self.place = place
        self.uri = place.uri
        self._connect = connect
        self._connection: Any = None
        self._process_id = 0
        self._open_tables: dict[str, Any] = {}
        self._registry_id = ""
        self._identity = ""
        self._states: dict[str, tuple[int, str]] = {}  # version and stamp of each table when last looked at
        self.generation = 0

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
            yield

    def registry_id(self) -> str:
        """A random text that no other registry has."""
        with self._read_errors("meta"):
            self._table("meta")
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
        with self._read_errors(name):
            version = int(self._table(name).version)
            last, stamp = self._states.get(name, (0, ""))
            now = self.place.version_stamp(name, last) if stamp else ""
            if version < last or (now and now != stamp):  # no version is ever written twice, or lost
                self._reopen()
                version = int(self._table(name).version)
            self._states[name] = version, self.place.version_stamp(name, version)
        return version + self.generation * GENERATION

    def state(self) -> str:
        """A text that differs for every state of the registry, and after any part of it was restored."""
        parts = [self.registry_id(), self.place.identity()]
        for name in self.table_names():
            version = self.table_version(name) % GENERATION
            parts.append(f"{name}:{version}:{self.place.version_stamp(name, version)}")
        return " ".join(parts)

    def notice_replacement(self) -> None:
        """Start anew where another folder was put in place of the one that was open, as in a restore."""
        identity = self.place.identity()
        if self._identity and identity and identity != self._identity:
            self._reopen()
        self._identity = identity or self._identity

    def _reopen(self) -> None:
        """Forget what was opened."""
        self._connection, self._process_id, self._registry_id = None, 0, ""
        self._open_tables, self._states = {}, {}
        self.place.forget_files()
        self.generation += 1

    def count_rows(self, name: str) -> int:
        """How many rows a table has now."""
        with self._read_errors(name):
            return int(self._table(name).count_rows())

    def read(
        self,
        name: str,
        *,
        columns: list[str] | None = None,
        where: str = "",
        row_ids: bool = False,
        trust_large_files: bool = False,
    ) -> pa.Table:
        """Rows of a table as they are now.

        Args:
            name: Table to read.
            columns: Names of the columns to read; all if not given.
            where: SQL condition; values in it must be ``quoted``.
            row_ids: Whether to add the column ``_rowid``, for ``delete_rows``.
            trust_large_files: Whether data files above ``CHECKED_BYTES`` are read without having been compared
                with their checksums; for a caller that reads few rows and checks each.

        Returns:
            The rows, in no order to rely on; none where there is no registry.
        """
        if not self.is_present():
            return schema.TABLES[name].empty_table()
        with self._read_errors(name):
            self.place.check_files(name, largest=CHECKED_BYTES if trust_large_files else None)
            return retried(lambda: self._query(name, columns, where, row_ids), _VANISHED, READ_ATTEMPTS)

    def read_batches(self, name: str, *, columns: list[str], batch_rows: int) -> Iterator[pa.Table]:
        """All rows of a table as they are now, with ``_rowid``, some at a time."""
        with self._read_errors(name):
            self.place.check_files(name)
            query = self._table(name).search().with_row_id(True).select(columns)
            for batch in query.to_batches(batch_rows):
                yield pa.Table.from_batches([batch])

    def _query(self, name: str, columns: list[str] | None, where: str, row_ids: bool) -> pa.Table:
        query = self._table(name).search().with_row_id(row_ids)
        query = query.where(where) if where else query
        return (query.select(columns) if columns else query).to_arrow()

    def append(self, name: str, records: Sequence[Any]) -> None:
        """Add a row per record, all or none."""
        if records:
            self.commit(name, lambda table: table.add(schema.to_arrow(records, table.schema)))

    def commit(self, name: str, operation: Callable[[Any], object]) -> None:
        """Run one write on a table, under the lock, and compact the table if it has become scattered."""
        with self.write_lock(), storage_errors(f"{self.uri}: table {name} cannot be written"):
            self.place.check_files(name, largest=CHECKED_BYTES)
            table = self._table(name)

            def attempt() -> None:
                self.place.check_lock()  # it may have been lost while waiting for this attempt
                operation(table)

            retried(attempt, CONFLICT, WRITE_ATTEMPTS, FIRST_WAIT_SECONDS)
            # The write is done: whatever cannot be tidied now is no error of it, and is done at the next one.
            with suppress(*FOREIGN_ERRORS):
                fragments = table.stats()["fragment_stats"]["num_fragments"]
                if fragments > max(MAX_FRAGMENTS, math.isqrt(table.count_rows())):
                    table.optimize(cleanup_older_than=KEEP_VERSIONS)
            with suppress(*FOREIGN_ERRORS):
                self.place.record_checksums(name)

    def optimize(self, name: str, *, keep: timedelta = KEEP_VERSIONS) -> None:
        """Compact a table and delete its versions that are older than ``keep``."""
        self.commit(name, lambda table: table.optimize(cleanup_older_than=keep))

    def delete_rows(self, name: str, row_ids: Sequence[int]) -> None:
        """Delete rows by the ids that ``read`` gave; they hold until the next write."""
        if row_ids:
            self.commit(name, lambda table: table.delete(f"_rowid in ({', '.join(map(str, row_ids))})"))

    def replace_rows(self, name: str, key: list[str], rows: pa.Table) -> None:
        """Write rows in place of those with the same key, in one commit; rows of a new key are left out."""
        self.commit(name, lambda table: table.merge_insert(key).when_matched_update_all().execute(rows))

    def create_table(self, name: str, columns: pa.Schema) -> None:
        """Make an empty table, unless it is there."""
        with self.write_lock(), storage_errors(f"{self.uri}: table {name} cannot be created"):
            self.place.check_lock()
            self._database().create_table(name, schema=columns, exist_ok=True)
            self.place.record_checksums(name)

    def drop_table(self, name: str) -> None:
        """Delete a table for good."""
        with self.write_lock(), storage_errors(f"{self.uri}: table {name} cannot be dropped"):
            self.place.check_lock()
            self._database().drop_table(name)
            self._open_tables.pop(name, None)
            self.place.forget_checksums(name)

    def lay_out(self) -> None:
        """Make the tables of a new registry in this place."""
        values = (str(schema.SCHEMA_VERSION), uuid.uuid4().hex, utc_now())
        meta = zip(("schema_version", "registry_id", "created_at"), values, strict=True)
        with storage_errors(f"{self.uri}: a registry cannot be created here"):
            for name, columns in schema.TABLES.items():
                rows = [{"key": key, "value": value} for key, value in meta] if name == META_TABLE else []
                self._database().create_table(name, data=pa.Table.from_pylist(rows, schema=columns))
                self.place.record_checksums(name)

    def _database(self) -> Any:
        """The connection, made when first needed; a forked process has to ask for its own."""
        if self._process_id != os.getpid():
            self._connection = self._connect(self.place)
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
        """Learn the registry's id; bring an older one up to date.

        Raises:
            StorageError: If ``meta`` is incomplete.
            SchemaVersionError: If a newer version of this package wrote it.
        """
        meta = {row["key"]: row["value"] for row in self.open_table("meta").to_arrow().to_pylist()}
        if not {"schema_version", "registry_id"} <= meta.keys():
            raise StorageError(
                f"{self.uri}: table meta lacks the schema version; restore the registry from a copy"
            )
        version = int(meta["schema_version"])
        if version > schema.SCHEMA_VERSION:
            raise SchemaVersionError(self.uri, version, schema.SCHEMA_VERSION)
        if version < schema.SCHEMA_VERSION:
            self._migrate(version)
        self._registry_id = meta["registry_id"]

    def _migrate(self, version: int) -> None:
        """Run the pending migrations, recording each when it is done.

        Raises:
            StorageError: If they cannot be, because the registry cannot be written.
        """
        where = "key = 'schema_version'"
        try:
            with self.write_lock():
                meta = self.open_table("meta")
                # Read again, now under the lock: another process may have migrated meanwhile.
                stored = int(meta.search().where(where).to_arrow()["value"][0].as_py())
                for reached, migration in schema.pending_migrations(stored):
                    self.place.check_lock()
                    migration(self)
                    for name in self.table_names():
                        self.place.record_checksums(name)
                    meta.update(where=where, values={"value": str(reached)})
                self.place.record_checksums(META_TABLE)
        except StorageError as err:
            raise StorageError(
                f"{self.uri}: schema version {version} has to be brought up to {schema.SCHEMA_VERSION} once, "
                f"by any command of somebody who can write there: {err}"
            ) from err

    @contextmanager
    def _read_errors(self, name: str) -> Iterator[None]:
        with storage_errors(f"{self.uri}: table {name} cannot be read", "`t2v verify` reports what is damaged"):
            yield


def quoted(text: str) -> str:
    """A text as an SQL literal: in single quotes, those inside doubled.

    Bytes that are no Unicode come from the command line as surrogates. They are spelled out; no record has any.
    """
    return "'" + text.encode(errors="backslashreplace").decode().replace("'", "''") + "'"


def retried(
    operation: Callable[[], Answer], conflict: re.Pattern[str], attempts: int, wait_seconds: float = 0.0
) -> Answer:
    """Run a read or a write, again where another process got in between.

    Args:
        operation: Answers or commits as a whole, or raises.
        conflict: What is in the message of an error after which another attempt makes sense.
        attempts: How often it is run at most; the last error is passed on, and every other one at once.
        wait_seconds: Pause before the second attempt; it doubles with each further one.
    """
    for attempt in range(attempts - 1):
        try:
            return operation()
        except FOREIGN_ERRORS as error:
            if not conflict.search(str(error)):
                raise
        # Random, so that two writers that collided once do not collide again.
        time.sleep(wait_seconds * 2**attempt * random.uniform(0.5, 1.0))
    return operation()


@contextmanager
def storage_errors(what: str, hint: str = "") -> Iterator[None]:
    """Turn errors of the database and the operating system into one sentence of ours.

    Args:
        what: Start of the sentence: the place, and what cannot be done.
        hint: End of the sentence: what to do about it.

    Raises:
        StorageError: If the block raises any of ``FOREIGN_ERRORS``, or the database's own code panics.
    """
    try:
        yield
    except FOREIGN_ERRORS as error:
        if isinstance(error, RegistryError):
            raise
        raise StorageError(f"{what}: {_reason(error)}{hint and '; '}{hint}") from error
    except BaseException as error:
        if type(error).__name__ != _PANIC:
            raise
        raise StorageError(f"{what}: its files make no sense{hint and '; '}{hint}") from error


def _reason(error: Exception) -> str:
    """The message of a foreign error without requests and places in Rust source files."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = _RUST_REQUEST.sub("", _RUST_PREFIX.sub("", str(error)))
    return _RUST_LOCATION.sub("", text) or type(error).__name__
