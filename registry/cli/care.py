"""The commands that care for a registry as a whole: what was written, copies, files that come and go."""

import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from registry.cli import show_care
from registry.cli.completion import task_names
from registry.cli.main import answer, pass_registry
from registry.cli.options import Duration, json_option, yes_option
from registry.faces import documents, terminal
from registry.options import EXPORT_FORMATS, POLICIES, ExportFormat, Policy
from registry.wording import size

if TYPE_CHECKING:
    from registry.core import TaskRegistry
    from registry.task_answers import BackupSummary

PLACE = click.Path(path_type=Path)


@click.command()
@click.option("--empty", is_flag=True, help="Leave the starter content out.")
@pass_registry
def init(registry: "TaskRegistry", empty: bool) -> None:
    """Create the registry, with the starter content that ships with this package.

    The first command that adds tasks, experts or results does the same: this is for an empty one.

    \b
    Example:
      t2v --registry ./team init --empty
    """
    registry.init(empty=empty)


@click.command()
@click.option("--repair", is_flag=True, help="Repair what can be repaired: delete rows at fault.")
@json_option
@pass_registry
@click.pass_context
def verify(ctx: click.Context, registry: "TaskRegistry", repair: bool, as_json: bool) -> None:
    """Check every row of the registry.

    The exit code is 1 if problems remain. Results that name a task or expert which is not registered are
    reported, but are no problem.

    \b
    Example:
      t2v verify --repair
    """
    problems = registry.verify(repair=repair)
    remaining = [problem for problem in problems if not (problem.repaired or problem.kind == "dangling")]
    if as_json:
        click.echo(documents.to_text(problems))
    elif not problems:
        terminal.message(f"{registry.uri}: all is well.")
    else:
        show_care.show_problems(problems)
        kinds = {problem.kind for problem in problems if problem.repaired or problem.kind == "torn"}
        if repair and kinds - {"stale", "index"}:
            terminal.message("What was before this repair cannot be asked or taken back.")
        if remaining and not repair:
            terminal.message("`t2v verify --repair` repairs what can be repaired.")
    ctx.exit(1 if remaining else 0)


@click.command()
@click.option(
    "--keep",
    type=Duration(zero=True),
    metavar="TIME",
    help="For how long what was is kept, for `undo` and --at, such as 12h or 0. [default: 7d]",
)
@json_option
@pass_registry
def optimize(registry: "TaskRegistry", keep: float | None, as_json: bool) -> None:
    """Put every table into few files, and delete old ones.

    Writes do so by themselves once a table has become scattered. Former versions of the tables are kept for as
    long as `undo` and --at may need them: `--keep 0` deletes them all.

    \b
    Example:
      t2v optimize --keep 1d
    """
    tables = registry.optimize() if keep is None else registry.optimize(keep=timedelta(seconds=keep))
    answer(as_json, tables, show_care.show_sizes)


@click.command()
@click.option("--redo", is_flag=True, help="Do again what the last undo took back.")
@click.option("--list", "listed", is_flag=True, help="List the writes, and which of them stand.")
@yes_option
@json_option
@pass_registry
def undo(registry: "TaskRegistry", redo: bool, listed: bool, yes: bool, as_json: bool) -> None:
    """Take back the last write; once more, the one before.

    It says what that write was, and asks first where somebody is at the terminal. A write is what one command
    did, as far as nobody else wrote meanwhile. The history keeps its lines, and gets one. An undo can be taken
    back with --redo, as long as nothing else was written. A purge, a repair and a restore cannot be taken back,
    nor can what was before them.

    \b
    Example:
      t2v undo
      t2v undo --list
    """
    if listed:
        writes = registry.writes()
        answer(as_json, writes, show_care.show_writes)
        return
    shown = registry.undo(redo=redo, preview=True)
    terminal.message(show_care.in_words(shown))
    if not yes and sys.stdin.isatty():
        click.confirm("Do it again?" if redo else "Take it back?", abort=True, err=True)
    done = registry.undo(shown.number, redo=redo)
    if as_json:
        click.echo(documents.to_text(done))
    else:
        terminal.message("Done again." if redo else "Taken back; `t2v undo --redo` does it again.")


@click.command()
@click.argument("place", metavar="DIR", type=PLACE)
@click.option("--no-verify", is_flag=True, help="Do not check a trial restore row by row.")
@json_option
@pass_registry
def backup(registry: "TaskRegistry", /, place: Path, no_verify: bool, as_json: bool) -> None:
    """Copy the registry to a folder, from which `t2v restore` brings it back.

    It is of one moment, while others write. A further backup to the folder copies only what is new. A trial
    restore is checked before the former backup is given up.

    \b
    Example:
      t2v backup ./team-backup
    """
    _show_backup(registry.backup(place, verify=not no_verify), as_json)


@click.command()
@click.argument("place", metavar="DIR", type=PLACE)
@yes_option
@json_option
@pass_registry
def restore(registry: "TaskRegistry", /, place: Path, yes: bool, as_json: bool) -> None:
    """Bring back what `t2v backup` wrote, as the registry in this place.

    A registry that is there is replaced with --yes, and kept beside it. Paths and code that the backup names
    are not used before `t2v trust DIR`, unless the registry that was there may use the same.

    \b
    Example:
      t2v --registry ./restored restore ./team-backup
    """
    if not yes and sys.stdin.isatty() and registry.version():
        yes = click.confirm(f"Replace the registry at {registry.uri}?", abort=True, err=True)
    _show_backup(registry.restore(place, replace=yes), as_json, registry.uri)
    if brought := [
        of.name for of in registry.origins() if of.file == str(place.resolve()) and not of.trusted_at
    ]:
        shown = f"{', '.join(brought[:3])}{' and others' if len(brought) > 3 else ''}"
        terminal.warn([f"{shown}: the paths and code they name are not used before `t2v trust {place}`"])


