"""Write docs/cli.md: the help of every command, as the program prints it.

python scripts/make/make_cli_docs.py
"""

from collections.abc import Iterator
from pathlib import Path

import click

from registry.cli.main import main

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
WIDTH = 100
INTRODUCTION = """\
# The command line

<!-- Written by scripts/make/make_cli_docs.py from the help of the program; change it there. -->

Answers go to stdout; progress, messages and warnings go to stderr. With `--json` a command prints one JSON
document; a number that is not known or not finite is `null`. Tables are plain text, without colours, where
stdout is no terminal.

| Exit code | Meaning |
|---|---|
| 0 | done |
| 1 | an error, reported in one sentence; `verify`: problems remain |
| 2 | wrong usage |
| 130 | interrupted |

Each command calls the method of `registry.TaskRegistry` of the same meaning: `t2v task add` is
`TaskRegistry.add_task`, `t2v nearest` is `TaskRegistry.nearest`.
"""


def commands(context: click.Context) -> Iterator[click.Context]:
    """A context for the command of ``context`` and for each one below it, in order of the help."""
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.commands[name]
            yield from commands(click.Context(command, parent=context, info_name=name, terminal_width=WIDTH))


def render() -> str:
    """The whole page."""
    program = click.Context(main, info_name="t2v", terminal_width=WIDTH, **main.context_settings)
    sections = (
        f"## {context.command_path}\n\n```text\n{context.get_help()}\n```\n" for context in commands(program)
    )
    return "\n".join([INTRODUCTION, *sections])


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(render(), encoding="utf-8")
    print(f"Wrote {PAGE}")
