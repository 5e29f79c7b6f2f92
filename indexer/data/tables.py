"""Rows of CSV, Parquet and JSON Lines files, as they stream by; what is made to fill the memory is refused."""

import contextlib
import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from indexer.errors import DataError

MAX_ROWS = 20_000_000
MAX_LINE = 2**20
"""Characters of a line of CSV or JSON Lines."""

MAX_TEXT = 2**31
"""Characters of all cells that are held, equal labels once; Parquet compresses without limit."""

MAX_CELL = 131_072
"""Characters of a cell: as many as the csv module takes."""

_BATCH_ROWS = 1024
_MAX_THRIFT = 100_000  # columns, row groups and the like in the footer of a Parquet file

Choose = Callable[[str, Sequence[str]], list[str]]
"""From a data spec and the columns of a file to those that are read; refuses a file by its columns."""

Row = tuple[str, dict[str, Any]]
"""A row: its line or row number, in words, and its cells by column."""


def table_columns(spec: str) -> list[str]:
    """Columns of a file, of which no row is read; of JSON Lines, the names in the first line.

    Raises:
        DataError: If it is not what its name says.
    """
    names: list[str] = []

    def note(_spec: str, columns: Sequence[str]) -> list[str]:
        names.extend(columns)
        raise _ColumnsFoundError

    with contextlib.suppress(_ColumnsFoundError):
        next(_rows(spec, note), None)
    return names


class _ColumnsFoundError(Exception):
    """Ends a look at a file."""


def table_texts(
    spec: str, choose: Choose, optional: Sequence[str] = ()
) -> Iterator[tuple[str, dict[str, str]]]:
    """Place and cells of every row as text without blanks around it, one row after the other.

    Args:
        spec: Path of the file.
        choose: Which columns to read.
        optional: Columns that may be empty.

    Raises:
        DataError: If the file is not what its name says, another cell is empty, or there are too many rows.
    """
    for number, (place, cells) in enumerate(_rows(spec, choose), start=1):
        texts = {column: "" if cell is None else str(cell).strip() for column, cell in cells.items()}
        for column, text in texts.items():
            if not text and column not in optional:
                raise DataError(spec, f"{place}: {column} is empty")
        if number > MAX_ROWS:
            raise DataError(spec, f"{place}: more than {MAX_ROWS} rows are not read; split the file")
        yield place, texts


def _rows(spec: str, choose: Choose) -> Iterator[Row]:
    readers = {".csv": _csv_rows, ".jsonl": _json_rows, ".parquet": _parquet_rows}
    return readers[Path(spec).suffix.lower()](spec, choose)


def _csv_rows(spec: str, choose: Choose) -> Iterator[Row]:
    try:
        with Path(spec).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(_lines(file), skipinitialspace=True)
            columns = choose(spec, reader.fieldnames or ())
            for row in reader:
                place = f"line {reader.line_num}"
                if None in row:
                    raise DataError(spec, f"{place}: more fields than columns; put quotes around commas")
                yield place, {column: row[column] for column in columns}
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(spec, f"is not a CSV file in UTF-8: {error}") from error


def _lines(file: TextIO) -> Iterator[str]:
    """Lines of a file, none of which fills the memory.

    Raises:
        Error: From the csv module, if a line is too long.
    """
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise csv.Error(f"a line is longer than {MAX_LINE} characters")
        yield line


def _json_rows(spec: str, choose: Choose) -> Iterator[Row]:
    columns: list[str] | None = None
    number = 0
    try:
        with Path(spec).open(encoding="utf-8-sig") as file:
            for number, line in enumerate(_lines(file), start=1):
                place = f"line {number}"
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise DataError(spec, f"{place} is no JSON object; expected one on each line")
                if columns is None:
                    columns = choose(spec, list(row))
                for column in columns:
                    if isinstance(row.get(column), dict | list):
                        raise DataError(spec, f"{place}: {column} must be text or a number")
                yield place, {column: row.get(column) for column in columns}
    except (UnicodeDecodeError, csv.Error, RecursionError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(spec, f"is not a file of JSON Lines in UTF-8: line {number}: {error}") from error
    if columns is None:
        choose(spec, [])


def _parquet_rows(spec: str, choose: Choose) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(spec, thrift_container_size_limit=_MAX_THRIFT) as file:
            columns = choose(spec, file.schema_arrow.names)
            texts = _check_parquet(spec, file, columns)
        # Dictionaries stay as they are in the file: decoded, a row of two bits may be a text of any length.
        with pyarrow.parquet.ParquetFile(spec, metadata=file.metadata, read_dictionary=texts) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
                cells = [_cells(spec, column, batch.column(column)) for column in columns]
                for values in zip(*cells, strict=True):
                    number += 1
                    yield f"row {number}", dict(zip(columns, values, strict=True))
    except (pyarrow.ArrowException, UnicodeDecodeError, OverflowError) as error:
        raise DataError(spec, f"is not a Parquet file: {error}") from error


def _check_parquet(spec: str, file: Any, columns: Sequence[str]) -> list[str]:
    """Refuse a Parquet file by its footer, before anything of it is decompressed; gives the columns of text.

    Raises:
        DataError: If a column is of a wrong type, or there are too many rows.
    """
    from pyarrow import types

    plain = (types.is_boolean, types.is_integer, types.is_floating, types.is_decimal, types.is_null)
    texts = []
    for column in columns:
        held = file.schema_arrow.field(column).type
        value = held.value_type if types.is_dictionary(held) else held
        if types.is_string(value) or types.is_large_string(value):
            texts.append(column)
        elif not any(kind(value) for kind in plain):
            raise DataError(spec, f"column {column!r} is of type {held}; expected text or numbers")
    # Sizes of columns are not asked for: pyarrow 26 ends the process where a damaged footer contradicts itself.
    if file.metadata.num_rows > MAX_ROWS:
        raise DataError(spec, f"claims {file.metadata.num_rows} rows; at most {MAX_ROWS} are read")
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