def _show_backup(summary: "BackupSummary", as_json: bool, restored: str = "") -> None:
    if as_json:
        click.echo(documents.to_text(summary))
        return
    of = f"{summary.files} files, {size(summary.bytes)} bytes"
    new = f"{summary.copied_files} of them new, {size(summary.copied_bytes)} bytes"
    checked = "a trial restore was checked row by row" if summary.verified else "not checked"
    if restored:
        at = f"as it was at {summary.at[:19].replace('T', ' ')} UTC"
        terminal.message(f"Restored {restored} from {summary.path}, {at}: {of}, checked row by row.")
    else:
        terminal.message(f"Backed up to {summary.path}: {of}, {new}; {checked}.")
    if summary.kept:
        terminal.message(f"The registry of before is kept at {summary.kept}.")


@click.command()
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="How many at most, the latest."
)
@json_option
@pass_registry
def history(registry: "TaskRegistry", limit: int, as_json: bool) -> None:
    """List who wrote what, and when, in order of time.

    The JSON also has the machine, the process and the versions of the libraries.

    \b
    Example:
      t2v history --limit 10
    """
    lines = registry.audit(limit=limit)
    empty = "Nothing was written since this registry has a history."
    answer(as_json, list(map(documents.of_audit_line, lines)), show_care.show_audit, lines, empty=empty)


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
@click.option("--license", default="", metavar="SPDX", help="Licence of the records, for the card of a folder.")
@click.option(
    "--sign", type=PLACE, metavar="KEY", help="Sign it with the private Ed25519 key in this PEM file."
)
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
    sign: Path | None,
    as_json: bool,
) -> None:
    """Write the registry, or some tasks of it, to one file or a folder.

    A task is exported with all its versions, its embeddings, the results on it and the experts of those.
    Removed tasks and experts are left out. `t2v import` reads what was written. A folder holds a Parquet file
    for each table, their checksums, and a card.

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
        sign=sign,
    )
    answer(as_json, summary, terminal.message, f"Wrote {path}: {_counts(summary)}.")


@click.command("import")
@click.argument("path", metavar="FILE|DIR", type=PLACE)
@click.option(
    "--on-conflict",
    type=click.Choice(list(POLICIES)),
    default="fail",
    show_default=True,
    help="Where a task or expert differs from the one here: fail imports nothing, keep leaves what is here, "
    "take adds the task as the next version and replaces the expert.",
)
@click.option(
    "--require-signature",
    type=PLACE,
    metavar="KEY",
    help="Import only what the holder of this public key signed, a PEM file.",
)
@click.option(
    "--allow-older", is_flag=True, help="Take what was signed before what was imported with that key."
)
@json_option
@pass_registry
def import_file(
    registry: "TaskRegistry",
    /,
    path: Path,
    on_conflict: Policy,
    require_signature: Path | None,
    allow_older: bool,
    as_json: bool,
) -> None:
    """Import what `t2v export` wrote.

    The whole file or folder is checked before anything is written. What is here already is not written again.
    If there is no registry yet, one is created that holds just what the file has. Paths and code that it names
    are neither opened nor run before `t2v trust` allows it.

    \b
    Example:
      t2v import team.t2v
      t2v import ./from-the-hub
      t2v --registry ./team import theirs.t2v --on-conflict keep
    """
    summary = registry.import_bundle(
        path, on_conflict=on_conflict, require_signature=require_signature, allow_older=allow_older
    )
    if as_json:
        click.echo(documents.to_text(summary))
        return
    done = {"keep": "kept what is here", "take": "took what the file has"}.get(on_conflict)
    terminal.warn([f"{conflict}: {done}" for conflict in summary.conflicts])
    for renumbered in summary.renumbered:
        terminal.message(f"Added {renumbered}.")
    if summary.tagged:
        terminal.message(f"Added tags or aliases to {summary.tagged} versions that were here.")
    made = (
        "; the registry is new, without the starter content, which `t2v init` before an import adds"
        if summary.created
        else ""
    )
    terminal.message(f"Imported {path}: {_counts(summary)}{made}.")


@click.command()
@click.argument("name", metavar="[EXPERT|SPACE|FILE]", required=False)
@json_option
@pass_registry
def trust(registry: "TaskRegistry", /, name: str | None, as_json: bool) -> None:
    """Allow what was imported to be loaded; alone, list it.

    An import brings experts and spaces. What a library knows by name is loaded as ever. A file, a folder, a
    Python function or TorchScript is neither opened nor run before it is trusted: by the name of the expert or
    space, or by the file that all of them came from.

    \b
    Example:
      t2v trust
    """
    origins = registry.origins() if name is None else registry.trust(name)
    answer(as_json, origins, show_care.show_origins, empty="No expert and no space was imported.")


def _counts(summary: Any) -> str:
    """The number of records of each kind, in words."""
    kinds = {
        "tasks": "versions of tasks",
        "embeddings": "embeddings",
        "experts": "experts",
        "results": "results",
        "audit_lines": "lines of history",
    }
    counts = {words: getattr(summary, name) for name, words in kinds.items()}
    one = {words: re.sub(r"^(\w+)s\b", r"\1", words) for words in kinds.values()}
    return ", ".join(f"{count} {one[words] if count == 1 else words}" for words, count in counts.items())
