"""CSV files of results and experts: rows become records, bad rows are named with their line."""

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from registry.errors import DuplicateError, InvalidRecordError, NotFoundError, RegistryError
from registry.records import ExpertRecord, ResultRecord

Record = TypeVar("Record", ResultRecord, ExpertRecord)

RESULT_COLUMNS = (
    "task",
    "expert",
    "accuracy",
    "metric",
    "protocol",
    "source",
    "seed",
    "run_id",
    "lower_is_better",
)
EXPERT_COLUMNS = (
    "expert",
    "loader",
    "source_task",
    "num_params",
    "flops",
    "input_size",
    "license",
    "source_accuracy",
)

MOST_LINES = 5
"""Lines or names in one sentence."""

MAX_WHOLE = 2**53  # up to here a float is exact, so that 1.5e9 may stand for 1,500,000,000


def read_results(path: Path, check: Callable[[ResultRecord], None]) -> tuple[list[ResultRecord], list[str]]:
    """Results of a CSV file with the columns task, expert, accuracy and optionally those of ``RESULT_COLUMNS``.

    Args:
        path: The CSV file.
        check: Raises a ``RegistryError`` for a record that cannot be taken.

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
        expert = _expert(row)
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
        run_id=row["run_id"],
    )


def _yes_or_no(column: str, text: str) -> bool | None:
    """What a cell says, ``None`` if it is empty.

    Raises:
        InvalidRecordError: If it is neither true nor false.
    """
    words = {"": None, "true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise InvalidRecordError(f"{column} must be true or false, got {text!r}")
    return words[text.lower()]


def _whole(column: str, text: str) -> int | None:
    """A whole number, ``None`` if the cell is empty; ``1.5e9`` is one.

    Raises:
        InvalidRecordError: If it is another number, too large to be exact, or none.
    """
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (number.is_integer() and abs(number) <= MAX_WHOLE):
        raise InvalidRecordError(f"{column} must be a whole number up to 2**53, got {text!r}")
    return int(number)


def _share(column: str, text: str) -> float:
    """A number; the record checks its range.

    Raises:
        InvalidRecordError: If it is none.
    """
    try:
        return float(text)
    except ValueError as err:
        raise InvalidRecordError(f"{column} must be a number from 0 to 1, got {text!r}") from err


def _expert(row: dict[str, str]) -> ExpertRecord:
    return ExpertRecord(
        row["expert"],
        row["loader"] or row["expert"],
        source_task=row["source_task"],
        num_params=_whole("num_params", row["num_params"]),
        flops=_whole("flops", row["flops"]),
        input_size=_whole("input_size", row["input_size"]),
        license=row["license"],
        source_accuracy=_share("source_accuracy", row["source_accuracy"]) if row["source_accuracy"] else None,
    )


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
    """Line number and fields of every row.

    Raises:
        InvalidRecordError: If the file cannot be read, or lacks a required column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            reader.fieldnames = _columns(path, reader.fieldnames or (), required, optional)
            for row in reader:
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise InvalidRecordError(f"{path}: cannot be read as CSV: {_reason(err)}") from err


def _columns(
    path: Path, header: Sequence[str], required: tuple[str, ...], optional: tuple[str, ...]
) -> list[str]:
    """Names of the columns.

    Raises:
        InvalidRecordError: If a required one is missing.
    """
    present = [column.strip() for column in header]
    if missing := [column for column in required if column not in present]:
        raise InvalidRecordError(
            f"{path}: there is no column {missing[0]}; expected {','.join(required)}[,{','.join(optional)}], "
            f"found {','.join(present) or 'an empty file'}"
        )
    return present


def cleaned(row: dict[str | Any, str | Any], columns: tuple[str, ...]) -> dict[str, str]:
    """The columns we know, without spaces around the values, blank where they are missing.

    Raises:
        InvalidRecordError: If the row is longer than the header, as a comma without quotes makes it.
    """
    if any(row.get(None, ())):  # where csv puts what is left over
        raise InvalidRecordError("there are more fields than columns; put quotes around a field with a comma")
    return {column: row.get(column, "").strip() for column in columns}


def _reason(error: Exception) -> str:
    """Why a file cannot be read, without numbers that only programs know."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)
