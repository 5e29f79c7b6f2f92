"""The part of ``TaskRegistry`` that draws: the map of all tasks, their clusters, and the profile of two.

Axes: T tasks, D filters of the probe, Q queries.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from registry.caching import LastAnswers
from registry.errors import InvalidQueryError, NotFoundError
from registry.library.base import RegistryBase, heals_index
from registry.map_answers import Clustering, LayerProfile, TaskMap
from registry.options import DEFAULT_DISTANCE, Data, DataOptions, Progress, ReadingOptions
from registry.records import SpaceRecord
from registry.snapshots.view import Point, View

if TYPE_CHECKING:
    from registry.ingest.prepare import TaskEmbedding
    from registry.maps import profiles
    from registry.maps.layouts import Layouts

Unregistered = tuple[str, np.ndarray]
"""A label and the embedding ``[D]`` of what is not registered."""

ANSWERS_KEPT = 8


class Maps(RegistryBase):
    """The part of ``TaskRegistry`` that draws."""

    @cached_property
    def _layouts(self) -> LastAnswers:
        """The layouts of each space."""
        return LastAnswers()

    @cached_property
    def _drawn(self) -> LastAnswers:
        """What was laid out and clustered of snapshots."""
        return LastAnswers(ANSWERS_KEPT)

    def _layouts_of(self, space_id: str) -> "Layouts":
        """The layouts of a space."""
        from registry.maps.files import LayoutFiles
        from registry.maps.layouts import Layouts

        registry_id = self._store.database.registry_id()
        return self._layouts.get(
            space_id, lambda: Layouts(LayoutFiles(self._cache_folder(), registry_id, space_id))
        )

    def _cache_folder(self) -> Path:
        """Where caches go; need not be there."""
        database = self._store.database
        return database.place.cache_folder(database.registry_id())

    @heals_index
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
            where: Only tasks that pass this filter are shown; where they lie does not depend on it.
            rebuild: Make the layout again.
            seed: Seed of the layout; each has a layout of its own.
            neighbors: How many of the nearest tasks are listed for each, if there are at most 2,000.
            progress: Called as ``progress(stage, done, total)``.
            **options: How data is read, see ``nearest``; its sample is that of seed 0.

        Raises:
            InvalidQueryError: If there is no task, a filter does not parse, or a seed or query is none.
            NotFoundError: If there is no such task, data or probe.
            IngestError: If data cannot be read.
        """
        from registry.maps import build

        if not 0 <= seed < 2**32:
            raise InvalidQueryError(f"the seed must be from 0 to {2**32 - 1}, got {seed}")
        asked = [queries] if isinstance(queries, str) else queries
        view = self._view([query for query in asked if not isinstance(query, tuple)], probe, where)
        points = self._points(asked, view, {"seed": None, **options}, progress)
        layout, notes = self._layouts_of(view.space.space_id).of(
            view.snapshot, seed=seed, rebuild=rebuild, progress=progress
        )
        shown = self._drawn.get(
            ("map", view.snapshot, layout, where, neighbors), lambda: build.map_of(view, layout, neighbors)
        )
        return build.with_queries(shown, view, layout, points, notes)

    @heals_index
    def clusters(
        self,
        *,
        method: str = "agglomerative",
        num_clusters: int | None = None,
        cut_height: float | None = None,
        distance: str = DEFAULT_DISTANCE,
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
        from registry.index.landmarks import ComparedTasks
        from registry.maps import build, clusters

        clusters.check_options(method, num_clusters, cut_height)

        view = self._view([], probe, where)
        tasks = ComparedTasks(view.snapshot.rows, build.rows_by_name(view), distance)
        return self._drawn.get(
            ("clusters", view.snapshot, where, method, num_clusters, cut_height, distance),
            lambda: build.clustering_of(view, tasks, method, num_clusters, cut_height, progress),
        )

    @heals_index
    def profile(
        self,
        source: Data,
        target: Data,
        *,
        probe: str | None = None,
        progress: Progress | None = None,
        **options: Unpack[DataOptions],
    ) -> LayerProfile:
        """Compare two tasks in each layer of the probe: at which depths they need the same filters.

        The first time in a space its probe is loaded; which layers it has is then kept beside the index.

        Args:
            source: Name of a registered task, a data spec or an embedding.
            target: What it is compared with, given likewise.
            probe: Loader of the probe, or id of the space, in which to compare.
            progress: Called as ``progress(stage, done, total)`` while data is embedded.
            **options: How data is read, see ``nearest``.

        Raises:
            InvalidQueryError: If options are given and there is no data, or two embeddings are of two spaces.
            NotFoundError: If there is no such task, data or probe.
            IngestError: If data or the probe cannot be read.
        """
        from registry.maps import profiles

        asked = (self._asked(source), self._asked(target))
        view = self._view(asked, probe)
        queries = [
            self._embedded(query, view.space, progress, **options)
            if isinstance(query, str) and self._registered(query, view) is None
            else query
            for query in asked
        ]
        # Once data is embedded, options have had their effect; without any they are refused.
        first, second = self._locate(queries, view, options if queries == list(asked) else {}, progress)
        errors = [
            self._error_of(point) if isinstance(query, str) else query.standard_error
            for point, query in zip((first, second), queries, strict=True)
        ]
        profile = profiles.profile_of(
            (str(first.query.task), str(second.query.task)),
            view.space,
            profiles.layers_of(view.space, self._cache_folder(), self._probe_layers),
            (first.fisher, second.fisher),
            (errors[0], errors[1]),
        )
        return replace(profile, distance=view.apart(profile.distance, DEFAULT_DISTANCE))

    def _probe_layers(self, space: SpaceRecord) -> "profiles.Layers":
        """The layers of the probe of a space, if it may be loaded."""
        from registry.ingest import networks

        with self._opening("space", space.space_id, space.probe_source):
            return networks.probe_layers(space)

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
        from registry.maps import build

        named = [query for query in queries if not isinstance(query, tuple)]
        if not named and (given := sorted(name for name, value in options.items() if value is not None)):
            raise InvalidQueryError(
                f"{' and '.join(given)} would change nothing: options say how data is read, and there is none"
            )
        located = iter(self._locate(named, view, options, progress) if named else [])
        return [
            build.unregistered(*query, view) if isinstance(query, tuple) else next(located) for query in queries
        ]
