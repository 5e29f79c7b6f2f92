"""The two streams: answers go to stdout, everything else to stderr; colours and bars are for terminals only.

A person gets tables whose columns line up. Where another program reads stdout, a table is its header and its
rows with tabs between the cells, a card is a line ``name<tab>value`` for each value, an empty line stands
between two of them, nothing is cut, and sentences go to stderr.
"""

import io
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, TextIO

from registry.options import Spell, spelled
from registry.wording import STAGES, counted, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Where an answer becomes a text for people, lines are as long as their content.
TEXT_WIDTH = 1000
# Between the columns of a table.
GAP = 2
# What a column of sentences, which are wrapped, has at least.
PROSE_WIDTH = 28
SHORTEST_LINE = 20
# Where the values of a card begin.
CARD_INDENT = 18

_text_width: ContextVar[int] = ContextVar("text_width", default=0)
# How sentences name options, while there is one: as the command line does.
_spell: Spell | None = None


def spell_out_the_unprintable() -> None:
    """Let both streams write characters that their encoding lacks as escapes, as Python does."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def for_people(width: int = TEXT_WIDTH) -> Iterator[None]:
    """Print answers as people read them, in so many columns where stdout is no terminal."""
    token = _text_width.set(width)
    try:
        yield
    finally:
        _text_width.reset(token)


def is_piped() -> bool:
    """Whether another program reads stdout."""
    return not (_text_width.get() or sys.stdout.isatty())


def heading(text: str, *, hang: int = 0) -> None:
    """What a table is about; another program has its header."""
    if not is_piped():
        _write(wrapped(text, hang=hang), sys.stdout)


def beside(text: str) -> None:
    """A sentence that goes with a table: on stdout, unless another program reads the table there."""
    _write(wrapped(text), sys.stderr if is_piped() else sys.stdout)


def wrapped(text: str, *, most: int = TEXT_WIDTH, indent: int = 0, hang: int = 0) -> list[str]:
    """A sentence in lines that fit the terminal; no word and no name is broken.

    Args:
        text: The sentence.
        most: Most characters of a line.
        indent: Columns that are taken already.
        hang: Spaces before all lines but the first.
    """
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else _text_width.get() or TEXT_WIDTH
    width = max(min(columns - indent, most), SHORTEST_LINE)
    lines = textwrap.wrap(
        as_spelled(text), width, break_long_words=False, break_on_hyphens=False, subsequent_indent=" " * hang
    )
    return lines or [""]


@contextmanager
def spelling(spell: Spell) -> Iterator[None]:
    """Name options within the block as a face has them."""
    global _spell
    before, _spell = _spell, spell
    try:
        yield
    finally:
        _spell = before


def as_spelled(said: Any) -> Any:
    """What sentences say, with options named as the face that prints them has them."""
    has_any = not isinstance(said, str) or "=" in said
    return spelled(said, _spell) if _spell and has_any else said


def say(text: str = "") -> None:
    """A line of an answer; it may be copied, so it is never cut or wrapped."""
    _write([text], sys.stdout)


def message(text: str) -> None:
    """A sentence for the person at the terminal, apart from the data."""
    _write([text], sys.stderr)


def command(text: str) -> None:
    """The command that does what is printed next."""
    say()
    say(f"$ {text}")


def warn(warnings: Iterable[str]) -> None:
    """Warnings, a line each."""
    for warning in warnings:
        _write(wrapped(f"Warning: {warning}"), sys.stderr)


def tell_reading(taken: Sequence[str], passed_over: Mapping[str, int]) -> None:
    """A line beside the answer on what was taken for what, and one on what was passed over."""
    if taken:
        message(f"Read {'; '.join(taken)}.")
    if passed_over:
        message(f"Passed over: {counted(passed_over)}.")


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None] | None]:
    """Show ``progress(stage, done, total)`` as one bar a stage; gives ``None`` where nobody looks at stderr."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        bars = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in bars:
                bars[stage] = bar.add_task(STAGES.get(stage, stage), total=total)
            bar.update(bars[stage], completed=done, total=total)

        yield show


def _write(lines: Iterable[str], stream: TextIO) -> None:
    stream.writelines(printable(as_spelled(line)) + "\n" for line in lines)
    stream.flush()  # keeps the order of the two streams, and a closed pipe is noticed here


def _write_rows(rows: Iterable[Sequence[object]]) -> None:
    """Rows for another program: tabs between cells, which hold none."""
    sys.stdout.writelines("\t".join(printable(str(cell)) for cell in row) + "\n" for row in rows)
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, may_go: Sequence[str] = ()) -> None:
    """Rows under their columns.

    Where a row is wider than the terminal, sentences are wrapped, then columns are left out and a message says
    which; no name is ever cut.

    Args:
        columns: Names of the columns; ``>`` before one says that it holds numbers, ``~`` sentences.
        rows: Their cells.
        may_go: Names of columns that are left out first, in this order; the others go from the last on. The
            first two always stay, and so do sentences that are not among these.
    """
    titles = [column.lstrip(">~") for column in columns]
    if is_piped():
        _write_rows([titles, *rows])
        return
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    from rich.cells import cell_len

    console = _console()
    widths = [max(map(cell_len, column)) for column in zip(titles, *cells, strict=True)]
    widths = [
        min(width, PROSE_WIDTH) if column.startswith("~") else width
        for width, column in zip(widths, columns, strict=True)
    ]
    shown, left_out = list(range(len(titles))), []
    may_leave = [place for place in reversed(shown[2:]) if not columns[place].startswith("~")]
    for place in [*map(titles.index, may_go), *may_leave]:
        if _width(widths, shown) <= console.width:
            break
        if place in shown:
            shown.remove(place)
            left_out.append(titles[place])
    # What is too wide even so is wrapped by the terminal, where it can be copied in one piece.
    console.width = max(console.width, _width(widths, shown))
    console.print(
        _grid([columns[place] for place in shown], [[row[place] for place in shown] for row in cells])
    )
    if left_out:
        message(f"Too wide for this window, left out: {', '.join(left_out)}.")


def _width(widths: Sequence[int], shown: Sequence[int]) -> int:
    return sum(widths[column] for column in shown) + GAP * (len(shown) - 1)


def _console() -> "Console":
    """The console for tables; plain text unless stdout is a terminal."""
    from rich.console import Console

    is_terminal = sys.stdout.isatty()
    width = None if is_terminal else _text_width.get()
    return Console(force_terminal=is_terminal, width=width, markup=False, highlight=False, emoji=False)


def _grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> "Table":
    from rich import box
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.startswith(">") else "left"
        grid.add_column(column.lstrip(">~"), justify=justify, no_wrap=not column.startswith("~"))
    for row in rows:
        grid.add_row(*row)
    return grid


def card(title: str, values: Mapping[str, object], *, what: str = "name", heading: str = "") -> None:
    """What is said of one thing, a line for each value; the lines of a list stand below each other.

    Args:
        title: Its name.
        values: The values by their names.
        what: What the name is, where another program reads it.
        heading: What a person reads in place of the name.
    """
    if is_piped():
        pairs = {what: title, **values}.items()
        _write_rows((name, " ".join(value) if isinstance(value, list) else value) for name, value in pairs)
        return
    say(heading or title)
    for name, value in values.items():
        first, *more = value if isinstance(value, list) else [value]
        say(f"  {name + ':':{CARD_INDENT - 2}}{first}")
        for line in more:
            say(f"{'':{CARD_INDENT}}{line}")
