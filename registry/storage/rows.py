"""What the parts of the store share: records of rows, spaces, who wrote what, and where experts came from.

Every write has lines in the audit. Origins are rows of ``meta``, which no export carries and no import writes:
``origin.expert.NAME`` and ``origin.space.ID``. What has no row is shipped, or was registered here.
"""

import functools
import getpass
import hashlib
import json
import os
import platform
import socket
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import pyarrow as pa

from registry.answers import Origin
from registry.errors import DuplicateError, InvalidRecordError, NotFoundError, StorageError
from registry.gate import checked_name
from registry.names import Key
from registry.records import AuditRecord, SpaceRecord, utc_now
from registry.storage import schema
from registry.storage.schema import quoted

if TYPE_CHECKING:
    from registry.storage.cache import Fragment
    from registry.storage.database import Database

PRESENT = "removed_at = ''"
REMOVED = "removed_at != ''"
NOT_BUILTIN = "builtin = false"

LONGEST_LIST = 1000  # names in a condition
MAX_SHEET_BYTES = 100_000
SLICE_ROWS, SLICE_BYTES = 2048, 2**25  # of work in bulk, each under the lock for less than a second
TURN_SECONDS = 0.06  # that others get after a slice; longer than writers wait before they try again

Record = TypeVar("Record")


class StoredRows:
    """Rows of the tables of one registry, and its spaces."""

    database: "Database"

    def write_lock(self) -> AbstractContextManager[None]:
        """Keep other writers out of a sequence of reads and writes; re-entrant."""
        return self.database.write_lock()

    def add_space(self, space: SpaceRecord) -> None:
        """Register a space and make its table; nothing happens if its id is registered."""
        checked_name("space", space.space_id)
        with self.write_lock():
            if space.space_id in {registered.space_id for registered in self.spaces()}:
                return
            name = schema.embeddings_table_name(space.space_id)
            self.database.create_table(name, schema.embeddings_schema(space.dim, space.domain_dim))
            self._note("space.add", [space.space_id], probe=space.probe)
            self.database.append("spaces", [space])

    def spaces(self) -> list[SpaceRecord]:
        """All spaces, sorted by id."""
        return schema.spaces_of(self.database.read("spaces"))

    def space(self, space_id: str) -> SpaceRecord:
        """The space of an id; ``NotFoundError`` if there is none."""
        return lookup("space", space_id, {space.space_id: space for space in self.spaces()})

    def _note(self, action: str, subjects: Sequence[str], **details: Any) -> None:
        """Write the audit of a write that comes next."""
        self.database.append("audit", audit_lines(action, subjects, **details))

    def _note_each(
        self,
        action: str,
        subjects: Sequence[str],
        each: Mapping[str, Mapping[str, Any]],
        details: Mapping[str, Any],
    ) -> None:
        """Write the audit of the write that comes next, with further details of some subjects."""
        if not each:
            self._note(action, subjects, **details)
            return
        lines = [
            line
            for subject in subjects
            for line in audit_lines(action, [subject], **{**details, **each.get(subject, {})})
        ]
        self.database.append("audit", lines)

    def pin_results(self, versions: Mapping[str, int]) -> None:
        """Make results that name no version of their task those of a version, by name of the task.

        That comes before a task gets another version or is removed: what was measured stays with its data.
        """
        if not versions:
            return
        some = among("task", versions)
        rows = self.database.read("results", columns=["task"], where=f"task_version = 0 and {some or 'true'}")
        for task in sorted(versions.keys() & set(rows["task"].to_pylist())):
            unsaid = f"task = {quoted(task)} and task_version = 0"
            self._update("results", unsaid, {"task_version": versions[task]})

    def _records(self, record_type: type[Record], name: str, where: str = "") -> list[Record]:
        return schema.from_arrow(record_type, self.database.read(name, where=where))

    def _mark_removed(self, name: str, of_name: str) -> None:
        self._update(name, f"name = {quoted(of_name)} and {PRESENT}", {"removed_at": utc_now()})

    def _update(self, name: str, where: str, values: Mapping[str, Any]) -> None:
        self.database.commit(name, lambda table: table.update(where=where, values=values))

    def _drop_caches(self) -> None:
        """Delete the index files on this machine, which hold embeddings that are gone; they are built again."""
        folder = self.database.place.cache_folder(self.database.registry_id())
        for path in folder.glob("*.*"):  # all but the lock
            with suppress(OSError):
                path.unlink()

    def _purge(self, name: str, where: str) -> None:
        """Delete rows so that no file holds them any more."""
        rows = self.database.read(name, columns=[schema.TABLES[name].names[0]], where=where, row_ids=True)
        self.database.purge_rows(name, rows["_rowid"].to_pylist())


