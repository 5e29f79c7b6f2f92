"""A bundle: one file that carries a registry, or some of it, elsewhere. What it is, and how it is written.

It is a zip archive whose members are stored as they are, one right after the other, and nothing else:

    spaces.parquet  tasks.parquet  experts.parquet  results.parquet  audit.parquet
    embeddings__<space_id>.parquet     one for each space
    manifest.json                      format, schema version, and checksum, bytes and rows of each other member

Members hold the columns of ``registry.storage.schema``, compressed by zstd inside Parquet, rows in order of
their key.
There is no index and nothing that runs. The same content makes the same bytes: nothing in a bundle says when
or under which name it was written. ``registry.bundles.folders`` writes the same members as files of a folder.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from registry.errors import StorageError
from registry.files import replacing
from registry.names import ERROR_SHARES, LOSSES
from registry.storage import schema
from registry.storage.places import storage_errors
from registry.storage.rows import installed_versions

FORMAT = "task2vec-registry bundle"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
COMPRESSION = "zstd"

RECORD_TABLES = ("spaces", "tasks", "experts", "results", "audit")

BOMB_FROM_BYTES = 2**30  # in memory,
BOMB_RATIO = 200  # times its size in the file,
BOMB_ROW_BYTES = 4096  # and bytes a row on average: what grows by more than all three is a bomb

# A row group is what is in memory at once, here and where the bundle is read.
GROUP_ROWS = 4096
GROUP_BYTES = 2**26

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time of a zip member
_UNIX, _FILE_MODE = 3, 0o100644 << 16


@dataclass(frozen=True)
class Member:
    """What the manifest says of a member: its checksum in hexadecimal, its size, and how many rows it has."""

    blake2b: str
    bytes: int
    rows: int


@dataclass(frozen=True)
class Upgrade:
    """What one schema version changed in bundles.

    Attributes:
        former_columns: From a table and its columns in the new version, its columns before.
        upgraded: From a table and rows of the former version, the same in the new one.
    """

    former_columns: Callable[[str, pa.Schema], pa.Schema]
    upgraded: Callable[[str, pa.Table], pa.Table]


def _without_source_accuracy(table: str, columns: pa.Schema) -> pa.Schema:
    added = {"source_accuracy", "cached_as"} if table == "experts" else set()
    return pa.schema([column for column in columns if column.name not in added])


def _with_source_accuracy(table: str, rows: pa.Table) -> pa.Table:
    if table != "experts":
        return rows
    unknown = pa.nulls(len(rows), pa.float64()), pa.array([""] * len(rows), pa.string())
    for column, values in zip(("source_accuracy", "cached_as"), unknown, strict=True):
        rows = rows.append_column(schema.EXPERTS.field(column), values)
    return rows


_IDENTITY: dict[str, dict[str, Callable[[pa.Table], Any]]] = {
    "experts": {
        "toy": lambda rows: rows["builtin"],
        "aliases": lambda rows: _same(rows, [], pa.list_(pa.string())),
        "weights_hash": lambda rows: _same(rows, "", pa.string()),
    },
    "results": {
        "lower_is_better": lambda rows: pc.is_in(rows["metric"], pa.array([*ERROR_SHARES, *LOSSES])),
        "task_version": lambda rows: _same(rows, 0, pa.int64()),
        "weights_hash": lambda rows: _same(rows, "", pa.string()),
        "run_id": lambda rows: _same(rows, "", pa.string()),
    },
}
"""Columns of schema version 5, each made of the rows of version 4, by table."""


def _same(rows: pa.Table, value: Any, of_type: pa.DataType) -> pa.Array:
    """One value for every row."""
    return pa.array([value] * len(rows), of_type)


def _without_identity(table: str, columns: pa.Schema) -> pa.Schema:
    return pa.schema([column for column in columns if column.name not in _IDENTITY.get(table, {})])


def _with_identity(table: str, rows: pa.Table) -> pa.Table:
    for column, make in _IDENTITY.get(table, {}).items():
        rows = rows.append_column(schema.TABLES[table].field(column), make(rows))
    return rows


OLDEST_SCHEMA_VERSION = 3
# From version N - 1 to N, under key N, as in ``registry.storage.schema.MIGRATIONS``; one for each from the
# oldest on.
UPGRADES: dict[int, Upgrade] = {
    4: Upgrade(_without_source_accuracy, _with_source_accuracy),
    5: Upgrade(_without_identity, _with_identity),
    6: Upgrade(lambda _, columns: columns, lambda _, rows: rows),  # a table that no bundle has
}


def member_name(table: str) -> str:
    """Name of the member that holds a table."""
    return f"{table}.parquet"


def columns_at(version: int, table: str, columns: pa.Schema) -> pa.Schema:
    """Columns of a table as a bundle of an older schema version holds them."""
    for reached in range(schema.SCHEMA_VERSION, version, -1):
        columns = UPGRADES[reached].former_columns(table, columns)
    return columns


def upgraded(version: int, table: str, rows: pa.Table) -> pa.Table:
    """Rows of a bundle of an older schema version as they are now."""
    for reached in range(version + 1, schema.SCHEMA_VERSION + 1):
        rows = UPGRADES[reached].upgraded(table, rows)
    return rows


def row_width(columns: pa.Schema) -> int:
    """Bytes of the vectors of one row."""
    return sum(4 * kind.list_size for kind in columns.types if pa.types.is_fixed_size_list(kind))


def group_rows(columns: pa.Schema) -> int:
    """How many rows a row group has at most."""
    return max(1, min(GROUP_ROWS, GROUP_BYTES // max(1, row_width(columns))))


def is_bomb(rows: int, in_memory: int, in_file: int) -> bool:
    """Whether a member takes far more memory than it takes in a file, and than its rows explain."""
    return in_memory > max(BOMB_FROM_BYTES, BOMB_RATIO * in_file, BOMB_ROW_BYTES * rows)


def groups(rows: pa.Table) -> Iterator[pa.Table]:
    """Rows in parts that are fit for row groups: the vectors by their width, long texts by their size."""
    size = group_rows(rows.schema)
    for start in range(0, len(rows), size):
        yield from _halved(rows.slice(start, size))


def _halved(rows: pa.Table) -> Iterator[pa.Table]:
    if len(rows) > 1 and rows.nbytes > 2 * GROUP_BYTES:
        yield from _halved(rows.slice(0, len(rows) // 2))
        yield from _halved(rows.slice(len(rows) // 2))
    else:
        yield rows


class BundleWriter:
    """Writes the members of one bundle, one after the other."""

    def __init__(
        self,
        open_member: Callable[[str], AbstractContextManager[IO[bytes]]],
        put_manifest: Callable[[bytes], object],
    ) -> None:
        """Write members where they go."""
        self.members: dict[str, Member] = {}
        self._open_member = open_member
        self._put_manifest = put_manifest

    def add(self, table: str, columns: pa.Schema, parts: Iterable[pa.Table]) -> int:
        """Write a table, a row group for each part; nothing but one part is in memory.

        Raises:
            StorageError: If no import would take it, as its texts are long and nearly all the same.
        """
        name, rows, in_memory = member_name(table), 0, 0
        with self._open_member(name) as file:
            sink = _Hashed(file)
            with pq.ParquetWriter(
                pa.PythonFile(sink, mode="w"),
                columns,
                compression=COMPRESSION,
                use_dictionary=False,  # so that the sizes in the footer are those in memory
                write_statistics=False,
            ) as writer:
                for part in parts:
                    writer.write_table(part, row_group_size=max(1, len(part)))
                    rows, in_memory = rows + len(part), in_memory + part.nbytes
        if is_bomb(rows, in_memory, sink.size):
            raise StorageError(
                f"{name} would be refused where it is imported: its rows take {in_memory // rows} bytes on "
                f"average, and {BOMB_RATIO} times less in the file; shorten their texts, or export fewer tasks"
            )
        self.members[name] = Member(sink.digest.hexdigest(), sink.size, rows)
        return rows

    def finish(self, *, registry_id: str, as_of: str) -> str:
        """Write the manifest.

        Returns:
            Checksum of the manifest, and by it of everything.
        """
        manifest = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "schema_version": schema.SCHEMA_VERSION,
            "registry_id": registry_id,
            "as_of": as_of,
            "versions": json.loads(installed_versions()),
            "members": {name: asdict(self.members[name]) for name in sorted(self.members)},
        }
        content = json.dumps(manifest, indent=1, sort_keys=True).encode()
        self._put_manifest(content)
        return checksum(content)


@contextmanager
def writing(path: Path) -> Iterator[BundleWriter]:
    """Write a bundle that appears at its path at once, whole, in place of a former one, or not at all.

    Raises:
        StorageError: If it cannot be written.
    """
    with (
        storage_errors(f"{path}: the file cannot be written"),
        replacing(path, durable=True) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
    ):
        yield _archive_writer(archive)


def checksum(content: bytes) -> str:
    """The checksum of a manifest or another member, in hexadecimal."""
    return new_digest(content).hexdigest()


def new_digest(content: bytes = b"") -> "hashlib.blake2b":
    """What makes the checksum of a member."""
    return hashlib.blake2b(content, digest_size=32)


def _entry(name: str) -> zipfile.ZipInfo:
    """A member of which everything but its name and content is always the same."""
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system, entry.external_attr = _UNIX, _FILE_MODE
    return entry


def _archive_writer(archive: zipfile.ZipFile) -> BundleWriter:
    return BundleWriter(
        lambda name: archive.open(_entry(name), "w", force_zip64=True),
        lambda content: archive.writestr(_entry(MANIFEST), content),
    )


class _Hashed(io.RawIOBase):
    """Passes on what is written, counting it and making its checksum."""

    def __init__(self, file: IO[bytes]) -> None:
        self.size, self.digest = 0, new_digest()
        self._file = file

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.size

    def write(self, content: Any) -> int:
        self._file.write(content)
        self.digest.update(content)
        self.size += len(content)
        return len(content)
