"""How tables, cards and numbers are laid out on stdout."""

from collections.abc import Iterable, Mapping, Sequence

from registry.terminal import say, stdout_console
from registry.wording import printable


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows under their columns; a column whose name starts with ``>`` holds numbers."""
    from rich import box
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for column in columns:
        grid.add_column(
            column.removeprefix(">"), justify="right" if column.startswith(">") else "left", overflow="fold"
        )
    for row in rows:
        grid.add_row(*(printable(str(cell)) for cell in row))
    stdout_console().print(grid)


def card(title: str, values: Mapping[str, object]) -> None:
    """A title, then a line for each value."""
    say(title)
    for name, value in values.items():
        say(f"  {name + ':':16}{value}")
