"""Pictures of likeness: the map of all tasks, their clusters, and the profile of two.

Axes: T tasks, D filters of the probe, Q queries.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar, Unpack

import numpy as np

from registry import clusters, landmarks, layout, layouts
from registry.answers import Query
from registry.distances import checked_rows
from registry.errors import InvalidQueryError
from registry.ingest import Progress
from registry.landmarks import Tasks
from registry.lifecycle import Lifecycle
from registry.map_answers import Clustering, TaskMap
from registry.map_files import LAID_OUT, LATER, PLACED, Layout, LayoutFiles
from registry.options import DataOptions, ReadingOptions
from registry.snapshots import Snapshot
from registry.store import Store
from registry.views import Point, View

if TYPE_CHECKING:
    from registry.ingest import TaskEmbedding

Answer = TypeVar("Answer")
Unregistered = tuple[str, np.ndarray]
"""A label and the embedding ``[D]`` of what is not registered."""

MAP_DISTANCE = "task2vec"
MATRIX_TASKS = 1000
"""Up to so many tasks a clustering keeps its matrix, to be drawn."""

OTHER_LANDMARKS = 500
"""Landmarks of distances that no index stands for: each task is compared with all of them."""

NEIGHBORS_UP_TO = 2000
"""Up to so many tasks the nearest ones of each can be told with a map."""

ANSWERS_KEPT = 8


class MapCache:
    """What was laid out and clustered of one registry, while nothing changes; threads may share it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._layouts: dict[str, layouts.Layouts] = {}
        self._answers: dict[tuple[object, ...], tuple[Snapshot, object]] = {}

    def layouts(self, space_id: str) -> layouts.Layouts:
        """The layouts of a space."""
        with self._lock:
            if space_id not in self._layouts:
                database = self._store.database
                registry_id = database.registry_id()
                files = LayoutFiles(database.place.cache_folder(registry_id), registry_id, space_id)
                self._layouts[space_id] = layouts.Layouts(files)
            return self._layouts[space_id]

    def kept(self, key: tuple[object, ...], snapshot: Snapshot, make: Callable[[], Answer]) -> Answer:
        """The answer to a question about a snapshot, made once."""
        known = self._answers.get(key)
        if known is not None and known[0] is snapshot:
            return known[1]  # type: ignore[return-value]  # a key is of one kind of answer
        found = make()
        with self._lock:
            if len(self._answers) >= ANSWERS_KEPT:
                self._answers.clear()
            self._answers[key] = (snapshot, found)
        return found


