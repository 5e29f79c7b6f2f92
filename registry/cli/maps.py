"""The commands that draw maps and clusters of tasks: map, cluster."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from registry.cli import show_maps
from registry.cli.completion import task_names_or_files
from registry.cli.main import NAME_OR_DATA, answer, pass_registry
from registry.cli.options import (
    GroupedCommand,
    distance_option,
    json_option,
    picture,
    probe_option,
    reading_options,
    seed_option,
    theme_option,
)
from registry.faces import documents, terminal
from registry.options import CLUSTER_METHODS, COLOURINGS

if TYPE_CHECKING:
    from registry.core import TaskRegistry

NEAREST_SHOWN = 3

where_option = click.option("--where", metavar="FILTER", help="Only these tasks, see `t2v task list --help`.")


@click.command("map", cls=GroupedCommand)
@click.argument(
    "queries", metavar="[NAME|DATA]...", nargs=-1, type=NAME_OR_DATA, shell_complete=task_names_or_files
)
@picture(
    "--out", help="Draw the map here: FILE.html can be zoomed and pointed at; .png and .svg are still pictures."
)
@click.option(
    "--colour",
    "--color",
    "colour",
    type=click.Choice(COLOURINGS),
    default="cluster",
    show_default=True,
    help="What colours and shapes stand for.",
)
@theme_option
@where_option
@probe_option
@click.option("--rebuild", is_flag=True, help="Lay all tasks out again, wherever they were.")
@seed_option
@reading_options
@json_option
@pass_registry
def map_tasks(
    registry: "TaskRegistry",
    /,
    queries: tuple[str, ...],
    out: Path | None,
    colour: str,
    theme: str | None,
    where: str | None,
    probe: str | None,
    as_json: bool,
    seed: int | None,
    **options: Any,
) -> None:
    """Lay all tasks out on a map, and say how far it can be trusted.

    Tasks that are drawn near each other are alike. The arguments are marked on it: registered tasks, or data,
    which is embedded and not registered. Tasks that were added after the map was made are placed in it without
    moving any other, until they outnumber those. The seed is that of the layout.

    \b
    Example:
      t2v map --out map.html
      t2v map ./new-photos --out map.png --theme dark
      t2v map --colour tag --where "num_classes < 20" --out small.svg
    """
    if out:
        from registry.pictures import pictures

        pictures.check_path(out)
    with terminal.progress_bar() as progress:
        shown = registry.map(
            queries,
            probe=probe,
            where=where,
            seed=seed or 0,
            neighbors=NEAREST_SHOWN if out else 0,
            progress=progress,
            **options,
        )
        by_cluster = out is not None and colour == "cluster"
        clustering = registry.clusters(probe=probe, where=where, progress=progress) if by_cluster else None
    answer(as_json, documents.of_map(shown), show_maps.show_map, shown)
    if out:
        pictures.write_map(out, shown, colour=colour, clustering=clustering, theme=theme)
        terminal.message(f"Wrote {out}.")
    elif not as_json:
        terminal.message("`t2v map --out map.html` draws it; `t2v cluster` names the groups.")


@click.command()
@click.option(
    "--method",
    type=click.Choice(CLUSTER_METHODS),
    default="agglomerative",
    show_default=True,
    help="Average linkage, or HDBSCAN, which leaves out tasks that belong nowhere.",
)
@click.option(
    "--clusters",
    "num_clusters",
    type=int,
    metavar="N",
    help="Number of clusters. [default: chosen by silhouette]",
)
@click.option(
    "--cut-height", type=float, metavar="X", help="Join groups up to this mean distance, such as 0.35."
)
@distance_option
@where_option
@probe_option
@picture("--plot", help="Draw the matrix of distances and the tree here: FILE.png, .svg or .html.")
@theme_option
@json_option
@pass_registry
def cluster(
    registry: "TaskRegistry", /, plot: Path | None, theme: str | None, as_json: bool, **options: Any
) -> None:
    """Part all tasks into clusters of tasks that are alike.

    Each cluster is named by its medoid, the task in its middle, and by the tags that more of its tasks have
    than others. The silhouette says how clear the clusters are: 1 if very, 0 if not at all.

    \b
    Example:
      t2v cluster
      t2v cluster --clusters 8 --plot matrix.png
      t2v cluster --method hdbscan --where "tags = 'medical'"
    """
    if plot:
        from registry.pictures import pictures

        pictures.check_path(plot)
    with terminal.progress_bar() as progress:
        clustering = registry.clusters(**options, progress=progress)
    answer(as_json, documents.of_clustering(clustering), show_maps.show_clustering, clustering)
    if plot:
        pictures.write_matrix(plot, clustering, theme)
        terminal.message(f"Wrote {plot}.")
    elif not as_json:
        terminal.message("`t2v cluster --plot matrix.png` draws the distances, `t2v map --out map.html` a map.")
