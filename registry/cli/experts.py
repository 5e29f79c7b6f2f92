"""The commands on experts and results: expert, result."""

from typing import TYPE_CHECKING, Any

import click

from registry.cli.completion import expert_names, files, task_names
from registry.cli.main import answer, pass_registry
from registry.cli.options import device_option, identity_options, json_option, purge_option, seed_option
from registry.faces import documents, show_answers, show_records, terminal
from registry.gate import OTHER_DATA

if TYPE_CHECKING:
    from registry.core import TaskRegistry


@click.group()
def expert() -> None:
    """Experts: pretrained networks that can be recommended."""


@expert.command("add")
@click.argument("loader")
@click.option("--name", metavar="NAME", help="Name of the expert. [default: the name of the network]")
@click.option("--source-task", default="", metavar="TASK", help="Name of the task it was trained on.")
@click.option("--source-accuracy", type=float, metavar="A", help="Its accuracy on that task, from 0 to 1.")
@click.option("--license", default="", metavar="SPDX", help="Identifier of its licence, such as apache-2.0.")
@json_option
@pass_registry
def add_expert(registry: "TaskRegistry", /, loader: str, as_json: bool, **values: Any) -> None:
    """Register a network that can be loaded.

    Its size and cost are measured. LOADER is a name of `t2v probes`, ARCHITECTURE@FILE for weights in a local
    file, or another form that `t2v probes --help` lists.

    \b
    Example:
      t2v expert add resnet18@./birds.safetensors --name resnet18.birds --source-task birds --license mit
    """
    record = registry.add_expert(loader, **values)
    if as_json:
        click.echo(documents.to_text(documents.of_expert(record)))
    else:
        terminal.message(f"Added expert {record.name}.")
        show_records.show_expert(record)


@expert.command("import")
@click.argument("source", metavar="torchvision|timm|hf|FILE.csv", shell_complete=files)
@click.option("--from-dir", metavar="DIR", help="For hf: a model as the hub gives it, or a folder of models.")
@click.option("--skip-bad", is_flag=True, help="For hf: take the good folders and name the bad ones.")
@json_option
@pass_registry
def import_experts(
    registry: "TaskRegistry", /, source: str, from_dir: str | None, skip_bad: bool, as_json: bool
) -> None:
    """Register many experts by what is said of them.

    Nothing is loaded, downloaded or measured. torchvision and timm (extra hub) describe their own networks. hf
    takes folders of models as the Hugging Face hub gives them (extra hub), with licence, source task and
    results on registered tasks from their cards. A file has the columns
    expert[,loader,source_task,num_params,flops,input_size,license,source_accuracy].

    All are taken or none. Importing again writes only what has changed; experts that were removed stay removed.

    \b
    Example:
      t2v expert import torchvision
      t2v expert import hf --from-dir ./models --skip-bad
      t2v expert import experts.csv
    """
    imported = registry.import_experts(source, from_dir=from_dir, skip_bad=skip_bad)
    answer(as_json, imported, show_records.show_imported_experts)


@expert.command("list")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@click.option("--toys/--no-toys", default=True, help="Leave the small networks of this package out.")
@json_option
@pass_registry
def list_experts(registry: "TaskRegistry", patterns: tuple[str, ...], toys: bool, as_json: bool) -> None:
    """List experts.

    Only those whose name or alias matches a pattern, if one is given.

    \b
    Example:
      t2v expert list
      t2v expert list 'convnext*' 'resnet50*'
    """
    experts = registry.experts(patterns=patterns, toys=toys)
    empty = "There is no expert yet; add one with `t2v expert add LOADER`."
    answer(as_json, list(map(documents.of_expert, experts)), show_records.show_experts, experts, empty=empty)


@expert.command("show")
@click.argument("name", shell_complete=expert_names)
@json_option
@pass_registry
def show_expert(registry: "TaskRegistry", name: str, as_json: bool) -> None:
    """Show the card of an expert.

    \b
    Example:
      t2v expert show resnet18.birds
    """
    record = registry.expert(name)
    answer(as_json, documents.of_expert(record), show_records.show_expert, record)


