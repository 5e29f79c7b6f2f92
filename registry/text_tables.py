"""How tables, cards and numbers are laid out on stdout."""

from collections.abc import Iterable, Mapping, Sequence

from registry.terminal import printable, say, stdout_console


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


def share(value: float) -> str:
    """A number from 0 to 1; an R² may be less."""
    return f"{value:.3f}"


def short(value: float) -> str:
    """A number of any scale."""
    return f"{value:.4g}"


def size(value: int | None) -> str:
    """A count as people write it: 11.2M."""
    if value is None:
        return "-"
    rounded = float(f"{value:.3g}")
    for suffix, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if rounded >= factor:
            return f"{rounded / factor:.15g}{suffix}"
    return str(value)
