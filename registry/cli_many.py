"""The command that adds many tasks."""

from typing import TYPE_CHECKING, Any

import click

from registry import display_many
from registry.cli_completion import files
from registry.cli_options import embedding_options, engine_options, json_option, pass_registry
from registry.faces import documents, terminal

if TYPE_CHECKING:
    from registry.core import TaskRegistry


@click.command("add-many")
@click.argument("manifest", shell_complete=files)
@click.option("--tag", "tags", multiple=True, metavar="T", help="A free word for all of them.")
@click.option("--skip-bad", is_flag=True, help="Go on without rows that are no task; without it all or none.")
@click.option(
    "--batch", type=click.IntRange(min=1), default=64, show_default=True, help="Embeddings of a commit."
)
@engine_options
@embedding_options
@json_option
@pass_registry
@click.pass_context
def add_many(
    ctx: click.Context,
    registry: "TaskRegistry",
    /,
    manifest: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Embed many labelled datasets and remember them.

    MANIFEST is a .csv, .parquet or .jsonl file with the columns name,data[,tags,split,max_samples,seed], where
    data is relative to the file and tags stand between bars, or a folder of task folders.

    What is registered with the same data and settings is left alone, so the same command finishes a run that
    was interrupted. A task that fails is told, and the others go on. The exit code is 1 if any failed.

    \b
    Example:
      t2v task add-many tasks.csv --engine processes --jobs 4
      t2v task add-many ./datasets --tag team-a --engine ray --address auto --gpus-per-task 0.25
    """
    try:
        with display_many.many_progress() as report:
            added = registry.add_many(manifest, report=report, **options)
    except KeyboardInterrupt:
        terminal.message("What was embedded is kept; the same command does the rest.")
        raise
    if as_json:
        click.echo(documents.to_text(added))
    else:
        terminal.warn(added.problems)
        display_many.show_many(added)
    ctx.exit(1 if added.failed else 0)
