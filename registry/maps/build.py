"""Builds maps and clusterings from the registry as one question sees it.

Axes: T tasks, D filters of the probe, Q queries.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from registry.answers import Query
from registry.distances import checked_rows
from registry.errors import InvalidQueryError
from registry.index import landmarks
from registry.index.landmarks import ComparedTasks
from registry.map_answers import Clustering, TaskMap
from registry.maps import clusters, layouts, projection
from registry.maps.files import LAID_OUT, LATER, PLACED, Layout
from registry.options import DEFAULT_DISTANCE, Progress
from registry.snapshots.view import Point, View

QUERY_NEIGHBORS = 3
MATRIX_TASKS = 1000
"""Up to this many tasks a clustering keeps its matrix, to be drawn."""

OTHER_LANDMARKS = 500
"""Landmarks of distances that no index stands for: each task is compared with all of them."""

NEIGHBORS_UP_TO = 2000
"""Up to this many tasks a map lists the nearest tasks of each."""


def unregistered(label: str, fisher: np.ndarray, view: View) -> Point:
    """An embedding under a label as a point; ``InvalidQueryError`` if it is no embedding of the space."""
    row = checked_rows(label, np.asarray(fisher, np.float32)[None])
    if row.shape[1] != view.space.dim:
        raise InvalidQueryError(
            f"{label} has {row.shape[1]} filters, and space {view.space.space_id} has {view.space.dim}"
        )
    return Point(Query(label, 0, view.space.space_id), row[0])


def rows_by_name(view: View) -> np.ndarray:
    """Rows ``[T]`` of tasks that may be answers, by name; ``InvalidQueryError`` if there are none."""
    rows = np.flatnonzero(view.answerable)
    if not len(rows):
        raise InvalidQueryError(
            "there is no task to draw: none is registered in this space, or none passes the filter; "
            "`t2v task list` says which there are"
        )
    names = view.snapshot.catalogue.rows["name"].take(view.snapshot.position_of[rows])
    return np.asarray(rows[np.argsort(names.to_numpy(zero_copy_only=False).astype(str), kind="stable")])


def map_of(view: View, layout: Layout, neighbors: int) -> TaskMap:
    """A layout as a map, without queries."""
    rows = rows_by_name(view)
    embeddings = view.snapshot.rows
    columns = view.snapshot.catalogue.rows.take(view.snapshot.position_of[rows])
    numbers = layouts.positions_of(layout, embeddings, rows)
    names = tuple(columns["name"].to_pylist())
    all_laid_out = not (layout.roles == PLACED).any()
    return TaskMap(
        names=names,
        versions=columns["version"].to_numpy().astype(np.int64),
        positions=layout.positions[numbers],
        placed=layout.roles[numbers] == LATER,
        kinds=tuple(columns["kind"].to_pylist()),
        num_classes=columns["num_classes"].to_numpy().astype(np.int64),
        num_samples=columns["num_samples"].to_numpy().astype(np.int64),
        tags=tuple(map(tuple, columns["tags"].to_pylist())),
        queries=(),
        query_positions=np.zeros((0, 2)),
        query_nearest=(),
        nearest=_nearest_of_all(ComparedTasks(embeddings, rows), names, neighbors),
        space=view.space.space_id,
        distance=DEFAULT_DISTANCE,
        method=layout.method,
        seed=layout.seed,
        stress=layout.stress,
        trustworthiness=layout.trustworthiness,
        num_neighbors=projection.num_neighbors(int((layout.roles != LATER).sum())),
        num_measured=layout.num_measured,
        num_landmarks=0 if all_laid_out else int((layout.roles == LAID_OUT).sum()),
    )


def with_queries(
    shown: TaskMap, view: View, layout: Layout, points: Sequence[Point], notes: Sequence[str]
) -> TaskMap:
    """A map with its queries, and what happened to its layout."""
    positions = np.zeros((len(points), 2))
    for place, point in enumerate(points):
        positions[place] = _position(view, layout, point)
    return replace(
        shown,
        queries=tuple(point.query.task for point in points),
        query_positions=positions,
        query_nearest=tuple(_nearest(view, point, QUERY_NEIGHBORS) for point in points),
        notes=tuple(notes),
    )


def _position(view: View, layout: Layout, point: Point) -> np.ndarray:
    """Where a point lies ``[2]``: a registered task where it is, anything else between the others."""
    if point.query.version:
        position = view.snapshot.catalogue.find(f"{point.query.task}@{point.query.version}")
        if position is not None and view.snapshot.catalogue.is_latest[position]:
            row = view.snapshot.row_of[[position]]
            return np.asarray(layout.positions[layouts.positions_of(layout, view.snapshot.rows, row)[0]])
    return np.asarray(layouts.place_vectors(layout, view.snapshot.rows, point.fisher[None])[0])


def _nearest(view: View, point: Point, k: int) -> tuple[tuple[str, float], ...]:
    near = view.nearest(point, k=k, distance=DEFAULT_DISTANCE)
    return tuple((neighbor.task, neighbor.distance) for neighbor in near)


def _nearest_of_all(
    tasks: ComparedTasks, names: Sequence[str], k: int
) -> tuple[tuple[tuple[str, float], ...], ...]:
    """The k nearest tasks of each task, ties in order of name; nothing where there are too many tasks."""
    if not k or len(tasks) > NEIGHBORS_UP_TO:
        return ()
    distances = tasks.matrix()
    np.fill_diagonal(distances, np.inf)
    order = np.argsort(distances, axis=1, kind="stable")[:, : min(k, len(tasks) - 1)]
    return tuple(
        tuple((names[other], float(distances[row, other])) for other in near)
        for row, near in enumerate(order.tolist())
    )


def clustering_of(
    view: View,
    tasks: ComparedTasks,
    method: str,
    num_clusters: int | None,
    cut_height: float | None,
    progress: Progress | None,
) -> Clustering:
    """Cluster all tasks, or landmarks, which the others then join."""
    chosen = landmarks.draw_landmarks(len(tasks))
    if len(chosen) < len(tasks) and tasks.distance != DEFAULT_DISTANCE:
        chosen = np.sort(np.random.default_rng(0).permutation(chosen)[:OTHER_LANDMARKS])

    def report(stage: str) -> landmarks.Report | None:
        return None if progress is None else lambda done, total: progress(stage, done, total)

    distances = tasks.matrix(chosen, report("distances"))
    parted = clusters.partition(distances, method=method, num_clusters=num_clusters, cut_height=cut_height)
    labels, notes = np.zeros(len(tasks), np.int64), []
    labels[chosen] = parted.labels
    if len(chosen) < len(tasks):
        others = np.setdiff1d(np.arange(len(tasks)), chosen)
        numbers, _ = tasks.nearest(others, chosen, 1, report("placing"))
        labels[others] = parted.labels[numbers[:, 0]]
        notes.append(
            f"{len(chosen)} of the {len(tasks)} tasks were clustered; each other one is in the cluster of the "
            "nearest of these"
        )
    columns = view.snapshot.catalogue.rows.take(view.snapshot.position_of[tasks.rows])
    names = tuple(columns["name"].to_pylist())
    described, labels = clusters.describe(names, columns["tags"].to_pylist(), labels, chosen, distances)
    drawn = len(chosen) == len(tasks) <= MATRIX_TASKS
    return Clustering(
        method=method,
        distance=tasks.distance,
        space=view.space.space_id,
        clusters=described,
        noise=tuple(names[place] for place in np.flatnonzero(labels == clusters.NOISE).tolist()),
        silhouette=parted.silhouette,
        tried=parted.tried,
        num_clusters=num_clusters,
        cut_height=parted.cut_height,
        num_landmarks=0 if len(chosen) == len(tasks) else len(chosen),
        names=names,
        labels=labels,
        matrix=distances if drawn else None,
        tree=parted.tree if drawn else None,
        notes=tuple(notes),
    )
