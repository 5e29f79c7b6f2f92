"""The command line: each command parses, calls one method of ``TaskRegistry`` and prints what it answers.

    t2v task add flowers ./flowers
    t2v nearest flowers
    t2v recommend ./new-photos --max-params 30M

Answers go to stdout, progress, messages and warnings to stderr. The exit code is 0, 1 for an error of ours in
one sentence, 2 for wrong usage, 130 when interrupted. What nobody foresaw is a sentence and 1 too; with
``$T2V_DEBUG`` it is a traceback. The commands are in the other modules of this folder;
here are those that list catalogues. Nothing slow is imported before a command needs it.
"""

import errno
import functools
import os
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from registry.cli.options import json_option, memory_budget_option
from registry.errors import RegistryError
from registry.faces import terminal
from registry.files import DURABILITIES
from registry.options import in_commands, spelled
from registry.wording import printable

if TYPE_CHECKING:
    from registry.core import TaskRegistry

Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")

EXIT_INTERRUPTED = 130
DEBUG = "T2V_DEBUG"
SECTIONS = {
    "Ask": ("recommend", "nearest", "distance", "score", "cluster", "map", "embed"),
    "Tell": ("task", "expert", "result"),
    "Keep": ("init", "history", "undo", "verify", "optimize", "backup", "restore", "export", "import", "trust"),
    "More": ("demo", "serve", "token", "probes", "estimators", "distances", "completion"),
}
"""Headings of the list of commands, in the order of the help."""

MODULES = {
    **dict.fromkeys(SECTIONS["Keep"], "care"),
    **dict.fromkeys(("embed", "nearest", "distance", "recommend", "score"), "questions"),
    **dict.fromkeys(("map", "cluster"), "maps"),
    **dict.fromkeys(("expert", "result"), "experts"),
    "task": "tasks",
    "serve": "serve",
    "token": "serve",
    "completion": "completion",
}
"""The module of this folder that each command is in; it is imported when the command is first asked for."""


class CommandLine(click.Group):
    """The group that turns errors of the registry into one sentence, for all commands in this one place."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands, which are imported, in the order of the help."""
        for name in MODULES:
            self.get_command(ctx, name)
        return [name for names in SECTIONS.values() for name in names if name in self.commands]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands under their headings."""
        widest = max(map(len, self.list_commands(ctx)))
        for heading, names in SECTIONS.items():
            with formatter.section(heading):
                rows = [
                    (f"{name:{widest}}", self.commands[name].get_short_help_str(80))
                    for name in names
                    if name in self.commands
                ]
                formatter.write_dl(rows)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run as a program, whatever characters the terminal can show."""
        terminal.spell_out_the_unprintable()
        with terminal.spelling(in_commands):
            return super().main(*args, **kwargs)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command of a name, imported if it was not."""
        if name in MODULES and name not in self.commands:
            for part in vars(import_module(f"registry.cli.{MODULES[name]}")).values():
                if isinstance(part, click.Command) and part.name == name:
                    self.add_command(part)
        return super().get_command(ctx, name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except RegistryError as error:
            raise click.ClickException(_sentence(str(error))) from error
        except KeyboardInterrupt as error:
            terminal.message("Interrupted.")
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from error
        except Exception as error:
            clicks = isinstance(error, click.ClickException | click.exceptions.Exit | click.Abort)
            if clicks or getattr(error, "errno", None) == errno.EPIPE or os.environ.get(DEBUG):
                raise
            what = _sentence(f"{type(error).__name__}: {error}".removesuffix(": "))
            raise click.ClickException(
                f"unforeseen {what}; please report it with the traceback that {DEBUG}=1 t2v ... prints"
            ) from error


def _sentence(text: str) -> str:
    return printable(spelled(" ".join(text.splitlines()), in_commands))


LEAVE_PANDAS = frozenset(("registry", "pyarrow", "lancedb"))
NAMESPACE_CLIENT = "lance_namespace_urllib3_client"
"""Hundreds of classes for servers of namespaces; LanceDB reads the fields of what a folder answers, no more."""


class _PlainClasses(ModuleType):
    """A module of which every class holds the fields that it is given."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (SimpleNamespace,), {})


