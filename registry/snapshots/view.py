"""The registry as one question sees it: the latest tasks, in one space, that pass a filter.

Axes: T tasks, D filters of the probe.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from registry.answers import Apart, Neighbor, Query
from registry.distances import cosine_distances, pairwise
from registry.errors import InvalidQueryError, NotFoundError
from registry.index import neighbors
from registry.names import Key
from registry.records import SpaceRecord
from registry.snapshots.snapshots import NOT_EMBEDDED, Snapshot, Snapshots

if TYPE_CHECKING:
    from registry.recommend.levels import TaskFacts
    from registry.recommend.results import TaskDistances

FISHER_DESCRIPTORS = ("root_ratio", "cosine")
DOMAIN = "domain"
TASKS_PAIRED = 50
"""Most tasks of which all pairs are looked at, to say whether a distance is a small one."""

Measure = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Distances ``[N, M]`` of rows ``[N, ...]`` and ``[M, ...]``."""

SHOWN = ["name", "version", "num_classes", "num_samples", "tags"]


class NotEmbeddedError(NotFoundError):
    """A registered task that has no embedding in the space in which it is asked about."""


@dataclass(frozen=True, eq=False)
class Point:
    """A task that is asked about: its name, ``fisher`` ``[D]``, and ``domain`` ``[F]`` and facts if at hand."""

    query: Query
    fisher: np.ndarray
    domain: np.ndarray | None = None
    facts: "TaskFacts | None" = None


