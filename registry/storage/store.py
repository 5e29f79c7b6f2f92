"""The store: records in LanceDB tables in one folder, safe against kills and concurrent writers.

There are no transactions across tables, so an order of writes stands in for them: the row that makes others
visible is written last (a task after its embedding, a space after its table, ``meta`` after a whole registry).
Every writer holds the folder's lock, because LanceDB lets two writers insert the same key.

Tasks, embeddings and experts are in ``stored_tasks``, ``stored_embeddings`` and ``stored_experts``.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from registry.answers import OptimizedTable, Problem
from registry.errors import StorageError
from registry.records import AuditRecord
from registry.storage.cache import ROW_ID, CachedTable
from registry.storage.database import Database
from registry.storage.experts import StoredExperts
from registry.storage.folders import LocalPlace
from registry.storage.moments import KEEP
from registry.storage.places import FOREIGN_ERRORS, META_TABLE, Moment, Place, storage_errors
from registry.storage.schema import EmbeddingTable, quoted
from registry.storage.tasks import StoredTasks

__all__ = ["EmbeddingTable", "Store"]


class CachedDatabase(Database):
    """The tables of one place, read from its read cache until this process has to connect to them."""

    _trusts_cache = True

    def distrust_cache(self) -> None:
        """Read nothing but the tables themselves from now on."""
        self._trusts_cache = False

    def renew_cache(self) -> None:
        """Leave the tables for the next process, if this one had to load LanceDB and may write there."""
        cache = self.place.cache
        if "lancedb" not in sys.modules or cache is None or not self.place.is_writable():
            return
        with suppress(*FOREIGN_ERRORS):  # a cache is no part of any answer
            cache.renew(self.registry_id(), lambda name: CachedTable(self._version(name), self._all(name)))

    def _all(self, name: str) -> pa.Table:
        return self.read(name, row_ids=True)

    def _cached(self, name: str) -> CachedTable | None:
        usable = self._trusts_cache and self._connection is None
        return self.place.cache.table(name) if usable and self.place.cache else None

    @contextmanager
    def write_lock(self) -> Iterator[None]:
        """Keep other writers out, and read the tables themselves from now on."""
        with super().write_lock():
            self.distrust_cache()
            yield

    def registry_id(self) -> str:
        """A random text that no other registry has."""
        kept = self.place.cache.registry_id() if self._cached(META_TABLE) and self.place.cache else ""
        return kept or super().registry_id()

    def _version(self, name: str) -> int:
        cached = self._cached(name)
        return cached.version if cached else super()._version(name)

    def count_rows(self, name: str) -> int:
        """How many rows a table has now."""
        cached = self._cached(name)
        return len(cached.rows) if cached else super().count_rows(name)

    def read(
        self, name: str, *, columns: list[str] | None = None, where: str = "", row_ids: bool = False, **how: Any
    ) -> pa.Table:
        """Rows of a table as they are now, as of ``Database.read``."""
        if cached := self._cached(name):
            rows = cached.read(columns, where, row_ids=row_ids)
            if rows is not None:
                return rows
        return super().read(name, columns=columns, where=where, row_ids=row_ids, **how)

    def read_batches(self, name: str, *, columns: list[str], batch_rows: int) -> Iterator[pa.Table]:
        """All rows of a table as they are now, with ``_rowid``, some at a time."""
        cached = self._cached(name)
        if cached is None:
            yield from super().read_batches(name, columns=columns, batch_rows=batch_rows)
        else:
            rows = cached.rows.select([*columns, ROW_ID])
            yield from (rows.slice(start, batch_rows) for start in range(0, len(rows), batch_rows))


class Store(StoredTasks, StoredExperts):
    """The records of one registry folder.

    Nothing is opened before it is needed and nothing is created but by ``create``. Where there is no registry,
    lists are empty, names are not found and writing is an error. Several threads may use one store; processes
    have to be started by ``spawn``, since LanceDB does not survive a fork.
    """

    database: CachedDatabase

    def __init__(self, uri: str | Path, durability: str | None = None) -> None:
        """Remember the place: a folder, or an object store such as ``s3://bucket/prefix``."""
        self.database = CachedDatabase(place_of(uri, durability), _connect)
        self.uri = self.database.uri
        self._durability = durability

    def as_of(self, when: int | datetime) -> tuple["Store", str]:
        """The registry as it was, which cannot be written, and when that was in words."""
        tables, moment, words = self.database.moments.as_of(when)
        store = Store(self.uri, self._durability)
        store.database = PastDatabase(self.database.place, tables, moment, words)
        store.database.present = self.database
        return store, words

    @property
    def exists(self) -> bool:
        """Whether there is a registry at this place."""
        return self.database.exists

    @staticmethod
    def create(
        uri: str | Path, populate: Callable[["Store"], None] | None = None, durability: str | None = None
    ) -> "Store":
        """Open the registry at a place, creating it whole or not at all if there is none.

        Args:
            uri: A place that is missing, empty, or a registry.
            populate: Fills a new registry before anybody sees it; if it raises, there is no registry.
            durability: See ``Store``.

        Returns:
            The store, whoever created it.
        """
        store = Store(uri, durability)

        def make(staging_uri: str) -> None:
            staged = Store(staging_uri, durability)
            staged.database.lay_out()
            if populate is not None:
                populate(staged)

        create_registry(store.database, make)
        return store

    def check_writable(self) -> None:
        """Fail if this is a registry as it was at a time."""
        if isinstance(self.database, PastDatabase):
            self.database.refuse_writes()

    def check_place(self) -> None:
        """Fail where a registry neither is nor can be made, before the work that would be in vain."""
        self.check_writable()
        check_place(self.database)

    def audit(self, subject: str | None = None, *, limit: int | None = None) -> list[AuditRecord]:
        """The lines of ``last_lines``."""
        return self.last_lines(subject, limit)[0]

    def last_lines(
        self, subject: str | None, limit: int | None, actions: Sequence[str] = ()
    ) -> tuple[list[AuditRecord], int]:
        """Who wrote what, in order of time, and how many earlier lines are left out.

        Args:
            subject: Only about this; a name of a task stands for all its versions, aliases and results.
            limit: Only the last so many lines.
            actions: Only actions that start with one of these.
        """
        chosen = [_about(subject)] if subject else []
        chosen += (
            [" or ".join(f"starts_with(action, {quoted(action)})" for action in actions)] if actions else []
        )
        earlier, where = 0, " and ".join(f"({part})" for part in chosen)
        if limit is not None:
            times = self.database.read("audit", columns=["at"], where=where)["at"]
            earlier = max(len(times) - max(limit, 0), 0)
            last = times.take(pc.top_k_unstable(times, len(times) - earlier))
            where += f"{where and ' and '}at >= {quoted(pc.min(last).as_py() or '~')}"
        lines = sorted(self._records(AuditRecord, "audit", where), key=lambda line: line.at)
        return lines[earlier and len(lines) - (limit or 0) :], earlier

    def verify(self, *, repair: bool = False) -> list[Problem]:
        """Check every table against the others; see ``registry.storage.verify``."""
        from registry.storage.verify import verify_database

        self.database.distrust_cache()
        return verify_database(self.database, repair=repair)

    def optimize(self, *, keep: timedelta = KEEP) -> list[OptimizedTable]:
        """Compact all tables; writes do so by themselves when a table has become scattered."""
        sizes = []
        with self.write_lock():
            self.database.moments.trim(keep)
        for name in self.database.table_names():
            before = self.database.place.table_size(name)
            self.database.optimize(name, keep=keep)
            sizes.append(OptimizedTable(name, *before, *self.database.place.table_size(name)))
        return sizes


