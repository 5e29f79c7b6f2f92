"""The command line: each command parses, calls one method of ``TaskRegistry`` and prints what it answers.

    t2v task add flowers ./flowers
    t2v nearest flowers
    t2v recommend ./new-photos --max-params 30M

Answers go to stdout, progress, messages and warnings to stderr. The exit code is 0, 1 for an error of ours in
one sentence, 2 for wrong usage, 130 when interrupted. The commands for tasks, experts and results are in
``cli_records``, the questions in ``cli_questions``. Nothing slow is imported before a command needs it.
"""

from typing import TYPE_CHECKING, Any

import click

from registry.cli import care, completion, experts, maps, questions, serve, show_care, tasks
from registry.cli.options import json_option, memory_budget_option, pass_registry
from registry.errors import RegistryError
from registry.faces import documents, terminal
from registry.wording import printable

if TYPE_CHECKING:
    from registry.core import TaskRegistry

EXIT_INTERRUPTED = 130


class CommandLine(click.Group):
    """The group that turns errors of the registry into one sentence, for all commands in this one place."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except RegistryError as error:
            raise click.ClickException(printable(" ".join(str(error).splitlines()))) from error
        except KeyboardInterrupt as error:
            terminal.message("Interrupted.")
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from error


@click.group(cls=CommandLine, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--registry",
    "uri",
    envvar="T2V_REGISTRY",
    show_envvar=True,
    metavar="PLACE",
    help="Where the registry is: a folder, or s3://BUCKET/PREFIX. [default: ~/.task2vec]",
)
@click.option("--no-builtin", is_flag=True, help="Leave starter content out of lists and answers.")
@click.version_option(package_name="task2vec-registry", prog_name="t2v")
@click.pass_context
def main(ctx: click.Context, uri: str | None, no_builtin: bool) -> None:
    """Keep every task and pretrained expert of a team.

    Ask which known task is like a new dataset, and which expert to start from.

    DATA is a folder of class folders, a .csv or .parquet manifest with the columns path,label or path,target,
    an .npz with images and labels, a .tar with members CLASS/NAME.jpg, or sklearn:digits. A sample has one
    class, any number of labels (red|round), or numbers to predict.

    \b
    Example:
      t2v task add flowers ./flowers
      t2v nearest flowers
      t2v recommend ./new-photos --max-params 30M
      t2v result add flowers resnet50.IMAGENET1K_V2 --accuracy 0.953
    """
    ctx.obj = {"uri": uri, "builtin": not no_builtin}


@main.command()
@click.option("--empty", is_flag=True, help="Leave the starter content out.")
@pass_registry
def init(registry: "TaskRegistry", empty: bool) -> None:
    """Create the registry.

    It holds the starter content that ships with this package. The first `task add`, `expert add` or `expert
    import` does the same, so this is needed only for an empty one.

    \b
    Example:
      t2v --registry ./team init --empty
    """
    registry.init(empty=empty)
    terminal.message(f"Created {registry.uri}.")


@main.command()
@click.option("--repair", is_flag=True, help="Delete the rows at fault.")
@json_option
@pass_registry
@click.pass_context
def verify(ctx: click.Context, registry: "TaskRegistry", repair: bool, as_json: bool) -> None:
    """Check every row of the registry.

    The exit code is 1 if problems remain. Results that name a task or expert which is not registered are told,
    but are no problem.

    \b
    Example:
      t2v verify --repair
    """
    problems = registry.verify(repair=repair)
    remaining = [it for it in problems if not it.repaired and it.kind != "dangling"]
    if as_json:
        click.echo(documents.to_text(problems))
    elif not problems:
        terminal.message(f"{registry.uri}: all is well.")
    else:
        show_care.show_problems(problems)
        if remaining and not repair:
            terminal.message("`t2v verify --repair` mends what can be mended.")
    ctx.exit(1 if remaining else 0)


@main.command()
@json_option
@pass_registry
def optimize(registry: "TaskRegistry", as_json: bool) -> None:
    """Put every table into few files, and delete those that no row is read from.

    Writes do the first by themselves where a table has become scattered. After a purge this deletes what the
    files of before still hold.

    \b
    Example:
      t2v optimize
    """
    tables = registry.optimize()
    if as_json:
        click.echo(documents.to_text(tables))
    else:
        show_care.show_sizes(tables)


@main.command()
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Only the last so many."
)
@json_option
@pass_registry
def history(registry: "TaskRegistry", limit: int, as_json: bool) -> None:
    """List who wrote what, and when, in order of time.

    The JSON also tells the machine, the process and the versions of the libraries.

    \b
    Example:
      t2v history --limit 10
    """
    lines = registry.audit(limit=limit)
    if as_json:
        click.echo(documents.to_text([documents.of_audit_line(line) for line in lines]))
    elif lines:
        show_care.show_audit(lines)
    else:
        terminal.message("Nothing was written since this registry keeps a history.")


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
    from registry.ingest.networks import list_networks

    networks = [documents.of_network(network) for network in list_networks()]
    if as_json:
        click.echo(documents.to_text(networks))
    else:
        show_care.show_networks(networks)


@probes.command("show")
@click.argument("loader")
@click.option("--costs", is_flag=True, help="What each layer costs, and the batch that fits the memory budget.")
@memory_budget_option
@json_option
def show_probe(loader: str, costs: bool, memory_budget: float | None, as_json: bool) -> None:
    """Show the card of a network: its size, cost, input and weights.

    LOADER is what `t2v probes --help` says.

    \b
    Example:
      t2v probes show resnet14w32.tiny_imagenet
      t2v probes show resnet14w32.tiny_imagenet --costs --memory-budget 500M
      t2v probes show "hf:./encoder?pooling=cls&max_tokens=128"
    """
    if memory_budget is not None and not costs:
        raise click.UsageError("--memory-budget is of the costs; give --costs too")
    from registry.ingest.networks import describe_probe

    probe = documents.of_probe(describe_probe(loader, costs=costs, memory_budget=memory_budget))
    if as_json:
        click.echo(documents.to_text(probe))
    else:
        show_care.show_probe(probe)


@main.command()
@json_option
def estimators(as_json: bool) -> None:
    """List the estimators of Fisher information.

    \b
    Example:
      t2v estimators
    """
    from registry.ingest.networks import list_estimators

    known = [documents.of_estimator(estimator) for estimator in list_estimators()]
    if as_json:
        click.echo(documents.to_text(known))
    else:
        show_care.show_estimators(known)


@main.command()
@json_option
def distances(as_json: bool) -> None:
    """List the distances between tasks.

    \b
    Example:
      t2v distances
    """
    from registry.distances import list_distances

    if as_json:
        click.echo(documents.to_text([documents.of_distance(distance) for distance in list_distances()]))
    else:
        show_care.show_distances(list_distances())


@main.command()
def demo() -> None:
    """Show the main job on real data, in under a minute.

    In a registry of its own, which is removed afterwards: registers scikit-learn's digits, prints their nearest
    tasks and the experts to start from, then measures what was expected.

    \b
    Example:
      t2v demo
    """
    from registry.cli.demo import run_demo

    run_demo()


for plain in (care.export_registry, care.import_file, completion.completion, serve.serve):
    main.add_command(plain)
tasks.task.add_command(tasks.add_many)
for group in (tasks.task, experts.expert, experts.result):
    main.add_command(group)
for question in (questions.embed, questions.nearest, questions.distance, questions.recommend):
    main.add_command(question)
for drawing in (maps.map_tasks, maps.cluster):
    main.add_command(drawing)
