"""The registry as one question sees it: the latest tasks, in one space, that pass a filter.

Axes: T tasks, D filters of the probe.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from registry import neighbors
from registry.answers import Neighbor, Query, Recommendation
from registry.distances import pairwise
from registry.errors import InvalidQueryError, NotFoundError
from registry.recommend import TaskDistances, recommend
from registry.records import ExpertRecord, ResultRecord, SpaceRecord, TaskRecord
from registry.store import EmbeddingTable, Store

if TYPE_CHECKING:
    from registry.index import VectorIndex

RECOMMEND_DISTANCE = "task2vec"
SOURCE_DISTANCE = "task2vec_asymmetric"


@dataclass(frozen=True, eq=False)
class Point:
    """A task that is asked about: ``fisher`` ``[D]`` and its name."""

    query: Query
    fisher: np.ndarray


@dataclass(frozen=True, eq=False)
class View:
    """What a question can see.

    Attributes:
        store: Where everything is.
        space: The space in which tasks are compared.
        version: Of the embeddings; a text that changes when they do.
        table: All embeddings of the space, of any version of a task.
        tasks: The tasks that may be answers, by the position of their embedding in ``table``.
    """

    store: Store
    space: SpaceRecord
    version: str
    table: EmbeddingTable
    tasks: dict[int, TaskRecord]

    @classmethod
    def open(cls, store: Store, space: SpaceRecord, *, builtin: bool = True, where: str | None = None) -> Self:
        """Look at the latest version of every task in one space.

        Args:
            store: Of the tasks.
            space: In which to compare.
            builtin: Whether starter tasks may be answers and evidence.
            where: A filter that answers must pass, see ``registry.filters``.
        """
        version = store.embeddings_version(space.space_id)  # before the table: a stale token only costs time
        table = store.embeddings(space.space_id)
        positions = {key: position for position, key in enumerate(table.keys)}
        latest = store.tasks(where=where, builtin=builtin)
        tasks = {positions[key]: task for task in latest if (key := (task.name, task.version)) in positions}
        return cls(store, space, version, table, tasks)

    def point(self, task: TaskRecord) -> Point:
        """A registered task as a point.

        Raises:
            NotFoundError: If it was not embedded in this space.
        """
        embedding = self.store.embedding(self.space.space_id, task.name, task.version)
        if embedding is None:
            embedded = (record.name for record in self.tasks.values())
            raise NotFoundError(f"task embedded with {self.space.probe}", task.name, embedded)
        return Point(Query(task.name, task.version, self.space.space_id), embedding.fisher)

    def nearest(self, point: Point, *, k: int, distance: str) -> list[Neighbor]:
        """The k tasks nearest to a point, itself left out."""
        allowed = np.zeros(len(self.table.keys), dtype=bool)
        allowed[list(self.tasks)] = True
        indexed = distance in neighbors.SHORTLISTED_DISTANCES and len(self.tasks) >= neighbors.EXACT_BELOW
        found = neighbors.nearest(
            point.fisher,
            self.table.keys,
            self.table.fisher,
            k=k,
            distance=distance,
            trivial=self.space.trivial,
            exclude={point.query.task},
            allowed=allowed,
            shortlist=self._index() if indexed else None,
            exact_below=neighbors.EXACT_BELOW,
        )
        return [
            Neighbor(rank, task.name, task.version, value, task.num_classes, task.num_samples, task.tags)
            for rank, (position, value) in enumerate(found, start=1)
            for task in (self.tasks[position],)
        ]

    def _index(self) -> "VectorIndex":
        """The FAISS index beside the store, brought up to date with the table of this view."""
        from registry.index import open_index

        folder = self.store.database.place.cache_folder(self.store.database.registry_id())
        return open_index(folder, self.space.space_id, self.version, self.table.keys, self.table.fisher)

    def distance(self, name: str, source: Point, target: Point) -> float:
        """Distance from one point to another."""
        value = pairwise(name, source.fisher[None], target.fisher[None], trivial=self.space.trivial)
        return float(value[0, 0])

    def recommend(
        self, point: Point, experts: Sequence[ExpertRecord], results: Sequence[ResultRecord], *, k: int
    ) -> Recommendation:
        """Rank experts for a point by results on the tasks seen here and by distance from their sources.

        Expected accuracies come from results on near tasks under the symmetric distance; an expert without
        results is placed by the asymmetric distance from its source task, which favours rich sources.
        """
        wanted = {result.task for result in results} | {expert.source_task for expert in experts}
        seen = {task.name: position for position, task in self.tasks.items() if task.name in wanted}
        fisher = self.table.fisher[list(seen.values())]

        def measure(distance: str) -> TaskDistances:
            matrix = pairwise(distance, fisher, fisher, trivial=self.space.trivial)
            to_query = pairwise(distance, fisher, point.fisher[None], trivial=self.space.trivial)
            return TaskDistances(tuple(seen), matrix, to_query[:, 0])

        return recommend(
            point.query,
            experts,
            results,
            k=k,
            distances=measure(RECOMMEND_DISTANCE),
            source_distances=measure(SOURCE_DISTANCE),
        )


def choose_space(
    spaces: Sequence[SpaceRecord], probe: str | None, *, default_probe: str, default_recipe: tuple[str, str]
) -> SpaceRecord:
    """The space that a probe stands for.

    Args:
        spaces: All there are.
        probe: Name of a probe, what loads it, or the id of a space.
        default_probe: Name of the probe that is meant if none is named and tasks were embedded with it.
        default_recipe: Estimator and pooling that are meant where a probe has several spaces.

    Returns:
        The one that fits; without a name, the only one if there is but one.

    Raises:
        NotFoundError: If no task was embedded with that probe.
        InvalidQueryError: If several spaces fit, or there is none at all.
    """
    if not spaces:
        raise InvalidQueryError("there is no task to compare with yet; add one with `t2v task add NAME DATA`")
    if probe is not None:
        fitting = [space for space in spaces if probe in {space.probe, space.probe_source, space.space_id}]
    else:
        fitting = [space for space in spaces if space.probe == default_probe] or list(spaces)
    if not fitting:
        known = {space.probe for space in spaces}
        raise NotFoundError("probe with embedded tasks", probe or default_probe, known)
    if len({space.probe for space in fitting}) == 1:
        fitting = [space for space in fitting if space.recipe == default_recipe] or fitting
    if len(fitting) > 1:
        found = ", ".join(f"{space.space_id} ({_described(space)})" for space in fitting)
        raise InvalidQueryError(f"several embedding spaces fit; name one as the probe: {found}")
    return fitting[0]


def _described(space: SpaceRecord) -> str:
    """The probe of a space with what tells it from others of that probe."""
    return ", ".join(filter(None, (space.probe, *space.recipe)))
