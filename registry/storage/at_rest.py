"""What a registry holds, read from the manifests of its tables; opening the database takes seconds.

A manifest of Lance ends with its place in the file, a version and ``LANC``; there begins a message of protocol
buffers after its length. Of it are read the rows of each fragment less those deleted, and the time of writing.

Source:
    Lance, table format: ``protos/table.proto``, messages Manifest, DataFragment and DeletionFile.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from registry.errors import StorageError
from registry.storage.checksums import MAGIC, VERSIONS_FOLDER

META, SUFFIX = "meta.lance", ".lance"
COUNTED = ("tasks", "experts", "results")
END = struct.Struct("<QHH4s")
VARINT, BYTES, FIXED_SIZES = 0, 2, {1: 8, 5: 4}  # kinds of fields
FRAGMENT, DELETION, NUM_ROWS, TIMESTAMP, SECONDS = 2, 3, 4, 7, 1


@dataclass(frozen=True)
class AtRest:
    """What lies in the folder of a registry.

    Attributes:
        rows: Rows of each table that is counted, removed ones and all versions too.
        written_at: Seconds since 1970 of the last write of any table.
    """

    rows: dict[str, int]
    written_at: int


def read_at_rest(folder: Path) -> AtRest | None:
    """What a registry holds; nothing is created, opened or locked.

    Args:
        folder: Where it may be.

    Returns:
        ``None`` where there is no registry.

    Raises:
        StorageError: If a manifest cannot be read.
    """
    if not (folder / META).is_dir():
        return None
    try:
        rows = {table: _newest(folder / f"{table}{SUFFIX}")[0] for table in COUNTED}
        written = max(_newest(path)[1] for path in folder.glob(f"*{SUFFIX}"))
    except (OSError, ValueError, LookupError, OverflowError, struct.error) as err:
        raise StorageError(f"{folder}: what it holds cannot be read; `t2v verify` says what is wrong") from err
    return AtRest(rows, written)


def _newest(table: Path) -> tuple[int, int]:
    """Rows of the newest version of a table, and when it was written; manifests are numbered downwards.

    Raises:
        ValueError: If it has no whole manifest.
    """
    content = min((table / VERSIONS_FOLDER).glob("*.manifest")).read_bytes()
    start, _, _, magic = END.unpack(content[-END.size :])
    if magic != MAGIC:
        raise ValueError(f"{table} has no manifest of Lance")
    (length,) = struct.unpack_from("<I", content, start)
    rows = written = 0
    for number, value in _fields(content[start + 4 : start + 4 + length]):
        if number == FRAGMENT:
            rows += _number(value, NUM_ROWS) - _number(_part(value, DELETION), NUM_ROWS)
        elif number == TIMESTAMP:
            written = _number(value, SECONDS)
    return rows, written


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
