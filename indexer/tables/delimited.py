"""Text files of rows, such as CSV: their encoding, what stands between cells, and quotes that are left open."""

import codecs
import csv
import gzip
import io
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TextIO

from indexer.errors import DataError

MAX_LINE = 2**20
"""Characters of a line of CSV or JSON Lines."""

DELIMITERS = (",", ";", "\t", "|")
WORDS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "bar": "|", "space": " "}
FALLBACK = "cp1252"

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}
_MARKS |= {
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}  # after UTF-32, whose mark begins alike
_PEEKED = 20


@dataclass(frozen=True)
class Form:
    """How a file of rows is written."""

    encoding: str
    delimiter: str = ","
    taken: tuple[str, ...] = ()


def suffix_of(name: str) -> str:
    """The suffix of a file, lower case; of one that gzip compressed, what is before ``.gz``."""
    return Path(name.lower().removesuffix(".gz")).suffix


class _Gzip(gzip.GzipFile):
    """A file that gzip compressed; whatever is wrong with it is an OSError."""

    def read1(self, size: int = -1) -> bytes:
        """As of any file; ``BadGzipFile`` if it is damaged."""
        try:
            return super().read1(size)
        except (EOFError, zlib.error) as error:
            raise gzip.BadGzipFile(str(error)) from error

    def read(self, size: int | None = -1) -> bytes:
        """As of any file."""
        pieces, left = [], size if size is not None and size >= 0 else sys.maxsize
        while left and (piece := self.read1(min(left, 2**20))):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)


def opened(spec: str) -> IO[bytes]:
    """A file of rows, decompressed as it is read if gzip compressed it."""
    return _Gzip(spec) if spec.lower().endswith(".gz") else Path(spec).open("rb")  # type: ignore[return-value]


def _text(spec: str, encoding: str, newline: str | None = None) -> TextIO:
    return io.TextIOWrapper(opened(spec), encoding=encoding, newline=newline)


def encoding_of(spec: str, asked: str | None) -> tuple[str, tuple[str, ...]]:
    """The encoding of a text file, and what was guessed, in sentences.

    Raises:
        DataError: If there is no encoding of that name, or the file is not in it.
        OSError: If it cannot be read.
    """
    if asked is not None:
        try:
            "".encode(asked)
        except (LookupError, ValueError) as error:
            raise DataError(
                spec,
                f"no encoding is named {asked!r}; encoding= takes 'utf-8', 'utf-16', 'latin-1' and the like",
            ) from error
        return asked, ()
    with opened(spec) as file:
        head = file.read(1024)
    if marked := next((name for mark, name in _MARKS.items() if head.startswith(mark)), None):
        return marked, ()
    for name, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):
        if zeros and zeros.count(0) > 0.4 * len(zeros):
            return name, (f"text as {name.upper()}, since every other byte is 0",)
    problem = _undecodable(spec, "utf-8")
    if problem is None:
        return "utf-8", ()
    if b"\0" in head or _undecodable(spec, FALLBACK) is not None:
        raise DataError(spec, f"is not a text file in UTF-8: {problem}; name its encoding by encoding=")
    return FALLBACK, (f"text as Windows-1252 (Latin-1), since it is no UTF-8 ({problem}); else say encoding=",)


