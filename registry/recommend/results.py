"""Results as a matrix, and the matrix taken apart into tasks and experts.

Axes: T rows of a table (a task, measured in one way), M experts.

What counts as evidence:
    - Repeated results of one expert on one task, measured in one way (metric and protocol), are averaged.
    - Results measured in different ways make separate rows: experts are compared within a row, so every
      way counts for the ranking. Expected accuracies refer to the most frequent way.
    - An expert's results on its own source task are left out: it has seen the answers.
    - Results on the query task itself are the best evidence there is: the model of the other tasks is
      conditioned on them, at the end, so that they take no part in fitting it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from registry.answers import Query
from registry.errors import InvalidRecordError
from registry.records import ExpertRecord, ResultRecord

Way = tuple[str, str]
"""How a result was measured: metric and protocol."""

DEFAULT_SPREAD = 0.1
"""What is assumed of the sd of experts about a task's mean accuracy before any result."""
SPREAD_PSEUDO_RESULTS = 1.0
MIN_SPREAD = 1e-4


@dataclass(frozen=True, eq=False)
class ResultTable:
    """Results as a matrix.

    Attributes:
        tasks: Task of each of the T rows. A task measured in several ways has several rows.
        experts: The M columns.
        accuracy: ``[T, M]`` float64, 0 to 1, NaN where there is no result.
        reference: ``[T]`` bool: rows measured in the way that expected accuracies refer to; all if ``None``.
    """

    tasks: tuple[str, ...]
    experts: tuple[str, ...]
    accuracy: np.ndarray
    reference: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Check the shapes.

        Raises:
            InvalidRecordError: If the arrays do not fit the names, or an accuracy is not from 0 to 1.
        """
        accuracy = np.asarray(self.accuracy, dtype=np.float64)
        expected = (len(self.tasks), len(self.experts))
        if accuracy.shape != expected:
            raise InvalidRecordError(
                f"result table: accuracy must be tasks by experts {expected}, got {accuracy.shape}"
            )
        if (accuracy < 0).any() or (accuracy > 1).any():
            raise InvalidRecordError("result table: accuracies must be from 0 to 1, or NaN where there is none")
        if self.reference is not None and self.reference.shape != expected[:1]:
            raise InvalidRecordError(
                f"result table: reference must have one per row {expected[:1]}, got {self.reference.shape}"
            )
        object.__setattr__(self, "accuracy", accuracy)

    @property
    def reference_rows(self) -> np.ndarray:
        """``[T]`` bool: ``reference``, or all."""
        return np.ones(len(self.tasks), dtype=bool) if self.reference is None else self.reference


@dataclass(frozen=True, eq=False)
class Normalised:
    """A table taken apart; entries without a result are 0 and masked."""

    mask: np.ndarray  # [T, M] bool
    level: np.ndarray  # [T]
    spread: np.ndarray  # [T]
    z: np.ndarray  # [T, M]


def normalise(accuracy: np.ndarray, *, sweeps: int = 50, tolerance: float = 1e-10) -> Normalised:
    """Take accuracies apart into level and spread of a row and standing of an expert.

    Levels and shrunk expert means are fitted in turn (a convex least-squares problem), so that a row
    holding only one result, or only good experts, is no evidence against them. On a table without gaps
    levels are row means and the first sweep is the last.

    Args:
        accuracy: ``[T, M]``, NaN where there is no result.
        sweeps: Most turns.
        tolerance: Change of any level, in accuracy, below which to stop.

    Returns:
        The parts. Spreads are the rows' standard deviations, shrunk towards the pooled one.
    """
    mask = np.isfinite(accuracy)
    filled = np.where(mask, accuracy, 0.0)
    count = mask.sum(axis=1)
    level = filled.sum(axis=1) / np.maximum(count, 1)
    squares = (np.where(mask, accuracy - level[:, None], 0.0) ** 2).sum(axis=1)
    freedom = np.maximum(count - 1, 0)
    pooled = squares.sum() / freedom.sum() if freedom.any() else DEFAULT_SPREAD**2
    variance = (squares + SPREAD_PSEUDO_RESULTS * pooled) / (freedom + SPREAD_PSEUDO_RESULTS)
    spread = np.maximum(np.sqrt(variance), MIN_SPREAD)
    for _ in range(sweeps):
        z = np.where(mask, (filled - level[:, None]) / spread[:, None], 0.0)
        standing = z.sum(axis=0) / (mask.sum(axis=0) + 1)
        fitted = np.where(mask, filled - spread[:, None] * standing, 0.0).sum(axis=1) / np.maximum(count, 1)
        change = np.abs(fitted - level).max(initial=0.0)
        level = fitted
        if change < tolerance:
            break
    z = np.where(mask, (filled - level[:, None]) / spread[:, None], 0.0)
    return Normalised(mask, level, spread, z)


@dataclass(frozen=True, eq=False)
class Gathered:
    """Results sorted into what the model takes."""

    table: ResultTable
    own: np.ndarray  # [M] mean accuracy on the query itself, NaN where not measured
    counts: Counter[str]  # results used, by expert
    ways: Counter[Way]  # results, by way
    reference: Way | None
    own_way: Way | None


def gather(query: Query, experts: Sequence[ExpertRecord], results: Iterable[ResultRecord]) -> Gathered:
    """Sort results into a table of other tasks and a row of the query itself."""
    sources = {expert.name: expert.source_task for expert in experts}
    column = {expert.name: number for number, expert in enumerate(experts)}
    usable = [r for r in results if r.expert in sources and r.task != sources[r.expert]]
    asked = query.task if query.version > 0 else None
    cells: dict[tuple[str, Way], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    own_cells: dict[Way, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in usable:
        way = (result.metric, result.protocol)
        row = own_cells[way] if result.task == asked else cells[result.task, way]
        row[column[result.expert]].append(result.accuracy)
    past_ways = Counter((r.metric, r.protocol) for r in usable if r.task != asked)
    own_ways = Counter((r.metric, r.protocol) for r in usable if r.task == asked)
    reference = _most_frequent(past_ways)
    own_way = reference if reference in own_ways else _most_frequent(own_ways)
    keys = sorted(cells)
    table = ResultTable(
        tuple(task for task, _ in keys),
        tuple(sources),
        np.array([_means(cells[key], len(experts)) for key in keys]).reshape(len(keys), len(experts)),
        np.array([way == reference for _, way in keys], dtype=bool),
    )
    own = _means(own_cells[own_way] if own_way else {}, len(experts))
    counts = Counter(r.expert for r in usable if r.task != asked or (r.metric, r.protocol) == own_way)
    return Gathered(table, own, counts, past_ways + own_ways, reference, own_way)


def with_given(gathered: Gathered, given: Mapping[str, float]) -> Gathered:
    """The same with accuracies on the query that are in no result, by expert; they go before those that are."""
    own = gathered.own.copy()
    for name, accuracy in given.items():
        own[gathered.table.experts.index(name)] = accuracy
    return replace(gathered, own=own)


def _most_frequent(ways: Counter[Way]) -> Way | None:
    """The most frequent way, the first by name among equals."""
    return min(ways, key=lambda way: (-ways[way], way), default=None)


def _means(row: dict[int, list[float]], size: int) -> np.ndarray:
    """Mean of each column's values ``[size]``, NaN where there is none."""
    means = np.full(size, np.nan)
    for place, values in row.items():
        means[place] = min(float(np.mean(sorted(values))), 1.0)  # sorted: the order of inputs must not matter
    return means