class PastDatabase(CachedDatabase):
    """The tables as they were at a time: read, and never written."""

    _trusts_cache = False

    def __init__(self, place: Place, tables: Mapping[str, int], moment: Moment | None, words: str) -> None:
        """Remember the version of each table, the moment that says so, and when that is in words."""
        super().__init__(place.as_of(tables), _connect)
        self._versions, self._words = tables, words
        self._note = str(moment.number) if moment else ""
        self._noted = place.read_note(self._note) if moment else b""

    def refuse_writes(self) -> None:
        """Fail.

        Raises:
            StorageError: Always.
        """
        raise StorageError(f"{self.uri} {self._words} can be read only; leave out --at to write")

    @contextmanager
    def write_lock(self) -> Iterator[None]:
        """Fail."""
        self.refuse_writes()
        yield

    def table_names(self) -> list[str]:
        """Those that there were."""
        return sorted(self._versions)

    def has_table(self, name: str) -> bool:
        """Whether there was a table."""
        return name in self._versions

    def table_version(self, name: str) -> int:
        """The version then, while it is kept; ``StorageError`` if it was deleted since, as by a purge."""
        if self._note and self.place.read_note(self._note) != self._noted:
            raise StorageError(f"{self.uri}: what was {self._words} is not kept any more")
        return self._versions[name]

    def state(self) -> str:
        """What distinguishes it from any other state."""
        return f"{self.registry_id()} {[(name, self.table_version(name)) for name in self.table_names()]}"

    def open_table(self, name: str) -> Any:
        """A table as it was."""
        version = self.table_version(name)
        if name not in self._open_tables:
            table = self._database().open_table(name)
            table.checkout(version)
            self._open_tables[name] = table
        return self._open_tables[name]


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
    _defer_package("lance_namespace_urllib3_client")
    import lancedb

    # An interval of zero: a table handle always sees what other processes have written.
    return lancedb.connect(
        place.connect_target,
        read_consistency_interval=timedelta(0),
        storage_options=place.storage_options or None,
    )


