"""The commands on tasks: add, add-many, list, show, history, move, alias, tag, remove, restore."""

from typing import TYPE_CHECKING, Any

import click

from registry.cli import show_care
from registry.cli.completion import files, task_names
from registry.cli.main import DataPath, answer, pass_registry
from registry.cli.options import (
    GroupedCommand,
    embedding_options,
    engine_options,
    json_option,
    purge_option,
    shard_options,
    thumbnails_option,
)
from registry.faces import documents, show_records, terminal

if TYPE_CHECKING:
    from registry.core import TaskRegistry


@click.group()
def task() -> None:
    """Tasks: datasets as learning problems, registered under a name."""


@task.command("add", cls=GroupedCommand)
@click.argument("name")
@click.argument("data", type=DataPath(), shell_complete=files)
@click.option("--tag", "tags", multiple=True, metavar="T", help="A free word; give it again for more.")
@embedding_options
@shard_options
@thumbnails_option
@json_option
@pass_registry
def add_task(
    registry: "TaskRegistry", /, name: str, data: str, tags: tuple[str, ...], as_json: bool, **options: Any
) -> None:
    """Embed a labelled dataset and register it.

    Adding the same data again with the same settings changes nothing but its place and tags; changed data makes
    the next version.

    \b
    Example:
      t2v task add flowers ./flowers --tag plants
      t2v task add fields ./fields.npz --channels 3,2,1 --value-range 0,10000 --tolerance 0.1
      t2v task add reviews ./reviews.csv --probe hf:./encoder
      t2v task add photos ./photos --max-samples 1000000 --shards 64 --engine processes
    """
    with terminal.progress_bar() as progress:
        added = registry.add_task(name, data, tags=tags, **options, progress=progress)
    answer(as_json, added, show_records.show_added)


@task.command("list")
@click.option("--where", metavar="FILTER", help="Only the tasks that pass.")
@json_option
@pass_registry
def list_tasks(registry: "TaskRegistry", where: str | None, as_json: bool) -> None:
    """List the latest version of every task.

    A filter compares name, version, kind, num_classes, num_samples, tags, builtin, created_at and data by
    =, !=, <, <=, >, >=, in (...) and like '...%', joined by and, or, not and parentheses. The kinds are
    single_label, multi_label and regression; num_classes of a regression is the number of its targets.

    \b
    Example:
      t2v task list --where "num_classes < 20 and tags = 'medical'"
      t2v task list --where "kind = 'multi_label'"
    """
    tasks = registry.tasks(where=where)
    empty = "There is no task yet; add one with `t2v task add NAME DATA`."
    if where is not None:
        empty = "No task passes the filter; `t2v task list` shows them all."
    answer(as_json, list(map(documents.of_task, tasks)), show_records.show_tasks, tasks, empty=empty)


@task.command("show")
@click.argument("name", shell_complete=task_names)
@json_option
@pass_registry
def show_task(registry: "TaskRegistry", name: str, as_json: bool) -> None:
    """Show the card of a task.

    NAME is the latest version, NAME@2 the second, NAME@champion the one with that alias.

    \b
    Example:
      t2v task show flowers
    """
    record, embeddings = registry.task(name), registry.embeddings_of(name)
    answer(as_json, documents.of_task_card(record, embeddings), show_records.show_task, record, embeddings)


@task.command("history")
@click.argument("name", shell_complete=task_names)
@click.option("--limit", type=click.IntRange(min=1), help="How many lines at most, the latest.  [default: all]")
@json_option
@pass_registry
def show_history(registry: "TaskRegistry", name: str, limit: int | None, as_json: bool) -> None:
    """Show all versions of a task and who wrote them.

    \b
    Example:
      t2v task history flowers
    """
    history = registry.history(name, limit=limit)
    answer(as_json, documents.of_history(history), show_care.show_history, history)


@task.command("move")
@click.argument("name", shell_complete=task_names)
@click.argument("place", metavar="NEW-PLACE", shell_complete=files)
@pass_registry
def move_task(registry: "TaskRegistry", name: str, place: str) -> None:
    """Say where the data of a task is now; nothing else changes.

    The data has to be the same: names, sizes and labels of all samples, and the files that the sample was drawn
    from. Other data is refused.

    \b
    Example:
      t2v task move flowers /new-disk/flowers
    """
    record = registry.move_task(name, place)
    terminal.message(f"{record.name}@{record.version} is now read from {record.data}.")


