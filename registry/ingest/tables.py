"""CSV files of results and experts: rows become records, bad rows are named with their line."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from registry.errors import DuplicateError, InvalidRecordError, NotFoundError, RegistryError
from registry.ingest.data import absolute_loader
from registry.records import ExpertRecord, ResultRecord

Record = TypeVar("Record", ResultRecord, ExpertRecord)

RESULT_COLUMNS = (
    "task", "expert", "accuracy", "metric", "protocol", "source", "seed", "run_id", "lower_is_better",
    "task_version",
)  # fmt: skip
EXPERT_COLUMNS = (
    "expert", "loader", "source_task", "num_params", "flops", "input_size", "license", "source_accuracy",
)  # fmt: skip

MOST_LINES = 5
"""Lines or names in one sentence."""

GROUPED = re.compile(r"\d{1,3}(?:(?:,\d{3})+|(?:['\u00a0\u202f ]\d{3})+|(?:\.\d{3}){2,})")
"""Whole numbers with their thousands apart."""

FACTORS = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}
MAX_WHOLE = 2**53  # up to here a float is exact, so that 1.5e9 may stand for 1,500,000,000


def read_results(path: Path, check: Callable[[ResultRecord], None]) -> tuple[list[ResultRecord], list[str]]:
    """Results of a CSV file with the columns task, expert, accuracy and optionally those of ``RESULT_COLUMNS``.

    Returns:
        The records of the good rows, and a sentence for each cause of bad ones.

    Raises:
        InvalidRecordError: If the file cannot be read or lacks a column.
    """

    def parse(row: dict[str, str]) -> ResultRecord:
        result = _result(row)
        check(result)
        return result

    return _read(path, RESULT_COLUMNS[:3], RESULT_COLUMNS[3:], parse)


def read_experts(path: Path) -> tuple[list[ExpertRecord], list[str]]:
    """Experts of a CSV file with the column expert and optionally the others of ``EXPERT_COLUMNS``.

    Returns:
        The records of the good rows, and a sentence for each bad one.

    Raises:
        InvalidRecordError: If the file cannot be read or lacks a column.
    """
    seen: set[str] = set()

    def parse(row: dict[str, str]) -> ExpertRecord:
        expert = _expert(row, path.parent)
        if expert.name in seen:
            raise DuplicateError(f"expert {expert.name} is given twice")
        seen.add(expert.name)
        return expert

    return _read(path, EXPERT_COLUMNS[:1], EXPERT_COLUMNS[1:], parse)


def _result(row: dict[str, str]) -> ResultRecord:
    return ResultRecord(
        row["task"],
        row["expert"],
        _share("accuracy", row["accuracy"]),
        metric=row["metric"] or "accuracy",
        protocol=row["protocol"] or "unspecified",
        seed=_whole("seed", row["seed"]),
        source=row["source"],
        lower_is_better=_yes_or_no("lower_is_better", row["lower_is_better"]),
        task_version=_whole("task_version", row["task_version"]) or 0,
        run_id=row["run_id"],
    )


def _yes_or_no(column: str, text: str) -> bool | None:
    """What a cell says, ``None`` if it is empty; ``InvalidRecordError`` if it is neither true nor false."""
    words = {"": None, "true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise InvalidRecordError(f"{column} must be true or false, got {text!r}")
    return words[text.lower()]


def _whole(column: str, text: str) -> int | None:
    """A whole number, ``None`` if the cell is empty; ``1.5e9`` is one, as are ``25,557,032`` and ``25.6M``.

    Raises:
        InvalidRecordError: If it is another number, too large to be exact, or none.
    """
    if not text:
        return None
    grouped = re.sub(r"[,.' \u00a0\u202f]", "", text) if GROUPED.fullmatch(text) else text
    factor = FACTORS.get(grouped[-1].lower(), 1)
    try:
        number = round(float(grouped[:-1]) * factor, 3) if factor > 1 else float(grouped)
    except ValueError:
        number = math.nan
    if not (number.is_integer() and abs(number) <= MAX_WHOLE):
        raise InvalidRecordError(f"{column} must be a whole number up to 2**53, got {text!r}")
    return int(number)


def _share(column: str, text: str) -> float:
    """A number; the record checks its range. ``95.3%`` is 0.953, and ``0,953`` as well.

    Raises:
        InvalidRecordError: If it is none, or a comma could stand before thousands.
    """
    number = text.removesuffix("%").strip()
    if re.fullmatch(r"[1-9]\d{0,2},\d{3}", number):
        raise InvalidRecordError(f"{column} {text!r} could mean two numbers; write it with a point")
    if re.fullmatch(r"\d*,\d+", number):
        number = number.replace(",", ".")
    try:
        return round(float(number) / 100, 12) if text.endswith("%") else float(number)
    except ValueError as err:
        raise InvalidRecordError(f"{column} must be a number from 0 to 1, got {text!r}") from err


def _expert(row: dict[str, str], folder: Path) -> ExpertRecord:
    return ExpertRecord(
        row["expert"],
        _loader(row["loader"], folder) or row["expert"],
        source_task=row["source_task"],
        num_params=_whole("num_params", row["num_params"]),
        flops=_whole("flops", row["flops"]),
        input_size=_whole("input_size", row["input_size"]),
        license=row["license"],
        source_accuracy=_share("source_accuracy", row["source_accuracy"]) if row["source_accuracy"] else None,
    )


def _loader(text: str, folder: Path) -> str:
    """A loader, of which a relative path is below the folder of the file; loading it says what is wrong."""
    try:
        return absolute_loader(text, folder) if text else ""
    except RegistryError:
        return text


def _read(
    path: Path, required: tuple[str, ...], optional: tuple[str, ...], parse: Callable[[dict[str, str]], Record]
) -> tuple[list[Record], list[str]]:
    records: list[Record] = []
    problems: list[tuple[int, RegistryError]] = []
    for line, row in csv_rows(path, required, optional):
        try:
            records.append(parse(cleaned(row, (*required, *optional))))
        except RegistryError as err:
            problems.append((line, err))
    return records, by_cause(path, problems)


def by_cause(path: Path, problems: Sequence[tuple[int, RegistryError]]) -> list[str]:
    """A sentence for each cause of bad rows, with the first lines that have it.

    Names that are not registered are one cause for all rows of a kind; any other sentence is one by itself.
    """
    causes: dict[str, list[tuple[int, RegistryError]]] = {}
    for line, error in problems:
        cause = f"unknown {error.kind}" if isinstance(error, NotFoundError) else str(error)
        causes.setdefault(cause, []).append((line, error))
    return [f"{path}, {_lines(rows)}: {_reason_of(rows)}" for rows in causes.values()]


def _lines(rows: Sequence[tuple[int, RegistryError]]) -> str:
    """The first lines of some rows, and how many more there are."""
    if len(rows) == 1:
        return f"line {rows[0][0]}"
    shown = ", ".join(str(line) for line, _ in rows[:MOST_LINES])
    more = len(rows) - MOST_LINES
    return f"lines {shown} and {more} more" if more > 0 else f"lines {shown}"


def _reason_of(rows: Sequence[tuple[int, RegistryError]]) -> str:
    """Why some rows are bad that have one cause."""
    first = rows[0][1]
    names = list(dict.fromkeys(error.name for _, error in rows if isinstance(error, NotFoundError)))
    if not isinstance(first, NotFoundError) or len(names) < 2:
        return str(first)
    more = f" and {len(names) - MOST_LINES} more" if len(names) > MOST_LINES else ""
    return f"{len(names)} {first.kind}s are not registered: {', '.join(names[:MOST_LINES])}{more}"


def csv_rows(
    path: Path, required: tuple[str, ...], optional: tuple[str, ...]
) -> Iterator[tuple[int, dict[str | Any, str | Any]]]:
    """Line number and fields of every row that is not blank; what is left over is under ``None``.

    Commas, semicolons, tabs or bars stand between fields: those that make the required columns of the header.

    Raises:
        InvalidRecordError: If the file cannot be read, lacks a required column or has one twice, or a quote
            that is not closed swallows rows.
    """
    from indexer.errors import DataError
    from indexer.tables.delimited import DELIMITERS, FALLBACK, Form, csv_rows, encoding_of, swallowed_rows

    try:
        encoding, _ = encoding_of(str(path), None)
        if encoding == FALLBACK:
            raise InvalidRecordError(f"{path}: cannot be read as CSV: it is not UTF-8 text")
        headers = {char: next(csv_rows(str(path), Form(encoding, char)), (0, []))[1] for char in DELIMITERS}
        fitting = (char for char in DELIMITERS if set(required) <= set(map(_column, headers[char])))
        delimiter = next(fitting, ",")
        columns = _columns(path, headers[delimiter], required, optional)
        rows = csv_rows(str(path), Form(encoding, delimiter))
        next(rows, None)
        for line, cells in rows:
            if swallowed_rows(cells, delimiter):
                raise InvalidRecordError(
                    f"{path}, line {line}: a field of several lines holds what looks like rows; close the "
                    "quote before it"
                )
            cells += [""] * (len(columns) - len(cells))
            yield line, {**dict(zip(columns, cells, strict=False)), None: cells[len(columns) :]}
    except DataError as err:
        raise InvalidRecordError(f"{path}: cannot be read as CSV: {err.problem}") from err
    except OSError as err:
        raise InvalidRecordError(
            f"{path}: cannot be read as CSV: {(err.strerror or str(err)).lower()}"
        ) from err


def _column(name: str) -> str:
    """The name of a column as we write it."""
    return "_".join(name.strip().lower().split())


def _columns(
    path: Path, header: Sequence[str], required: tuple[str, ...], optional: tuple[str, ...]
) -> list[str]:
    """Names of columns; ``InvalidRecordError`` if a required one is missing, or one is there twice."""
    present = [_column(column) for column in header]
    if missing := [column for column in required if column not in present]:
        raise InvalidRecordError(
            f"{path}: there is no column {missing[0]}; expected {','.join(required)}[,{','.join(optional)}], "
            f"found {','.join(present) or 'an empty file'}"
        )
    if twice := [column for column in (*required, *optional) if present.count(column) > 1]:
        raise InvalidRecordError(f"{path}: there are several columns {twice[0]}; keep the one that is meant")
    return present


def cleaned(row: dict[str | Any, str | Any], columns: tuple[str, ...]) -> dict[str, str]:
    """The columns we know, without spaces around the values, blank where they are missing.

    Raises:
        InvalidRecordError: If the row is longer than the header, as a comma without quotes makes it.
    """
    if any(row.get(None, ())):  # where csv puts what is left over
        raise InvalidRecordError("there are more fields than columns; put quotes around a field with a comma")
    return {column: row.get(column, "").strip() for column in columns}