def _defer_package(name: str) -> None:
    """Leave a package unexecuted until something in it, other than its modules, is asked for.

    LanceDB imports a client of its REST service, which takes a third of the time of its import; nothing here
    uses it.
    """
    spec = find_spec(name)
    if name in sys.modules or spec is None or spec.loader is None:
        return
    package, loader = module_from_spec(spec), spec.loader

    def execute(attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        del package.__dict__["__getattr__"]
        loader.exec_module(package)
        return getattr(package, attribute)

    package.__dict__["__getattr__"] = execute
    sys.modules[name] = package


def _about(subject: str) -> str:
    """Condition of the lines about a task, with or without a version, an expert or results of either."""
    name = quoted(subject)
    return (
        f"subject = {name} or starts_with(subject, {quoted(subject + '@')}) "
        f"or starts_with(subject, {quoted(subject + ' on ')}) or ends_with(subject, {quoted(' on ' + subject)})"
    )


def create_registry(database: Database, make: Callable[[str], None]) -> None:
    """Create a registry, unless it is there or another process creates it first.

    Args:
        database: Where.
        make: Makes all tables and their first rows at the URI it is given; if it raises, there is no registry.

    Raises:
        StorageError: If the place is a file, a folder of something else, or not writable.
    """
    check_place(database)
    if database.exists:
        return
    place = database.place
    with storage_errors(f"{database.uri}: a registry cannot be created here"):
        place.prepare()
    with place.lock():
        if database.exists:
            return
        place.remove_leftovers()
        try:
            make(place.staging_uri)
            with storage_errors(f"{database.uri}: a registry cannot be created here"):
                place.publish()
        except BaseException:
            # Some tables may have been moved already, and would be taken for a registry that lost its meta.
            if not database.exists:
                place.remove_leftovers()
            raise
        finally:
            place.remove_staging()


def check_place(database: Database) -> None:
    """Fail where a registry neither is nor can be made; for callers who would find out after long work.

    Raises:
        StorageError: If the place is a file or a folder of something else.
    """
    with storage_errors(f"{database.uri}: a registry cannot be created here"):
        database.place.check()


def place_of(uri: str | Path, durability: str | None = None) -> Place:
    """The place that a URI names: a folder, or an object store such as ``s3://bucket/prefix``.

    Raises:
        StorageError: If it is a URL of another kind, or what reaches object stores is not installed.
    """
    if "://" in str(uri):
        from registry.storage.object_store import ObjectPlace  # an extra

        return ObjectPlace(str(uri))
    return LocalPlace(uri, durability)
