"""How the history of a registry and what became of its files look to a person."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from registry.faces.terminal import say, table
from registry.wording import size

if TYPE_CHECKING:
    from registry.answers import OptimizedTable, TaskHistory
    from registry.records import AuditRecord


def show_history(history: "TaskHistory") -> None:
    """The versions of a task, then who wrote what of it."""
    if history.versions:
        table(
            ("version", "added", "removed", ">samples", "aliases", "tags", "settings", "fingerprint"),
            [
                (
                    f"{task.name}@{task.version}",
                    _minute(task.created_at),
                    _minute(task.removed_at),
                    task.num_samples,
                    ", ".join(task.aliases),
                    ", ".join(task.tags),
                    task.settings,
                    task.fingerprint,
                )
                for task in history.versions
            ],
        )
    else:
        say(f"No version of {history.task} is left.")
    if history.audit:
        say()
        show_audit(history.audit)


def show_audit(lines: Sequence["AuditRecord"]) -> None:
    """Who wrote what, a line each."""
    table(
        ("when (UTC)", "who", "action", "what", "details"),
        [
            (
                line.at[:19].replace("T", " "),
                f"{line.actor}@{line.host}",
                line.action,
                line.subject,
                _details(line.told),
            )
            for line in lines
        ],
    )


def show_sizes(tables: Iterable["OptimizedTable"]) -> None:
    """Every table with its files and bytes, before and after."""
    table(
        ("table", ">files before", ">files", ">bytes before", ">bytes"),
        [(it.table, it.files_before, it.files, size(it.bytes_before), size(it.bytes)) for it in tables],
    )


def _minute(time: str) -> str:
    return time[:16].replace("T", " ")


def _details(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_words(value)}" for name, value in values.items())


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
