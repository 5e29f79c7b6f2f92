"""Files of rows: CSV, TSV, JSON, Parquet, Arrow and Excel, as they stream by, with limits to what is held."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from indexer.errors import DataError, MissingLibraryError
from indexer.tables.delimited import csv_rows, encoding_of, form_of, lines_of, suffix_of, swallowed_rows
from indexer.tables.parquet import MAX_ROWS, open_arrow, open_parquet, parquet_rows
from indexer.tables.plain_files import json_rows, list_rows

MAX_TEXT = 2**31
"""Characters of all cells that are held, equal labels once; Parquet compresses without limit."""

TEXT_FILES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".txt")
ARROW_FILES = (".arrow", ".feather")
TABLE_FILES = (*TEXT_FILES, *ARROW_FILES, ".parquet", ".xlsx")
"""Endings of files of rows; those of text may have ``.gz`` behind them."""

_SUSPECTS = 10_000

Row = tuple[str, dict[str, Any]]
"""A row: its line or row number, in words, and its cells by column."""


@dataclass(frozen=True)
class Table:
    """A file of rows, of which none is held.

    Attributes:
        columns: Names of the columns, as often as they are there.
        read: From the columns that are wanted to the rows.
        taken: What was guessed of how it is written, in sentences.
        blobs: Columns of Parquet that hold the bytes of images; their cells are ``(size, path)``.
        suspects: Rows that seem to lie inside a cell of several lines, as far as rows were read: where, and how
            their cells would be; see ``indexer.tables.delimited.swallowed_rows``.
        read_blob: The image in a row, counted from 0, where they are not in a Parquet file.
    """

    spec: str
    columns: tuple[str, ...]
    read: Callable[[Sequence[str]], Iterator[Row]] = field(repr=False)
    taken: tuple[str, ...] = ()
    blobs: tuple[str, ...] = ()
    suspects: list[Row] = field(default_factory=list, repr=False)
    read_blob: Callable[[int], Any] | None = field(default=None, repr=False)

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Place and cells of every row; ``DataError`` if the file is none of its kind, or too long."""
        for number, row in enumerate(self.read(columns), start=1):
            if number > MAX_ROWS:
                raise DataError(self.spec, f"{row[0]}: more than {MAX_ROWS} rows are not read; split the file")
            yield row

    def peek(self, count: int) -> list[dict[str, str]]:
        """The first rows as texts, without the bytes of images."""
        plain = [column for column in dict.fromkeys(self.columns) if column not in self.blobs]
        return [
            {column: cell_text(cell) for column, cell in cells.items()}
            for _, cells in islice(self.read(plain), count)
        ]


def open_table(spec: str, encoding: str | None = None, delimiter: str | None = None) -> Table:
    """Open a file of rows, by its suffix.

    Raises:
        DataError: If it is not what its name says, or an option does not go with it.
        MissingLibraryError: If it is an Excel file, and the library that reads these is not installed.
        OSError: If it cannot be read.
    """
    suffix = suffix_of(spec)
    is_text = suffix in TEXT_FILES
    for name, given, fits in (
        ("delimiter", delimiter, suffix in (".csv", ".tsv")),
        ("encoding", encoding, is_text),
    ):
        if given is not None and not fits:
            raise DataError(spec, f"has no {name} that could be chosen; leave {name}= out")
    if suffix in (".jsonl", ".ndjson"):
        return _open_json_lines(spec, encoding)
    if suffix == ".parquet":
        columns, blobs = open_parquet(spec)
        return Table(spec, columns, lambda wanted: parquet_rows(spec, wanted, blobs), blobs=blobs)
    if suffix in ARROW_FILES:
        columns, blobs, read, read_blob = open_arrow(spec)
        return Table(spec, columns, read, blobs=blobs, read_blob=read_blob)
    if suffix in (".json", ".txt"):
        return _of_dicts(spec, *(json_rows if suffix == ".json" else list_rows)(spec, encoding))
    if suffix == ".xlsx":
        return _open_excel(spec)
    form = form_of(spec, encoding, delimiter)
    suspects: list[Row] = []

    def start() -> Iterator[tuple[str, list[Any]]]:
        columns: list[str] = []
        for line, cells in csv_rows(spec, form):
            columns = columns or [cell.strip() for cell in cells]
            if len(suspects) < _SUSPECTS:
                inner = swallowed_rows(cells, form.delimiter)
                suspects.extend((f"line {line}", dict(zip(columns, row, strict=False))) for row in inner)
            yield f"line {line}", list(cells)

    return replace(_of_lists(spec, start, form.taken), suspects=suspects)


