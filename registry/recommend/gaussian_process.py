"""Gaussian processes over rows of results: what known rows of a column say of another row.

The covariance of two rows of a column is ``base + task_variance * ((1 - share) same + share * likeness)``
and, on the diagonal, noise: ``base`` is what all rows of an expert have in common, ``same`` whether two rows
are of one task, and ``likeness`` falls with the distance of their tasks. How much likeness tells is not
picked but averaged over a grid of cells, each weighted by how well it predicts tasks left out. Half of the
weight before seeing any value is on the static cell, whose share is 0. Where distances say nothing, the
answer stays static.

Source:
    Rasmussen and Williams 2006, Gaussian Processes for Machine Learning: (2.25) and (2.26) for the prediction,
    (5.12) for leaving rows out in closed form; here, all rows of a task at once.

Axes: R rows, C columns, N known values, G cells, n rows of a pattern.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

Distances = Mapping[str, np.ndarray]
"""Distances by name of the descriptor that they compare; NaN where not known."""

BANDWIDTHS = (2.0, 8.0)
"""In units of (median distance - median distance of a task to its nearest)."""
SHARES = (0.35, 0.7, 1.0)
STATIC_WEIGHT = 0.5
BESIDE = {"cosine": "root_ratio"}
"""Descriptors that count together with another alone: without it, the cosine of embeddings says less."""
SMALLEST_UNIT = 1e-12
MOST_WEIGHING_ROWS, LEAST_WEIGHT = 400, 0.01
"""With more rows, cells are first weighed by so many of them, and those of less weight are left out."""


@dataclass(frozen=True)
class Cell:
    """One choice of what is not known of likeness: descriptors that count, how far it reaches, its share."""

    descriptors: tuple[str, ...] = ()
    bandwidth: float = 1.0
    share: float = 0.0


def list_cells(names: Sequence[str]) -> list[Cell]:
    """The static cell, then the grid for each descriptor, with what it counts beside, and for all together."""
    ordered = tuple(sorted(names))
    each = [tuple(it for it in ordered if it in {name, BESIDE.get(name)}) for name in ordered]
    sets = dict.fromkeys([*each, ordered] if ordered else [])
    return [Cell(), *(Cell(*values) for values in product(sets, BANDWIDTHS, SHARES))]


@dataclass(frozen=True, eq=False)
class RowKernel:
    """Covariance between rows, and from rows to a row that is asked for, for every cell.

    Attributes:
        tasks: ``[R]`` number of each row's task.
        base: ``[R, R]``.
        task_variance: Of what differs by task.
        noise: ``[R]`` variance of what does not repeat.
        distances: ``[R, R]`` by descriptor.
        units: Of the distances, by descriptor.
    """

    tasks: np.ndarray
    base: np.ndarray
    task_variance: float
    noise: np.ndarray
    distances: Distances
    units: Mapping[str, float]

    def of_rows(self, rows: np.ndarray) -> "RowKernel":
        """The kernel of some of the rows, in the same units."""
        among = np.ix_(rows, rows)
        distances = {name: values[among] for name, values in self.distances.items()}
        return replace(
            self, tasks=self.tasks[rows], base=self.base[among], noise=self.noise[rows], distances=distances
        )

    @classmethod
    def of(
        cls, tasks: np.ndarray, base: np.ndarray, task_variance: float, noise: np.ndarray, distances: Distances
    ) -> "RowKernel":
        """Find the units; a descriptor of which nothing is known is left out."""
        other = tasks[:, None] != tasks
        units = {name: _unit(values, other) for name, values in distances.items()}
        kept = {name: unit for name, unit in units.items() if unit > 0}
        return cls(tasks, base, task_variance, noise, {name: distances[name] for name in kept}, kept)

    def matrix(self, cell: Cell) -> np.ndarray:
        """``[R, R]``, noise on its diagonal."""
        return next(self.matrices([cell]))

    def matrices(self, cells: Iterable[Cell]) -> Iterator[np.ndarray]:
        """The same of one cell after the other; cells in a row that differ in share alone share likeness."""
        same = (self.tasks[:, None] == self.tasks).astype(np.float64)
        likeness, reach = same, Cell()
        for cell in cells:
            if cell.share and reach != replace(cell, share=0.0):
                likeness, reach = self._likeness(cell, self.distances, same), replace(cell, share=0.0)
            mixed = (1 - cell.share) * same + cell.share * likeness if cell.share else same
            covariance = self.base + self.task_variance * mixed
            covariance[np.diag_indices(len(covariance))] += self.noise
            yield covariance

    def to_query(self, cell: Cell, base: np.ndarray, task: int, distances: Distances) -> np.ndarray:
        """Covariance ``[R]`` with another row of task ``task`` (-1 for a new one), whose base part is told."""
        same = (self.tasks == task).astype(np.float64)
        if cell.share:
            likeness = np.where(same > 0, 1.0, _decay(cell, self.units, distances, same.shape))
            same = (1 - cell.share) * same + cell.share * likeness
        return np.asarray(base + self.task_variance * same)

    def _likeness(self, cell: Cell, distances: Distances, same: np.ndarray) -> np.ndarray:
        """Made symmetric and, by taking off what is negative of its spectrum, a covariance."""
        decay = _decay(cell, self.units, distances, same.shape)
        likeness = np.where(same > 0, 1.0, (decay + decay.T) / 2)
        try:
            np.linalg.cholesky(likeness + 1e-6 * np.eye(len(likeness)))
        except np.linalg.LinAlgError:
            values, vectors = np.linalg.eigh(likeness)
            likeness = (vectors * np.maximum(values, 0.0)) @ vectors.T
        return np.asarray(likeness)


def _decay(cell: Cell, units: Mapping[str, float], distances: Distances, shape: tuple[int, ...]) -> np.ndarray:
    """Likeness at some distances; 0 where one is not known."""
    if not all(name in distances for name in cell.descriptors):
        return np.zeros(shape)
    exponent = np.zeros(shape)
    for name in cell.descriptors:
        exponent = exponent + distances[name] / (cell.bandwidth * units[name])
    is_finite = np.isfinite(exponent)
    return np.where(is_finite, np.exp(-np.maximum(np.where(is_finite, exponent, 0.0), 0.0)), 0.0)


def _unit(distances: np.ndarray, other: np.ndarray) -> float:
    """Median distance between different tasks less that to the nearest; 0 if none is known."""
    apart = np.where(other & np.isfinite(distances), distances, np.inf)
    finite = apart[np.isfinite(apart)]
    if not finite.size:
        return 0.0
    nearest = apart.min(axis=0)
    least = float(np.median(nearest[np.isfinite(nearest)]))
    unit = float(np.median(finite)) - least
    return unit if unit >= SMALLEST_UNIT else max(abs(least), SMALLEST_UNIT)


@dataclass(frozen=True, eq=False)
class Pattern:
    """Columns that are known in the same rows, so that one inverse serves them all."""

    rows: np.ndarray
    columns: np.ndarray


def list_patterns(known: np.ndarray) -> list[Pattern]:
    """Columns of ``[R, C]`` by the rows in which they are known; columns without any are left out."""
    columns_by_rows: dict[bytes, list[int]] = {}
    for column in range(known.shape[1]):
        columns_by_rows.setdefault(np.packbits(known[:, column]).tobytes(), []).append(column)
    patterns = [
        Pattern(np.flatnonzero(known[:, columns[0]]), np.array(columns)) for columns in columns_by_rows.values()
    ]
    return [pattern for pattern in patterns if pattern.rows.size]


@dataclass(frozen=True, eq=False)
class RowProcess:
    """Columns of values that are predicted for other rows, after ``fit``.

    Attributes:
        kernel: Of the rows.
        cells: G of them, the static one first.
        weights: ``[G]``, sum 1.
        patterns: Of the columns.
        left_out: ``[R, C]`` every known value as predicted by rows of other tasks, 0 elsewhere.
        left_out_variance: ``[R, C]`` of the error of that, under the most likely cell.
    """

    kernel: RowKernel
    cells: list[Cell]
    weights: np.ndarray
    patterns: list[Pattern]
    left_out: np.ndarray
    left_out_variance: np.ndarray
    _near: np.ndarray  # [K] columns that are known in judged rows; for others likeness says nothing
    _static: np.ndarray  # [R, C] inverse covariance times values, in the static cell
    _dual: np.ndarray  # [G, R, K] the same in every cell
    _inverse: list[np.ndarray]  # of each pattern under the most likely cell

    @classmethod
    def fit(cls, kernel: RowKernel, values: np.ndarray, known: np.ndarray, judged: np.ndarray) -> "RowProcess":
        """Weigh the cells by how well they predict the rows ``judged`` ``[R]`` when their task is left out."""
        cells, patterns = _list_promising(kernel, values, known, judged), list_patterns(known)
        static, misses = np.zeros(values.shape), np.zeros(values.shape)
        _fill(kernel, kernel.matrix(Cell()), patterns, values, static, misses)
        near = np.flatnonzero((known & judged[:, None]).any(axis=0))
        among = list_patterns(known[:, near])
        dual, errors = np.zeros((2, len(cells), len(values), len(near)))
        for number, matrix in enumerate(kernel.matrices(cells)):
            _fill(kernel, matrix, among, values[:, near], dual[number], errors[number])
        weights, without = _weigh(errors, (known & judged[:, None])[:, near], kernel.tasks)
        misses[:, near] = np.einsum("gr,grc->rc", without, errors)
        left_out = np.where(known, values - misses, 0.0)
        best = kernel.matrix(cells[int(np.argmax(weights))])
        variance, inverses = np.ones(values.shape), []
        for pattern in patterns:
            inverse = np.linalg.inv(best[np.ix_(pattern.rows, pattern.rows)])
            _, spread = _leave_out(inverse, values[pattern.rows, :1], kernel.tasks[pattern.rows])
            variance[np.ix_(pattern.rows, pattern.columns)] = spread[:, None]
            inverses.append(inverse)
        return cls(kernel, cells, weights, patterns, left_out, variance, near, static, dual, inverses)

    def predict(self, base: np.ndarray, own: float, task: int, distances: Distances) -> "RowPrediction":
        """What is expected in another row.

        Args:
            base: ``[R]`` the base covariance of each row with it.
            own: Its own base variance.
            task: Number of its task, -1 for a new one.
            distances: ``[R]`` from each row's task, by descriptor.
        """
        covariances = np.stack([self.kernel.to_query(cell, base, task, distances) for cell in self.cells])
        mean = covariances[0] @ self._static
        weighted = self.weights[:, None] * covariances
        mean[self._near] = weighted.ravel() @ self._dual.reshape(weighted.size, self._near.size)
        best = covariances[int(np.argmax(self.weights))]
        gains = np.zeros(self._static.shape)
        variance = np.full(len(mean), own + self.kernel.task_variance)
        for pattern, inverse in zip(self.patterns, self._inverse, strict=True):
            gain = inverse @ best[pattern.rows]
            gains[np.ix_(pattern.rows, pattern.columns)] = gain[:, None]
            variance[pattern.columns] -= gain @ best[pattern.rows]
        return RowPrediction(mean, np.maximum(variance, 1e-6), gains)


def _list_promising(kernel: RowKernel, values: np.ndarray, known: np.ndarray, judged: np.ndarray) -> list[Cell]:
    """All cells, or of many rows the static one and those that count when some of the rows are fitted."""
    cells, places = list_cells(tuple(kernel.units)), np.flatnonzero(judged)
    if len(places) <= MOST_WEIGHING_ROWS or len(cells) == 1:
        return cells
    rows = places[np.linspace(0, len(places) - 1, MOST_WEIGHING_ROWS).astype(int)]
    part = RowProcess.fit(kernel.of_rows(rows), values[rows], known[rows], judged[rows])
    return [
        cell
        for cell, weight in zip(cells, part.weights, strict=True)
        if not cell.share or weight > LEAST_WEIGHT
    ]


def _fill(
    kernel: RowKernel,
    matrix: np.ndarray,
    patterns: list[Pattern],
    values: np.ndarray,
    dual: np.ndarray,
    errors: np.ndarray,
) -> None:
    """Write ``[R, C]`` inverse covariance times values, and errors of values when their task is left out."""
    for pattern in patterns:
        block = np.ix_(pattern.rows, pattern.columns)
        inverse = np.linalg.inv(matrix[np.ix_(pattern.rows, pattern.rows)])
        dual[block] = inverse @ values[block]
        errors[block], _ = _leave_out(inverse, dual[block], kernel.tasks[pattern.rows])


@dataclass(frozen=True, eq=False)
class RowPrediction:
    """What is expected of one row.

    Attributes:
        mean: ``[C]``.
        variance: ``[C]``.
        gains: ``[R, C]`` what a known value moves of the mean, under the most likely cell.
    """

    mean: np.ndarray
    variance: np.ndarray
    gains: np.ndarray


def _leave_out(inverse: np.ndarray, dual: np.ndarray, tasks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Errors ``[n, k]`` of predicting rows when their task is left out, and the variance ``[n]`` of that."""
    variance = 1 / np.diag(inverse)
    errors = dual * variance[:, None]
    if len(set(tasks.tolist())) == len(tasks):
        return errors, variance
    names, counts = np.unique(tasks, return_counts=True)
    for name in names[counts > 1]:
        rows = np.flatnonzero(tasks == name)
        together = np.linalg.inv(inverse[np.ix_(rows, rows)])
        errors[rows] = together @ dual[rows]
        variance[rows] = np.diag(together)
    return errors, variance


