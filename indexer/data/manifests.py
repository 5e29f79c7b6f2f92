"""Manifests: a CSV, Parquet or JSON Lines file of samples with labels or targets.

    path,label,split             one class each; or, if any label of the file holds "|", any number of labels
    a/1.png,red|round,train      between bars, where an empty label is none at all
    path,target                  a number, or as many for each file between bars: a regression
    a/1.png,0.5|12
    text,label                   texts in place of files; with target or split likewise
    "Fine, thanks.",positive

Paths are relative to the manifest; the column split may be left out. Paths and labels are held in memory; texts
are not, so their file is gone over again for every pass.
"""

import hashlib
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from indexer.data.listings import Entry, Listing, choose_split, fit_float32, printable, read_file, target_names
from indexer.data.tables import MAX_TEXT, table_columns, table_texts
from indexer.errors import DataError
from indexer.records import Kind, Reading

SEPARATOR = "|"
EXPECTED = "expected path,label or path,target, of texts text in place of path, and optionally split"


class _Row(NamedTuple):
    """One row of a manifest; ``place`` is its line or row number, in words, ``value`` its label or target."""

    place: str
    path: str
    value: str


class _File(NamedTuple):
    """A file that a row lists."""

    path: Path
    size: int


def open_manifest(spec: str, reading: Reading) -> Listing:
    """List the files, or the texts, that a manifest names.

    Raises:
        DataError: If it cannot be parsed, a column or cell is missing or of a wrong form, a file is listed
            twice or does not exist, or there is no such split.
    """
    if "text" in _manifest_columns(spec, table_columns(spec)):
        return _open_text_manifest(spec, reading.split)
    kind, by_split = _rows_by_split(spec)
    by_name = choose_split(spec, by_split, reading.split)
    files = {name: _listed_file(spec, row) for name, row in by_name.items()}
    rows = list(by_name.values())
    if kind == "regression":
        class_names, entries = _with_targets(spec, files, rows)
    else:
        class_names, entries = _with_labels(spec, files, rows, kind)
    return Listing(
        spec=spec,
        kind=kind,
        class_names=class_names,
        scan=lambda: entries,
        size=lambda entry: int(entry.where.size),
        read=lambda entry: read_file(entry.where.path),
    )


def _manifest_columns(spec: str, present: Sequence[str]) -> list[str]:
    """The columns of a manifest that are read, what the samples are made of first.

    Raises:
        DataError: If one is missing or there are too many.
    """
    got = f"{EXPECTED}, got {','.join(present) or 'none'}"
    if "path" in present and "text" in present:
        raise DataError(spec, "has both a column 'path' and a column 'text'; keep the one of the samples")
    if "path" not in present and "text" not in present:
        raise DataError(spec, f"column 'path' is missing; {got}")
    if "label" not in present and "target" not in present:
        raise DataError(spec, f"column 'label' is missing; {got}")
    if "label" in present and "target" in present:
        raise DataError(spec, "has both a column 'label' and a column 'target'; keep the one that is the task")
    columns = [column for column in ("path", "text", "label", "target", "split") if column in present]
    for column in columns:
        if present.count(column) > 1:
            raise DataError(spec, f"has {present.count(column)} columns {column!r}; keep the one that is meant")
    return columns


def _rows_by_split(spec: str) -> tuple[Kind, dict[str, dict[str, _Row]]]:
    """What the labels of the whole file are, and its rows by split ("" for none) and path.

    Raises:
        DataError: If there are no rows, a cell is empty, or a split lists a file twice.
    """
    by_split: dict[str, dict[str, _Row]] = {}
    unlabelled = ""
    kind: Kind = "single_label"
    for place, texts in _held_texts(spec):
        if "target" in texts:
            kind = "regression"
        elif SEPARATOR in texts["label"]:
            kind = "multi_label"
        elif not texts["label"]:
            unlabelled = unlabelled or place
        row = _Row(place, texts["path"], texts["target" if kind == "regression" else "label"])
        of_split = by_split.setdefault(texts.get("split", "").lower(), {})
        name = PurePosixPath(row.path).as_posix()
        if name in of_split:
            raise DataError(spec, f"{place}: path {row.path!r} is listed before; list each file once")
        of_split[name] = row
    if not by_split:
        raise DataError(spec, "lists no samples; expected a row with path and label for each")
    if unlabelled and kind == "single_label":
        raise DataError(spec, f"{unlabelled}: label is empty")
    return kind, by_split


