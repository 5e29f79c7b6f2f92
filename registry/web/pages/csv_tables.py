"""The tables of a page as CSV: each is given to ``?csv=TITLE``, with all rows of a list."""

import csv
import io
import re
from html.parser import HTMLParser

from registry.errors import NotFoundError

SCROLLS = ", scrolls sideways"
"""What the label of a table ends in, after its title."""

_GROUPED = re.compile(r"-?[0-9]{1,3}(,[0-9]{3})+")
_NUMBER = re.compile(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?")


def csv_of(page: str, title: str) -> str:
    """The rows of the table of a title; what is only drawn is left out, and no cell is a formula.

    Raises:
        NotFoundError: If the page has no such table.
    """
    reader = _Reader()
    reader.feed(page)
    if title not in reader.tables:
        raise NotFoundError("table of this page", title, reader.tables)
    rows = reader.tables[title]
    shown = [place for place in range(len(rows[0])) if any(row[place : place + 1] != [""] for row in rows[1:])]
    written = io.StringIO()
    csv.writer(written).writerows([[_plain(row[place]) for place in shown if place < len(row)] for row in rows])
    return written.getvalue()


def _plain(text: str) -> str:
    if text in {"\N{EN DASH}", "None"}:
        return ""
    if _GROUPED.fullmatch(text):
        return text.replace(",", "")
    return f"'{text}" if text[:1] in set("=+-@") and not _NUMBER.fullmatch(text) else text


class _Reader(HTMLParser):
    """Reads the tables of a page: the texts of their cells, or ``data-value`` where a cell has one."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self._title = ""
        self._value: str | None = None
        self._texts: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a table, a row or a cell."""
        given = dict(attrs)
        label = given.get("aria-label") or ""
        if tag == "div" and label.endswith(SCROLLS):
            self._title = label.removesuffix(SCROLLS)
        elif tag == "table" and self._title:
            self.tables[self._title] = []
        elif tag == "tr" and self._title in self.tables:
            self.tables[self._title].append([])
        elif tag in {"td", "th"}:
            self._value, self._texts = given.get("data-value"), []

    def handle_data(self, data: str) -> None:
        """Take the text of a cell."""
        if self._texts is not None:
            self._texts.append(data)

    def handle_endtag(self, tag: str) -> None:
        """End a cell or a table; a tag stands apart from the next one."""
        if tag in {"td", "th"} and self._texts is not None:
            text = " ".join("".join(self._texts).split()) if self._value is None else self._value
            if self._title in self.tables:
                self.tables[self._title][-1].append(text)
            self._texts = None
        elif tag == "li" and self._texts is not None:
            self._texts.append(" ")
        elif tag == "table":
            self._title = ""
