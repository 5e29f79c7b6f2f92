"""The footer and the page headers of a Parquet file, read and checked before a Parquet library sees them.

That library trusts them. A page may ask for any amount of memory: 18 of 12,348 changed numbers in the footers
of two files of 5 KB made pyarrow 26 ask for more than 4 GiB. To ask it for the compression of a column, as a
check in its terms has to, ends the process where it does not know the value (204 of 3,618 changes). Here
footers and headers are read as what they are, structures of Thrift's compact protocol, and may hold only what
``registry.bundles.format`` writes: plain pages compressed by zstd, one column after the other, no
dictionaries, no encryption, nothing in between.

Tables of Arrow's IPC format would need no such check: 75,000 random changes to two of them, read and validated
by pyarrow 26, raised an error or gave other values, and ended no process. But bundles that were written before
are Parquet and must be read for good, so a second format would be code beside this, not in its place.

Source: ``parquet.thrift`` of https://github.com/apache/parquet-format and Thrift's compact protocol.
"""

import struct
from dataclasses import dataclass
from typing import IO, Any

MAGIC = b"PAR1"
MAX_PAGE_HEADER_BYTES = 1024
MAX_DEPTH = 16

ZSTD = 6
DATA_PAGE, PLAIN, RLE, BOOLEAN = 0, 0, 3, 0

Fields = dict[int, Any]


@dataclass(frozen=True)
class RowGroup:
    """A row group: its rows, and the bytes of its pages in memory."""

    rows: int
    bytes: int


def read_footer(file: IO[bytes], size: int) -> list[RowGroup]:
    """Read a Parquet file up to its values; ``ValueError`` if it has not the form of a bundle's."""
    file.seek(max(0, size - 8))
    tail = file.read(8)
    file.seek(0)
    if size < 12 or tail[4:] != MAGIC or file.read(4) != MAGIC:
        raise ValueError("it is no Parquet file")
    (footer_size,) = struct.unpack("<I", tail[:4])
    start = size - 8 - footer_size
    _require(start >= 4, "its footer is longer than the file")
    file.seek(start)
    footer = _Thrift(file.read(footer_size)).structure()
    _require(footer.keys() <= {1, 2, 3, 4, 5, 6, 7}, "its footer has what it should not")
    position, groups = 4, []
    for group in _typed(footer, 4, list):
        columns = [_typed(_structure(column), 3, dict) for column in _typed(_structure(group), 1, list)]
        rows = _typed(group, 3, int)
        _require(rows >= 0, "a row group has fewer than no rows")
        for column, chunk in zip(columns, group[1], strict=True):
            _require(chunk.keys() <= {2, 3}, "a column is elsewhere or encrypted")
            _check_pages(file, column, rows, position)
            position += column[7]
        groups.append(RowGroup(rows, sum(column[6] for column in columns)))
    _require(position == start, "its columns do not fill it")
    _require(
        _typed(footer, 3, int) == sum(group.rows for group in groups), "its row groups have other rows than it"
    )
    return groups


def _check_pages(file: IO[bytes], column: Fields, rows: int, position: int) -> None:
    """Go from page header to page header of a column, which begins at a position."""
    values, in_memory, in_file = (_typed(column, number, int) for number in (5, 6, 7))
    encodings = set(_typed(column, 2, list))
    _require(_typed(column, 4, int) == ZSTD, "a column is not compressed by zstd")
    _require(
        encodings <= {PLAIN, RLE} and not {10, 11} & column.keys(), "a column has a dictionary or an index"
    )
    _require(_typed(column, 9, int) == position, "there is something between its columns")
    # A value takes four bytes or more, but for flags and what is not there: an empty list, a missing number.
    _require(min(in_memory, in_file) >= 0 and values <= rows + in_memory // 4, "a column has too many values")
    end, seen_values, seen_bytes = position + in_file, 0, 0
    while position < end:
        file.seek(position)
        thrift = _Thrift(file.read(min(MAX_PAGE_HEADER_BYTES, end - position)))
        page = thrift.structure()
        header = _typed(page, 5, dict)
        _require(
            _typed(page, 1, int) == DATA_PAGE and not {7, 8} & page.keys(), "it has a page of another kind"
        )
        encoding = _typed(header, 2, int)
        _require(encoding == PLAIN or (encoding == RLE and column.get(1) == BOOLEAN), "a page is not plain")
        _require(
            all(header.get(number) == RLE for number in (3, 4)),
            "the levels of a page are not as they should be",
        )
        _require(
            min(_typed(page, 2, int), _typed(page, 3, int), _typed(header, 1, int)) >= 0, "a size is negative"
        )
        seen_values += header[1]
        seen_bytes += thrift.position + page[2]
        position += thrift.position + page[3]
    whole = (position, seen_values, seen_bytes) == (end, values, in_memory)
    _require(whole, "its pages are not those in its footer")


def _require(condition: bool, what: str) -> None:
    """State what has to hold; ``ValueError`` if it does not."""
    if not condition:
        raise ValueError(what)


def _structure(value: Any) -> Fields:
    _require(isinstance(value, dict), "its footer makes no sense")
    return dict(value)


def _typed(fields: Fields, number: int, kind: type) -> Any:
    """A field, which must be there and of a type."""
    _require(type(fields.get(number)) is kind, "its footer makes no sense")
    return fields[number]


class _Thrift:
    """Reads structures as dicts from the number of a field to its value."""

    def __init__(self, content: bytes) -> None:
        self.position = 0
        self._content = content

    def structure(self, depth: int = 0) -> Fields:
        """The structure that begins here."""
        _require(depth < MAX_DEPTH, "its footer is nested too deeply")
        fields: Fields = {}
        number = 0
        while head := self._bytes(1)[0]:
            number = number + (head >> 4) if head >> 4 else self._integer()
            _require(number not in fields, "its footer says something twice")
            fields[number] = self._value(head & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in {1, 2}:
            return kind == 1
        if kind == 3:
            return self._bytes(1)[0]
        if kind in {4, 5, 6}:
            return self._integer()
        if kind == 7:
            return self._bytes(8)
        if kind == 8:
            return self._bytes(self._varint())
        if kind in {9, 10}:
            return self._list(depth)
        _require(kind == 12, "its footer makes no sense")  # 11 are maps, of which Parquet has none
        return self.structure(depth + 1)

    def _list(self, depth: int) -> list[Any]:
        head = self._bytes(1)[0]
        size = self._varint() if head >> 4 == 15 else head >> 4
        _require(size <= len(self._content) - self.position, "its footer is cut off")
        kind = head & 15
        _require(depth < MAX_DEPTH, "its footer is nested too deeply")
        return [self._bytes(1) if kind in {1, 2} else self._value(kind, depth + 1) for _ in range(size)]

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._bytes(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("its footer makes no sense")

    def _bytes(self, size: int) -> bytes:
        content = self._content[self.position : self.position + size]
        _require(len(content) == size, "its footer is cut off")
        self.position += size
        return content