@task.command("alias")
@click.argument("name", shell_complete=task_names)
@click.argument("alias")
@click.option("--remove", is_flag=True, help="Let the alias stand for nothing.")
@pass_registry
def alias_task(registry: "TaskRegistry", name: str, alias: str, remove: bool) -> None:
    """Give a version of a task a second name, NAME@ALIAS.

    NAME is the latest version, NAME@2 the second. An alias is a word such as champion; one that is there moves.
    NAME@latest is always the latest version.

    \b
    Example:
      t2v task alias flowers@2 champion
      t2v task alias flowers champion --remove
    """
    if remove:
        registry.unalias_task(name, alias)
        terminal.message(f"Removed the alias {alias} of {name}.")
    else:
        record = registry.alias_task(name, alias)
        terminal.message(f"{record.name}@{alias} is {record.name}@{record.version}.")


@task.command("remove")
@click.argument("name", shell_complete=task_names)
@purge_option
@pass_registry
def remove_task(registry: "TaskRegistry", name: str, purge: bool) -> None:
    """Take a task out of every list and answer.

    All its versions go; `t2v task restore` brings them back. With --purge they are deleted for good, with their
    embeddings and results. Only lines in the history stay, and version numbers are not given again. `t2v
    optimize` then deletes the files that still hold the rows.

    \b
    Example:
      t2v task remove flowers
      t2v task remove faces --purge
    """
    registry.remove_task(name, purge=purge)
    terminal.message(f"Purged task {name}." if purge else f"Removed task {name}.")


@task.command("restore")
@click.argument("name", shell_complete=task_names)
@pass_registry
def restore_task(registry: "TaskRegistry", name: str) -> None:
    """Bring back a task that was removed, with all its versions.

    \b
    Example:
      t2v task restore flowers
    """
    registry.restore_task(name)
    terminal.message(f"Restored task {name}.")


@task.command("tag")
@click.argument("name", shell_complete=task_names)
@click.option("--add", multiple=True, metavar="T", help="A tag to add; give it again for more.")
@click.option("--remove", multiple=True, metavar="T", help="A tag to take away; give it again for more.")
@pass_registry
def tag_task(registry: "TaskRegistry", name: str, add: tuple[str, ...], remove: tuple[str, ...]) -> None:
    """Add and take away tags of a task.

    \b
    Example:
      t2v task tag flowers --add plants --remove draft
    """
    if not (add or remove):
        raise click.UsageError("nothing to change; give --add T or --remove T")
    record = registry.tag_task(name, add=add, remove=remove)
    terminal.message(f"Tags of {name}: {', '.join(record.tags) or 'none'}.")


@task.command("add-many", cls=GroupedCommand)
@click.argument("manifest", shell_complete=files)
@click.option("--tag", "tags", multiple=True, metavar="T", help="A free word for all of them.")
@click.option(
    "--batch", type=click.IntRange(min=1), default=64, show_default=True, help="Embeddings per commit."
)
@engine_options
@embedding_options
@thumbnails_option
@json_option
@pass_registry
@click.pass_context
def add_many(
    ctx: click.Context, registry: "TaskRegistry", /, manifest: str, as_json: bool, **options: Any
) -> None:
    """Embed many labelled datasets and register them.

    MANIFEST is a .csv, .parquet or .jsonl file with the columns name,data[,tags,split,max_samples,seed], where
    data is relative to the file and tags stand between bars, or a folder of task folders.

    Tasks registered with the same data and settings are left alone, so the same command finishes a run that
    was interrupted. A task that fails is reported, and the others go on. The exit code is 1 if any failed.

    \b
    Example:
      t2v task add-many tasks.csv --engine processes --jobs 4
      t2v task add-many ./datasets --tag team-a --engine ray --address auto --gpus-per-task 0.25
    """
    try:
        with show_records.many_progress() as report:
            added = registry.add_many(manifest, report=report, **options)
    except KeyboardInterrupt:
        terminal.message("Tasks embedded so far are kept; the same command does the rest.")
        raise
    if as_json:
        click.echo(documents.to_text(added))
    else:
        terminal.warn(added.problems)
        show_records.show_many(added)
    ctx.exit(1 if added.failed else 0)
