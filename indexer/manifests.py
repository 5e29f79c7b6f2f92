"""Manifests: a CSV or Parquet file that lists image files beside it, with labels or targets; held in memory.

    path,label,split             one class each; or, if any label of the file holds "|", any number of labels
    a/1.png,red|round,train      between bars, where an empty label is none at all
    path,target                  a number, or as many for each file between bars: a regression
    a/1.png,0.5|12

Paths are relative to the manifest; the column split may be left out.
"""

import csv
import math
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TextIO

import numpy as np

from indexer.errors import DataError
from indexer.listings import Dataset, Entry, choose_split, printable, read_file, target_names
from indexer.records import Kind

SEPARATOR = "|"
MAX_TARGET = float(np.finfo(np.float32).max)
MAX_ROWS = 20_000_000
MAX_LINE = 2**20
"""Characters of a line of CSV."""

MAX_TEXT = 2**31
"""Characters of all cells that are held, equal labels once; Parquet compresses without limit."""

MAX_CELL = 131_072
"""Characters of a cell: as many as the csv module takes."""

_BATCH_ROWS = 1024
_MAX_THRIFT = 100_000  # columns, row groups and the like in the footer of a Parquet file
EXPECTED = "expected path,label or path,target and optionally split"


class _Row(NamedTuple):
    """One row of a manifest; ``place`` is its line or row number, in words, ``value`` its label or target."""

    place: str
    path: str
    value: str


class _File(NamedTuple):
    """A file that a row lists."""

    path: Path
    size: int


def open_manifest(spec: str, split: str | None) -> Dataset:
    """List the files that a manifest names.

    Raises:
        DataError: If it cannot be parsed, a column or cell is missing or of a wrong form, a file is listed
            twice or does not exist, or there is no such split.
    """
    kind, by_split = _rows_by_split(spec)
    by_name = choose_split(spec, by_split, split)
    files = {name: _listed_file(spec, row) for name, row in by_name.items()}
    rows = list(by_name.values())
    if kind == "regression":
        class_names, entries = _with_targets(spec, files, rows)
    else:
        class_names, entries = _with_labels(spec, files, rows, kind)
    return Dataset(
        spec=spec,
        kind=kind,
        class_names=class_names,
        scan=lambda: entries,
        size=lambda entry: int(entry.where.size),
        read=lambda entry: read_file(entry.where.path),
    )


def _rows_by_split(spec: str) -> tuple[Kind, dict[str, dict[str, _Row]]]:
    """What the labels of the whole file are, and its rows by split ("" for none) and path.

    Raises:
        DataError: If there are no rows, a cell is empty, or a split lists a file twice.
    """
    by_split: dict[str, dict[str, _Row]] = {}
    without_label: list[str] = []
    kind: Kind = "single_label"
    for place, texts in _texts(spec):
        if "target" in texts:
            kind = "regression"
        elif SEPARATOR in texts["label"]:
            kind = "multi_label"
        elif not texts["label"]:
            without_label.append(place)
        row = _Row(place, texts["path"], texts["target" if kind == "regression" else "label"])
        of_split = by_split.setdefault(texts.get("split", "").lower(), {})
        name = PurePosixPath(row.path).as_posix()
        if name in of_split:
            raise DataError(spec, f"{place}: path {row.path!r} is listed before; list each file once")
        of_split[name] = row
    if not by_split:
        raise DataError(spec, "lists no samples; expected a row with path and label for each")
    if without_label and kind == "single_label":
        raise DataError(spec, f"{without_label[0]}: label is empty")
    return kind, by_split


