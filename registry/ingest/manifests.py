"""Which tasks are to be added: rows of a CSV, Parquet or JSON Lines file, or the folders of a folder.

    name,data,tags,max_samples
    flowers,./flowers,plants|outdoors,500

Columns are ``name`` and ``data``, and optionally ``tags``, ``split``, ``max_samples`` and ``seed``; others are
not looked at. Paths are relative to the file. In Parquet and JSON Lines the tags may be a list.

Files are read here, bounded by size, and not by ``indexer.tables.files``: its readers stop at the first bad row
and refuse lists, while of a manifest every bad row is named and the good ones can be taken.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from registry.errors import InvalidRecordError, RegistryError
from registry.gate import checked_name
from registry.ingest.data import make_settings
from registry.ingest.tables import cleaned, csv_rows

REQUIRED = ("name", "data")
OPTIONAL = ("tags", "split", "max_samples", "seed")
SEPARATOR = "|"
WITH_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # one letter is a drive
MAX_BYTES = 2**28
MAX_ROWS = 1_000_000
MAX_THRIFT = 100_000  # columns, row groups and the like in the footer of a Parquet file
ABOUT = "name,data[,tags,split,max_samples,seed]"


@dataclass(frozen=True)
class TaskRow:
    """A task that is to be added.

    Attributes:
        split: Split of this dataset; that of the whole run if ``None``.
        max_samples: Most samples of this dataset; that of the whole run if ``None``.
        seed: Seed of this sample; that of the whole run if ``None``.
        place: Where it was read, in words, such as ``line 7``; empty if it was not.
    """

    name: str
    data: str
    tags: tuple[str, ...] = ()
    split: str | None = None
    max_samples: int | None = None
    seed: int | None = None
    place: str = ""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidRecordError: If the name or a tag is not allowed, or there is no data.
            IngestError: If a number is out of its range.
        """
        checked_name("task", self.name)
        for tag in self.tags:
            checked_name("tag", tag)
        if not self.data:
            raise InvalidRecordError(f"task {self.name} names no data")
        make_settings(**self.options)

    @property
    def options(self) -> dict[str, Any]:
        """What it says of how its data is read."""
        said = {"split": self.split, "max_samples": self.max_samples, "seed": self.seed}
        return {name: value for name, value in said.items() if value is not None}


def read_task_rows(path: Path) -> tuple[list[TaskRow], list[str]]:
    """Tasks of a file, or of a folder each of whose folders is one.

    Returns:
        The good rows, and a sentence for each bad one.

    Raises:
        InvalidRecordError: If it cannot be read, lacks a column, or is of another kind.
    """
    if path.is_dir():
        listed = _folder_rows(path)
    else:
        readers = {
            ".csv": _csv_rows,
            ".tsv": _csv_rows,
            ".parquet": _parquet_rows,
            ".jsonl": _jsonl_rows,
            ".ndjson": _jsonl_rows,
        }
        read = readers.get(path.suffix.lower())
        if read is None:
            raise InvalidRecordError(
                f"{path}: expected a .csv, .parquet or .jsonl file with {ABOUT}, or a folder of task folders"
            )
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            raise InvalidRecordError(f"{path}: is larger than {MAX_BYTES} bytes; split it")
        listed = read(path)
    rows, problems = [], []
    for place, make in listed:
        try:
            rows.append(replace(make(), place=place))
        except RegistryError as err:
            problems.append(f"{path}, {place}: {err}" if place else f"{path}: {err}")
    return _unique(path, rows, problems)


def checked_rows(rows: Iterable[TaskRow]) -> list[TaskRow]:
    """Rows that a program made; ``InvalidRecordError`` if two are of one name."""
    checked, problems = _unique(None, list(rows), [])
    if problems:
        raise InvalidRecordError("; ".join(problems))
    return checked


ListedRows = Iterator[tuple[str, Callable[[], TaskRow]]]
"""Where a row is, and what makes it or says what is wrong with it."""


def _unique(path: Path | None, rows: list[TaskRow], problems: list[str]) -> tuple[list[TaskRow], list[str]]:
    """Take out rows of one name: nobody knows which is meant."""
    by_name = defaultdict(list)
    for row in rows:
        by_name[row.name].append(row)
    for name, same in by_name.items():
        if len(same) > 1:
            where = " and ".join(row.place for row in same if row.place)
            prefix = f"{path}, {where}: " if path else ""
            problems.append(f"{prefix}the task {name} is given {len(same)} times; give each a name of its own")
    return [row for row in rows if len(by_name[row.name]) == 1], problems


def _folder_rows(path: Path) -> ListedRows:
    """A task for each folder inside that is not hidden, by name; ``InvalidRecordError`` if there is none."""
    try:
        folders = sorted(one for one in path.iterdir() if one.is_dir() and not one.name.startswith("."))
    except OSError as err:
        raise InvalidRecordError(f"{path}: cannot be read: {(err.strerror or str(err)).lower()}") from err
    if not folders:
        raise InvalidRecordError(f"{path}: there is no folder inside; expected one for each task")
    for folder in folders:
        yield "", lambda folder=folder: TaskRow(folder.name, str(folder))  # type: ignore[misc]