def cell_text(cell: Any) -> str:
    """A cell as text without blanks around it; what is missing is empty, a list is its parts between bars."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, list):
        return "|".join(map(cell_text, cell))
    return str(cell).strip()


def _of_lists(
    spec: str, start: Callable[[], Iterator[tuple[str, list[Any]]]], taken: tuple[str, ...] = ()
) -> Table:
    """A table of which the first row is the header."""
    header = next(start(), ("", []))[1]
    columns = tuple(cell_text(cell) for cell in header)

    def read(wanted: Sequence[str]) -> Iterator[Row]:
        places = {column: columns.index(column) for column in wanted}
        rows = start()
        next(rows, None)
        for place, cells in rows:
            if len(cells) > len(columns) and any(cell_text(cell) for cell in cells[len(columns) :]):
                raise DataError(spec, f"{place}: more fields than columns; put quotes around commas")
            yield (place, {column: cells[at] if at < len(cells) else None for column, at in places.items()})

    return Table(spec, columns, read, taken)


def _of_dicts(spec: str, rows: list[dict[str, Any]], taken: tuple[str, ...]) -> Table:
    """A table of rows that are held."""

    def read(wanted: Sequence[str]) -> Iterator[Row]:
        for number, row in enumerate(rows, start=1):
            yield f"row {number}", {column: _plain_cell(spec, number, column, row) for column in wanted}

    return Table(spec, tuple(dict.fromkeys(name for row in rows for name in row)), read, taken)


def _plain_cell(spec: str, number: int, column: str, row: dict[str, Any]) -> Any:
    if isinstance(cell := row.get(column), dict) or (isinstance(cell, list) and not _is_flat(cell)):
        raise DataError(spec, f"row {number}: {column} must be text, a number, or a list of these")
    return cell


def _open_json_lines(spec: str, encoding: str | None) -> Table:
    """A file of JSON objects; its columns are those of all of its lines, so it is gone over once.

    Raises:
        DataError: If a line is no object.
    """
    encoding, taken = encoding_of(spec, encoding)
    names: dict[str, None] = {}
    for _, row in _json_objects(spec, encoding):
        names.update(dict.fromkeys(row))

    def read(wanted: Sequence[str]) -> Iterator[Row]:
        for place, row in _json_objects(spec, encoding):
            for column in wanted:
                if isinstance(cell := row.get(column), dict) or (isinstance(cell, list) and not _is_flat(cell)):
                    raise DataError(spec, f"{place}: {column} must be text, a number, or a list of these")
            yield place, {column: row.get(column) for column in wanted}

    return Table(spec, tuple(names), read, taken)


def _is_flat(cell: list[Any]) -> bool:
    return not any(isinstance(part, dict | list) or part is None for part in cell)


def _json_objects(spec: str, encoding: str) -> Iterator[Row]:
    for number, line in enumerate(lines_of(spec, encoding), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_without_repeats)
        except (RecursionError, ValueError) as error:
            raise DataError(
                spec, f"line {number} is no JSON, of which each line is an object: {error}"
            ) from error
        if not isinstance(row, dict):
            raise DataError(spec, f"line {number} is no JSON object; expected one on each line")
        yield f"line {number}", row


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        repeated = next(name for place, (name, _) in enumerate(pairs) if name in dict(pairs[:place]))
        raise ValueError(f"{repeated!r} is given twice")
    return row


def _open_excel(spec: str) -> Table:
    """The first sheet of a workbook; formulas count as what they gave when it was saved.

    Raises:
        DataError: If it is no workbook.
        MissingLibraryError: If openpyxl is not installed.
    """
    try:
        import openpyxl
    except ImportError as error:
        raise MissingLibraryError(spec, "openpyxl", "data") from error

    def start() -> Iterator[tuple[str, list[Any]]]:
        try:
            book = openpyxl.load_workbook(spec, read_only=True, data_only=True)
            for number, cells in enumerate(book.worksheets[0].iter_rows(values_only=True), start=1):
                if any(cell_text(cell) for cell in cells):
                    yield f"row {number}", list(cells)
        except Exception as error:  # damaged workbooks raise nearly anything, such as KeyError
            raise DataError(spec, f"is not an Excel workbook: {error}") from error

    try:
        sheets = openpyxl.load_workbook(spec, read_only=True).sheetnames
    except Exception as error:
        raise DataError(spec, f"is not an Excel workbook: {error}") from error
    taken = (f"the first of its sheets, {sheets[0]!r}",) if len(sheets) > 1 else ()
    return _of_lists(spec, start, taken)
