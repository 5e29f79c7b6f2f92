"""The two streams: answers go to stdout, everything else to stderr; colours and bars are for terminals only."""

import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from registry.wording import STAGES, counted, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Where the reader is another program, lines are as long as their content.
PIPE_WIDTH = 1000
# Between the columns of a table.
GAP = 2


def spell_out_the_unprintable() -> None:
    """Let both streams write characters that their encoding lacks as escapes, as Python does."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str = "") -> None:
    """A line of an answer; it may be copied, so it is never cut or wrapped."""
    _write(text, sys.stdout)


def message(text: str) -> None:
    """A sentence for the person at the terminal, apart from the data."""
    _write(text, sys.stderr)


def command(text: str) -> None:
    """The command that does what is printed next."""
    say()
    say(f"$ {text}")


def warn(warnings: Iterable[str]) -> None:
    """Warnings, a line each."""
    for warning in warnings:
        message(f"Warning: {warning}")


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


def stdout_console() -> "Console":
    """The console for tables; plain text unless stdout is a terminal."""
    from rich.console import Console

    is_terminal = sys.stdout.isatty()
    return Console(
        force_terminal=is_terminal,
        width=None if is_terminal else PIPE_WIDTH,
        markup=False,
        highlight=False,
        emoji=False,
    )


def _write(text: str, stream: TextIO) -> None:
    stream.write(printable(text) + "\n")
    stream.flush()  # keeps the order of the two streams, and a closed pipe is noticed here


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, may_go: Sequence[str] = ()) -> None:
    """Rows under their columns; a column whose name starts with ``>`` holds numbers.

    Where a row is wider than the terminal, columns are left out and a message says which; no name is cut.

    Args:
        columns: Names of the columns.
        rows: Their cells.
        may_go: Names of columns that are left out first, in this order; the others go from the last on. The
            first two always stay.
    """
    console, titles = stdout_console(), [column.removeprefix(">") for column in columns]
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
    shown, left_out = list(range(len(titles))), []
    for place in [*map(titles.index, may_go), *reversed(shown[2:])]:
        if sum(widths[column] for column in shown) + GAP * (len(shown) - 1) <= console.width:
            break
        if place in shown:
            shown.remove(place)
            left_out.append(titles[place])
    console.print(
        _grid([columns[place] for place in shown], [[row[place] for place in shown] for row in cells])
    )
    if left_out:
        message(f"Too wide for this window, left out: {', '.join(left_out)}.")


def _grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> "Table":
    from rich import box
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for column in columns:
        grid.add_column(
            column.removeprefix(">"), justify="right" if column.startswith(">") else "left", overflow="fold"
        )
    for row in rows:
        grid.add_row(*row)
    return grid


def card(title: str, values: Mapping[str, object]) -> None:
    """A title, then a line for each value; the lines of a list stand below each other."""
    say(title)
    for name, value in values.items():
        first, *more = value if isinstance(value, list) else [value]
        say(f"  {name + ':':16}{first}")
        for line in more:
            say(f"{'':18}{line}")
