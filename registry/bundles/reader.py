"""Read a bundle that anybody may have made: its outside is checked before anything in it is believed.

What is refused: members that the manifest does not name, or twice, or with another size or checksum; members
that are links, folders, encrypted or compressed; bytes between or after the members; Parquet files of other
columns, of more rows or of another form than a bundle has; what would take far more memory than it takes in the
file.
"""

import io
import json
import re
import stat
import struct
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from registry.bundles import format as bundle_format
from registry.bundles.format import MANIFEST, Member, member_name
from registry.bundles.parquet_check import RowGroup, read_footer
from registry.errors import BundleError, RegistryError, SchemaVersionError, StorageError
from registry.files import open_regular
from registry.gate import NAME_PATTERN
from registry.storage import schema
from registry.storage.places import FOREIGN_ERRORS

MAX_MANIFEST_BYTES = 2**24
MAX_GROUP_BYTES = 2**28  # of a row group, in memory
MAX_TOTAL_BYTES = 2**38  # of all that a bundle holds, in memory

_CHUNK_BYTES = 2**20
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_LOCAL_SIGNATURE = b"PK\x03\x04"
_END_BYTES, _END_SIGNATURE = 22, b"PK\x05\x06"  # of what ends an archive, if no comment follows
_ENCRYPTED = 1
_ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, EOFError, struct.error, *FOREIGN_ERRORS)
EMBEDDINGS_MEMBER = re.compile(rf"{schema.EMBEDDINGS_PREFIX}({NAME_PATTERN.pattern})\.parquet")


Place = tuple[IO[bytes], int]
"""An open file, and where in it a member begins."""


@dataclass(frozen=True)
class Manifest:
    """What ``manifest.json`` says, checked, but for whose it is; ``digest`` is the checksum of all of it."""

    schema_version: int
    members: dict[str, Member]
    registry_id: str
    digest: str


class Bundle:
    """An open bundle, whose members are those of its manifest."""

    def __init__(self, path: Path, manifest: Manifest, places: Mapping[str, Place]) -> None:
        """Take what was opened, comparing every member with its checksum; ``BundleError`` if it is another."""
        for name, member in manifest.members.items():
            if _checksum(_Window(*places[name], member.bytes)) != member.blake2b:
                raise BundleError(f"{path}: {name} is not what its checksum was made of; nothing was imported")
        self.path = path
        self.manifest = manifest
        names = map(EMBEDDINGS_MEMBER.fullmatch, sorted(manifest.members))
        self.space_ids = [match[1] for match in names if match]
        self._places = places
        self._total_bytes = 0
        self._groups: dict[str, list[RowGroup]] = {}

    @property
    def name(self) -> str:
        """Name of the file or folder, without the path to it."""
        return self.path.name or self.path.resolve().name

    def check(self, table: str, columns: pa.Schema) -> None:
        """Check a table by its footer, nothing decoded; ``BundleError`` if no ``bundles`` wrote it so."""
        name, member = member_name(table), self.manifest.members[member_name(table)]
        try:
            groups = read_footer(self._window(name), member.bytes)
        except ValueError as err:
            raise self.error(name, str(err)) from err
        if (rows := sum(group.rows for group in groups)) != member.rows:
            raise self.error(name, f"it has {rows} rows, the manifest says {member.rows}")
        limit = bundle_format.group_rows(columns)
        if any(group.rows > limit or group.bytes > MAX_GROUP_BYTES for group in groups):
            raise self.error(name, f"row groups may have {limit} rows and {MAX_GROUP_BYTES} bytes at most")
        self._check_size(name, member, rows, sum(group.bytes for group in groups))
        expected = bundle_format.columns_at(self.manifest.schema_version, table, columns)
        with self._parquet(name) as parquet:
            if not parquet.schema_arrow.equals(expected):
                raise self.error(name, _difference(expected, parquet.schema_arrow))
        self._groups[table] = groups

    def _check_size(self, name: str, member: Member, rows: int, in_memory: int) -> None:
        """Refuse what would grow out of proportion; ``BundleError`` if a member or all of them together do."""
        self._total_bytes += in_memory
        if bundle_format.is_bomb(rows, in_memory, member.bytes):
            raise self.error(name, "it grows in memory by more than its rows explain, as bombs do")
        if self._total_bytes > MAX_TOTAL_BYTES:
            raise self.error(name, f"all members together take more than {MAX_TOTAL_BYTES} bytes in memory")

    def row_groups(self, table: str) -> Iterator[pa.Table]:
        """Rows of a table, in the columns of today, a row group at a time; ``check`` comes first.

        Raises:
            BundleError: If they cannot be read, or are not as many as the footer says.
        """
        name = member_name(table)
        with self._parquet(name) as parquet:
            for number, group in enumerate(self._groups[table]):
                rows = parquet.read_row_group(number, use_threads=False)
                rows.validate(full=True)
                if len(rows) != group.rows or rows.nbytes > MAX_GROUP_BYTES:
                    raise self.error(name, "its rows are not as many or as large as it says")
                if _has_gaps(rows):
                    raise self.error(name, "a value is missing")
                yield bundle_format.upgraded(self.manifest.schema_version, table, rows)

    def error(self, name: str, what: str) -> BundleError:
        """The error that a member is not as it should be."""
        return BundleError(f"{self.path}: {name} is not right: {what}; nothing was imported")

    def _window(self, name: str) -> io.BufferedReader:
        return io.BufferedReader(_Window(*self._places[name], self.manifest.members[name].bytes))

    @contextmanager
    def _parquet(self, name: str) -> Iterator[pq.ParquetFile]:
        try:
            yield pq.ParquetFile(pa.PythonFile(self._window(name), mode="r"), pre_buffer=False)
        except FOREIGN_ERRORS as err:
            if isinstance(err, RegistryError):
                raise
            raise self.error(name, f"it cannot be read as Parquet ({str(err).splitlines()[0]})") from err


