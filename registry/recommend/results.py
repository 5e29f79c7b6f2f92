"""Results as rows that can be compared: one row for a task, a metric and a protocol.

What counts as evidence:
    - The same result told twice counts once; further results of one expert in one row are averaged.
    - An expert's results on its own source task are left out: it has seen the answers.
    - Results on the asked task in the asked protocol are set apart: they are what is asked for.

Axes: R rows, M experts.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from registry.errors import InvalidRecordError

Way = tuple[str, str]
"""How a result was measured: metric and protocol."""

EDGE = 0.004
"""Accuracies nearer to 0 or 1 than this are taken as this near: what is beyond is noise."""


class Result(Protocol):
    """What is read of a ``ResultRecord``; ``accuracy`` is from 0 to 1, the higher the better."""

    @property
    def task(self) -> str:
        """Name of the task."""

    @property
    def expert(self) -> str:
        """Name of the expert."""

    @property
    def metric(self) -> str:
        """What was measured."""

    @property
    def protocol(self) -> str:
        """How it was measured."""

    @property
    def accuracy(self) -> float:
        """The share, 0 to 1."""

    @property
    def seed(self) -> int | None:
        """Seed of the measurement, if told."""


def to_logit(accuracy: np.ndarray | float) -> np.ndarray:
    """Log odds of accuracies, the scale on which the model adds; NaN stays."""
    share = np.clip(np.asarray(accuracy, dtype=np.float64), EDGE, 1 - EDGE)
    return np.asarray(np.log(share / (1 - share)))


def from_logit(value: np.ndarray | float) -> np.ndarray:
    """Accuracies of log odds."""
    return np.asarray(1 / (1 + np.exp(-np.asarray(value, dtype=np.float64))))


def logit_noise(value: np.ndarray | float, sd: np.ndarray | float) -> np.ndarray:
    """Standard deviation in log odds of an error ``sd`` of accuracies whose log odds are told."""
    share = from_logit(value)
    return np.asarray(sd / np.maximum(share * (1 - share), EDGE))


@dataclass(frozen=True, eq=False)
class Table:
    """Results as a matrix.

    Attributes:
        tasks: Task of each row.
        ways: Metric and protocol of each row.
        experts: The M columns.
        accuracy: ``[R, M]``, 0 to 1, NaN where there is no result.
    """

    tasks: tuple[str, ...]
    ways: tuple[Way, ...]
    experts: tuple[str, ...]
    accuracy: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """``[R, M]`` bool: where there is a result."""
        return np.asarray(np.isfinite(self.accuracy))

    def rows(self, chosen: np.ndarray) -> "Table":
        """Some of the rows."""
        places = np.arange(len(self.tasks))[chosen]
        return Table(
            tuple(self.tasks[i] for i in places),
            tuple(self.ways[i] for i in places),
            self.experts,
            self.accuracy[places],
        )


@dataclass(frozen=True, eq=False)
class Gathered:
    """Results sorted into what the model takes.

    Attributes:
        table: All but those of the asked task in the asked way.
        own: ``[M]`` mean accuracy on the asked task in the asked way, NaN where not measured.
        way: The asked way.
        counts: Results used, by expert.
    """

    table: Table
    own: np.ndarray
    way: Way
    counts: Counter[str]


def choose_way(
    results: Sequence[Result], protocol: str | None, metric: str | None, is_own: Callable[[Result], bool]
) -> Way:
    """The way that is asked about: as told, else the most frequent of one's own results, else of all.

    Args:
        results: All that may count.
        protocol: As told; ``None`` if nothing was.
        metric: The same.
        is_own: Whether a result is the user's own rather than shipped or published.
    """
    fitting = [
        (result.metric, result.protocol)
        for result in results
        if (protocol is None or result.protocol == protocol) and (metric is None or result.metric == metric)
    ]
    own = [
        (result.metric, result.protocol)
        for result in results
        if is_own(result)
        and (protocol is None or result.protocol == protocol)
        and (metric is None or result.metric == metric)
    ]
    ways = Counter(own or fitting)
    chosen = min(ways, key=lambda way: (-ways[way], way), default=None)
    return chosen or (metric or "accuracy", protocol or "linear_probe_20shot")


def gather(
    results: Iterable[Result],
    sources: Mapping[str, str],
    *,
    way: Way,
    asked: str | None = None,
    alias: Mapping[str, str] | None = None,
) -> Gathered:
    """Sort results into a table of other rows and the row that is asked for.

    Args:
        results: In any order.
        sources: Source task, or nothing, by expert; results of other experts are not looked at.
        way: The asked one.
        asked: Name of the asked task, if it is registered.
        alias: The expert that counts for a name, where several names are the same weights.
    """
    column = {name: number for number, name in enumerate(sources)}
    same = alias or {}
    cells: dict[tuple[str, Way], dict[int, set[tuple[int | None, float]]]] = defaultdict(
        lambda: defaultdict(set)
    )
    counts: Counter[str] = Counter()
    for result in results:
        name = same.get(result.expert, result.expert)
        place = column.get(name)
        if place is None or sources[name] == result.task:
            continue
        cell = cells[result.task, (result.metric, result.protocol)][place]
        measurement = (result.seed, result.accuracy)
        counts[name] += measurement not in cell
        cell.add(measurement)
    own = _means(cells.pop((asked, way), {}), len(column)) if asked else np.full(len(column), np.nan)
    keys = sorted(cells)
    accuracy = np.array([_means(cells[key], len(column)) for key in keys]).reshape(len(keys), len(column))
    table = Table(tuple(task for task, _ in keys), tuple(it for _, it in keys), tuple(column), accuracy)
    return Gathered(table, own, way, counts)


def _means(row: Mapping[int, set[tuple[int | None, float]]], size: int) -> np.ndarray:
    """Mean of each column's values ``[size]``, NaN where there is none."""
    means = np.full(size, np.nan)
    # Sorted: the order of inputs must not matter. Most are one value: there are thousands.
    means[list(row)] = [
        sum(sorted(value for _, value in cell)) / len(cell) if len(cell) > 1 else next(iter(cell))[1]
        for cell in row.values()
    ]
    return means.clip(0.0, 1.0)


