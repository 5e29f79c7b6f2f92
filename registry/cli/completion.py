"""Completion in the shell: the command that prints the script, and the names that are completed.

Completion never fails: where there is no registry there are no names.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import click
from click.shell_completion import CompletionItem, get_completion_class

from registry.errors import RegistryError
from registry.options import DEFAULT_PLACE
from registry.storage.cache import ReadCache

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_T2V_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that makes a shell complete commands, options and names.

    It completes names of tasks, experts and distances. To have it always, put this line into ~/.bashrc or
    ~/.zshrc:

    \b
      eval "$(t2v completion bash)"

    With fish, write the script to ~/.config/fish/completions/t2v.fish.

    \b
    Example:
      t2v completion zsh
    """
    script = get_completion_class(shell)
    if script is None:
        raise click.ClickException(f"this version of click completes nothing in {shell}")
    click.echo(script(click.get_current_context().find_root().command, {}, "t2v", VARIABLE).source())


def task_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of registered tasks."""
    return _starting(incomplete, _names(ctx, "tasks"))


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files and folders."""
    return [CompletionItem(incomplete, type="file")]


def task_names_or_files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Registered tasks, and files where none fits."""
    # Files first: the scripts of the shells forget what was before them.
    return [*files(ctx, param, incomplete), *task_names(ctx, param, incomplete)]


def expert_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of registered experts."""
    return _starting(incomplete, _names(ctx, "experts"))


def distance_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of distances."""
    from registry.distances import DISTANCES

    return _starting(incomplete, sorted(DISTANCES))


def _names(ctx: click.Context, kind: Literal["tasks", "experts"]) -> list[str]:
    """Names of a registry; none where there is none."""
    given = ctx.find_root().params
    builtin = not given.get("no_builtin")
    place = given.get("uri") or DEFAULT_PLACE
    try:
        kept = ReadCache(Path(place).expanduser()).names(kind, builtin=builtin)
        if kept is not None:
            return kept
        from registry.core import TaskRegistry

        with TaskRegistry(place, builtin=builtin) as registry:
            return [record.name for record in getattr(registry, kind)()]
    except (RegistryError, RuntimeError):  # there is no such home
        return []


def _starting(incomplete: str, names: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
