"""Pictures of likeness: the map of all tasks, their clusters, and the profile of two.

Axes: T tasks, D filters of the probe, Q queries.
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from registry.errors import InvalidQueryError, NotFoundError
from registry.index.landmarks import ComparedTasks
from registry.ingest import ingest
from registry.library.asking import Answer, Asking
from registry.library.lifecycle import Lifecycle
from registry.map_answers import Clustering, LayerProfile, TaskMap
from registry.maps import build, clusters, layouts, profiles
from registry.maps.files import LayoutFiles
from registry.options import DataOptions, Progress, ReadingOptions
from registry.snapshots.snapshots import Snapshot
from registry.snapshots.view import Point, View
from registry.storage.store import Store

if TYPE_CHECKING:
    from registry.ingest.ingest import TaskEmbedding

Unregistered = tuple[str, np.ndarray]
"""A label and the embedding ``[D]`` of what is not registered."""


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
                files = LayoutFiles(self.folder(), self._store.database.registry_id(), space_id)
                self._layouts[space_id] = layouts.Layouts(files)
            return self._layouts[space_id]

    def folder(self) -> Path:
        """Where caches go; need not be there."""
        database = self._store.database
        return database.place.cache_folder(database.registry_id())

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


class Maps(Lifecycle, Asking):
    """The part of ``TaskRegistry`` that draws."""

    builtin: bool
    _maps: MapCache

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
                ``[D]``; none of them is remembered. A name alone is one query.
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
        asked = [queries] if isinstance(queries, str) else queries
        space = next((query.space.space_id for query in asked if not isinstance(query, str | tuple)), None)
        if not 0 <= seed < 2**32:
            raise InvalidQueryError(f"the seed must be from 0 to {2**32 - 1}, got {seed}")

        def ask(view: View) -> TaskMap:
            points = self._points(asked, view, {"seed": None, **options}, progress)
            found, notes = self._maps.layouts(view.space.space_id).of(
                view.snapshot, seed=seed, rebuild=rebuild, progress=progress
            )
            key = ("map", found, self.builtin, where, neighbors)
            shown = self._maps.kept(key, view.snapshot, lambda: build.map_of(view, found, neighbors))
            return build.with_queries(shown, view, found, points, notes)

        return self._answer(ask, probe or space, where)

    def clusters(
        self,
        *,
        method: str = "agglomerative",
        num_clusters: int | None = None,
        cut_height: float | None = None,
        distance: str = build.MAP_DISTANCE,
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
            tasks = ComparedTasks(view.snapshot.rows, build.rows_by_name(view), distance)
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
                return build.clustering_of(view, tasks, method, num_clusters, cut_height, progress)

            return self._maps.kept(key, view.snapshot, make)

        return self._answer(ask, probe, where)

    def profile(
        self,
        source: "str | TaskEmbedding",
        target: "str | TaskEmbedding",
        *,
        probe: str | None = None,
        progress: Progress | None = None,
        **options: Unpack[DataOptions],
    ) -> LayerProfile:
        """Compare two tasks in each layer of the probe: at which depths they need the same filters.

        The first time in a space its probe is loaded; which layers it has is then kept beside the index.

        Args:
            source: Name of a registered task, a data spec or an embedding.
            target: The same.
            probe: Loader of the probe, or id of the space, in which to compare.
            progress: Called as ``progress(stage, done, total)`` while data is embedded.
            **options: How data is read, as of ``nearest``.

        Raises:
            InvalidQueryError: If options are given and there is no data, or two embeddings are of two spaces.
            NotFoundError: If there is no such task, data or probe.
            IngestError: If data or the probe cannot be read.
        """
        asked = (source, target)
        space_id = next((it.space.space_id for it in asked if not isinstance(it, str)), None)

        def ask(view: View) -> LayerProfile:
            queries = [
                ingest.embed_in_space(it, view.space, progress, **options)
                if isinstance(it, str) and self._registered(it, view) is None
                else it
                for it in asked
            ]
            said: DataOptions = options if queries == list(asked) else {}
            first, second = self._locate(queries, view, said, progress)
            errors = [
                self._error_of(point) if isinstance(query, str) else query.standard_error
                for point, query in zip((first, second), queries, strict=True)
            ]
            return profiles.profile_of(
                (str(first.query.task), str(second.query.task)),
                view.space,
                profiles.layers_of(view.space, self._maps.folder(), ingest.probe_layers),
                (first.fisher, second.fisher),
                (errors[0], errors[1]),
            )

        return self._answer(ask, probe or space_id)

    def _error_of(self, point: Point) -> np.ndarray:
        """Standard error ``[D]`` of the embedding of a registered task.

        Raises:
            NotFoundError: If it was removed meanwhile.
        """
        query = point.query
        embedding = self._store.embedding(query.space, query.task, query.version)
        if embedding is None:
            raise NotFoundError("task", query.task, self._store.task_names())
        return embedding.standard_error

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
                f"{' and '.join(given)} would change nothing: options say how data is read, and there is none"
            )
        located = iter(self._locate(named, view, options, progress) if named else [])
        return [
            build.unregistered(*query, view) if isinstance(query, tuple) else next(located) for query in queries
        ]
