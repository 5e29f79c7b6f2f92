"""The commands that answer: embed, nearest, distance, recommend."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from registry.cli import show_maps
from registry.cli.completion import expert_names, files, task_names_or_files
from registry.cli.main import NAME_OR_DATA, DataPath, answer, pass_registry
from registry.cli.options import (
    CommaList,
    Duration,
    GroupedCommand,
    Measured,
    Size,
    data_options,
    distance_option,
    embedding_options,
    identity_options,
    json_option,
    picture,
    probe_option,
    shard_options,
    theme_option,
)
from registry.faces import documents, show_answers, terminal

if TYPE_CHECKING:
    from registry.core import TaskRegistry
    from registry.ingest.prepare import TaskEmbedding


def _in_a_folder(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Refuse a file whose folder is missing: before the work, not after it."""
    if path and not path.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder {path.parent}", ctx, param)
    return path


def _one_each(
    ctx: click.Context, param: click.Parameter, values: tuple[tuple[str, float], ...]
) -> dict[str, float]:
    """Accuracies by expert, each given once."""
    if len(dict(values)) < len(values):
        twice = next(name for name, _ in values if sum(name == other for other, _ in values) > 1)
        raise click.BadParameter(f"{twice} is given twice; give one accuracy of each expert", ctx, param)
    return dict(values)


@click.command(cls=GroupedCommand)
@click.argument("data", type=DataPath(), shell_complete=files)
@embedding_options
@shard_options
@click.option(
    "--out",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    callback=_in_a_folder,
    metavar="FILE.npz",
    help="Keep the vectors here: arrays fisher, standard_error, domain, description (JSON).",
)
@json_option
@pass_registry
def embed(registry: "TaskRegistry", /, data: str, out: Path | None, as_json: bool, **options: Any) -> None:
    """Embed a labelled dataset without registering it.

    \b
    Example:
      t2v embed ./new-photos --out new-photos.npz
    """
    with terminal.progress_bar() as progress:
        embedding = registry.embed(data, **options, progress=progress)
    document = documents.of_embedding(embedding)
    if out:
        _save(embedding, document, out)
    if as_json:
        click.echo(documents.to_text(document))
    else:
        show_answers.show_embedding(document)
        terminal.message(f"Wrote {out}." if out else "The vectors were not kept; --out FILE.npz keeps them.")


@click.command(cls=GroupedCommand)
@click.argument("query", metavar="NAME|DATA", type=NAME_OR_DATA, shell_complete=task_names_or_files)
@click.option("-k", type=click.IntRange(min=1), default=10, show_default=True, help="How many tasks at most.")
@distance_option
@click.option("--where", metavar="FILTER", help="Only among these tasks, see `t2v task list --help`.")
@probe_option
@data_options
@json_option
@pass_registry
def nearest(registry: "TaskRegistry", /, query: str, distance: str, as_json: bool, **options: Any) -> None:
    """Find the registered tasks that are most like a task.

    The task is a registered one, NAME@2 its version 2; or data, which is embedded and not registered.

    \b
    Example:
      t2v nearest flowers -k 5
      t2v nearest ./new-photos --where "num_classes < 20"
      t2v nearest ./scans --split test --channels 0,0,0 --value-range 0,4095
    """
    with terminal.progress_bar() as progress:
        asked, neighbors = registry.nearest(query, distance=distance, **options, progress=progress)
    if as_json:
        click.echo(documents.to_text(documents.of_neighbors(asked, distance, neighbors)))
    elif neighbors:
        show_answers.show_neighbors(asked, distance, neighbors)
    else:
        terminal.message("There is no other task to compare with; add some with `t2v task add NAME DATA`.")


