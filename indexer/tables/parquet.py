"""Rows of Parquet and Arrow files, and the bytes of images in them."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from indexer.errors import DataError

MAX_ROWS = 20_000_000
MAX_CELL = 131_072
"""Characters of a cell: as many as the csv module takes."""

_BATCH_ROWS = 1024
_BLOB_ROWS = 16
_MAX_THRIFT = 100_000  # columns, row groups and the like in the footer of a Parquet file
_HELD_BATCHES = 16


def open_parquet(spec: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Columns of a file, and those that hold the bytes of images: binary, or a struct of bytes and path.

    Raises:
        DataError: If it is no Parquet file, or claims too many rows.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(spec, thrift_container_size_limit=_MAX_THRIFT) as file:
            schema, num_rows = file.schema_arrow, file.metadata.num_rows
    except (pyarrow.ArrowException, UnicodeDecodeError, OverflowError) as error:
        raise DataError(spec, f"is not a Parquet file: {error}") from error
    # Sizes of columns are not asked for: pyarrow 26 ends the process where a damaged footer contradicts itself.
    if num_rows > MAX_ROWS:
        raise DataError(spec, f"claims {num_rows} rows; at most {MAX_ROWS} are read")
    return tuple(schema.names), tuple(field.name for field in schema if _holds_bytes(field.type))


def _holds_bytes(held: Any) -> bool:
    from pyarrow import types

    if types.is_struct(held):
        names = [held.field(index).name for index in range(held.num_fields)]
        return "bytes" in names and _holds_bytes(held.field(names.index("bytes")).type)
    return bool(types.is_binary(held) or types.is_large_binary(held))


def parquet_rows(
    spec: str, columns: Sequence[str], blobs: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and cells of every row; of images ``(size, path)``.

    Raises:
        DataError: If it is no Parquet file, or a column of another type than text, numbers, lists of these and
            images.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(spec, thrift_container_size_limit=_MAX_THRIFT) as file:
            texts = _texts(spec, file.schema_arrow, [column for column in columns if column not in blobs])
        # Dictionaries stay as they are in the file: decoded, a row of two bits may be a text of any length.
        with pyarrow.parquet.ParquetFile(spec, metadata=file.metadata, read_dictionary=texts) as file:
            rows = _BLOB_ROWS if set(columns) & set(blobs) else _BATCH_ROWS
            yield from _rows(spec, file.iter_batches(batch_size=rows, columns=list(columns)), columns, blobs)
    except (pyarrow.ArrowException, UnicodeDecodeError, OverflowError) as error:
        raise DataError(spec, f"is not a Parquet file: {error}") from error


def _rows(
    spec: str, batches: Iterable[Any], columns: Sequence[str], blobs: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    for batch in batches:
        cells = [
            _blob_cells(batch.column(column)) if column in blobs else _cells(spec, column, batch.column(column))
            for column in columns
        ]
        for values in zip(*cells, strict=True):
            number += 1
            yield f"row {number}", dict(zip(columns, values, strict=True))


def open_arrow(
    spec: str,
) -> tuple[tuple[str, ...], tuple[str, ...], Callable[[Sequence[str]], Iterator[Any]], Callable[[int], bytes]]:
    """Columns of an Arrow or Feather file, those of images, and what reads rows and the image in a row.

    Raises:
        DataError: If it is no such file, or holds too many rows.
    """
    import pyarrow
    from pyarrow import ipc

    try:
        source = pyarrow.memory_map(spec)
        try:
            table = ipc.open_file(source).read_all()
        except pyarrow.ArrowInvalid:
            source.seek(0)
            table = ipc.open_stream(source).read_all()
        table.validate(full=True)
    except (pyarrow.ArrowException, UnicodeDecodeError, OverflowError, OSError) as error:
        raise DataError(spec, f"is not an Arrow or Feather file: {error}") from error
    if len(table) > MAX_ROWS:
        raise DataError(spec, f"holds {len(table)} rows; at most {MAX_ROWS} are read")
    blobs = tuple(field.name for field in table.schema if _holds_bytes(field.type))

    def read(wanted: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        _texts(spec, table.schema, [column for column in wanted if column not in blobs])
        yield from _rows(spec, table.select(list(wanted)).to_batches(_BATCH_ROWS), wanted, blobs)

    def read_blob(row: int) -> bytes:
        cell = table.column(blobs[0])[row].as_py()
        return bytes(cell["bytes"] if isinstance(cell, dict) else cell)

    return tuple(table.schema.names), blobs, read, read_blob


def _texts(spec: str, schema: Any, columns: Sequence[str]) -> list[str]:
    """The columns of text, before anything is decompressed; ``DataError`` if a column is of a wrong type."""
    from pyarrow import types

    plain = (types.is_boolean, types.is_integer, types.is_floating, types.is_decimal, types.is_null)
    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    texts = []
    for column in columns:
        held = schema.field(column).type
        is_list = any(kind(held) for kind in lists)
        value = held.value_type if is_list or types.is_dictionary(held) else held
        if types.is_string(value) or types.is_large_string(value):
            texts += [] if is_list else [column]
        elif not any(kind(value) for kind in plain):
            raise DataError(spec, f"column {column!r} is of type {held}; expected text or numbers")
    return texts


def _cells(spec: str, column: str, values: Any) -> list[Any]:
    """The cells of a column, equal ones of a dictionary as one object.

    Raises:
        DataError: If a text is too long, or an index is none of the dictionary's.
    """
    import pyarrow.compute
    from pyarrow import types

    distinct, rows = values, None
    if types.is_dictionary(values.type):  # of which a batch uses a small part
        indices = values.indices.unique().drop_null()
        bounds = pyarrow.compute.min_max(indices).as_py()
        if len(indices) and not 0 <= bounds["min"] <= bounds["max"] < len(values.dictionary):
            raise DataError(spec, f"column {column!r} is damaged: a cell is none of its dictionary")
        distinct, rows = values.dictionary.take(indices), pyarrow.compute.index_in(values.indices, indices)
    if types.is_string(distinct.type) or types.is_large_string(distinct.type):
        longest = pyarrow.compute.max(pyarrow.compute.binary_length(distinct)).as_py() or 0
        if longest > MAX_CELL:
            raise DataError(
                spec, f"column {column!r} holds a text of {longest} bytes; at most {MAX_CELL} are read"
            )
    cells = list(distinct.to_pylist())
    return cells if rows is None else [None if row is None else cells[row] for row in rows.to_pylist()]


def _blob_cells(values: Any) -> list[tuple[int, str] | None]:
    """Size, and path if there is one, of images; ``None`` where there is neither bytes nor a path."""
    import pyarrow.compute
    from pyarrow import types

    is_struct = types.is_struct(values.type)
    sizes = pyarrow.compute.binary_length(values.field("bytes") if is_struct else values).to_pylist()
    names = [values.type.field(index).name for index in range(values.type.num_fields)] if is_struct else []
    paths = values.field("path").to_pylist() if "path" in names else [None] * len(sizes)
    valid = values.is_valid().to_pylist()
    return [
        (size or 0, "" if size is not None else str(path)) if is_set and (size, path) != (None, None) else None
        for size, path, is_set in zip(sizes, paths, valid, strict=True)
    ]


class ParquetImages:
    """Bytes of images by row. Reads go forward batch by batch, as samples are drawn in order of row."""

    def __init__(self, spec: str, column: str) -> None:
        """Open the file when the first image is read."""
        self._spec, self._column = spec, column
        self._lock = threading.Lock()
        self._batches: Iterator[Any] = iter(())
        self._next = 0
        self._held: list[tuple[int, Any]] = []

    def read(self, row: int) -> bytes:
        """Bytes of the image in a row, counted from 0; ``OSError`` if the file has changed since."""
        import pyarrow
        import pyarrow.parquet

        with self._lock:
            try:
                while (batch := self._holding(row)) is None:
                    if row < self._next or self._next == 0:
                        file = pyarrow.parquet.ParquetFile(self._spec, thrift_container_size_limit=_MAX_THRIFT)
                        self._batches = file.iter_batches(batch_size=_BLOB_ROWS, columns=[self._column])
                        self._next, self._held = 0, []
                    values = next(self._batches).column(0)
                    self._held = [*self._held[1 - _HELD_BATCHES :], (self._next, values)]
                    self._next += len(values)
            except (pyarrow.ArrowException, StopIteration) as error:
                raise OSError(f"{self._spec}: row {row + 1} cannot be read") from error
        cell = batch[1][row - batch[0]].as_py()
        return bytes(cell["bytes"] if isinstance(cell, dict) else cell)

    def _holding(self, row: int) -> tuple[int, Any] | None:
        return next((held for held in self._held if held[0] <= row < held[0] + len(held[1])), None)