class Maps(Lifecycle, ABC):
    """The part of ``TaskRegistry`` that draws."""

    builtin: bool
    _maps: MapCache

    @abstractmethod
    def _answer(self, ask: Callable[[View], Answer], probe: str | None, where: str | None = None) -> Answer:
        """Answer a question in the space of a probe."""

    @abstractmethod
    def _locate(
        self,
        queries: "Sequence[str | TaskEmbedding]",
        view: View,
        options: DataOptions,
        progress: Progress | None,
    ) -> list[Point]:
        """The points of registered tasks, of embeddings, and of data that is embedded now."""

    def map(
        self,
        queries: "Sequence[str | TaskEmbedding | Unregistered]" = (),
        *,
        probe: str | None = None,
        where: str | None = None,
        rebuild: bool = False,
        seed: int = 0,
        neighbors: int = 0,
        progress: Progress | None = None,
        **options: Unpack[ReadingOptions],
    ) -> TaskMap:
        """Lay all registered tasks out in two dimensions, so that those drawn near are alike.

        The layout of a space is made once, from the latest version of every task, and kept beside the index.
        Tasks that are added later, and queries, are placed in it without moving any other; once these are more
        than those laid out, or with ``rebuild``, it is made again.

        Args:
            queries: Names of registered tasks, data specs, embeddings, or pairs of a label and an embedding
                ``[D]``; none of them is remembered.
            probe: Loader of the probe, or id of the space, whose tasks are laid out.
            where: Only tasks that pass this filter are told; where they lie does not depend on it.
            rebuild: Make the layout again.
            seed: Of the layout; each has a layout of its own.
            neighbors: How many of the nearest tasks are told of each, if there are at most 2,000.
            progress: Called as ``progress(stage, done, total)``.
            **options: How data is read, as of ``nearest``; its sample is that of seed 0.

        Raises:
            InvalidQueryError: If there is no task, a filter does not parse, or a seed or query is none.
            NotFoundError: If there is no such task, data or probe.
            IngestError: If data cannot be read.
        """
        space = next((query.space.space_id for query in queries if not isinstance(query, str | tuple)), None)
        if not 0 <= seed < 2**32:
            raise InvalidQueryError(f"the seed must be from 0 to {2**32 - 1}, got {seed}")

        def ask(view: View) -> TaskMap:
            points = self._points(queries, view, {"seed": None, **options}, progress)
            found, notes = self._maps.layouts(view.space.space_id).of(
                view.snapshot, seed=seed, rebuild=rebuild, progress=progress
            )
            return _map_of(view, found, points, notes, neighbors)

        return self._answer(ask, probe or space, where)

    def clusters(
        self,
        *,
        method: str = "agglomerative",
        num_clusters: int | None = None,
        cut_height: float | None = None,
        distance: str = MAP_DISTANCE,
        probe: str | None = None,
        where: str | None = None,
        progress: Progress | None = None,
    ) -> Clustering:
        """Part the registered tasks into clusters of tasks that are alike.

        Args:
            method: ``agglomerative``, average linkage; or ``hdbscan``, which leaves out what belongs nowhere.
            num_clusters: As many; chosen by silhouette if neither this nor a height is given.
            cut_height: Clusters whose mean distance is at most so much are one.
            distance: Name of a symmetric distance in ``registry.distances.DISTANCES``.
            probe: Loader of the probe, or id of the space, in which to compare.
            where: Only tasks that pass this filter, see ``registry.filters``.
            progress: Called as ``progress(stage, done, total)``.

        Raises:
            InvalidQueryError: If there is no task, fewer than clusters asked for, or two options clash.
            NotFoundError: If there is no such method, distance or probe.
        """
        clusters.check_options(method, num_clusters, cut_height)

        def ask(view: View) -> Clustering:
            tasks = Tasks(view.snapshot.rows, _rows_by_name(view), distance)
            key = (
                "clusters",
                view.space.space_id,
                self.builtin,
                where,
                method,
                num_clusters,
                cut_height,
                distance,
            )

            def make() -> Clustering:
                return _clustering(view, tasks, method, num_clusters, cut_height, progress)

            return self._maps.kept(key, view.snapshot, make)

        return self._answer(ask, probe, where)

    def _points(
        self,
        queries: "Sequence[str | TaskEmbedding | Unregistered]",
        view: View,
        options: DataOptions,
        progress: Progress | None,
    ) -> list[Point]:
        """What is asked about, in this order.

        Raises:
            InvalidQueryError: If options are given and there is no data.
        """
        named = [query for query in queries if not isinstance(query, tuple)]
        if not named and (given := sorted(name for name, value in options.items() if value is not None)):
            raise InvalidQueryError(
                f"{' and '.join(given)} would change nothing: options say how data is read, and no data is asked about"
            )
        located = iter(self._locate(named, view, options, progress) if named else [])
        return [_unregistered(*query, view) if isinstance(query, tuple) else next(located) for query in queries]


def _unregistered(label: str, fisher: np.ndarray, view: View) -> Point:
    """An embedding under a label as a point.

    Raises:
        InvalidQueryError: If it is no embedding of the space.
    """
    row = checked_rows(label, np.asarray(fisher, np.float32)[None])
    if row.shape[1] != view.space.dim:
        raise InvalidQueryError(
            f"{label} has {row.shape[1]} filters, and space {view.space.space_id} has {view.space.dim}"
        )
    return Point(Query(label, 0, view.space.space_id), row[0])


def _rows_by_name(view: View) -> np.ndarray:
    """Rows ``[T]`` of the tasks that may be answers, in order of name.

    Raises:
        InvalidQueryError: If there are none.
    """
    rows = np.flatnonzero(view.answerable)
    if not len(rows):
        raise InvalidQueryError(
            "there is no task to draw: none is registered in this space, or none passes the filter; "
            "`t2v task list` says which there are"
        )
    names = view.snapshot.catalogue.rows["name"].take(view.snapshot.position_of[rows])
    return np.asarray(rows[np.argsort(names.to_numpy(zero_copy_only=False).astype(str), kind="stable")])