@dataclass(frozen=True, eq=False)
class View:
    """What a question can see."""

    space: SpaceRecord
    snapshot: Snapshot
    answerable: NDArray[np.bool_]  # rows that may be answers ``[R]``
    snapshots: Snapshots  # what else is known of the registry

    @classmethod
    def open(
        cls, snapshots: Snapshots, space: SpaceRecord, *, builtin: bool = True, where: str | None = None
    ) -> Self:
        """Look at the latest version of every task in one space."""
        snapshot = snapshots.of(space)
        answerable = snapshot.answerable(builtin=builtin, where=where)
        return cls(space, snapshot, answerable, snapshots)

    def find(self, reference: str) -> int | None:
        """Position of a registered task in the catalogue, by ``name``, ``name@version`` or ``name@alias``."""
        return self.snapshot.catalogue.find(reference)

    def lacks(self, reference: str) -> bool:
        """Whether a reference names a registered task that was not embedded in this space."""
        position = self.find(reference)
        return position is not None and bool(self.snapshot.row_of[position] == NOT_EMBEDDED)

    def point(self, position: int) -> Point:
        """A registered task as a point; ``NotEmbeddedError`` if it was not embedded in this space."""
        name, version = self.snapshot.catalogue.key(position)
        row = self.snapshot.row_of[position]
        if row == NOT_EMBEDDED:
            embedded = (self._key(row)[0] for row in np.flatnonzero(self.answerable).tolist())
            raise NotEmbeddedError(f"task embedded with {self.space.probe}", name, embedded)
        query = Query(name, version, self.space.space_id)
        return Point(query, self.snapshot.rows.take(np.array([row]))[0])

    def nearest(self, point: Point, *, k: int, distance: str) -> list[Neighbor]:
        """The k tasks nearest to a point, itself left out."""
        own = self.snapshot.catalogue.latest.get(point.query.task) if point.query.version else None
        rows = neighbors.nearest(
            point.fisher,
            self.snapshot.rows,
            k=k,
            distance=distance,
            trivial=self.space.trivial,
            allowed=self.answerable,
            exclude=None if own is None else int(self.snapshot.row_of[own]),
            key_of=self._key,
        )
        positions = self.snapshot.position_of[[row for row, _ in rows]]
        nearer = self.nearer_than([value for _, value in rows], distance)
        tasks = self.snapshot.catalogue.rows.select(SHOWN).take(positions).to_pylist()
        return [
            Neighbor(
                rank=rank,
                task=task["name"],
                version=task["version"],
                distance=value,
                num_classes=task["num_classes"],
                num_samples=task["num_samples"],
                tags=tuple(task["tags"]),
                nearer_than=share,
            )
            for rank, ((_, value), task, share) in enumerate(zip(rows, tasks, nearer, strict=True), start=1)
        ]

    def _key(self, row: int) -> Key:
        """Name and version of the task in a row."""
        return self.snapshot.catalogue.key(int(self.snapshot.position_of[row]))

    def distance(self, name: str, source: Point, target: Point) -> Apart:
        """Distance from one point to another."""
        value = pairwise(name, source.fisher[None], target.fisher[None], trivial=self.space.trivial)
        return self.apart(float(value[0, 0]), name)

    def apart(self, value: float, name: str) -> Apart:
        """A distance that knows what it means beside others."""
        apart = Apart(value)
        (apart.nearer_than,) = self.nearer_than([value], name)
        return apart

    def nearer_than(self, values: Sequence[float], name: str) -> list[float | None]:
        """Share of the pairs of tasks of this space that lie farther apart than each distance.

        Of many tasks some are drawn, always the same. ``None`` where fewer than three tasks make no scale.
        """

        def make() -> NDArray[np.float64]:
            rows = np.flatnonzero(self.snapshot.answerable(builtin=True, where=None))
            if len(rows) > TASKS_PAIRED:
                rows = np.random.default_rng(0).choice(rows, TASKS_PAIRED, replace=False)
            fisher = self.snapshot.rows.take(np.sort(rows))
            between = pairwise(name, fisher, fisher, trivial=self.space.trivial)
            return np.sort(between[~np.eye(len(rows), dtype=bool)])

        pairs = self.snapshot.pairs.get(name, make)
        if len(pairs) < 6:
            return [None] * len(values)
        rounding = 1e-5  # of float32, which depends on how many are computed together
        farther = len(pairs) - np.searchsorted(pairs, np.multiply(values, 1 + rounding), side="right")
        return [float(count) / len(pairs) for count in farther]

    def likeness(
        self, point: Point, names: set[str]
    ) -> "tuple[dict[str, TaskDistances], dict[str, TaskFacts]]":
        """How alike registered tasks are, to each other and to a point, and what is known of each.

        Returns:
            Distances by ``DOMAIN`` and each of ``FISHER_DESCRIPTORS``, and the facts of each task by name.
        """
        from registry.recommend.results import TaskDistances

        rows = self._rows_of(names)
        places = np.fromiter(rows.values(), np.int64, len(rows))
        keys, fisher = [self._key(row) for row in rows.values()], self.snapshot.rows.take(places)
        compared: dict[str, tuple[Measure, np.ndarray, np.ndarray]] = {
            name: (partial(pairwise, name), fisher, point.fisher) for name in FISHER_DESCRIPTORS
        }
        compared[DOMAIN] = (cosine_distances, *self._domains(keys, point))
        distances = {
            name: TaskDistances(tuple(rows), *self._likeness(name, measure, places, vectors, query))
            for name, (measure, vectors, query) in compared.items()
        }
        return distances, dict(zip(rows, self._facts(keys, places), strict=True))

    def latest_versions(self) -> dict[str, int]:
        """Latest version of each registered task by name."""
        catalogue = self.snapshot.catalogue
        return {name: catalogue.key(position)[1] for name, position in catalogue.latest.items()}

    def facts(self, point: Point) -> "TaskFacts":
        """What is known of the task that is asked about."""
        if point.facts is not None:
            return point.facts
        position = self.find(f"{point.query.task}@{point.query.version}")
        row = np.array([self.snapshot.row_of[position]])
        return self._facts([(point.query.task, point.query.version)], row)[0]

    def _facts(self, keys: Sequence[Key], rows: NDArray[np.int64]) -> "list[TaskFacts]":
        """Facts of embedded versions of tasks and the rows that they are in."""
        from registry.recommend.levels import TaskFacts

        if not keys:
            return []
        heads = self.snapshots.domains(self.space).heads(keys, self.snapshot.rows.token)
        sizes = self.snapshot.catalogue.rows.select(["num_classes", "num_samples"])
        counts = sizes.take(self.snapshot.position_of[rows]).to_pylist()
        return [TaskFacts(head, **count) for head, count in zip(heads, counts, strict=True)]

    def _likeness(
        self, name: str, measure: Measure, places: NDArray[np.int64], vectors: np.ndarray, query: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Distances between rows ``[U, U]``, kept while the same are asked for, and to the query ``[U]``."""
        between = self.snapshot.between.get((name, places.tobytes()), lambda: measure(vectors, vectors))
        return between, measure(vectors, query[None])[:, 0]

    def _domains(self, keys: list[Key], point: Point) -> tuple[np.ndarray, np.ndarray]:
        """Domain embeddings of tasks and of the query."""
        query, token = point.query, self.snapshot.rows.token
        domains, domain = self.snapshots.domains(self.space), point.domain
        if domain is None:
            domain = domains.of([(query.task, query.version)], token)[0]
        return domains.of(keys, token) if keys else np.zeros((0, len(domain))), domain

    def _rows_of(self, names: set[str]) -> dict[str, int]:
        """Rows of the latest version of some tasks, in order of name, as far as they may be answers."""
        latest = self.snapshot.catalogue.latest
        rows = {name: int(self.snapshot.row_of[latest[name]]) for name in sorted(names & latest.keys())}
        return {name: row for name, row in rows.items() if row != NOT_EMBEDDED and self.answerable[row]}


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
        raise NotFoundError(
            "probe with embedded tasks", probe or default_probe, {space.probe for space in spaces}
        )
    if len({space.probe for space in fitting}) == 1:
        fitting = [space for space in fitting if space.recipe == default_recipe] or fitting
    if len(fitting) > 1:
        named = ", ".join(f"{space.space_id} ({_described(space)})" for space in fitting)
        raise InvalidQueryError(f"several embedding spaces fit; name one as the probe: {named}")
    return fitting[0]


def _described(space: SpaceRecord) -> str:
    """The probe of a space, and how the space differs from others of that probe."""
    return ", ".join(filter(None, (space.probe, *space.recipe)))