def _weigh(errors: np.ndarray, used: np.ndarray, tasks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of cells ``[G]``, and those without the task of each row ``[G, R]``.

    A cell's weight is its prior times the profile likelihood of one Gaussian error per row: values in a row err
    together, so a row counts once.
    """
    prior = np.full(len(errors), (1 - STATIC_WEIGHT) / max(len(errors) - 1, 1))
    prior[0] = STATIC_WEIGHT if len(errors) > 1 else 1.0
    counts = used.sum(axis=1)
    loss = (np.where(used, errors, 0.0) ** 2).sum(axis=2) / np.maximum(counts, 1)  # [G, R]
    rows = (counts > 0).astype(np.float64)
    of_task = np.stack([np.bincount(tasks, row)[tasks] for row in loss])
    total = loss.sum(axis=1, keepdims=True)
    weights = _likelihood_weights(total, np.array([rows.sum()]), prior)[:, 0]
    others = rows.sum() - np.bincount(tasks, rows)[tasks]
    return weights, _likelihood_weights(np.maximum(total - of_task, 0.0), others, prior)


def _likelihood_weights(loss: np.ndarray, num_rows: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Weights ``[G, Q]`` summing to 1 over cells, from summed losses ``[G, Q]`` over ``num_rows`` rows."""
    mean_loss = loss / np.maximum(num_rows, 1) + 1e-9
    log_weight = np.log(prior)[:, None] - 0.5 * num_rows * np.log(mean_loss)
    weight = np.exp(log_weight - log_weight.max(axis=0))
    return np.asarray(weight / weight.sum(axis=0))
