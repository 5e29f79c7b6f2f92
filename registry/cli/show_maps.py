"""How maps, clusters and profiles look to a person: cards and tables."""

from typing import TYPE_CHECKING

from registry.faces.terminal import beside, card, heading, is_piped, message, say, table, warn
from registry.wording import nearer, share, short

if TYPE_CHECKING:
    from registry.map_answers import Clustering, LayerProfile, TaskCluster, TaskMap

MEMBERS_SHOWN = 6
WEAK_SILHOUETTE = 0.25
"""Below this there is no substantial structure, by Kaufman and Rousseeuw, Finding Groups in Data, 1990."""


def show_map(shown: "TaskMap") -> None:
    """What a map shows and how far it can be trusted, and the tasks nearest to each query."""
    over = f", on {shown.num_measured} tasks" if shown.num_landmarks else ""
    laid_out = len(shown) - int(shown.placed.sum())
    values: dict[str, object] = {
        "tasks": f"{len(shown)}" + (f", {len(shown) - laid_out} placed since" if laid_out < len(shown) else ""),
        "space": shown.space,
        "method": f"{shown.method}, seed {shown.seed}",
        "trust": f"trustworthiness {share(shown.trustworthiness)} ({shown.num_neighbors} neighbours{over})",
        "stress": f"stress-1 {share(shown.stress)}",
    }
    if shown.num_landmarks:
        values["landmarks"] = f"{shown.num_landmarks}; the others lie between the nearest of these"
    card(shown.distance, values, what="distance", heading=f"Map by {shown.distance} distance")
    if shown.queries:
        say()
        table(
            ("asked about", ">x", ">y", "nearest"),
            [
                (query, share(x), share(y), ", ".join(f"{name} {share(value)}" for name, value in near))
                for query, (x, y), near in zip(
                    shown.queries, shown.query_positions.tolist(), shown.query_nearest, strict=True
                )
            ],
        )
    for note in shown.notes:
        message(note)


def show_clustering(clustering: "Clustering") -> None:
    """Clusters, the largest first, and how clear they are."""
    clusters = [cluster for cluster in clustering.clusters if cluster.size > 2]
    pairs = [" and ".join(cluster.members) for cluster in clustering.clusters if cluster.size == 2]
    alone = [cluster.medoid for cluster in clustering.clusters if cluster.size == 1]
    held = sum(cluster.size for cluster in clusters)
    count = held + 2 * len(pairs) + len(alone) + len(clustering.noise)
    are = (
        f"{len(clusters)} {'cluster holds' if len(clusters) == 1 else 'clusters hold'} {held} of {count} tasks"
    )
    how = f"by {clustering.distance} ({clustering.method})"
    heading(f"{are}, {how}, the largest first:" if clusters else f"No three tasks make a cluster, {how}.")
    if rows := [_clustered(one) for one in (clustering.clusters if is_piped() else clusters) if one.size > 1]:
        table((">cluster", "medoid", ">tasks", ">radius", "tags that set it apart", "~members"), rows)
    if pairs:
        beside(f"Pairs: {len(pairs)}: {_some(tuple(pairs))}")
    if alone:
        beside(f"Alone: {len(alone)}: {_some(tuple(sorted(alone)))}")
    if clustering.method == "hdbscan":
        noise = f": {_some(clustering.noise)}" if clustering.noise else ""
        beside(f"In no cluster (noise): {len(clustering.noise)}{noise}")
    if clustering.cut_height is not None:
        beside(f"The tree is cut at a distance of {short(clustering.cut_height)}.")
    if clustering.silhouette is not None:
        is_weak = clustering.silhouette < WEAK_SILHOUETTE
        advice = ": these clusters are weak; take them as a hint, or say how many with --clusters" * is_weak
        beside(f"Silhouette {share(clustering.silhouette)}{advice}.")
    for note in clustering.notes:
        message(f"{note}.")


def _clustered(cluster: "TaskCluster") -> tuple[object, ...]:
    tags = ", ".join(f"{one.tag} {one.inside:.0%} (others {one.outside:.0%})" for one in cluster.tags)
    radius = share(cluster.radius)
    return cluster.number, cluster.medoid, cluster.size, radius, tags or "-", _some(cluster.members)


def show_profile(profile: "LayerProfile") -> None:
    """The distance and Fisher information in each layer."""
    heading(f"{profile.source} and {profile.target}, layer by layer, from input to output of {profile.probe}:")
    table(
        ("layer", ">filters", ">distance", f">{profile.source}", f">{profile.target}"),
        [
            (
                layer.layer,
                layer.num_filters,
                share(layer.distance),
                f"{short(layer.source_mean)} ± {layer.source_error:.2g}",
                f"{short(layer.target_mean)} ± {layer.target_error:.2g}",
            )
            for layer in profile.layers
        ],
    )
    context = nearer(profile.distance.nearer_than)
    over = share(profile.distance) + (f", {context}" if context else "")
    beside(f"Over all layers: {over}. Under each task is its mean Fisher information.")
    unused = [layer.layer for layer in profile.layers if layer.source_mean == 0 or layer.target_mean == 0]
    if unused:
        warn([f"a task excites no filter of {', '.join(unused)}: a distance there says little"])


def _some(names: tuple[str, ...]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - MEMBERS_SHOWN} more" if len(names) > MEMBERS_SHOWN else ""
    return ", ".join(names[:MEMBERS_SHOWN]) + more
