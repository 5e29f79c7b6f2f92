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
from typing import Any, NamedTuple

import numpy as np

from indexer.errors import DataError
from indexer.listings import Dataset, Entry, choose_split, printable, target_names
from indexer.records import Kind

SEPARATOR = "|"
MAX_TARGET = float(np.finfo(np.float32).max)
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
    rows = choose_split(spec, by_split, split)
    files: dict[str, _File] = {}
    for row in rows:
        name = PurePosixPath(row.path).as_posix()
        if name in files:
            raise DataError(spec, f"{row.place}: path {row.path!r} is listed before; list each file once")
        files[name] = _listed_file(spec, row)
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
        read=lambda entry: bytes(entry.where.path.read_bytes()),
    )


def _rows_by_split(spec: str) -> tuple[Kind, dict[str, list[_Row]]]:
    """What the labels of the whole file are, and its rows by split ("" for none).

    Raises:
        DataError: If there are no rows or a cell is empty.
    """
    by_split: dict[str, list[_Row]] = {}
    without_label: list[str] = []
    kind: Kind = "single_label"
    for place, cells in _csv_rows(spec) if spec.lower().endswith(".csv") else _parquet_rows(spec):
        texts = {column: "" if cell is None else str(cell).strip() for column, cell in cells.items()}
        for column, text in texts.items():
            if not text and column != "label":
                raise DataError(spec, f"{place}: {column} is empty")
        if "target" in texts:
            kind = "regression"
        elif SEPARATOR in texts["label"]:
            kind = "multi_label"
        elif not texts["label"]:
            without_label.append(place)
        row = _Row(place, texts["path"], texts["target" if kind == "regression" else "label"])
        by_split.setdefault(texts.get("split", "").lower(), []).append(row)
    if not by_split:
        raise DataError(spec, "lists no samples; expected a row with path and label for each")
    if without_label and kind == "single_label":
        raise DataError(spec, f"{without_label[0]}: label is empty")
    return kind, by_split


def _listed_file(spec: str, row: _Row) -> _File:
    path = Path(spec).parent / row.path
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a null character
        raise DataError(spec, f"{row.place}: file {row.path!r} does not exist beside the manifest") from error
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
    return [column for column in ("path", "label", "target", "split") if column in found]


def _csv_rows(spec: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with Path(spec).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = _manifest_columns(spec, reader.fieldnames or ())
            for row in reader:
                place = f"line {reader.line_num}"
                if None in row:
                    raise DataError(spec, f"{place}: more fields than columns; put quotes around commas")
                yield place, {column: row[column] for column in columns}
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(spec, f"is not a CSV file in UTF-8: {error}") from error


def _parquet_rows(spec: str) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(spec) as file:
            columns = _manifest_columns(spec, file.schema_arrow.names)
            table = file.read(columns=columns)
    except pyarrow.ArrowException as error:
        raise DataError(spec, f"is not a Parquet file: {error}") from error
    for number, row in enumerate(table.to_pylist(), start=1):
        yield f"row {number}", {column: row[column] for column in columns}
