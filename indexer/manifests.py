"""Manifests: a CSV, Parquet or JSON Lines file of samples with labels or targets.

    path,label,split             one class each; or, if any label of the file holds "|", any number of labels
    a/1.png,red|round,train      between bars, where an empty label is none at all
    path,target                  a number, or as many for each file between bars: a regression
    a/1.png,0.5|12
    text,label                   texts in place of files, see indexer.text_manifests

Paths are relative to the manifest; the column split may be left out. Paths and labels are held in memory, texts
are not.
"""

import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from indexer.cells import SEPARATOR, label_names, manifest_columns, target_numbers
from indexer.errors import DataError
from indexer.listings import Dataset, Entry, choose_split, printable, read_file, target_names
from indexer.records import Kind
from indexer.tables import MAX_TEXT, table_columns, table_texts
from indexer.text_manifests import open_text_manifest


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
    """List the files, or the texts, that a manifest names.

    Raises:
        DataError: If it cannot be parsed, a column or cell is missing or of a wrong form, a file is listed
            twice or does not exist, or there is no such split.
    """
    if "text" in manifest_columns(spec, table_columns(spec)):
        return open_text_manifest(spec, split)
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
    for place, texts in _held_texts(spec):
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


def _held_texts(spec: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Place and cells of every row as text, equal ones as one object.

    Raises:
        DataError: If they are more than should be held.
    """
    shared: dict[str, str] = {}
    held = 0
    for place, texts in table_texts(spec, manifest_columns, optional=("label",)):
        for column, text in texts.items():
            if column == "path":
                held += len(text)
            elif text not in shared:
                shared[text] = text
                held += len(text)
        if held > MAX_TEXT:
            raise DataError(spec, f"{place}: more than {MAX_TEXT} characters are not held; split the file")
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
    """Names of the classes or labels, and an entry for each file."""
    labels = [label_names(spec, row.place, row.value) if kind == "multi_label" else [row.value] for row in rows]
    class_names = sorted({name for names in labels for name in names})
    label_of = {name: label for label, name in enumerate(class_names)}
    entries = [
        Entry(name, file, tuple(sorted(label_of[label] for label in names)))
        for (name, file), names in zip(files.items(), labels, strict=True)
    ]
    return tuple(printable(name) for name in class_names), entries


def _with_targets(
    spec: str, files: dict[str, _File], rows: Sequence[_Row]
) -> tuple[tuple[str, ...], list[Entry]]:
    """Names of the targets, and an entry for each file."""
    first: tuple[str, int] | None = None
    entries = []
    for (name, file), row in zip(files.items(), rows, strict=True):
        numbers = target_numbers(spec, row.place, row.value, first)
        first = first or (row.place, len(numbers))
        entries.append(Entry(name, file, targets=numbers))
    return target_names(len(entries[0].targets)), entries