@expert.command("alias")
@click.argument("name", shell_complete=expert_names)
@click.argument("alias")
@click.option("--remove", is_flag=True, help="Let the alias stand for nothing.")
@pass_registry
def alias_expert(registry: "TaskRegistry", name: str, alias: str, remove: bool) -> None:
    """Give the weights of an expert a second name.

    Results under either name count for both. The alias may be the name of another expert that is the same
    weights, as another library has them. One whose weights or results say that it is not is refused.

    \b
    Example:
      t2v expert alias resnet18.birds our-birds
      t2v expert alias resnet18.birds our-birds --remove
    """
    record = registry.unalias_expert(name, alias) if remove else registry.alias_expert(name, alias)
    if remove:
        terminal.message(f"Removed the alias {alias} of {record.name}.")
    else:
        terminal.message(f"{record.name} is also called {', '.join(record.aliases)}.")


@expert.command("remove")
@click.argument("name", shell_complete=expert_names)
@purge_option
@pass_registry
def remove_expert(registry: "TaskRegistry", name: str, purge: bool) -> None:
    """Take an expert out of every list and answer.

    Its results stay, and `t2v expert restore` brings it back. With --purge it is deleted for good, with its
    results.

    \b
    Example:
      t2v expert remove resnet18.birds
    """
    registry.remove_expert(name, purge=purge)
    terminal.message(f"Purged expert {name}." if purge else f"Removed expert {name}.")


@expert.command("restore")
@click.argument("name", shell_complete=expert_names)
@pass_registry
def restore_expert(registry: "TaskRegistry", name: str) -> None:
    """Bring back an expert that was removed.

    \b
    Example:
      t2v expert restore resnet18.birds
    """
    registry.restore_expert(name)
    terminal.message(f"Restored expert {name}.")


@click.group()
def result() -> None:
    """Results: measured scores of experts on tasks."""


@result.command("add")
@click.argument("task", shell_complete=task_names)
@click.argument("expert", shell_complete=expert_names)
@click.option("--accuracy", type=float, required=True, metavar="A", help="From 0 to 1.")
@click.option("--metric", default="accuracy", show_default=True, metavar="M", help="What was measured.")
@click.option("--protocol", default="unspecified", show_default=True, metavar="P", help="How it was measured.")
@click.option("--source", default="", metavar="TEXT", help="Who measured it: a paper, a person.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Seed of the measurement.")
@click.option("--run-id", default="", metavar="ID", help="Run that measured it; the same run is kept once.")
@click.option(
    "--lower-is-better/--higher-is-better", default=None, help="Which way a metric goes that is not known."
)
@identity_options
@pass_registry
def add_result(registry: "TaskRegistry", /, task: str, expert: str, **values: Any) -> None:
    """Remember a measured score of an expert on a task.

    TASK is its latest version, TASK@2 the second. The protocol says how the score was measured, such as
    fine_tuned; answers are about one protocol and never mix two. A result that is there is not added again, nor
    one on data or of weights that are no longer what was registered, unless an option says so.

    \b
    Example:
      t2v result add flowers resnet18.birds --accuracy 0.953 --protocol fine_tuned
    """
    added = registry.add_result(task, expert, **values)
    of = "other data than that of " if added.task_version == OTHER_DATA else ""
    same = [
        one
        for one in registry.results(task=added.task, expert=added.expert)
        if (one.metric, one.protocol, one.task_version) == (added.metric, added.protocol, added.task_version)
    ]
    if added not in same:
        terminal.message(f"The result of {expert} on {of}{task} was there already: nothing was written.")
        return
    more = f"; of the {len(same)} by its metric and protocol the mean counts" if len(same) > 1 else ""
    terminal.message(f"Added the result of {expert} on {of}{task}{more}.")