@click.command(cls=GroupedCommand)
@click.argument("source", metavar="SOURCE", type=NAME_OR_DATA, shell_complete=task_names_or_files)
@click.argument("target", metavar="TARGET", type=NAME_OR_DATA, shell_complete=task_names_or_files)
@distance_option
@click.option("--layers", is_flag=True, help="Print the distance in each layer of the probe.")
@picture("--plot", help="Draw the layers here: FILE.png, .svg or .html.")
@theme_option
@probe_option
@data_options
@json_option
@pass_registry
def distance(
    registry: "TaskRegistry",
    /,
    source: str,
    target: str,
    distance: str,
    layers: bool,
    plot: Path | None,
    theme: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure the distance from one task to another.

    Each is a registered name, or data, which is embedded and not registered. With --layers or --plot also layer
    by layer: at which depths of the probe the two tasks need the same filters, and how much each needs them.

    \b
    Example:
      t2v distance flowers ./new-photos --distance task2vec_asymmetric
      t2v distance flowers mnist --layers
      t2v distance flowers mnist --plot layers.png
    """
    by_layer = layers or plot is not None
    if by_layer and distance != "task2vec":
        raise click.UsageError("--layers and --plot show the task2vec distance; leave out --distance")
    if plot:
        from registry.pictures import pictures

        pictures.check_path(plot)
    profile = registry.profile(source, target, **options) if by_layer else None
    value = profile.distance if profile else registry.distance(source, target, name=distance, **options)
    if as_json:
        document = {"source": source, "target": target, "distance": distance, "value": value}
        document["nearer_than"] = value.nearer_than
        if profile:
            document["layers"] = profile.layers
        click.echo(documents.to_text(document))
    elif profile and layers:
        show_maps.show_profile(profile)
    else:
        show_answers.show_distance(value)
    if plot and profile:
        pictures.write_profile(plot, profile, theme)
        terminal.message(f"Wrote {plot}.")


@click.command(cls=GroupedCommand)
@click.argument("query", metavar="NAME|DATA", type=NAME_OR_DATA, shell_complete=task_names_or_files)
@click.option("-k", type=click.IntRange(min=1), default=5, show_default=True, help="How many experts at most.")
@click.option(
    "--try",
    "num_trials",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Run the N experts most worth it over a sample of the data.",
)
@click.option(
    "--time-budget", type=Duration(), metavar="TIME", help="Most time for trials, such as 90s, 5m or 1h."
)
@click.option(
    "--stop-below",
    type=click.FloatRange(0, 1),
    metavar="GAIN",
    help="Stop once no expert is expected to improve accuracy by this, such as 0.01.",
)
@click.option("--record", is_flag=True, help="Store the accuracies measured on a registered task as results.")
@identity_options
@click.option("--download", is_flag=True, help="Let trials fetch weights that are not on this machine.")
@click.option(
    "--protocol",
    metavar="NAME",
    help="Expect what is measured like this, such as fine_tuned. [default: that of most of your results]",
)
@click.option("--metric", metavar="NAME", help="Expect this metric. [default: the usual one of the protocol]")
@click.option(
    "--experts",
    type=CommaList(),
    default=(),
    metavar="PATTERN,...",
    help="Only experts whose name or alias matches: 'convnext*,resnet50*'.",
)
@click.option("--toys", is_flag=True, help="Recommend the small networks of this package too.")
@click.option(
    "--published/--no-published", default=True, help="Count published results of real models as evidence."
)
@click.option(
    "--given",
    type=Measured(),
    multiple=True,
    callback=_one_each,
    metavar="EXPERT=ACCURACY",
    help="Count an accuracy that you measured on this data; give it again for more.",
)
@click.option(
    "--max-params", type=Size(), metavar="SIZE", help="Only experts of at most so many parameters: 30M."
)
@click.option(
    "--max-flops",
    type=Size(),
    metavar="SIZE",
    help="Only experts of at most so many multiply-adds an image: 2G.",
)
@click.option(
    "--license",
    "licenses",
    type=CommaList(),
    default=(),
    metavar="SPDX,...",
    help="Only experts under one of these licences.",
)
@click.option(
    "--input-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="Only experts whose images have at most so many pixels on a side: 224.",
)
@click.option("--loadable-offline", is_flag=True, help="Only experts whose weights are on this machine.")
@probe_option
@data_options
@json_option
@pass_registry
def recommend(registry: "TaskRegistry", /, query: str, as_json: bool, **options: Any) -> None:
    """Rank the experts to start from for a task.

    The task is a registered one, or data, which is embedded and not registered. First comes the verdict: which
    expert to take, what to expect by which protocol, and how sure that is. Then the experts, best first, each
    with expected accuracy, 90% interval and regret, which is how much the best may be better; their results on
    like tasks; and what simple rules would pick. Limits such as --max-params leave out experts of which the
    size, cost, input or licence is not known.

    With --try, the experts that promise most are loaded and run over the data, and what they reach counts.
    Nothing is downloaded without --download; Ctrl-C gives the answer so far. Data of a registered task and
    weights of experts have to be what was registered, unless an option says otherwise.

    \b
    Example:
      t2v recommend ./new-photos --max-params 30M --license mit,apache-2.0
      t2v recommend flowers --input-size 224 --loadable-offline
      t2v recommend flowers --try 3 --time-budget 5m --record
      t2v recommend flowers --protocol fine_tuned --experts 'convnext*,resnet50*'
      t2v recommend ./new-photos --given resnet14w32.cifar10=0.71
    """
    with terminal.progress_bar() as progress:
        advice = registry.recommend(query, **options, progress=progress, on_trial=show_answers.show_trial)
    if options["record"]:
        show_answers.show_recorded(advice)
    answer(as_json, advice, show_answers.show_recommendation)


@click.command(cls=GroupedCommand)
@click.argument("query", metavar="NAME|DATA", type=NAME_OR_DATA, shell_complete=task_names_or_files)
@click.argument("expert", shell_complete=expert_names)
@data_options
@json_option
@pass_registry
def score(registry: "TaskRegistry", /, query: str, expert: str, as_json: bool, **options: Any) -> None:
    """Score how well an expert may suit a task, without training it.

    LogME, LEEP and others, from one pass over a sample. They compare experts on the same task, the higher the
    better; those that need a head of the expert's own are left out where it has none. `t2v recommend --try`
    runs the experts that promise most, and counts what that gave.

    \b
    Example:
      t2v score flowers resnet18.IMAGENET1K_V1
      t2v score ./new-photos resnet14w32.cifar10 --max-samples 200
    """
    with terminal.progress_bar() as progress:
        scores = registry.score(query, expert, **options, progress=progress)
    answer(as_json, scores, show_answers.show_scores)


def _save(embedding: "TaskEmbedding", document: dict[str, Any], path: Path) -> None:
    """Write the vectors and their description, without pickled objects.

    Raises:
        click.FileError: If the file cannot be written.
    """
    import numpy as np

    try:
        with path.open("wb") as file:  # given a name, numpy would append .npz to it
            np.savez(
                file,
                fisher=embedding.fisher,
                standard_error=embedding.standard_error,
                domain=embedding.domain,
                description=np.array(documents.to_text(document)),
            )
    except OSError as error:
        raise click.FileError(str(path), error.strerror or str(error)) from error