@dataclass(frozen=True)
class SheetRecord:
    """The contact sheet of one version of a task: a few samples as one small picture. It is stored.

    Attributes:
        task: Name of the task.
        version: Version of the task.
        seed: What the classes and the samples were drawn with.
        columns: What each column of square tiles shows, from the left.
        rows: How many tiles the longest columns have.
        image: WebP without metadata.
        checksum: Checksum of all the others; made unless given.
    """

    task: str
    version: int
    seed: int
    columns: tuple[str, ...]
    rows: int
    image: bytes = field(repr=False)
    checksum: int | None = None

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            InvalidRecordError: If it has no columns, is no WebP of bounded size, or the checksum is off.
        """
        checked_name("task", self.task)
        what = f"contact sheet of {self.task}@{self.version}"
        if not (self.columns and self.rows > 0 and self.image[:4] == b"RIFF" and self.image[8:12] == b"WEBP"):
            raise InvalidRecordError(
                f"{what}: it must have columns and rows, and be a picture of the kind WebP"
            )
        if len(self.image) > MAX_SHEET_BYTES:
            raise InvalidRecordError(f"{what}: it must have at most {MAX_SHEET_BYTES:,} bytes")
        content = repr((self.task, self.version, self.seed, self.columns, self.rows)).encode() + self.image
        made = int.from_bytes(hashlib.blake2b(content, digest_size=7).digest())
        if self.checksum not in {None, made}:
            raise InvalidRecordError(f"{what}: it is not what its checksum was made of")
        object.__setattr__(self, "checksum", made)


class SheetLayout(NamedTuple):
    """What a page needs to know of a contact sheet to show it; see ``SheetRecord``."""

    columns: tuple[str, ...]
    rows: int
    checksum: int


class StoredSheets(StoredRows):
    """Contact sheets of versions of tasks."""

    def add_sheets(self, sheets: Sequence[SheetRecord]) -> None:
        """Give registered task versions contact sheets in place of those that they have."""
        with self.write_lock():
            self._note("task.sheet", [f"{sheet.task}@{sheet.version}" for sheet in sheets])
            self._remove_sheets({(sheet.task, sheet.version) for sheet in sheets})
            self.database.append(schema.SHEETS, sheets)

    def purge_sheet(self, name: str, version: int) -> None:
        """Delete the contact sheet of a version of a task, so that no file holds it any more."""
        with self.write_lock():
            self.database.moments.forget(f"the contact sheet of {name}@{version} was purged")
            self._note("task.sheet", [f"{name}@{version}"], purged=True)
            self._purge(schema.SHEETS, f"task = {quoted(name)} and version = {version}")

    def sheet(self, name: str, version: int) -> SheetRecord | None:
        """The contact sheet of a version of a task that is not removed, if it has one.

        Raises:
            StorageError: If it is not what its checksum was made of.
        """
        if (name, version) not in self._task_keys(f"name = {quoted(name)} and {PRESENT}"):
            return None
        where = f"task = {quoted(name)} and version = {version}"
        rows = self.database.read(
            schema.SHEETS, where=where, trust_large_files=True
        )  # one row, which is checked
        try:
            return schema.from_arrow(SheetRecord, rows.slice(max(len(rows) - 1, 0)))[0] if len(rows) else None
        except InvalidRecordError as err:
            raise StorageError(f"{self.database.uri}: table {schema.SHEETS} is damaged: {err}") from err

    def sheet_layouts(self, names: Collection[str] | None = None) -> dict[Key, SheetLayout]:
        """What the contact sheets of tasks look like, by name and version; of some names, or all."""
        where = "" if names is None else among("task", names)
        columns = [*schema.EMBEDDING_KEY, "columns", "rows", "checksum"]
        rows = self.database.read(schema.SHEETS, columns=columns, where=where, trust_large_files=True)
        values = (rows[name].to_pylist() for name in columns[2:])
        layouts = (SheetLayout(tuple(of), *more) for of, *more in zip(*values, strict=True))
        return dict(zip(schema.table_keys(rows), layouts, strict=True))

    def _remove_sheets(self, keys: set[Key]) -> None:
        """Delete the sheets of keys, such as what a killed writer left."""
        where = among("task", {name for name, _ in keys})
        rows = self.database.read(
            schema.SHEETS, columns=schema.EMBEDDING_KEY, where=where, row_ids=True, trust_large_files=True
        )
        ids = zip(schema.table_keys(rows), rows["_rowid"].to_pylist(), strict=True)
        self.database.delete_rows(schema.SHEETS, [row for key, row in ids if key in keys])

    def _task_keys(self, where: str = PRESENT) -> list[Key]:
        return schema.table_keys(self.database.read("tasks", columns=["name", "version"], where=where))


def sliced(batches: Iterable[list[Record]]) -> Iterator[list[Record]]:
    """Lists in parts of at most ``SLICE_ROWS``, each one commit; after it, whoever waits has a turn."""
    for batch in batches:
        for start in range(0, len(batch), SLICE_ROWS):
            yield batch[start : start + SLICE_ROWS]
            if len(batch) >= SLICE_ROWS:
                time.sleep(TURN_SECONDS)


def slice_rows(columns: pa.Schema) -> int:
    """How many rows of some columns make a slice."""
    return max(SLICE_BYTES // sum(4 * getattr(column.type, "list_size", 16) for column in columns), 1)


def within(fragments: Iterable[int]) -> str:
    """Condition of the rows of fragments, by their numbers."""
    return " or ".join(f"(_rowid >= {of << 32} and _rowid < {of + 1 << 32})" for of in sorted(fragments))


def rewrite(table: Any, where: str) -> None:
    """Write rows anew, as they are, in one fragment of their own."""
    column = table.schema.names[0]
    table.update(where=where, values_sql={column: f"`{column}`"})


def scattered(fragments: Sequence["Fragment"], most: int) -> list[int]:
    """Numbers of adjacent fragments that should be one of at most so many rows, or of one with many deleted."""
    chosen, rows = list["Fragment"](), 0
    for one in [*fragments, None]:
        live = one.rows - one.deleted if one else 0
        if one and (2 * live < most or 10 * one.deleted > one.rows) and rows + live <= max(most, live):
            chosen, rows = [*chosen, one], rows + live
            continue
        if len(chosen) > 1 or any(10 * of.deleted > of.rows for of in chosen):
            break
        chosen, rows = [], 0
    return [of.number for of in chosen]


def among(column: str, values: Collection[str]) -> str:
    """Condition that a column is one of some texts; none where all rows are read as fast."""
    if len(values) > LONGEST_LIST:
        return ""
    if not values:
        return "false"
    return f"{column} in ({', '.join(map(quoted, sorted(values)))})"


def listed(builtin: bool) -> str:
    """Condition of the rows that a list shows."""
    return PRESENT if builtin else f"{PRESENT} and {NOT_BUILTIN}"


def lookup(kind: str, name: str, records: Mapping[str, Record]) -> Record:
    """The record of a name; ``NotFoundError`` if there is none."""
    if name not in records:
        raise NotFoundError(kind, name, records)
    return records[name]


def refuse_duplicates(kind: str, names: Sequence[str], registered: set[str]) -> None:
    """Check that all names are new; ``DuplicateError`` if one is registered or there twice."""
    for name, count in Counter(names).items():
        if count > 1:
            raise DuplicateError(f"{kind} {name} is given twice")
        if name in registered:
            raise DuplicateError(f"{kind} {name} is registered already; remove it first or choose another name")


LIBRARIES = ("task2vec-registry", "lancedb", "numpy", "torch", "torchvision")


def audit_lines(action: str, subjects: Iterable[str], **details: Any) -> list[AuditRecord]:
    """One line a subject, all of one write; the details are plain values."""
    text = json.dumps(details, sort_keys=True)
    now, who, where = utc_now(), actor(), socket.gethostname()
    return [
        AuditRecord(action, subject, text, who, where, os.getpid(), installed_versions(), now)
        for subject in subjects
    ]


_ACTOR: ContextVar[str] = ContextVar("actor", default="")


@contextmanager
def acting_as(name: str) -> Iterator[None]:
    """Within the block, write lines of somebody else than who runs this process; as before if it is empty."""
    former = _ACTOR.set(name or _ACTOR.get())
    try:
        yield
    finally:
        _ACTOR.reset(former)


def actor() -> str:
    """Who acts, else runs this process; ``unknown`` where the system knows no name, as in some containers."""
    try:
        return _ACTOR.get() or os.environ.get("T2V_USER") or getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


@functools.cache
def installed_versions() -> str:
    """Versions of the libraries that are installed, without importing them."""
    versions = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return json.dumps(versions, sort_keys=True)


_ORIGIN = "origin."


def read_origins(database: "Database") -> dict[tuple[str, str], Origin]:
    """Origins by kind and name; of a registry as it was, nothing is trusted that is not trusted now."""
    rows = database.read("meta", where=f"key like '{_ORIGIN}%'")["value"].to_pylist()
    origins = (Origin(**json.loads(value)) for value in rows)
    then = {(origin.kind, origin.name): origin for origin in origins}
    if database.present is None:
        return then
    trusted = {(key, of.loader) for key, of in read_origins(database.present).items() if of.trusted_at}
    return {key: of if (key, of.loader) in trusted else replace(of, trusted_at="") for key, of in then.items()}


def write_origins(database: "Database", origins: Iterable[Origin]) -> None:
    """Write origins, in place of those of the same things, in one commit."""
    write_values(
        database, {f"{_ORIGIN}{origin.kind}.{origin.name}": json.dumps(asdict(origin)) for origin in origins}
    )


def write_values(database: "Database", values: Mapping[str, str]) -> None:
    """Write values of ``meta``, in place of those of the same keys, in one commit."""
    if values:
        rows = pa.table({"key": list(values), "value": list(values.values())}, schema=schema.META)
        database.commit("meta", lambda table: _upsert(table, rows))


def note_registered(database: "Database", kind: str, name: str, loader: str, folder: str) -> None:
    """Say that something was registered here, its Python module in a folder; no row for what needs none."""
    if folder or (kind, name) in read_origins(database):
        write_origins(database, [Origin(kind, name, utc_now(), actor(), folder=folder, loader=loader)])


def note_trusted(database: "Database", origins: Iterable[Origin]) -> list[Origin]:
    """Remember that what these name may be opened and run; they, as they are now."""
    trusted = [replace(origin, trusted_at=utc_now(), trusted_by=actor()) for origin in origins]
    with database.write_lock():
        database.append("audit", audit_lines("trust", [origin.name for origin in trusted]))
        write_origins(database, trusted)
    return trusted


def _upsert(table: Any, rows: pa.Table) -> None:
    table.merge_insert("key").when_matched_update_all().when_not_matched_insert_all().execute(rows)