@result.command("import")
@click.argument("path", metavar="PLACE", shell_complete=files)
@click.option(
    "--skip-bad", is_flag=True, help="Take the good rows and name the bad ones; without it all or none."
)
@click.option(
    "--unregistered",
    is_flag=True,
    help="Take results on tasks and of experts that are not registered too; they say how experts compare.",
)
@click.option("--task-from", multiple=True, metavar="KIND:KEY", help="Value of a run that names the task.")
@click.option("--expert-from", multiple=True, metavar="KIND:KEY", help="Value of a run that names the expert.")
@click.option("--metric", multiple=True, metavar="THEIRS=OURS", help="Metric of a run, and what it counts as.")
@click.option("--protocol", metavar="P", help="How it was measured, or KIND:KEY of what says so.")
@click.option("--step", type=click.Choice(["last", "best"]), help="Step of a run that counts.  [default: last]")
@click.option("--rules", "file", metavar="FILE.toml", help="File of these rules.")
@identity_options
@click.option("--dry-run", is_flag=True, help="Show what would be added, and write nothing.")
@json_option
@pass_registry
def import_results(registry: "TaskRegistry", /, path: str, dry_run: bool, as_json: bool, **values: Any) -> None:
    """Remember the results in a CSV file, or of a tracker.

    A file has the columns
    task,expert,accuracy[,metric,protocol,source,seed,run_id,lower_is_better,task_version]. A result that names
    no version of its task is of the latest one. What is there is not added again.

    Of trackers: mlflow.db and mlruns of MLflow, run-*.wandb and exported tables of Weights & Biases, metrics
    of Lightning, DVCLive, timm, Ultralytics and the Hugging Face Trainer, cv_results_ of scikit-learn, model
    cards; or a folder with any of them. KIND:KEY is param:KEY, tag:KEY, dataset:name, run:name,
    run:experiment, or name:NAME for all runs. OURS may end in :percent, :share, :lower, :higher, :last or
    :best. What is not said is guessed and printed. Runs that cannot count are left out and reported.

    \b
    Example:
      t2v result import results.csv --skip-bad
      t2v result import published.csv --unregistered
      t2v result import mlflow.db --task-from param:dataset --metric val_acc=accuracy --dry-run
    """
    imported = registry.import_results(
        path, dry_run=dry_run, **{name: value for name, value in values.items() if value}
    )
    count, problems = imported
    for sentence in imported.taken:
        terminal.message(sentence)
    terminal.warn(problems)
    counted = f"{count} {'result' if count == 1 else 'results'}"
    were = "was" if imported.present == 1 else "were"
    there = f"; {imported.present} {were} there already" if imported.present else ""
    if as_json:
        click.echo(documents.to_text(documents.of_imported_results(imported, dry_run=dry_run)))
        return
    if dry_run and imported.results:
        show_records.show_results(imported.results, registry.experts())
    terminal.message(f"{'Would add' if dry_run else 'Added'} {counted}{there}.")


@result.command("list")
@click.option("--task", metavar="NAME", shell_complete=task_names, help="Only results on this task.")
@click.option("--expert", metavar="NAME", shell_complete=expert_names, help="Only results of this expert.")
@json_option
@pass_registry
def list_results(registry: "TaskRegistry", task: str | None, expert: str | None, as_json: bool) -> None:
    """List results.

    \b
    Example:
      t2v result list --task flowers
    """
    results = registry.results(task=task, expert=expert)
    empty = (
        "There is no such result yet; add one with `t2v result add TASK EXPERT --accuracy A`, "
        "or measure one with `t2v result measure TASK EXPERT`."
    )
    registered = registry.experts() if results and not as_json else ()
    answer(as_json, results, show_records.show_results, results, registered, empty=empty)


@result.command("measure")
@click.argument("task", shell_complete=task_names)
@click.argument("expert", shell_complete=expert_names)
@seed_option
@device_option
@click.option("--no-record", is_flag=True, help="Only print the accuracy.")
@identity_options
@json_option
@pass_registry
def measure(
    registry: "TaskRegistry",
    /,
    task: str,
    expert: str,
    seed: int | None,
    device: str | None,
    no_record: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure how good an expert is on a task, and remember it.

    A linear classifier is fitted on its features of a few images a class and scored on others, five times. The
    data must still be where the task was added from, see `t2v task move`, and data and weights must be what was
    registered, unless an option says otherwise.

    \b
    Example:
      t2v result measure flowers resnet18.birds
      t2v result measure flowers resnet18.birds --as-new-version
    """
    how: dict[str, Any] = {"seed": seed or 0, "device": device or "auto", "record": not no_record}
    with terminal.progress_bar() as progress:
        measured = registry.measure(task, expert, **how, **options, progress=progress)
    answer(as_json, measured, show_answers.show_measurement)
