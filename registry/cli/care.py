"""The commands that carry a registry from one place to another: export, import."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from registry.cli.completion import task_names
from registry.cli.options import json_option, pass_registry
from registry.faces import documents, terminal
from registry.options import EXPORT_FORMATS, POLICIES, ExportFormat, Policy

if TYPE_CHECKING:
    from registry.core import TaskRegistry

PLACE = click.Path(path_type=Path)


@click.command("export")
@click.argument("path", metavar="FILE", type=PLACE)
@click.option(
    "--task",
    "tasks",
    multiple=True,
    metavar="NAME",
    shell_complete=task_names,
    help="Only this task; give it again for more.",
)
@click.option("--where", metavar="FILTER", help="Only the tasks that pass, see `t2v task list --help`.")
@click.option("--no-results", is_flag=True, help="Leave results out.")
@click.option("--no-experts", is_flag=True, help="Leave experts out.")
@click.option(
    "--format",
    type=click.Choice(EXPORT_FORMATS),
    default="file",
    show_default=True,
    help="A folder can be pushed to a hub as a dataset repository.",
)
@click.option("--license", default="", metavar="SPDX", help="Of the records, for the card of a folder.")
@json_option
@pass_registry
def export_registry(
    registry: "TaskRegistry",
    /,
    path: Path,
    tasks: tuple[str, ...],
    where: str | None,
    no_results: bool,
    no_experts: bool,
    format: ExportFormat,
    license: str,
    as_json: bool,
) -> None:
    """Write the registry, or some tasks of it, to one file or a folder.

    A task goes with all its versions, its embeddings, the results on it and the experts of those. Removed tasks
    and experts stay behind. `t2v import` reads what was written. A folder holds a Parquet file for each table,
    their checksums, and a card.

    \b
    Example:
      t2v export team.t2v
      t2v --no-builtin export medical.t2v --where "tags = 'medical'"
      t2v export ./for-the-hub --format folder --license cc-by-4.0
    """
    summary = registry.export(
        path,
        tasks=tasks,
        where=where,
        results=not no_results,
        experts=not no_experts,
        format=format,
        license=license,
    )
    if as_json:
        click.echo(documents.to_text(summary))
    else:
        terminal.message(f"Wrote {path}: {_counts(summary)}.")


@click.command("import")
@click.argument("path", metavar="FILE|DIR", type=PLACE)
@click.option(
    "--on-conflict",
    type=click.Choice(list(POLICIES)),
    default="fail",
    show_default=True,
    help="Of tasks and experts that are others here: fail imports nothing, keep leaves what is here, take adds "
    "a task as its next version and replaces an expert.",
)
@json_option
@pass_registry
def import_file(registry: "TaskRegistry", /, path: Path, on_conflict: Policy, as_json: bool) -> None:
    """Bring what `t2v export` wrote into the registry.

    The whole file or folder is checked before anything is written. What is here already is not written again.
    Where there is no registry, one is made that holds just what the file has.

    \b
    Example:
      t2v import team.t2v
      t2v import ./from-the-hub
      t2v --registry ./team import theirs.t2v --on-conflict keep
    """
    summary = registry.import_bundle(path, on_conflict=on_conflict)
    if as_json:
        click.echo(documents.to_text(summary))
        return
    done = {"keep": "kept what is here", "take": "took what the file has"}.get(on_conflict)
    terminal.warn([f"{conflict}: {done}" for conflict in summary.conflicts])
    for renumbered in summary.renumbered:
        terminal.message(f"Added {renumbered}.")
    if summary.tagged:
        terminal.message(f"Added tags or aliases to {summary.tagged} versions that were here.")
    terminal.message(f"Imported {path}: {_counts(summary)}.")


def _counts(summary: Any) -> str:
    """How much of everything, in words."""
    kinds = {
        "tasks": "versions of tasks",
        "embeddings": "embeddings",
        "experts": "experts",
        "results": "results",
        "audit_lines": "lines of history",
    }
    return ", ".join(f"{getattr(summary, name)} {words}" for name, words in kinds.items())