def _csv_rows(path: Path) -> ListedRows:
    for line, row in csv_rows(path, REQUIRED, OPTIONAL):
        yield f"line {line}", lambda row=row: _row(path, cleaned(row, (*REQUIRED, *OPTIONAL)))  # type: ignore[misc]


def _parquet_rows(path: Path) -> ListedRows:
    """Rows of a Parquet file; ``InvalidRecordError`` if it cannot be read, or lacks a column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, thrift_container_size_limit=MAX_THRIFT)
        if file.metadata.num_rows > MAX_ROWS:  # compressed, they may be few bytes
            raise InvalidRecordError(f"{path}: has more than {MAX_ROWS} rows; split it")
        names = file.schema_arrow.names
        if twice := [name for name in (*REQUIRED, *OPTIONAL) if names.count(name) > 1]:
            raise InvalidRecordError(
                f"{path}: there are several columns {twice[0]}; keep the one that is meant"
            )
        if missing := [column for column in REQUIRED if column not in names]:
            raise InvalidRecordError(
                f"{path}: there is no column {missing[0]}; expected {ABOUT}, found {','.join(names)}"
            )
        rows = file.read([name for name in (*REQUIRED, *OPTIONAL) if name in names]).to_pylist()
    except (pa.ArrowException, OSError) as err:
        reason = " ".join(str(err).split())
        raise InvalidRecordError(f"{path}: cannot be read as Parquet: {reason}") from err
    for number, row in enumerate(rows, 1):
        yield f"row {number}", lambda row=row: _row(path, row)  # type: ignore[misc]


def _jsonl_rows(path: Path) -> ListedRows:
    """Rows of a JSON Lines file; ``InvalidRecordError`` if it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # other ends of lines may be in a text
    except (OSError, UnicodeDecodeError) as err:
        reason = "it is not UTF-8 text" if isinstance(err, UnicodeDecodeError) else err.strerror or str(err)
        raise InvalidRecordError(f"{path}: cannot be read: {reason.lower()}") from err
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield f"line {number}", lambda line=line: _row(path, _json_object(line))  # type: ignore[misc]


def _json_object(line: str) -> dict[str, Any]:
    """The object of a line; ``InvalidRecordError`` if it is none, or lacks a name or data."""
    try:
        row = json.loads(line, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as err:
        raise InvalidRecordError(f"it is no JSON: {err}") from err
    if not isinstance(row, dict):
        raise InvalidRecordError(
            f'expected an object such as {{"name": "flowers", "data": "./flowers"}}, got {line}'
        )
    if missing := [name for name in REQUIRED if name not in row]:
        raise InvalidRecordError(f"there is no {missing[0]}; expected {ABOUT}")
    return row


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; ``ValueError`` if a name is given twice."""
    if twice := [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]:
        raise ValueError(f"{twice[0]!r} is given twice")
    return dict(pairs)


def _row(path: Path, values: dict[str, Any]) -> TaskRow:
    """A row of values, which are text, numbers, lists or nothing."""
    data = _text(values, "data")
    return TaskRow(
        _text(values, "name"),
        _from(path.parent, data) if data else "",
        tags=_tags(values.get("tags")),
        split=_text(values, "split") or None,
        max_samples=_whole(values, "max_samples"),
        seed=_whole(values, "seed"),
    )


def _from(folder: Path, data: str) -> str:
    """A data spec whose path is relative to a folder; what starts with a scheme stays as it is."""
    return data if WITH_SCHEME.match(data) else str(folder / Path(data).expanduser())


def _text(values: dict[str, Any], column: str) -> str:
    """The text of a column, blank where there is none; ``InvalidRecordError`` if it is something else."""
    value = values.get(column)
    if not isinstance(value, str | None):
        raise InvalidRecordError(f"{column} must be text, got {value!r}")
    return (value or "").strip()


def _tags(value: Any) -> tuple[str, ...]:
    """Tags between bars, or in a list; ``InvalidRecordError`` if they are neither."""
    words = value.split(SEPARATOR) if isinstance(value, str) else value or []
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise InvalidRecordError(f"tags must be words between bars, such as plants|outdoors, got {value!r}")
    return tuple(word.strip() for word in words if word.strip())


def _whole(values: dict[str, Any], column: str) -> int | None:
    """A whole number, ``None`` where there is nothing; ``InvalidRecordError`` if it is no whole number."""
    value = values.get(column)
    if value is None or value == "":
        return None
    try:
        number = float(value)
        if not isinstance(value, bool) and number.is_integer():
            return int(number)
    except (TypeError, ValueError, OverflowError):
        pass
    raise InvalidRecordError(f"{column} must be a whole number, got {value!r}")