def _held_texts(spec: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Place and cells of every row as text, equal ones as one object.

    Raises:
        DataError: If they are more than should be held.
    """
    shared: dict[str, str] = {}
    held = 0
    for place, texts in table_texts(spec, _manifest_columns, optional=("label",)):
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
    labels = [
        _label_names(spec, row.place, row.value) if kind == "multi_label" else [row.value] for row in rows
    ]
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
        numbers = _target_numbers(spec, row.place, row.value, first)
        first = first or (row.place, len(numbers))
        entries.append(Entry(name, file, targets=numbers))
    return target_names(len(entries[0].targets)), entries


class _Text(NamedTuple):
    """A text of a manifest; ``number`` counts the rows of all splits from 1."""

    number: int
    content: bytes


@dataclass(eq=False)
class _Split:
    """What the rows of a split hold.

    Attributes:
        cells: Their different labels.
        unlabelled: Place of the first without one.
        targets: Place and count of the first numbers.
    """

    cells: set[str] = field(default_factory=set)
    unlabelled: str = ""
    targets: tuple[str, int] | None = None


def _open_text_manifest(spec: str, split: str | None) -> Listing:
    """List the texts of a manifest.

    The name of a sample is its row with a hash of its text, so that what was hashed of all samples changes
    with any text.

    Raises:
        DataError: If it cannot be parsed, a cell is empty or of a wrong form, or there is no such split.
    """
    kind, by_split = _survey(spec)
    wanted = choose_split(spec, by_split, split)
    chosen = next(name for name, held in by_split.items() if held is wanted)
    if wanted.targets is not None:
        class_names = list(target_names(wanted.targets[1]))
    elif kind == "multi_label":
        class_names = sorted({name for cell in wanted.cells for name in _label_names(spec, "", cell)})
    else:
        class_names = sorted(wanted.cells)
    label_of = {name: label for label, name in enumerate(class_names)}

    def scan() -> Iterator[Entry]:
        for number, (place, texts) in enumerate(_rows(spec), start=1):
            if texts.get("split", "").lower() != chosen:
                continue
            text = _Text(number, texts["text"].encode())
            name = f"{number}:{hashlib.blake2b(text.content, digest_size=8).hexdigest()}"
            if "target" in texts:
                yield Entry(name, text, targets=_target_numbers(spec, place, texts["target"], wanted.targets))
                continue
            cell = texts["label"]
            names = _label_names(spec, place, cell) if kind == "multi_label" else [cell]
            if unknown := [name for name in names if name not in label_of]:
                raise DataError(spec, f"{place}: label {unknown[0]!r} is new; the file changed meanwhile")
            yield Entry(name, text, tuple(sorted(label_of[name] for name in names)))

    return Listing(
        spec=spec,
        kind=kind,
        class_names=tuple(printable(name) for name in class_names),
        scan=scan,
        size=lambda entry: len(entry.where.content),
        read=lambda entry: bytes(entry.where.content),
        order=lambda entry: entry.where.number,
        content="texts",
    )


def _survey(spec: str) -> tuple[Kind, dict[str, _Split]]:
    """What the labels of the whole file are, and what its splits hold.

    Raises:
        DataError: If there are no rows, or one has no label.
    """
    by_split: dict[str, _Split] = {}
    kind: Kind = "single_label"
    held = 0
    for place, texts in _rows(spec):
        of_split = by_split.setdefault(texts.get("split", "").lower(), _Split())
        if "target" in texts:
            kind = "regression"
            numbers = _target_numbers(spec, place, texts["target"], of_split.targets)
            of_split.targets = of_split.targets or (place, len(numbers))
            continue
        cell = texts["label"]
        if SEPARATOR in cell:
            kind = "multi_label"
        of_split.unlabelled = of_split.unlabelled or ("" if cell else place)
        if cell not in of_split.cells:
            if SEPARATOR in cell:
                _label_names(spec, place, cell)  # a wrong one is refused with its place
            of_split.cells.add(cell)
            held += len(cell)
        if held > MAX_TEXT:
            raise DataError(spec, f"{place}: more than {MAX_TEXT} characters of labels are not held")
    if not by_split:
        raise DataError(spec, "lists no samples; expected a row with text and label for each")
    unlabelled = next((held.unlabelled for held in by_split.values() if held.unlabelled), "")
    if unlabelled and kind == "single_label":
        raise DataError(spec, f"{unlabelled}: label is empty")
    return kind, by_split


def _rows(spec: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Place and cells of every row.

    Raises:
        DataError: If a text is no Unicode, as JSON allows.
    """
    for place, texts in table_texts(spec, _manifest_columns, optional=("label",)):
        try:
            texts["text"].encode()
        except UnicodeEncodeError as error:
            raise DataError(spec, f"{place}: text is no valid Unicode: {error.reason}") from error
        yield place, texts


def _label_names(spec: str, place: str, value: str) -> list[str]:
    """Labels between bars; an empty cell is none at all.

    Raises:
        DataError: If one is empty or repeated.
    """
    names = [name.strip() for name in value.split(SEPARATOR)] if value else []
    if "" in names or len(set(names)) < len(names):
        raise DataError(spec, f"{place}: label {value!r} must be names between bars, each of them once")
    return names


def _target_numbers(
    spec: str, place: str, value: str, first: tuple[str, int] | None = None
) -> tuple[float, ...]:
    """Numbers between bars.

    Args:
        spec: The data spec, for messages.
        place: Where the cell is, in words.
        value: The cell.
        first: Place and count of the numbers before it, of which all cells have equally many.

    Raises:
        DataError: If one is no number, is not finite, or they are not as many.
    """
    try:
        numbers = tuple(float(text) for text in value.split(SEPARATOR))
    except ValueError as error:
        raise DataError(
            spec, f"{place}: target {value!r} must be a number, or several between bars such as 1.5|2"
        ) from error
    if not fit_float32(numbers):
        raise DataError(spec, f"{place}: target {value!r} must be finite and fit 32-bit floats")
    if first is not None and len(numbers) != first[1]:
        raise DataError(
            spec,
            f"{place}: target {value!r} holds {len(numbers)} numbers where {first[0]} holds {first[1]}; give "
            "every sample the same targets",
        )
    return numbers
