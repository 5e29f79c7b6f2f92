"""Lists on pages: which rows are shown, in which order, and where the links to others lead."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

from fastapi import Request

from registry.errors import InvalidQueryError

Row = TypeVar("Row")

PAGE_ROWS = 50
MEASURED = {True: "measured", False: "not measured"}
"""What a facet calls things by whether there is a result of them."""


@dataclass(frozen=True)
class Listing(Generic[Row]):
    """Some rows of a list."""

    total: int
    offset: int
    limit: int
    rows: Sequence[Row]

    @property
    def page(self) -> int:
        """Number of the page shown, from 1."""
        return self.offset // self.limit + 1

    @property
    def num_pages(self) -> int:
        """How many pages there are, at least 1."""
        return max(1, -(-self.total // self.limit))


def sort_rows(
    rows: Sequence[Row], columns: Mapping[str, Callable[[Row], Any]], sort: str, *, descending: bool
) -> list[Row]:
    """Rows by a column, ties as they were, gaps last; ``InvalidQueryError`` without that column."""
    if sort not in columns:
        raise InvalidQueryError(f"this list cannot be sorted by {sort!r}; choose {' or '.join(columns)}")
    value = columns[sort]
    valued = [row for row in rows if value(row) is not None]
    return [*sorted(valued, key=value, reverse=descending), *(row for row in rows if value(row) is None)]


def page_of(rows: Sequence[Row], page: int, limit: int = PAGE_ROWS) -> Listing[Row]:
    """One page of rows that are all at hand; a page after the last one is empty."""
    offset = (page - 1) * limit
    return Listing(len(rows), offset, limit, rows[offset : offset + limit])


def rows_of(request: Request) -> int:
    """How many rows a page of a list has: all that there are, where they are wanted as CSV."""
    return 10**9 if "csv" in request.query_params else PAGE_ROWS


def facet_number(name: str, text: str) -> float | None:
    """The number in a facet, ``None`` where it is empty; any other text is an ``InvalidQueryError``."""
    try:
        return float(text) if text.strip() else None
    except ValueError:
        raise InvalidQueryError(f"{name} must be a number, got {text!r:.100}") from None


def link(path: str, query: Mapping[str, object], **changes: object) -> str:
    """A path with the query of this page, some of it changed; what is empty, false or ``None`` is left out."""
    shown = {name: value for name, value in {**query, **changes}.items() if value not in {None, "", False}}
    return f"{path}?{urlencode({name: _text(value) for name, value in shown.items()})}" if shown else path


def _text(value: object) -> str:
    return "1" if value is True else str(value)
