"""The read cache: the tables of a folder as Arrow files, for questions that then need no LanceDB.

Importing LanceDB takes five times as long as answering. So whoever had to leaves every table as one file beside
the index, all rows with their ids, and a manifest that names the files, whose rename is the commit. A file is
that of its table only while the files of the table are those that it was made of, by name, size and time; a
write adds one. Anything else, such as a cache that is damaged, of another registry or of another version of
this package, is as if there were none. A file is never changed, so a reader keeps what it has mapped.
"""

import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import xxhash

from registry.errors import InvalidQueryError, StorageError
from registry.files import share, write_atomically
from registry.storage.checksums import LAST_VERSION, MAGIC, VERSIONS_FOLDER

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
FOLDER = "index"
ROW_ID = "_rowid"
MANIFEST = "tables.json"
MAX_BYTES = 2**28
"""Tables that take more are not kept: to write them takes longer than to read them once."""

NOT_KEPT = ("sheets",)
"""Pictures, for which no question of a short process asks."""

NAMED_TABLES = ("tasks", "experts")
"""Tables whose names a shell completes."""

META, TABLE_SUFFIX = "meta", ".lance"
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What a manifest or file that was not written here may raise; errors of Arrow are among them."""


class CachedTable(NamedTuple):
    """All rows of a table with ``_rowid``, and the number of its version."""

    version: int
    rows: "pa.Table"

    def read(self, columns: Sequence[str] | None, where: str, *, row_ids: bool) -> "pa.Table | None":
        """Rows as of ``Database.read``; ``None`` for a condition that ``registry.filters`` cannot read."""
        import pyarrow as pa

        from registry.filters import kind_of, parse_where

        names = [*(columns or (name for name in self.rows.column_names if name != ROW_ID)), *[ROW_ID] * row_ids]
        if not where:
            return self.rows.select(names)
        try:
            passing = parse_where(where, {field.name: kind_of(field.type) for field in self.rows.schema})
        except InvalidQueryError:
            return None
        return self.rows.select(names).filter(pa.array(passing.mask(self.rows)))


class ReadCache:
    """The read cache of one registry folder, which need not be there nor be writable."""

    def __init__(self, registry: Path, schema_version: int | None = None) -> None:
        """Remember the folder, and the version of the schema of its tables; names are the same in all."""
        self._registry = registry
        self._folder = registry / FOLDER
        self._schema_version = schema_version
        self._mapped: dict[str, pa.Table] = {}

    def registry_id(self) -> str:
        """Id of the registry that the cache is of; empty where nothing of it can be used."""
        with suppress(*UNREADABLE):
            return str(self._manifest()["registry_id"])
        return ""

    def table(self, name: str) -> CachedTable | None:
        """A table as it is now; ``None`` where it has to be read from the table itself."""
        with suppress(*UNREADABLE):
            entry = self._current(name)
            return CachedTable(int(entry["version"]), self._rows(entry["file"]))
        return None

    def names(self, table: str, *, builtin: bool) -> list[str] | None:
        """Names of tasks or experts, sorted, without loading Arrow; ``None`` as of ``table``."""
        with suppress(*UNREADABLE):
            own, shipped = json.loads(self._checked(self._current(table)["names"]))
            return sorted({*own, *(shipped if builtin else ())})
        return None

    def renew(self, registry_id: str, read: Callable[[str], CachedTable]) -> None:
        """Leave every table as it is now; those that change meanwhile, and large ones, are left out.

        Raises:
            OSError: If the cache cannot be written.
        """
        tables = {}
        for path in sorted(self._registry.glob(f"*{TABLE_SUFFIX}")):
            name, stamp = path.stem, stamp_of_files(path)
            if name in NOT_KEPT:
                continue
            if entry := self._kept(registry_id, name, stamp):
                tables[name] = entry
            elif (table := read(name)).rows.nbytes <= MAX_BYTES and stamp_of_files(path) == stamp:
                tables[name] = {
                    "stamp": stamp,
                    "version": table.version,
                    "file": self._written(name, table.rows),
                }
                if name in NAMED_TABLES:
                    tables[name]["names"] = self._write(f"{name}.{{}}.names", _names_in(table.rows))
        content = {
            "format": FORMAT,
            "schema": self._schema_version,
            "registry_id": registry_id,
            "tables": tables,
        }
        with suppress(*UNREADABLE):
            if self._manifest() == content:
                return
        self._write(MANIFEST, _sealed(content))
        self._remove_all_but({file for entry in tables.values() for file in entry.values()})

    def _kept(self, registry_id: str, name: str, stamp: str) -> dict[str, Any] | None:
        """What the manifest says of a table, if that is current and its files are whole."""
        with suppress(*UNREADABLE):
            manifest = self._manifest()
            entry: dict[str, Any] = manifest["tables"][name]
            if manifest["registry_id"] == registry_id and entry["stamp"] == stamp:
                self._rows(entry["file"])
                if name in NAMED_TABLES:
                    self._checked(entry["names"])
                return entry
        return None

    def _manifest(self) -> dict[str, Any]:
        """The manifest, if it is whole and of this format; ``ValueError`` if it is not."""
        seal, _, content = (self._folder / MANIFEST).read_bytes().partition(b"\n")
        manifest: dict[str, Any] = json.loads(content)
        made = manifest["format"], manifest["schema"] if self._schema_version else None
        if seal.decode() != xxhash.xxh3_64_hexdigest(content) or made != (FORMAT, self._schema_version):
            raise ValueError("damaged, or of another version of this package")
        return manifest

    def _current(self, name: str) -> dict[str, Any]:
        """What the manifest says of a table; ``ValueError`` if that table or ``meta`` has changed since."""
        tables: dict[str, dict[str, Any]] = self._manifest()["tables"]
        for table in {META, name}:
            if stamp_of_files(self._registry / f"{table}{TABLE_SUFFIX}") != tables[table]["stamp"]:
                raise ValueError("stale")
        return tables[name]

    def _rows(self, file: str) -> "pa.Table":
        """The rows in a file, mapped, compared with their checksum once; ``ValueError`` if they differ."""
        if file not in self._mapped:
            import pyarrow as pa

            try:
                source = pa.memory_map(str(self._folder / file))
                self._check(file, source.read_buffer())
                source.seek(0)
                self._mapped[file] = pa.ipc.open_file(source).read_all()
            except pa.ArrowException as error:
                raise ValueError("no Arrow file") from error
        return self._mapped[file]

    def _checked(self, file: str) -> bytes:
        content = (self._folder / file).read_bytes()
        self._check(file, content)
        return content

    def _check(self, file: str, content: Any) -> None:
        """Compare a file with the checksum in its name; ``ValueError`` if it is not what was written."""
        if xxhash.xxh3_64_hexdigest(content) != file.split(".")[-2]:
            raise ValueError("damaged")

    def _written(self, name: str, rows: "pa.Table") -> str:
        import pyarrow as pa

        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, rows.schema) as writer:
            writer.write_table(rows.combine_chunks())
        return self._write(f"{name}.{{}}.arrow", sink.getvalue())

    def _write(self, pattern: str, content: Any) -> str:
        """Write a file, whose name holds the checksum of its content where the pattern says so; that name."""
        file = pattern.format(xxhash.xxh3_64_hexdigest(content))
        self._folder.mkdir(exist_ok=True)
        write_atomically(self._folder / file, content)
        for path in (self._folder, self._folder / file):
            share(path, self._registry)
        return file

    def _remove_all_but(self, named: Iterable[Any]) -> None:
        """Remove files of before, of which readers keep what they have mapped."""
        for pattern in ("*.arrow", *(f"{table}.*.names" for table in NAMED_TABLES)):
            for path in self._folder.glob(pattern):
                if path.name not in named:
                    with suppress(OSError):
                        path.unlink()


def stamp_of_files(table_path: Path) -> str:
    """What changes with every write of a table, and when one of its files is replaced, changed or lost."""
    stamps = []
    for root, _, names in os.walk(table_path):
        inside = root[len(str(table_path)) :]  # however its place is spelled, and wherever it is moved
        for name in names:
            with suppress(FileNotFoundError):  # as old ones go
                status = Path(root, name).stat()
                stamps.append(f"{inside}/{name} {status.st_ino} {status.st_size} {status.st_mtime_ns}")
    return xxhash.xxh3_128_hexdigest("\n".join(sorted(stamps)).encode())


def _names_in(rows: "pa.Table") -> bytes:
    """Names of rows that are not removed: those that were registered, and those that shipped."""
    kept: tuple[set[str], set[str]] = set(), set()
    columns = (rows[column].to_pylist() for column in ("name", "builtin", "removed_at"))
    for name, builtin, removed_at in zip(*columns, strict=True):
        if not removed_at:
            kept[builtin].add(name)
    return json.dumps([sorted(names) for names in kept]).encode()


def _sealed(content: dict[str, Any]) -> bytes:
    text = json.dumps(content, sort_keys=True).encode()
    return xxhash.xxh3_64_hexdigest(text).encode() + b"\n" + text


# What a registry holds, by the manifests of its tables; see the table format of Lance, ``protos/table.proto``.
# One ends with its place in the file, a version and ``LANC``; there begins a message of protocol buffers.

COUNTED = ("tasks", "experts", "results")
END = struct.Struct("<QHH4s")
VARINT, BYTES, FIXED_SIZES = 0, 2, {1: 8, 5: 4}  # kinds of fields
FRAGMENT, DELETION, NUM_ROWS, TIMESTAMP, SECONDS = 2, 3, 4, 7, 1
FRAGMENT_ID, FILE, PATH, IS_BITMAP, DELETED_AT, DELETION_ID = 1, 2, 1, 1, 2, 3


@dataclass(frozen=True)
class Fragment:
    """Rows of a table that lie in the same files.

    Attributes:
        number: Of the fragment; row ids begin with it.
        rows: How many rows its files hold.
        deleted: How many of these are deleted.
        files: Paths of the files within the table.
    """

    number: int
    rows: int
    deleted: int
    files: tuple[str, ...]


def read_fragments(manifest: Path) -> list[Fragment]:
    """The fragments of the version of a table that a manifest describes, in order."""
    fragments = []
    for kind, value in _message(manifest):
        if kind == FRAGMENT:
            number, deletion = _number(value, FRAGMENT_ID), _part(value, DELETION)
            files = [f"data/{_part(of, PATH).decode()}" for field, of in _fields(value) if field == FILE]
            marks = number, _number(deletion, DELETED_AT), _number(deletion, DELETION_ID)
            end = "bin" if _number(deletion, IS_BITMAP) else "arrow"
            files += [f"_deletions/{'-'.join(map(str, marks))}.{end}"] if deletion else []
            fragments.append(
                Fragment(number, _number(value, NUM_ROWS), _number(deletion, NUM_ROWS), tuple(files))
            )
    return fragments


def unneeded_files(table: Path, kept: Sequence[str]) -> list[Path]:
    """Files of data, deletions and transactions of a table that no version needs.

    Args:
        table: Folder of the table.
        kept: Paths within it of the manifests of all versions.
    """
    needed = {table / file for manifest in kept for of in read_fragments(table / manifest) for file in of.files}
    first = min(LAST_VERSION - int(Path(manifest).stem) for manifest in kept)
    old = [path for path in table.glob("_transactions/*.txn") if int(path.name.split("-")[0]) < first - 1]
    return [*{*table.glob("data/*"), *table.glob("_deletions/*")} - needed, *old]


@dataclass(frozen=True)
class AtRest:
    """What lies in the folder of a registry."""

    rows: dict[str, int]  # rows of each table that is counted, removed ones and all versions too
    written_at: int  # seconds since 1970 of the last write of any table


def read_at_rest(folder: Path) -> AtRest | None:
    """What a registry holds; nothing is created, opened or locked.

    Returns:
        ``None`` where there is no registry.

    Raises:
        StorageError: If a manifest cannot be read, or a file is there.
    """
    if folder.is_file():
        raise StorageError(f"{folder} is a file; a registry needs a folder of its own")
    if not (folder / f"{META}{TABLE_SUFFIX}").is_dir():
        return None
    try:
        rows = {table: _newest(folder / f"{table}{TABLE_SUFFIX}")[0] for table in COUNTED}
        written = max(_newest(path)[1] for path in folder.glob(f"*{TABLE_SUFFIX}"))
    except (OSError, ValueError, LookupError, OverflowError, struct.error) as err:
        raise StorageError(f"{folder}: what it holds cannot be read; `t2v verify` says what is wrong") from err
    return AtRest(rows, written)


def _newest(table: Path) -> tuple[int, int]:
    """Rows of the newest version of a table, and when it was written; manifests are numbered downwards."""
    newest = min((table / VERSIONS_FOLDER).glob("*.manifest"))
    rows = sum(fragment.rows - fragment.deleted for fragment in read_fragments(newest))
    return rows, max(_number(value, SECONDS) for number, value in _message(newest) if number == TIMESTAMP)


def _message(manifest: Path) -> list[tuple[int, bytes]]:
    """The fields of a manifest.

    Raises:
        ValueError: If it is not whole.
    """
    content = manifest.read_bytes()
    start, _, _, magic = END.unpack(content[-END.size :])
    if magic != MAGIC:
        raise ValueError(f"{manifest} is no manifest of Lance")
    (length,) = struct.unpack_from("<I", content, start)
    return list(_fields(content[start + 4 : start + 4 + length]))


def _part(message: bytes, number: int) -> bytes:
    """A field that is a message; empty where it is left out."""
    return next((value for found, value in _fields(message) if found == number), b"")


def _number(message: bytes, number: int) -> int:
    """A field that is a number; zero where it is left out."""
    return int.from_bytes(_part(message, number), "little")


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of each field of a message of protocol buffers; numbers as little-endian bytes."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        if key & 7 == VARINT:
            value, place = _varint(message, place)
            yield key >> 3, value.to_bytes(8, "little")
            continue
        size, place = _varint(message, place) if key & 7 == BYTES else (FIXED_SIZES[key & 7], place)
        yield key >> 3, message[place : place + size]
        place += size


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and the place after it."""
    value = shift = 0
    while message[place] >= 128:
        value |= (message[place] - 128) << shift
        place, shift = place + 1, shift + 7
    return value | message[place] << shift, place + 1
