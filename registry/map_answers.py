"""Answers about likeness that can be drawn: a map of tasks, clusters of them, and a profile of two tasks.

Axes: T tasks, Q queries, L layers of the probe.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from registry.answers import Apart
from registry.notebooks import ROWS_SHOWN, html_table, row_of, to_json, to_pandas

if TYPE_CHECKING:
    from registry.notebooks import DataFrame

Positions = NDArray[np.float64]


@dataclass(frozen=True)
class MapPoint:
    """One task of a map; ``x`` and ``y`` in units of the distance, ``placed`` as of ``TaskMap``."""

    task: str
    version: int
    x: float
    y: float
    placed: bool
    kind: str
    num_classes: int
    num_samples: int
    tags: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class TaskMap:
    """Tasks laid out in two dimensions, so that those that are drawn near are alike; columns, not objects.

    Attributes:
        names: T tasks, in order of name.
        versions: ``[T]`` of each.
        positions: ``[T, 2]`` in units of the distance; the axes have no meaning of their own.
        placed: ``[T]`` bool: placed between those that were laid out, after them, without moving any.
        kinds: ``[T]`` what the labels of each are.
        queries: Labels of what was asked about.
        query_positions: ``[Q, 2]``.
        query_nearest: The names and distances of the tasks nearest to each query.
        nearest: ``[T]`` the same of each task, nearest first; empty unless asked for.
        method: How the layout was made, in words.
        stress: Stress-1 of the layout, 0 (distances drawn as they are) to 1.
        trustworthiness: 0 to 1: how far tasks that are drawn near are near.
        num_neighbors: How many neighbours the trustworthiness is about.
        num_measured: Tasks that the two figures were taken on, of those that were laid out.
        num_landmarks: Tasks that were laid out by all distances; the others lie between those. 0 if all were.
        notes: What happened to the layout, in sentences.
    """

    names: tuple[str, ...] = field(repr=False)
    versions: NDArray[np.int64] = field(repr=False)
    positions: Positions = field(repr=False)
    placed: NDArray[np.bool_] = field(repr=False)
    kinds: tuple[str, ...] = field(repr=False)
    num_classes: NDArray[np.int64] = field(repr=False)
    num_samples: NDArray[np.int64] = field(repr=False)
    tags: tuple[tuple[str, ...], ...] = field(repr=False)
    queries: tuple[str, ...]
    query_positions: Positions = field(repr=False)
    query_nearest: tuple[tuple[tuple[str, float], ...], ...] = field(repr=False)
    nearest: tuple[tuple[tuple[str, float], ...], ...] = field(repr=False)
    space: str
    distance: str
    method: str
    seed: int
    stress: float
    trustworthiness: float
    num_neighbors: int
    num_measured: int
    num_landmarks: int
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """T."""
        return len(self.names)

    def __iter__(self) -> Iterator[MapPoint]:
        """The tasks one by one."""
        counts = zip(self.num_classes.tolist(), self.num_samples.tolist(), strict=True)
        where = zip(self.versions.tolist(), self.positions.tolist(), self.placed.tolist(), strict=True)
        rows = zip(self.names, where, self.kinds, counts, self.tags, strict=True)
        for name, (version, (x, y), placed), kind, (num_classes, num_samples), tags in rows:
            yield MapPoint(name, version, x, y, placed, kind, num_classes, num_samples, tags)

    def to_pandas(self) -> "DataFrame":
        """One row for each task."""
        return to_pandas(self)

    def _repr_html_(self) -> str:
        shown = [row_of(point) for point, _ in zip(self, range(ROWS_SHOWN), strict=False)]
        return html_table(shown, caption=f"Map by {self.distance}", more=len(self) - len(shown))


@dataclass(frozen=True)
class TagShare:
    """A tag that more tasks of a cluster have than others: ``inside`` and ``outside`` are shares, 0 to 1."""

    tag: str
    inside: float
    outside: float


@dataclass(frozen=True)
class TaskCluster:
    """Tasks that are alike.

    Attributes:
        number: From 1, by falling size, ties by name of the medoid.
        label: Name of the medoid, and the tags that set the cluster apart.
        medoid: The task with the smallest sum of distances to the others.
        radius: Mean distance of the others from the medoid.
        tags: What sets it apart, most telling first.
    """

    number: int
    label: str
    size: int
    medoid: str
    radius: float
    tags: tuple[TagShare, ...]
    members: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Clustering:
    """All tasks of a space in clusters.

    Attributes:
        method: ``agglomerative`` or ``hdbscan``.
        clusters: By falling size.
        noise: Tasks that HDBSCAN gives to no cluster, in order of name.
        silhouette: Silhouette of the clusters, -1 to 1; ``None`` where it is not defined.
        tried: What was compared to choose, and the silhouette of each: numbers of clusters, or of HDBSCAN the
            smallest sizes of a cluster.
        num_clusters: Asked for; ``None`` if not.
        cut_height: Distance at which the tree was cut; ``None`` for HDBSCAN.
        num_landmarks: Tasks that were clustered by all distances; the others joined the nearest of them. 0 if
            all were.
        names: T tasks, in order of name.
        labels: ``[T]`` number of the cluster of each, 0 for noise.
        matrix: ``[T, T]`` distances, where all were taken and can be drawn; else ``None``.
        tree: ``[T - 1, 4]`` of average linkage, as scipy has it, where there is a matrix.
    """

    method: str
    distance: str
    space: str
    clusters: tuple[TaskCluster, ...]
    noise: tuple[str, ...] = field(repr=False)
    silhouette: float | None
    tried: tuple[tuple[int, float], ...] = field(repr=False)
    num_clusters: int | None
    cut_height: float | None
    num_landmarks: int
    names: tuple[str, ...] = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)
    matrix: NDArray[np.float64] | None = field(default=None, repr=False)
    tree: NDArray[np.float64] | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()

    def to_pandas(self) -> "DataFrame":
        """One row for each cluster."""
        return to_pandas(self.clusters)

    def _repr_html_(self) -> str:
        shown = [row_of(cluster) for cluster in self.clusters[:ROWS_SHOWN]]
        return html_table(shown, caption=f"Clusters ({self.method})", more=len(self.clusters) - len(shown))


@dataclass(frozen=True)
class LayerAgreement:
    """Two tasks in one layer of the probe.

    Attributes:
        distance: task2vec over the filters of the layer only, 0 to 1.
        source_mean: Mean Fisher information over the filters, of the source.
        source_error: Standard error of that mean, as if filters erred independently.
        target_mean: Mean Fisher information over the filters, of the target.
    """

    layer: str
    num_filters: int
    distance: float
    source_mean: float
    source_error: float
    target_mean: float
    target_error: float


@dataclass(frozen=True)
class LayerProfile:
    """At which depths of the probe two tasks agree: its layers in order of depth, and the distance over all."""

    source: str
    target: str
    space: str
    probe: str
    distance: Apart
    layers: tuple[LayerAgreement, ...]

    def to_pandas(self) -> "DataFrame":
        """One row for each layer."""
        return to_pandas(self.layers)

    def _repr_html_(self) -> str:
        caption = f"{self.source} and {self.target}: {self.distance:.3f}"
        return html_table([row_of(layer) for layer in self.layers], caption=caption)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dict(to_json(self))
