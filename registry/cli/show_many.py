"""Adding many tasks, for people: how far it is, and what it did."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from registry.faces.terminal import card, message, say, table

if TYPE_CHECKING:
    from registry.task_answers import AddedMany, AddedOfMany, ManyProgress, Report

LINE_SECONDS = 30.0
"""Between lines on how far it is, where stderr is no terminal."""

FAILURES_SHOWN = 50


@contextmanager
def many_progress() -> Iterator["Report"]:
    """Show on stderr how far it is: a bar on a terminal, a line now and then elsewhere; failures at once."""
    if sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _lines()


@contextmanager
def _bar() -> Iterator["Report"]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = TextColumn("Adding tasks"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[how]}")
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        number = bar.add_task("tasks", total=None, how="")

        def show(progress: "ManyProgress", news: Sequence["AddedOfMany"]) -> None:
            bar.update(number, total=progress.total, completed=progress.done, how=_how(progress))
            _tell_failures(news)

        yield show


def _lines() -> "Report":
    last = time.monotonic()

    def show(progress: "ManyProgress", news: Sequence["AddedOfMany"]) -> None:
        nonlocal last
        _tell_failures(news)
        if time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            message(", ".join(filter(None, [f"{progress.done} of {progress.total} tasks", _how(progress)])))

    return show


def _tell_failures(news: Sequence["AddedOfMany"]) -> None:
    for one in news:
        if one.status == "failed":
            message(f"Failed: {_named(one)}: {one.error}")


def _how(progress: "ManyProgress") -> str:
    """Failures, throughput and time left."""
    words = [f"{progress.failed} failed"] if progress.failed else []
    if progress.seconds_left is not None:
        words += [_rate(progress.per_second), f"{duration(progress.seconds_left)} left"]
    return ", ".join(words)


def _rate(per_second: float) -> str:
    return f"{per_second:.1f} a second" if per_second >= 1 else f"{60 * per_second:.1f} a minute"


def duration(seconds: float) -> str:
    """As people say it: 45 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _named(one: "AddedOfMany") -> str:
    return f"{one.task} ({one.place})" if one.place else one.task


def show_many(many: "AddedMany") -> None:
    """Counts, and a table of what failed."""
    card(
        f"{many.asked} {'task' if many.asked == 1 else 'tasks'} in space {many.space}",
        {
            "added": many.added,
            "unchanged": f"{many.unchanged}, found in {duration(many.check_seconds)}",
            "failed": many.failed,
            "time": f"{duration(many.seconds)} by engine {many.engine}"
            + (f", {_rate(many.per_second)}" if many.per_second else ""),
            "commits": many.commits,
        },
    )
    warned = [one for one in many.tasks if one.warnings]
    if warned:
        say(f"  Less sure than they look: {len(warned)}; `--json` tells why.")
    failed = [one for one in many.tasks if one.status == "failed"]
    if failed:
        say()
        table(
            ("failed", "where", "data", "why"),
            [(one.task, one.place or "-", one.data, one.error) for one in failed[:FAILURES_SHOWN]],
        )
        if len(failed) > FAILURES_SHOWN:
            say(f"and {len(failed) - FAILURES_SHOWN} more; `--json` has them all.")
