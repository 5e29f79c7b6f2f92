"""Write the pages of the command line: the help of every command, as the program prints it.

python scripts/make/make_cli_docs.py
"""

import copy
from collections.abc import Iterator
from pathlib import Path

import click

from registry.cli.main import SECTIONS, main
from registry.cli.options import GROUPS, GroupedCommand

DOCS = Path(__file__).parents[2] / "docs"
WIDTH = 100
MARK = "<!-- Written by scripts/make/make_cli_docs.py from the help of the program; change it there. -->"
INTRODUCTION = f"""\
# The command line

{MARK}

`t2v` alone says where the registry is, what it holds and what to do next. Every command has `--help`, with
examples. The pages: [questions](cli-questions.md), [maps](cli-maps.md), [tasks](cli-tasks.md),
[experts](cli-experts.md), [results](cli-results.md), [keeping the registry](cli-keep.md),
[demo, server and catalogues](cli-more.md).

## Output

Answers go to stdout; progress, messages and warnings go to stderr. On a terminal a table fits the window:
columns are left out, and a message says which; names are never cut.

Where another program reads stdout, lines have tabs between their cells, without colours and never cut. A table
begins with the names of its columns. A card is a name and a value a line. An empty line stands between two of
them: `t2v recommend` prints its verdict, the experts, their results on like tasks, what simple rules would
pick, and the code that loads the first. Sentences go to stderr. `t2v distance` prints a bare number.

```bash
t2v init
t2v task list | cut -f 1,4                    # names and numbers of classes
t2v recommend mnist | awk -v RS= 'NR == 2'    # the ranked experts alone
```

With `--json` a command prints one JSON document; a number that is not known or not finite is `null`.

| Exit code | Meaning |
|---|---|
| 0 | done |
| 1 | an error, reported in one sentence; `verify`: problems remain |
| 2 | wrong usage |
| 130 | interrupted |

Each command calls the method of `registry.TaskRegistry` of the same meaning: `t2v task add` is
`TaskRegistry.add_task`, `t2v nearest` is `TaskRegistry.nearest`.
"""
PAGES = {
    "cli-tasks.md": ("Command line: tasks", ("task",)),
    "cli-experts.md": ("Command line: experts", ("expert",)),
    "cli-results.md": ("Command line: results", ("result",)),
    "cli-questions.md": ("Command line: questions", ("recommend", "nearest", "distance", "score")),
    "cli-maps.md": ("Command line: maps, clusters, embeddings", ("map", "cluster", "embed")),
    "cli-keep.md": ("Command line: keeping the registry", SECTIONS["Keep"]),
    "cli-more.md": ("Command line: demo, server, catalogues", SECTIONS["More"]),
}
"""Title and commands of each page but the first."""

main.list_commands(click.Context(main))  # imports them all
PROGRAM = click.Context(main, info_name="t2v", terminal_width=WIDTH, **main.context_settings)


def commands(context: click.Context) -> Iterator[click.Context]:
    """A context for the command of ``context`` and for each one below it; groups only where they work alone."""
    group = context.command if isinstance(context.command, click.Group) else None
    if group is None or group.invoke_without_command:
        yield context
    for name in group.list_commands(context) if group else ():
        child = group.get_command(context, name)
        yield from commands(click.Context(child, parent=context, info_name=name, terminal_width=WIDTH))


def help_of(context: click.Context) -> str:
    """The section of a command; what many have is on the first page, which it links to."""
    command, params, more = copy.copy(context.command), context.command.params, ""
    if command is not main:
        command.context_settings = {"help_option_names": []}
        command.params = [param for param in params if param.name not in {"as_json", "help"}]
    if isinstance(command, GroupedCommand):
        names = frozenset().union(*GROUPS.values())
        command.params = [param for param in command.params if param.name not in names]
        more = " and ".join(
            f"[{heading.lower()}](cli.md#{heading.lower().replace(',', '').replace(' ', '-')})"
            for heading, group in GROUPS.items()
            if any(param.name in group for param in params)
        )
        more = f"\nMore options: {more}.\n"
    name, parent = context.info_name, context.parent
    shown = click.Context(command, parent, info_name=name, terminal_width=WIDTH, help_option_names=[])
    return f"## {context.command_path}\n\n```text\n{command.get_help(shown)}\n```\n{more}"


def shared_options() -> Iterator[str]:
    """A section for each group of options that many commands have."""
    add_many = main.commands["task"].commands["add-many"]
    for heading, names in GROUPS.items():
        formatter = click.HelpFormatter(width=WIDTH)
        records = [param.get_help_record(PROGRAM) for param in add_many.params if param.name in names]
        formatter.write_dl([record for record in records if record])
        yield f"## {heading}\n\n```text\n{formatter.getvalue().rstrip()}\n```\n"


def render() -> dict[str, str]:
    """Every page by its name."""
    pages = {"cli.md": "\n".join([INTRODUCTION, help_of(PROGRAM), *shared_options()])}
    for name, (title, words) in PAGES.items():
        contexts = [
            click.Context(main.commands[word], parent=PROGRAM, info_name=word, terminal_width=WIDTH)
            for word in words
            if word in main.commands
        ]
        sections = [help_of(one) for context in contexts for one in commands(context)]
        pages[name] = "\n".join([f"# {title}\n\n{MARK}\n", *sections])
    return pages


if __name__ == "__main__":
    for name, text in render().items():
        (DOCS / name).write_text(text, encoding="utf-8")
        print(f"Wrote {DOCS / name}")