@dataclass(frozen=True, eq=False)
class TaskDistances:
    """Distances between tasks; what is not known is NaN or left out.

    Attributes:
        tasks: Names of U tasks: those with results, and the sources of experts.
        matrix: ``[U, U]`` distance from the task of the row to the task of the column.
        to_query: ``[U]`` distance from each task to the query.
    """

    tasks: tuple[str, ...]
    matrix: np.ndarray
    to_query: np.ndarray

    def __post_init__(self) -> None:
        """Check the shapes.

        Raises:
            InvalidRecordError: If the arrays do not fit the names, or a name comes twice.
        """
        size = len(self.tasks)
        if len(set(self.tasks)) != size:
            raise InvalidRecordError("task distances: every task must be named once")
        for name, expected in (("matrix", (size, size)), ("to_query", (size,))):
            values = np.asarray(getattr(self, name), dtype=np.float64)
            if values.shape != expected:
                raise InvalidRecordError(
                    f"task distances: {name} must have shape {expected}, got {values.shape}"
                )
            object.__setattr__(self, name, values)

    def between(self, sources: Sequence[str], targets: Sequence[str]) -> np.ndarray:
        """Distances ``[len(sources), len(targets)]``, NaN where not known."""
        padded = np.pad(self.matrix, ((0, 1), (0, 1)), constant_values=np.nan)
        return np.asarray(padded[np.ix_(self._places(sources), self._places(targets))])

    def from_tasks(self, sources: Sequence[str]) -> np.ndarray:
        """Distances to the query ``[len(sources)]``, NaN where not known."""
        return np.asarray(np.append(self.to_query, np.nan)[self._places(sources)])

    def _places(self, names: Sequence[str]) -> np.ndarray:
        """Place of each name; U, which holds NaN, for a name that is not there."""
        place = {name: number for number, name in enumerate(self.tasks)}
        return np.array([place.get(name, len(self.tasks)) for name in names], dtype=np.intp)