@contextmanager
def open_bundle(path: Path) -> Iterator[Bundle]:
    """Open a bundle, checking its members against its manifest, byte for byte.

    Raises:
        BundleError: If it is none, or damaged.
        StorageError: If the file cannot be opened.
    """
    try:
        file = open_regular(path)
    except OSError as err:
        raise StorageError(f"{path}: the file cannot be read: {err.strerror or err}") from err
    with file:
        offsets, sizes, content = _read_archive(path, file)
        manifest = checked_manifest(path, content, sizes)
        yield Bundle(path, manifest, {name: (file, offset) for name, offset in offsets.items()})


def _read_archive(path: Path, file: IO[bytes]) -> tuple[dict[str, int], dict[str, int], bytes]:
    """Where the members begin, their sizes, and the content of the manifest.

    Raises:
        BundleError: If the file is no zip archive of the form that a bundle has.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if MANIFEST not in {entry.orig_filename for entry in entries}:
                raise BundleError(
                    f"{path}: there is no {MANIFEST} in it, so it is no bundle; data is added by `t2v task add`"
                )
            offsets = _offsets(path, file, entries, archive.start_dir)
            if archive.getinfo(MANIFEST).file_size > MAX_MANIFEST_BYTES:
                raise BundleError(f"{path}: {MANIFEST} is larger than {MAX_MANIFEST_BYTES} bytes")
            content = archive.read(MANIFEST)  # compares it with the checksum of the archive
    except _ZIP_ERRORS as err:
        if isinstance(err, RegistryError):
            raise
        raise BundleError(
            f"{path} is no bundle, or is damaged or cut off ({err}); nothing was imported"
        ) from err
    return offsets, {entry.orig_filename: entry.file_size for entry in entries}, content


def _offsets(path: Path, file: IO[bytes], entries: list[zipfile.ZipInfo], end: int) -> dict[str, int]:
    """Where the content of each member begins; members must be plain files that fill the archive.

    Raises:
        BundleError: If they are not, or do not.
    """
    twice = [name for name, count in Counter(entry.orig_filename for entry in entries).items() if count > 1]
    if twice:
        raise BundleError(f"{path}: {twice[0]!r} is in it twice; nothing was imported")
    offsets, position = {}, 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        file.seek(position)
        signature, *_, name_size, extra_size = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        name = file.read(name_size)
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if entry.orig_filename.endswith("/") or kind not in {0, stat.S_IFREG}:
            raise BundleError(f"{path}: {entry.orig_filename!r} is no plain file; nothing was imported")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED:
            raise BundleError(
                f"{path}: {entry.orig_filename!r} is compressed or encrypted, which members of a bundle are not"
            )
        begins_here = signature == _LOCAL_SIGNATURE and entry.header_offset == position
        if not begins_here or name != entry.orig_filename.encode():
            raise BundleError(f"{path}: there is something between its members; nothing was imported")
        offsets[entry.orig_filename] = position + _LOCAL_HEADER.size + name_size + extra_size
        position = offsets[entry.orig_filename] + entry.file_size
    file.seek(-_END_BYTES, io.SEEK_END)
    if position != end or not file.read(_END_BYTES).startswith(_END_SIGNATURE):
        raise BundleError(f"{path}: its members do not fill it; nothing was imported")
    return offsets


def checked_manifest(path: Path, content: bytes, sizes: Mapping[str, int]) -> Manifest:
    """The manifest of a bundle.

    Raises:
        BundleError: If it is none, or what it names is not what is there.
        SchemaVersionError: If its records are of a newer schema.
    """
    manifest = _parse_manifest(path, content)
    _check_members(path, manifest, sizes)
    return manifest


def _parse_manifest(path: Path, content: bytes) -> Manifest:
    """The manifest of a bundle that this version understands.

    Raises:
        BundleError: If it is none, or of a format this version does not know.
        SchemaVersionError: If its records are of a newer schema.
    """
    try:
        values = json.loads(content)
        kind, format_version, schema_version = (
            values[name] for name in ("format", "format_version", "schema_version")
        )
        members = {name: Member(**_typed(member)) for name, member in values["members"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as err:
        raise BundleError(f"{path}: {MANIFEST} is not that of a bundle; nothing was imported") from err
    if kind != bundle_format.FORMAT or type(format_version) is not int or type(schema_version) is not int:
        raise BundleError(f"{path}: {MANIFEST} is not that of a bundle; nothing was imported")
    if format_version > bundle_format.FORMAT_VERSION:
        raise BundleError(
            f"{path}: format version {format_version} is newer than {bundle_format.FORMAT_VERSION}, "
            "the newest that this version understands; upgrade task2vec-registry"
        )
    if schema_version > schema.SCHEMA_VERSION:
        raise SchemaVersionError(str(path), schema_version, schema.SCHEMA_VERSION)
    if format_version < 1 or schema_version < bundle_format.OLDEST_SCHEMA_VERSION:
        raise BundleError(
            f"{path}: format version {format_version} with schema version {schema_version} was never written; "
            f"the oldest are 1 and {bundle_format.OLDEST_SCHEMA_VERSION}"
        )
    return Manifest(
        schema_version, members, str(values.get("registry_id", ""))[:64], bundle_format.checksum(content)
    )


def _typed(member: dict[str, Any]) -> dict[str, Any]:
    """An entry of the manifest, if its values are of the types of ``Member``; else ``TypeError``."""
    for field in fields(Member):
        if type(member[field.name]) is not field.type:
            raise TypeError(field.name)
    return member


def _check_members(path: Path, manifest: Manifest, sizes: Mapping[str, int]) -> None:
    """Check that what is there is what the manifest names, and belongs; ``BundleError`` if not."""
    required = set(map(member_name, bundle_format.RECORD_TABLES))
    spaces = {name for name in manifest.members if EMBEDDINGS_MEMBER.fullmatch(name)}
    foreign = manifest.members.keys() - required - spaces | sizes.keys() - manifest.members.keys() - {MANIFEST}
    if foreign:
        raise BundleError(f"{path}: {min(foreign)!r} has no place in a bundle; nothing was imported")
    missing = required - manifest.members.keys() | manifest.members.keys() - sizes.keys()
    if missing:
        raise BundleError(f"{path}: {min(missing)} is missing; nothing was imported")
    for name, member in manifest.members.items():
        if member.bytes != sizes[name]:
            raise BundleError(f"{path}: {name} has {sizes[name]} bytes, the manifest says {member.bytes}")


def _has_gaps(rows: pa.Table) -> bool:
    """Whether a value is null that may not be, in a column or within a list."""
    for field, column in zip(rows.schema, rows.columns, strict=True):
        if column.null_count and not field.nullable:
            return True
        if hasattr(field.type, "value_type") and any(chunk.flatten().null_count for chunk in column.chunks):
            return True
    return False


def _difference(expected: pa.Schema, actual: pa.Schema) -> str:
    """What is wrong about columns, in words."""
    for one, other in zip(expected, actual, strict=False):
        if one != other:
            return f"its column {one.name} must be {one.type}, got {other.name} of {other.type}"
    return f"it has {len(actual)} columns, expected are {len(expected)}"


def _checksum(window: "_Window") -> str:
    digest = bundle_format.new_digest()
    while chunk := window.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


class _Window(io.RawIOBase):
    """The bytes of one member, read as a file of their own."""

    def __init__(self, file: IO[bytes], offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._position = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = max(0, min(len(buffer), self._size - self._position))
        self._file.seek(self._offset + self._position)
        content = self._file.read(wanted)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)