def _texts(spec: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Place and cells of every row as text, equal ones as one object.

    Raises:
        DataError: If a cell is empty, or they are more than should be held.
    """
    shared: dict[str, str] = {}
    held = 0
    rows = _csv_rows(spec) if spec.lower().endswith(".csv") else _parquet_rows(spec)
    for number, (place, cells) in enumerate(rows):
        texts = {column: "" if cell is None else str(cell).strip() for column, cell in cells.items()}
        for column, text in texts.items():
            if not text and column != "label":
                raise DataError(spec, f"{place}: {column} is empty")
            if column == "path":
                held += len(text)
            elif text not in shared:
                shared[text] = text
                held += len(text)
        if number >= MAX_ROWS or held > MAX_TEXT:
            raise DataError(
                spec,
                f"{place}: more than {MAX_ROWS} rows or {MAX_TEXT} characters are not held; split the file",
            )
        yield place, {column: shared.get(text, text) for column, text in texts.items()}


def _listed_file(spec: str, row: _Row) -> _File:
    path = Path(spec).parent / row.path
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a null character
        raise DataError(spec, f"{row.place}: file {row.path!r} does not exist beside the manifest") from error
    except OSError as error:  # such as a name that is too long
        raise DataError(spec, f"{row.place}: file {row.path!r} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(spec, f"{row.place}: {row.path!r} is not a file")
    return _File(path, status.st_size)


def _with_labels(
    spec: str, files: dict[str, _File], rows: Iterable[_Row], kind: Kind
) -> tuple[tuple[str, ...], list[Entry]]:
    """Names of the classes or labels, and an entry for each file.

    Raises:
        DataError: If labels between bars are empty or repeated.
    """
    labels = [_label_names(spec, row) if kind == "multi_label" else [row.value] for row in rows]
    class_names = sorted({name for names in labels for name in names})
    label_of = {name: label for label, name in enumerate(class_names)}
    entries = [
        Entry(name, file, tuple(sorted(label_of[label] for label in names)))
        for (name, file), names in zip(files.items(), labels, strict=True)
    ]
    return tuple(printable(name) for name in class_names), entries


def _label_names(spec: str, row: _Row) -> list[str]:
    names = [name.strip() for name in row.value.split(SEPARATOR)] if row.value else []
    if "" in names or len(set(names)) < len(names):
        raise DataError(spec, f"{row.place}: label {row.value!r} must be names between bars, each of them once")
    return names


def _with_targets(
    spec: str, files: dict[str, _File], rows: Sequence[_Row]
) -> tuple[tuple[str, ...], list[Entry]]:
    """Names of the targets, and an entry for each file.

    Raises:
        DataError: If a target is no number, or there are not equally many of each file.
    """
    targets = [_numbers(spec, row) for row in rows]
    for row, numbers in zip(rows, targets, strict=True):
        if len(numbers) != len(targets[0]):
            raise DataError(
                spec,
                f"{row.place}: target {row.value!r} holds {len(numbers)} numbers where {rows[0].place} holds "
                f"{len(targets[0])}; give every file the same targets",
            )
    entries = [
        Entry(name, file, targets=numbers) for (name, file), numbers in zip(files.items(), targets, strict=True)
    ]
    return target_names(len(targets[0])), entries


def _numbers(spec: str, row: _Row) -> tuple[float, ...]:
    try:
        numbers = tuple(float(text) for text in row.value.split(SEPARATOR))
    except ValueError as error:
        raise DataError(
            spec, f"{row.place}: target {row.value!r} must be a number, or several between bars such as 1.5|2"
        ) from error
    if not all(math.isfinite(number) and abs(number) <= MAX_TARGET for number in numbers):
        raise DataError(spec, f"{row.place}: target {row.value!r} must be finite and fit 32-bit floats")
    return numbers


def _manifest_columns(spec: str, found: Sequence[str]) -> list[str]:
    got = f"{EXPECTED}, got {','.join(found) or 'none'}"
    if "path" not in found:
        raise DataError(spec, f"column 'path' is missing; {got}")
    if "label" not in found and "target" not in found:
        raise DataError(spec, f"column 'label' is missing; {got}")
    if "label" in found and "target" in found:
        raise DataError(spec, "has both a column 'label' and a column 'target'; keep the one that is the task")
    columns = [column for column in ("path", "label", "target", "split") if column in found]
    for column in columns:
        if found.count(column) > 1:
            raise DataError(spec, f"has {found.count(column)} columns {column!r}; keep the one that is meant")
    return columns


def _csv_rows(spec: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with Path(spec).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(_lines(file), skipinitialspace=True)
            columns = _manifest_columns(spec, reader.fieldnames or ())
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
        Error: Of the csv module, if one is too long.
    """
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise csv.Error(f"a line is longer than {MAX_LINE} characters")
        yield line


def _parquet_rows(spec: str) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(spec, thrift_container_size_limit=_MAX_THRIFT) as file:
            columns = _manifest_columns(spec, file.schema_arrow.names)
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
