"""Records and answers for others: as a pandas DataFrame, as HTML in a notebook, as plain JSON values.

A row is a record. A record within a record becomes columns of its own, ``found.accuracy``; an interval becomes
``interval_low`` and ``interval_high``. A notebook is shown the first ``ROWS_SHOWN`` rows, long cells shortened.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from html import escape
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeVar, overload

from registry.errors import MissingExtraError

if TYPE_CHECKING:
    from pandas import DataFrame as DataFrame  # named in signatures of answers

Record = TypeVar("Record")

ROWS_SHOWN = 60
DIGITS_SHOWN = 4
LONGEST_CELL = 80


class Records(list[Record]):
    """A list of records that a notebook shows as a table, and that becomes a DataFrame."""

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> Record: ...

    @overload
    def __getitem__(self, index: slice, /) -> "Records[Record]": ...

    def __getitem__(self, index: SupportsIndex | slice, /) -> "Record | Records[Record]":
        """A record, or some of them as such a list."""
        if isinstance(index, slice):
            return Records(super().__getitem__(index))
        return super().__getitem__(index)

    def to_pandas(self) -> "DataFrame":
        """One row for each record; ``MissingExtraError`` if pandas is not installed."""
        return to_pandas(self)

    def _repr_html_(self) -> str:
        shown = self[:ROWS_SHOWN]
        return html_table([row_of(record) for record in shown], more=len(self) - len(shown))


_printers: list[Callable[[Any], str]] = []


def printed_by(text_of: Callable[[Any], str]) -> None:
    """Let ``print`` show answers by this function; it is in another room, which flat files know nothing of."""
    _printers[:] = [text_of]


class Printed:
    """An answer that ``print`` shows as the command line prints it, if anybody has said how."""

    def __str__(self) -> str:
        """As the command line prints it; else its fields."""
        for text_of in _printers:
            with contextlib.suppress(LookupError):  # of a class that is not printed
                return text_of(self)
        return repr(self)


class Card(Printed):
    """A dataclass that a notebook shows as a table of its fields, and that becomes a DataFrame of one row."""

    def to_pandas(self) -> "DataFrame":
        """One row; ``MissingExtraError`` if pandas is not installed."""
        return to_pandas([self])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{escape(name)}</th><td>{_cell(value)}</td></tr>" for name, value in row_of(self).items()
        )
        return f"<table><caption>{type(self).__name__}</caption><tbody>{rows}</tbody></table>"


def row_of(record: Any, prefix: str = "") -> dict[str, Any]:
    """The columns of one record, in the order of its fields."""
    row: dict[str, Any] = {}
    for field in fields(record):
        name, value = f"{prefix}{field.name}", getattr(record, field.name)
        if is_dataclass(value):
            row |= row_of(value, f"{name}.")
        elif isinstance(value, dict):
            row |= {f"{name}.{key}": item for key, item in value.items()}
        elif field.name == "interval":
            row |= {f"{name}_low": value[0], f"{name}_high": value[1]}
        else:
            row[name] = value
    return row


def to_pandas(records: Iterable[Any]) -> "DataFrame":
    """A DataFrame with a row for each record; ``MissingExtraError`` if pandas is not installed."""
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtraError("to_pandas", "pandas", "pandas") from error
    return pd.DataFrame([row_of(record) for record in records])


def html_table(rows: Sequence[Mapping[str, Any]], *, caption: str = "", more: int = 0) -> str:
    """An HTML table of rows by column, everything escaped."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(row.get(name))}</td>" for name in names) + "</tr>" for row in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    table = f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return table + (f"<p>and {more} more</p>" if more else "" if rows else "<p>none</p>")


def _cell(value: Any) -> str:
    """A value as text, escaped."""
    if value is None:
        return ""
    if isinstance(value, float):
        text = f"{value:.{DIGITS_SHOWN}g}"
    elif isinstance(value, tuple | list):
        text = ", ".join(map(str, value))
    else:
        text = str(value)
    return escape(text if len(text) <= LONGEST_CELL else f"{text[: LONGEST_CELL - 1]}…")


def to_json(record: Any) -> Any:
    """Plain JSON values of a record, a sequence of records or a plain value; arrays are left to the caller."""
    if hasattr(record, "__dataclass_fields__"):
        return {name: to_json(getattr(record, name)) for name in record.__dataclass_fields__}
    if isinstance(record, dict):
        return {key: to_json(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [to_json(value) for value in record]
    return record