def _undecodable(spec: str, encoding: str) -> str | None:
    """What of a file is not in an encoding, ``None`` if it is all in it."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    with opened(spec) as file:
        while piece := file.read(2**20):
            try:
                line += decoder.decode(piece).count("\n")
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
                return f"line {line} has the byte 0x{error.object[error.start]:02x}"
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "it ends within a character"
    return None


def form_of(spec: str, encoding: str | None = None, delimiter: str | None = None) -> Form:
    """How a CSV file is written; what is asked for goes first.

    Raises:
        DataError: If it is written in none of the known ways, or in several.
        OSError: If it cannot be read.
    """
    encoding, taken = encoding_of(spec, encoding)
    if delimiter is not None:
        char = WORDS.get(delimiter.lower(), delimiter)
        if len(char) != 1 or char in '"\r\n':
            raise DataError(spec, f"delimiter= takes one character or tab, got {delimiter!r}")
        return Form(encoding, char, taken)
    fitting = {char: shape for char in DELIMITERS if (shape := _shape(spec, encoding, char))[0] > 1}
    even = [char for char, (_, is_even) in fitting.items() if is_even]
    chosen = even if len(even) == 1 else list(fitting)
    if "\t" in fitting and suffix_of(spec) == ".tsv":
        chosen = ["\t"]
    if len(chosen) > 1:
        names = " and ".join(map(repr, chosen))
        raise DataError(spec, f"line 1 can be split at {names}; name the one that is meant by delimiter=")
    char = chosen[0] if chosen else ","
    if char not in (",", "\t"):
        taken = (*taken, f"{char!r} as what stands between cells")
    return Form(encoding, char, taken)


def _shape(spec: str, encoding: str, delimiter: str) -> tuple[int, bool]:
    """Columns of a file if that stands between its cells, and whether the first rows have as many."""
    try:
        with _text(spec, encoding, "") as file:
            rows = csv.reader(_lines(file), delimiter=delimiter, skipinitialspace=delimiter != "\t")
            widths = [len(row) for row in islice(rows, _PEEKED) if row]
    except (UnicodeError, csv.Error):
        return 1, False
    return (widths[0], len(set(widths)) == 1) if widths else (1, False)


def csv_rows(spec: str, form: Form) -> Iterator[tuple[int, list[str]]]:
    """Number of the last line, and cells, of every row; the header is the first, lines without cells are none.

    Raises:
        DataError: If a quote is not closed or is followed by more, a line is too long, or not in the encoding.
        OSError: If it cannot be read.
    """
    number = 0
    try:
        with _text(spec, form.encoding, "") as file:
            lines = _lines(file)
            rows = csv.reader(
                lines, delimiter=form.delimiter, skipinitialspace=form.delimiter != "\t", strict=True
            )
            for row in rows:
                number = rows.line_num
                if any(map(str.strip, row)):
                    yield number, row
    except UnicodeError as error:
        raise DataError(spec, f"is not a CSV file in {form.encoding.upper()}: {error}") from error
    except csv.Error as error:
        raise DataError(spec, _quote_problem(str(error), number + 1)) from error


def _quote_problem(reason: str, line: int) -> str:
    if reason == "unexpected end of data":
        return f"line {line}: a quote is opened and never closed; close it, or write a quote in a cell twice"
    if "expected after" in reason:
        return (
            f"line {line}: a quote is closed within a cell, or one before it never was; put quotes around the "
            "whole cell, and write a quote in it twice"
        )
    if "field larger" in reason:
        return (
            f"line {line}: a cell is larger than {csv.field_size_limit()} characters; a quote may not be closed"
        )
    return f"line {line}: is not CSV: {reason}"


def swallowed_rows(cells: Sequence[str], delimiter: str) -> list[list[str]]:
    """The rows that a cell of several lines would be if the quotes around it were stray; none if it is no such.

    Its first line then lacks what stands before the cell, its last line what follows, and those between lack
    nothing. What lies outside of the cell is left empty in these rows. A text of several lines may happen to
    look so: whoever knows the columns decides.
    """
    for place, cell in enumerate(cells):
        lines = [line.split(delimiter) for line in cell.splitlines()] if "\n" in cell else []
        if len(lines) > 1:
            after = [""] * (len(cells) - 1 - place)
            rows = [[""] * place + lines[0], *lines[1:-1], lines[-1] + after]
            if all(len(row) == len(cells) for row in rows):
                return [[part.strip() for part in row] for row in rows]
    return []


def _lines(file: TextIO) -> Iterator[str]:
    """Lines of a file, none of which fills the memory.

    Raises:
        Error: From the csv module, if a line is too long.
    """
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise csv.Error(f"a line is longer than {MAX_LINE} characters")
        yield line


def lines_of(spec: str, encoding: str) -> Iterator[str]:
    """Lines of a text file.

    Raises:
        DataError: If a line is too long, or not in the encoding.
        OSError: If it cannot be read.
    """
    try:
        with _text(spec, encoding) as file:
            yield from _lines(file)
    except (UnicodeError, csv.Error) as error:
        raise DataError(spec, f"is not a text file in {encoding.upper()}: {error}") from error