def _map_of(
    view: View, found: Layout, points: Sequence[Point], notes: Sequence[str], neighbors: int
) -> TaskMap:
    """What is told of a layout."""
    rows = _rows_by_name(view)
    embeddings = view.snapshot.rows
    columns = view.snapshot.catalogue.rows.take(view.snapshot.position_of[rows])
    numbers = layouts.positions_of(found, embeddings, rows)
    names = tuple(columns["name"].to_pylist())
    query_positions = np.zeros((len(points), 2))
    for place, point in enumerate(points):
        query_positions[place] = _position(view, found, point)
    all_laid_out = not (found.roles == PLACED).any()
    return TaskMap(
        names=names,
        versions=columns["version"].to_numpy().astype(np.int64),
        positions=found.positions[numbers],
        placed=found.roles[numbers] == LATER,
        kinds=tuple(columns["kind"].to_pylist()),
        num_classes=columns["num_classes"].to_numpy().astype(np.int64),
        num_samples=columns["num_samples"].to_numpy().astype(np.int64),
        tags=tuple(map(tuple, columns["tags"].to_pylist())),
        queries=tuple(point.query.task for point in points),
        query_positions=query_positions,
        query_nearest=tuple(_nearest(view, point, max(neighbors, 3)) for point in points),
        nearest=_nearest_of_all(Tasks(embeddings, rows), names, neighbors),
        space=view.space.space_id,
        distance=MAP_DISTANCE,
        method=found.method,
        seed=found.seed,
        stress=found.stress,
        trustworthiness=found.trustworthiness,
        num_neighbors=layout.num_neighbors(int((found.roles != LATER).sum())),
        num_measured=found.num_measured,
        num_landmarks=0 if all_laid_out else int((found.roles == LAID_OUT).sum()),
        notes=tuple(notes),
    )


def _position(view: View, found: Layout, point: Point) -> np.ndarray:
    """Where a point lies ``[2]``: a registered task where it is, anything else between the others."""
    if point.query.version:
        position = view.snapshot.catalogue.find(f"{point.query.task}@{point.query.version}")
        if position is not None and view.snapshot.catalogue.is_latest[position]:
            row = view.snapshot.row_of[[position]]
            return np.asarray(found.positions[layouts.positions_of(found, view.snapshot.rows, row)[0]])
    return np.asarray(layouts.place_vectors(found, view.snapshot.rows, point.fisher[None])[0])


def _nearest(view: View, point: Point, k: int) -> tuple[tuple[str, float], ...]:
    near = view.nearest(point, k=k, distance=MAP_DISTANCE)
    return tuple((neighbor.task, neighbor.distance) for neighbor in near)


def _nearest_of_all(tasks: Tasks, names: Sequence[str], k: int) -> tuple[tuple[tuple[str, float], ...], ...]:
    """The k nearest of each task, ties in order of name; nothing where they are too many."""
    if not k or len(tasks) > NEIGHBORS_UP_TO:
        return ()
    distances = tasks.matrix()
    np.fill_diagonal(distances, np.inf)
    order = np.argsort(distances, axis=1, kind="stable")[:, : min(k, len(tasks) - 1)]
    return tuple(
        tuple((names[other], float(distances[row, other])) for other in near)
        for row, near in enumerate(order.tolist())
    )


def _clustering(
    view: View,
    tasks: Tasks,
    method: str,
    num_clusters: int | None,
    cut_height: float | None,
    progress: Progress | None,
) -> Clustering:
    """Cluster all tasks, or landmarks, which the others then join."""
    chosen = landmarks.draw_landmarks(len(tasks))
    if len(chosen) < len(tasks) and tasks.distance != MAP_DISTANCE:
        chosen = np.sort(np.random.default_rng(0).permutation(chosen)[:OTHER_LANDMARKS])

    def report(stage: str) -> landmarks.Report | None:
        return None if progress is None else lambda done, total: progress(stage, done, total)

    distances = tasks.matrix(chosen, report("distances"))
    parted = clusters.partition(distances, method=method, num_clusters=num_clusters, cut_height=cut_height)
    labels = np.zeros(len(tasks), np.int64)
    labels[chosen] = parted.labels
    notes = []
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
    found, labels = clusters.describe(names, columns["tags"].to_pylist(), labels, chosen, distances)
    drawn = len(chosen) == len(tasks) <= MATRIX_TASKS
    return Clustering(
        method=method,
        distance=tasks.distance,
        space=view.space.space_id,
        clusters=found,
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