class LightImports:
    """Lets Arrow and LanceDB do without pandas and a client, which are slow to import."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Find plain classes for the client, and no pandas for a conversion here or for these libraries.

        Raises:
            ModuleNotFoundError: As if pandas were not installed.
        """
        if name.partition(".")[0] == NAMESPACE_CLIENT:
            return ModuleSpec(name, LightImports, is_package=True)  # type: ignore[arg-type]  # has what is called
        if name == "pandas":
            frame: FrameType | None = sys._getframe(1)  # the first that is not of the import itself
            while frame and frame.f_globals["__name__"].startswith(("importlib", "_frozen_importlib")):
                frame = frame.f_back
            importer = frame.f_globals["__name__"] if frame else ""
            if importer.partition(".")[0] in LEAVE_PANDAS and importer != "registry.notebooks":
                raise ModuleNotFoundError("pandas is left out", name=name)
        return None

    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType:
        """The client, or a module of it."""
        return _PlainClasses(spec.name)

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Nothing: its classes are made when they are asked for."""


def answer(as_json: bool, document: Any, show: Callable[..., object], *shown: Any, empty: str = "") -> None:
    """Print one JSON document, if that was asked for; else show a person what it says, or that it is empty."""
    shown = shown or (document,)
    if as_json:
        from registry.faces import documents

        click.echo(documents.to_text(document))
    elif empty and not shown[0]:
        terminal.message(empty)
    else:
        show(*shown)


def pass_registry(
    command: Callable[Concatenate["TaskRegistry", Parameters], Answer],
) -> Callable[Parameters, Answer]:
    """Give a command the registry that ``t2v --registry`` names, as its first argument."""

    @click.pass_context
    @functools.wraps(command)
    def with_registry(ctx: click.Context, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Answer:
        for param in ctx.command.params:
            if isinstance(param.type, DataPath):
                given = ctx.params[param.name or ""]
                for value in given if isinstance(given, tuple) else (given,):
                    param.type.check(value)
        if LightImports not in sys.meta_path:
            sys.meta_path.insert(0, LightImports)
        # Here, not at the top: it brings Arrow, which takes longer to import than help takes to print.
        from registry.core import TaskRegistry

        given = dict(ctx.obj)
        when = given.pop("at")
        with TaskRegistry(**given) as registry:
            if when is not None:
                registry = registry.at(when)
                terminal.message(f"{registry.uri} as it was {registry.as_of}.")
            registry.when_created = terminal.message
            return command(registry, *args, **kwargs)

    return with_registry


class DataPath(click.types.StringParamType):
    """Data; a path at which there is nothing is refused before anything else is loaded.

    Args:
        may_be_name: Whether a text without a slash may be the name of a task, which is looked up later.
    """

    def __init__(self, *, may_be_name: bool = False) -> None:
        self._may_be_name = may_be_name

    def check(self, value: str) -> None:
        """Refuse a path at which there is nothing."""
        if "/" in value or not self._may_be_name:
            from registry.ingest.data import refuse_missing

            refuse_missing(value)


NAME_OR_DATA = DataPath(may_be_name=True)


@click.group(
    cls=CommandLine, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option(
    "--registry",
    "uri",
    envvar="T2V_REGISTRY",
    show_envvar=True,
    metavar="PLACE",
    help="Where the registry is: a folder, or s3://BUCKET/PREFIX. [default: ~/.task2vec]",
)
@click.option("--no-builtin", is_flag=True, help="Leave starter content out of lists and answers.")
@click.option(
    "--durability",
    type=click.Choice(DURABILITIES),
    envvar="T2V_DURABILITY",
    show_envvar=True,
    help="full: what is written survives a power cut. normal: only a kill, but it is faster. [default: full]",
)
@click.option(
    "--at",
    metavar="MOMENT",
    help="Ask the registry as it was: after a write by its number, see `t2v undo --list`; at a time, such as "
    "2026-11-30T14:00; or so long ago, such as 2h or 3d.",
)
@click.version_option(package_name="task2vec-registry", prog_name="t2v")
@click.pass_context
def main(ctx: click.Context, uri: str | None, no_builtin: bool, durability: str | None, at: str | None) -> None:
    """Keep every task and pretrained expert of a team.

    Ask which known task is like a new dataset, and which expert to start from. Without a command, it says where
    the registry is, what it holds and what to do next.

    DATA is a folder of class folders; a table of paths or texts and their labels (.csv, .parquet, .jsonl,
    .xlsx); arrays of images and labels (.npz, .mat); a .zip or .tar of these; or sklearn:digits. A sample has
    one class, any number of labels (red|round), or numbers to predict.

    \b
    Example:
      t2v task add flowers ./flowers
      t2v nearest flowers
      t2v recommend ./new-photos --max-params 30M
      t2v result add flowers resnet50.IMAGENET1K_V2 --accuracy 0.953
    """
    if durability:
        os.environ["T2V_DURABILITY"] = durability  # where the processes of jobs find it too
    ctx.obj = {"uri": uri, "builtin": not no_builtin, "at": at}
    if ctx.invoked_subcommand is None:
        from registry.cli.state import show_state

        show_state(uri)


@main.group(invoke_without_command=True)
@json_option
@click.pass_context
def probes(ctx: click.Context, as_json: bool) -> None:
    """List the networks that can be named as a probe or an expert.

    A LOADER is a name of this list, ARCHITECTURE.WEIGHTS, or any of:

    \b
      ARCHITECTURE@FILE       weights of a local file
      timm:NAME               timm's weights by name
      timm:ARCHITECTURE@FILE  timm's architecture, weights of a local file
      hf:ORG/NAME             image model or text encoder of the Hugging Face hub
      hf:./FOLDER             image model or text encoder in a local folder
      hf:...?pooling=cls      text encoder of which the first state is taken, not the mean of all
      MODULE:FUNCTION         network that a Python function returns; importing it runs its code
      torchscript:FILE        network saved by torch.jit.save

    timm: and hf: need the extra hub.

    \b
    Example:
      t2v probes
    """
    if ctx.invoked_subcommand is not None:
        return
    from registry.cli import show_care
    from registry.faces import documents
    from registry.ingest.networks import list_networks

    networks = [documents.of_network(network) for network in list_networks()]
    answer(as_json, networks, show_care.show_networks)


@probes.command("show")
@click.argument("loader")
@click.option("--costs", is_flag=True, help="What each layer costs, and the batch that fits the memory budget.")
@memory_budget_option
@json_option
def show_probe(loader: str, costs: bool, memory_budget: float | None, as_json: bool) -> None:
    """Show the card of a network: its size, cost, input and weights.

    `t2v probes --help` says what LOADER may be.

    \b
    Example:
      t2v probes show resnet14w32.tiny_imagenet
      t2v probes show resnet14w32.tiny_imagenet --costs --memory-budget 500M
      t2v probes show "hf:./encoder?pooling=cls&max_tokens=128"
    """
    if memory_budget is not None and not costs:
        raise click.UsageError("--memory-budget belongs to --costs; give --costs too")
    from registry.cli import show_care
    from registry.faces import documents
    from registry.ingest.networks import describe_probe

    probe = documents.of_probe(describe_probe(loader, costs=costs, memory_budget=memory_budget))
    answer(as_json, probe, show_care.show_probe)


@main.command()
@json_option
def estimators(as_json: bool) -> None:
    """List the estimators of Fisher information.

    \b
    Example:
      t2v estimators
    """
    from registry.cli import show_care
    from registry.faces import documents
    from registry.ingest.networks import list_estimators

    catalogue = [documents.of_estimator(estimator) for estimator in list_estimators()]
    answer(as_json, catalogue, show_care.show_estimators)


@main.command()
@json_option
def distances(as_json: bool) -> None:
    """List the distances between tasks.

    \b
    Example:
      t2v distances
    """
    from registry.cli import show_care
    from registry.distances import list_distances
    from registry.faces import documents

    if as_json:
        click.echo(documents.to_text([documents.of_distance(distance) for distance in list_distances()]))
    else:
        show_care.show_distances(list_distances())


@main.command()
def demo() -> None:
    """Show the main job on real data, in under a minute.

    It works in a registry of its own, which is removed afterwards: registers scikit-learn's digits, prints
    their nearest tasks and the experts to start from, then measures how good these experts are.

    \b
    Example:
      t2v demo
    """
    from registry.cli.demo import run_demo

    run_demo()
